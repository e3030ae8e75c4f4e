"""A small attribute classifier, trained on a pack's real faces and cached with its accuracy.

It is independent of the generator that it evaluates: it is trained on real faces only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from mien.data.pack import Pack, Rows
from mien.downloads import weights
from mien.errors import DataError
from mien.metrics.features import Features, planes
from mien.metrics.images import Pixels
from mien.storage import atomic, bounded_json
from mien.storage.tensor_file import open_tensors

VERSION = 1  # of everything below: a cached network of another version is not used
LARGEST = 64  # pixels, side of the input; larger faces are averaged down
WIDTHS = (32, 64, 128, 256)
EPOCHS, BATCH, RATE = 6, 64, 2e-3
EVERY = 10  # one in so many training images is held out where the pack holds none out
FEWEST = 100  # images that the pack must hold out for that


class AttributeNetwork(nn.Module):
    """Strided convolutions down to 4 px, then one logit per label."""

    def __init__(self, side: int, label_dim: int) -> None:
        super().__init__()
        self.side = 1 << (min(side, LARGEST).bit_length() - 1)  # the power of two that it looks at
        halvings = self.side.bit_length() - 3
        widths = [3, *WIDTHS[-halvings:]]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(widths[-1] * 16, label_dim))

    def forward(self, images: Tensor) -> Tensor:
        """Images `[n, 3, H, W]` in [-1, 1] -> logits `[n, label_dim]`, above 0 where a label fits."""
        return self.body(F.adaptive_avg_pool2d(images, self.side))  # type: ignore[no-any-return]


@dataclass
class Attributes:
    """The classifier and its accuracy on held-out real faces."""

    names: tuple[str, ...]
    network: AttributeNetwork
    device: torch.device
    accuracy: dict[str, float]  # balanced: the mean of the recalls of yes and no; NaN where one of them is missing
    held_out: int  # number of held-out images
    hash: str  # hash of the training data and settings
    name: str = "attributes"
    resizer: str = "area"
    precision: str = "fp32"

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Features:
        """Which labels fit uint8 images `[n, H, W, 3]`: `[n, label_dim]`, 1 or 0."""
        return np.asarray((self.network(scaled(images, self.device)) > 0).cpu().numpy(), np.float32)


def scaled(images: Pixels, device: torch.device) -> Tensor:
    """uint8 `[n, H, W, 3]` -> `[n, 3, H, W]` in [-1, 1]."""
    return planes(images, device) / 127.5 - 1.0


def attributes_of(
    pack: Pack, device: str = "cpu", on_progress: Callable[[str, int, int], None] = lambda *_: None
) -> Attributes:
    """The classifier for a pack's labels, cached or trained now, which takes minutes. Raises DataError without labels."""
    if pack.labels is None:
        raise DataError(
            f"{pack.path} has no labels.", "There is nothing to learn from.", "Prepare a pack with --labels."
        )
    held = pack.rows("holdout")
    rows = pack.rows("train")
    if len(held) < FEWEST:
        held, rows = rows[::EVERY], np.delete(rows, np.s_[::EVERY])
    key = hashlib.sha256(f"{VERSION} {pack.fingerprint} {len(held)}".encode()).hexdigest()[:32]
    file = weights.cache_folder() / "attributes" / f"{key}.safetensors"
    place = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AttributeNetwork(pack.side, len(pack.label_names))
        cached = read(file, network)
        if cached is None:
            learn(network.to(place), pack, rows, place, on_progress)
    if cached is None:
        cached = {"accuracy": accuracies(network.eval(), pack, held, place)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(file) as temporary:
            temporary.write_bytes(save(dict(network.cpu().state_dict()), {"mien": bounded_json.dumps(cached)}))
    accuracy = {name: nan if (value := cached["accuracy"][name]) is None else value for name in pack.label_names}
    return Attributes(pack.label_names, network.to(place).eval(), place, accuracy, len(held), key)


def read(file: Path, network: AttributeNetwork) -> dict[str, dict[str, float]] | None:
    """Load `network` from a cached file. Returns the file's metadata, or None without a usable file."""
    try:
        with open_tensors(file) as opened:
            metadata: dict[str, dict[str, float]] = bounded_json.loads_object(opened.metadata()["mien"], accuracy=dict)
            network.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    return metadata


def learn(
    network: AttributeNetwork,
    pack: Pack,
    rows: Rows,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> None:
    """Train on some rows with augmentation; the loss is weighted so that yes and no of each label count equally."""
    assert pack.labels is not None
    wanted = torch.from_numpy(np.array(pack.labels[rows]))
    known = ~wanted.isnan()
    yes = ((wanted > 0.5) & known).sum(0).clamp(min=1).float()
    weight = ((known.sum(0) - yes).clamp(min=1) / yes).to(device)
    wanted, known = wanted.nan_to_num(0.0), known.float()
    steps = EPOCHS * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(rows)), BATCH):
            images = varied(scaled(pack.images[np.sort(rows[chosen.numpy()])], device))
            order = np.argsort(rows[chosen.numpy()], kind="stable")  # as the images were read
            target, mask = wanted[chosen[order]].to(device), known[chosen[order]].to(device)
            loss = F.binary_cross_entropy_with_logits(network(images), target, pos_weight=weight, reduction="none")
            optimizer.zero_grad(set_to_none=True)
            ((loss * mask).sum() / mask.sum().clamp(min=1)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            on_progress("classifier", len(chosen), EPOCHS * len(rows))


def varied(images: Tensor) -> Tensor:
    """Augment images `[n, C, H, W]`: random mirroring, shifts of up to a sixteenth of the side, and brightness."""
    count, side = len(images), images.shape[-1]
    turned = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    images = torch.where(turned, images.flip(3), images)
    most = max(1, side // 16)
    padded = F.pad(images, (most,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * most + 1, (2,)).tolist()
    images = padded[:, :, down : down + side, right : right + side]
    contrast = 1.0 + 0.2 * torch.randn(count, 1, 1, 1, device=images.device)
    return images * contrast + 0.1 * torch.randn(count, 1, 1, 1, device=images.device)


@torch.inference_mode()
def accuracies(network: AttributeNetwork, pack: Pack, rows: Rows, device: torch.device) -> dict[str, float]:
    """Balanced accuracy of every label on some rows."""
    assert pack.labels is not None
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    said = np.concatenate([(network(scaled(pack.images[part], device)) > 0).cpu().numpy() for part in parts])
    found = {}
    for place, name in enumerate(pack.label_names):
        column = pack.labels[rows, place]
        with np.errstate(invalid="ignore"):
            yes, no = said[column > 0.5, place], ~said[column <= 0.5, place]
        found[name] = float((yes.mean() + no.mean()) / 2) if len(yes) and len(no) else nan
    return found
