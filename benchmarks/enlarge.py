"""Which way of enlarging a face four times comes closest to the large one: `python benchmarks/enlarge.py ZIP [--minutes 15]`.

ZIP holds pictures of faces of 128 px, such as FairFace's. The last ones are reduced to 32 px (bicubic, anti-aliased) and enlarged
again, by filters, by an edge-directed method, and by a small network that learns from the others for so many minutes of
processor time (one thread). Printed for each: PSNR in dB, LPIPS (AlexNet) and the cosine distance of SFace embeddings from the true
face, and milliseconds a face. With --picture, a sheet of the first faces; with --weights, the network's file.
"""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mien.metrics.features import PerceptualFeatures
from mien.metrics.identity import IdentityFeatures
from mien.metrics.images import Images
from mien.storage.provenance import Claim, Provenance

LARGE, SMALL, TIMES = 128, 32, 4
WIDTH = 32  # feature maps of the network: 42 thousand weights, 170 kB
BATCH = 16
SHOWN = 5  # faces of the sheet
Floats = NDArray[np.float32]  # [n, H, W, 3] in [0, 1]
FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "Lanczos": 1}  # Pillow's numbers


def resizer(start: int, end: int, kind: int) -> Floats:
    """The matrix `[end, start]` by which Pillow resizes a line."""
    eye = Image.fromarray(np.eye(start, dtype=np.float32))
    return np.asarray(eye.resize((start, end), kind), np.float32)


def resized(images: Floats, by: Floats) -> Floats:
    """Images whose rows and columns are multiplied by a matrix."""
    return np.einsum("yv,nvuc,xu->nyxc", by, images, by, optimize=True)


def edge_directed(small: Floats, steps: int = 16, rate: float = 0.2) -> Floats:
    """Lanczos, then smoothing along isophotes (Morse and Schwartzwald 2001, doi:10.1109/CVPR.2001.990494).

    Every fourth step it is made to agree with the small picture again.
    """
    down, up = resizer(LARGE, SMALL, 3), resizer(SMALL, LARGE, 1)
    u = resized(small, up)
    for step in range(1, steps + 1):
        p = np.pad(u, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        x, y = (p[:, 1:-1, 2:] - p[:, 1:-1, :-2]) / 2, (p[:, 2:, 1:-1] - p[:, :-2, 1:-1]) / 2
        xx, yy = p[:, 1:-1, 2:] + p[:, 1:-1, :-2] - 2 * u, p[:, 2:, 1:-1] + p[:, :-2, 1:-1] - 2 * u
        xy = (p[:, 2:, 2:] + p[:, :-2, :-2] - p[:, 2:, :-2] - p[:, :-2, 2:]) / 4
        u = u + rate * (xx * y**2 - 2 * x * y * xy + yy * x**2) / (x**2 + y**2 + 1e-6)
        if step % 4 == 0:
            u = u + resized(small - resized(u, down), up)
    return u


class Enlarger(nn.Module):
    """What Lanczos leaves out, by five convolutions at the small size and a pixel shuffle (arXiv:1609.05158)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, WIDTH, WIDTH, WIDTH, WIDTH, 3 * TIMES**2)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        self.register_buffer("up", torch.from_numpy(resizer(SMALL, LARGE, 1).copy()))

    def forward(self, small: Tensor) -> Tensor:
        """`[n, 3, 32, 32]` -> `[n, 3, 128, 128]`, both in [0, 1]."""
        x = small * 2 - 1
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.up @ small @ self.up.T + F.pixel_shuffle(self.layers[-1](x), TIMES)


def learned(small: Floats, large: NDArray[np.uint8], minutes: float) -> Enlarger:
    """The network after so many minutes of processor time."""
    torch.manual_seed(0)
    model, generator = Enlarger(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    began, seen = time.process_time(), 0
    while (share := (time.process_time() - began) / 60 / minutes) < 1:
        rows = np.sort(generator.choice(len(small), BATCH, replace=False))
        flip = slice(None, None, int(generator.choice((-1, 1))))
        inputs, targets = (
            torch.from_numpy(np.ascontiguousarray(a[rows][:, :, flip])).permute(0, 3, 1, 2) for a in (small, large)
        )
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - share)
        loss = F.l1_loss(model(inputs), targets.float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += BATCH
    print(f"the network has seen {seen:,} faces", flush=True)
    return model.eval()


class Faces(Images):
    """Pictures in memory."""

    name, split, fingerprint, size = "faces", "all", "", (LARGE, LARGE)

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels, self.count = pixels, len(pixels)

    def read(self, rows: slice) -> NDArray[np.uint8]:
        return self.pixels[rows]


def read(path: Path, most: int) -> NDArray[np.uint8]:
    """The first pictures of an archive, `[n, 128, 128, 3]`, in the order of their names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".jpg", ".png")))[:most]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--pictures", type=int, default=8000, help="pictures that are read")
    parser.add_argument("--held-out", type=int, default=400, help="pictures that judge")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    large, down = read(given.zip, given.pictures), resizer(LARGE, SMALL, 3)
    parts = np.array_split(large, max(1, len(large) // 500))
    small = np.concatenate([resized(part / np.float32(255), down) for part in parts]).clip(0, 1)
    small = np.round(small * 255) / np.float32(255)  # as a picture has it
    model = learned(small[: -given.held_out], large[: -given.held_out], given.minutes)

    @torch.inference_mode()
    def by_network(faces: Floats) -> Floats:
        return model(torch.from_numpy(faces).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()

    ways: dict[str, Callable[[Floats], Floats]] = {
        name: lambda faces, kind=kind: resized(faces, resizer(SMALL, LARGE, kind)) for name, kind in FILTERS.items()
    }
    ways |= {"edge-directed": edge_directed, "learned": by_network}
    truth = large[-given.held_out :]
    perception, identity = PerceptualFeatures(), IdentityFeatures(Faces(truth))

    def perceived(faces: NDArray[np.uint8]) -> Floats:
        return np.concatenate([perception(part) for part in np.array_split(faces, max(1, len(faces) // 20))])

    known, who, shown = perceived(truth), identity(truth), [truth[:SHOWN]]
    for name, way in ways.items():
        began = time.process_time()
        found = np.concatenate([way(part) for part in np.array_split(small[-given.held_out :], 20)])
        milliseconds = 1000 * (time.process_time() - began) / given.held_out
        drawn = (found.clip(0, 1) * 255).round().astype(np.uint8)
        errors = np.square(drawn.astype(np.float32) - truth).mean((1, 2, 3))
        lpips = np.square(perceived(drawn) - known).sum(1).mean()
        sface = 1 - (identity(drawn) * who).sum(1).mean()
        psnr = (10 * np.log10(255**2 / errors)).mean()
        print(f"| {name} | {psnr:.2f} | {lpips:.3f} | {sface:.3f} | {milliseconds:.1f} |", flush=True)
        shown.append(drawn[:SHOWN])
    if given.picture:
        sheet = np.stack(shown[1:] + shown[:1], 1)  # [faces, ways, H, W, 3]
        made = Image.fromarray(sheet.transpose(0, 2, 1, 3, 4).reshape(len(sheet) * LARGE, -1, 3))
        given.picture.write_bytes(Provenance({}, Claim.FROM_PHOTOGRAPH).encode(made, "WEBP", quality=90))
    if given.weights:
        torch.save(model.state_dict(), given.weights)


if __name__ == "__main__":
    main()
