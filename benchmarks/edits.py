"""Do directions change what they are named after, and little else? MetricInputs by a classifier that has seen only real faces.

    python benchmarks/edits.py RUN PACK --out results/edits
    python benchmarks/edits.py RUN PACK --out results/edits --of seeds --disentangle none joint

RUN is a run of a model with an encoder, PACK a pack with labels of the same side. A small network learns all labels of nine tenths
of the pack's real faces; the last tenth says how well, and gives the faces to edit. Directions are found on the nine tenths. For
each attribute, faces that the classifier sees without it are moved along the direction and faces with it against it, by a few
amounts. Written are, for the smallest amount that changes the attribute of at least 70% (else the largest): the share changed;
the share of the other attributes that flipped, over those that the classifier tells apart (balanced accuracy of 0.75 or more);
and LPIPS to the unedited face over that between two random ones. Whatever is done already in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mien.cli.encodings import encoded
from mien.data.pack import Pack
from mien.metrics.features import PerceptualFeatures
from mien.sampling.directions import Direction, by_labels
from mien.sampling.sampler import Sampler

ATTRIBUTES = (
    "Smiling", "Eyeglasses", "Male", "Blond_Hair", "Bangs", "Mouth_Slightly_Open", "Black_Hair", "Heavy_Makeup", "No_Beard",
    "Wearing_Hat",
)  # fmt: skip
AMOUNTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # standard deviations
WANTED = 0.7  # share of faces whose attribute is to change
TELLS = 0.75  # balanced accuracy from which the classifier's word counts


def classifier(side: int, labels: int, width: int = 32) -> nn.Sequential:
    """A plain convolutional network: halve to 4 px, then one logit a label."""
    layers: list[nn.Module] = []
    inputs = 3
    while side > 4:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        inputs, width, side = width, min(2 * width, 128), side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(inputs * side**2, labels))


def images_of(pack: Pack, rows: np.ndarray) -> Tensor:
    """Rows as images `[n, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(pack.images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1.0


class Judge:
    """The classifier, with a threshold for each label at which it says yes as often as the data does."""

    def __init__(self, pack: Pack, rows: np.ndarray, out: Path, epochs: int) -> None:
        assert pack.labels is not None
        torch.manual_seed(0)
        self.network = classifier(pack.side, len(pack.label_names))
        file = out / "classifier.safetensors"
        labels = torch.from_numpy(np.array(pack.labels[rows]))
        if file.exists():
            self.network.load_state_dict(load_file(file))
        else:
            self.learn(pack, rows, labels, epochs)
            save_file(self.network.state_dict(), file)
        self.network.eval()
        some = rows[:: max(1, len(rows) // 2000)]
        logits, share = self.logits(images_of(pack, some)), labels.nanmean(0)
        self.thresholds = torch.stack([torch.quantile(logits[:, i], 1 - float(share[i])) for i in range(len(share))])

    def learn(self, pack: Pack, rows: np.ndarray, labels: Tensor, epochs: int) -> None:
        optimizer = torch.optim.AdamW(self.network.parameters(), 2e-3, weight_decay=1e-2)
        generator, started = torch.Generator().manual_seed(0), time.perf_counter()
        for epoch in range(epochs):
            for part in torch.randperm(len(rows), generator=generator).split(64):
                images = images_of(pack, rows[part.numpy()])
                flips = torch.rand(len(part), 1, 1, 1, generator=generator) < 0.5
                images = torch.where(flips, images.flip(3), images) + 0.03 * torch.randn(
                    images.shape, generator=generator
                )
                told = labels[part]
                known = ~told.isnan()
                loss = F.binary_cross_entropy_with_logits(self.network(images)[known], told[known])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - (epoch + 1) / epochs) + 1e-5
            print(
                f"epoch {epoch + 1} of {epochs}: loss {loss.item():.4f}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        return torch.cat([self.network(part) for part in images.split(256)])

    def says(self, images: Tensor) -> Tensor:
        """`[n, labels]`, whether each face has each label."""
        return self.logits(images) > self.thresholds

    def balanced_accuracy(self, images: Tensor, labels: Tensor) -> Tensor:
        """`[labels]`: the mean of the shares of those with and those without that are told rightly."""
        said, yes, no = self.says(images), labels > 0.5, labels <= 0.5
        return 0.5 * ((said & yes).sum(0) / yes.sum(0).clamp(min=1) + (~said & no).sum(0) / no.sum(0).clamp(min=1))


def measure(
    sampler: Sampler, judge: Judge, eye: PerceptualFeatures, z: Tensor, direction: Direction, place: int, tells: Tensor
) -> dict[str, object]:
    """What moving faces along a direction does."""
    space = sampler.encoding_space
    before = sampler.decode(z, space=space)
    had = judge.says(before)
    sign = torch.where(had[:, place], -1.0, 1.0).reshape(-1, *[1] * (z.ndim - 1))
    others = tells.clone()
    others[place] = False
    curve, chosen = [], None
    for amount in AMOUNTS:
        after = sampler.decode(z + sign * amount * direction.vector, space=space)
        has = judge.says(after)
        changed = (has[:, place] != had[:, place]).float()
        flipped = (has != had)[:, others].float()
        line = {"amount": amount, "changed": float(changed.mean()), "flipped": float(flipped.mean())}
        curve.append({name: round(value, 4) for name, value in line.items()})
        if chosen is None and (line["changed"] >= WANTED or amount == AMOUNTS[-1]):
            apart = (eye.embed(before) - eye.embed(after)).square().sum(1).mean()
            random = (eye.embed(before) - eye.embed(before.roll(1, 0))).square().sum(1).mean()
            most = flipped.mean(0).max()
            chosen = {**curve[-1], "worst_flipped": round(float(most), 4)}
            chosen |= {"lpips": round(float(apart), 4), "lpips_random": round(float(random), 4)}
            chosen["lpips_share"] = round(float(apart / random), 4)
    assert chosen is not None
    return {**chosen, "curve": curve}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("pack", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--attributes", nargs="+", default=list(ATTRIBUTES))
    arguments.add_argument("--disentangle", nargs="+", default=["none", "joint", "orthogonal"])
    arguments.add_argument("--of", choices=["faces", "seeds"], default="faces")
    arguments.add_argument("--faces", type=int, default=256)
    arguments.add_argument("--epochs", type=int, default=8)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pack, sampler = Pack.open(given.pack), Sampler.load(given.run)
    assert pack.labels is not None, "the pack has no labels"
    rows = pack.rows("all")
    train, held_out = rows[np.arange(len(rows)) % 10 != 9], rows[9::10]
    judge = Judge(pack, train, given.out, given.epochs)
    real, told = images_of(pack, held_out), torch.from_numpy(np.array(pack.labels[held_out]))
    accuracy = judge.balanced_accuracy(real, told)
    tells = accuracy >= TELLS
    print(f"the classifier tells {int(tells.sum())} of {len(tells)} labels, balanced accuracy {accuracy.mean():.3f}")

    file = given.out / f"encodings-{sampler.model_hash[:12]}.safetensors"
    if not file.exists():
        save_file({"train": encoded(sampler, pack, train.tolist())}, file)
    encodings, labels = load_file(file)["train"], torch.from_numpy(np.array(pack.labels[train]))
    space, names = sampler.encoding_space, list(pack.label_names)
    if given.of == "seeds" and space == "latent":
        z = sampler.latents(range(given.faces))
    else:
        z = sampler.encode(sampler.sample(range(given.faces)) if given.of == "seeds" else real[: given.faces])
    eye = PerceptualFeatures("alex")
    results_file = given.out / "edits.jsonl"
    done = set()
    if results_file.exists():
        lines = [json.loads(line) for line in results_file.read_text().splitlines()]
        done = {(line["model"], line["of"], line["disentangle"], line["attribute"]) for line in lines}
    for method in given.disentangle:
        wanted = names if method == "joint" else given.attributes
        columns = [names.index(name) for name in wanted]
        found, _ = by_labels(encodings, labels[:, columns], wanted, space, method)
        directions = {direction.name: direction for direction in found}
        for attribute in given.attributes:
            if (sampler.model_hash, given.of, method, attribute) in done or attribute not in directions:
                continue
            place = names.index(attribute)
            with torch.inference_mode():
                score = measure(sampler, judge, eye, z, directions[attribute], place, tells)
            line = {"model": sampler.model_hash, "of": given.of, "disentangle": method, "attribute": attribute}
            line |= {"accuracy": round(float(accuracy[place]), 4), "faces": len(z), **score}
            with results_file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            print(
                f"{method:<10} {attribute:<20} judge {line['accuracy']:.3f}  by {score['amount']}: changed {score['changed']:.2f}, "
                f"others flipped {score['flipped']:.3f} (worst {score['worst_flipped']:.2f}), "
                f"LPIPS {score['lpips_share']:.2f} of random",
                flush=True,
            )


if __name__ == "__main__":
    main()
