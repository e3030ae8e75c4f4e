"""Named directions in latent space: vectors that make a face smile, age or turn when they are added to its latent.

Of labels (the Torch blog of 2015, Larsen et al. 2016, arXiv:1512.09300, section 4.2): the mean encoding of the faces with a
label, minus that of the faces without. Without labels: the directions along which images change most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.core.contracts import JSON, Prior
from mien.errors import Mismatch, UsageError, did_you_mean
from mien.sampling.sidecar import Extra

#: `latent`: samples of the prior, inputs of `decode`. `encoding`: outputs of `encode` that have a decoder of their own (BEGAN).
Space = Literal["latent", "encoding"]
Disentangle = Literal["none", "joint", "orthogonal"]

MIN_EXAMPLES = 20  # with and without a label: with fewer, a direction is mostly those faces
PROBE_SIDE = 16  # pixels: the resolution at which changes of an image are measured
PROBES = 2  # random probes of each face's Jacobian: a forward pass costs as much as one


@dataclass(frozen=True, eq=False)
class Direction:
    """A named vector in latent space."""

    name: str
    vector: Tensor  # [*latent_shape]; as long as one standard deviation, along it, of the latents that it was found on
    space: Space
    facts: JSON  # how it was found: found, and for labels with, without, apart and auc; for components share


@dataclass(frozen=True, eq=False)
class Directions(Mapping[str, Direction]):
    """The directions of one model, by name, in order."""

    all: tuple[Direction, ...] = ()

    def __getitem__(self, name: str) -> Direction:
        found = next((direction for direction in self.all if direction.name == name), None)
        if found is None:
            known = did_you_mean(name, self) if self.all else "Find some: mien directions MODEL --unsupervised 10."
            raise UsageError(f"There is no direction `{name}`.", f"This model has {len(self.all)}.", known)
        return found

    def __contains__(self, name: object) -> bool:
        return any(direction.name == name for direction in self.all)

    def __iter__(self) -> Iterator[str]:
        return (direction.name for direction in self.all)

    def __len__(self) -> int:
        return len(self.all)

    def joined(self, newer: Sequence[Direction]) -> Directions:
        """These and newer ones, which replace those of the same name."""
        names = {direction.name for direction in newer}
        return Directions((*(direction for direction in self.all if direction.name not in names), *newer))

    def move(self, z: Tensor, amounts: Mapping[str, float], space: Space) -> Tensor:
        """Latents `[n, *latent_shape]` moved by `amounts`, in standard deviations. Raises UsageError for an unknown name."""
        moved = z
        for name, amount in amounts.items():
            direction = self[name]
            if direction.space != space:
                raise UsageError(
                    f"`{name}` is a direction of {direction.space}s.",
                    f"The face is given by its {space}.",
                    f"Choose from: {', '.join(d.name for d in self.all if d.space == space) or 'none yet'}.",
                )
            moved = moved + amount * direction.vector.to(z)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file: one per direction, by index."""
        return {f"vectors.{place}": direction.vector.clone() for place, direction in enumerate(self.all)}

    def descriptions(self) -> list[JSON]:
        """The entries of the file's header."""
        return [{"name": d.name, "space": d.space, **d.facts} for d in self.all]

    @staticmethod
    def of(extra: Extra | None, shapes: Mapping[str, tuple[int, ...]]) -> Directions:
        """The directions of a file, or none. `shapes` are the latent shapes of the spaces. Raises Mismatch if they differ."""
        if extra is None:
            return Directions()
        found = []
        try:
            for place, entry in enumerate(extra.header["directions"]):
                facts = {name: value for name, value in entry.items() if name not in ("name", "space")}
                vector = extra.tensors[f"vectors.{place}"].float()
                if entry["space"] in shapes and tuple(vector.shape) != tuple(shapes[entry["space"]]):
                    raise ValueError(f"{entry['name']} has shape {tuple(vector.shape)}")
                found.append(Direction(str(entry["name"]), vector, entry["space"], facts))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mismatch(
                "The directions of this model cannot be used.",
                f"{type(error).__name__}: {error}.",
                "Remove extras/directions.safetensors, and find them again.",
            ) from error
        return Directions(tuple(found))


def by_labels(
    encodings: Tensor, labels: Tensor, names: Sequence[str], space: Space, disentangle: Disentangle = "none"
) -> tuple[list[Direction], list[str]]:
    """A direction for each label with at least two faces with it and two without, and warnings.

    `encodings` is `[n, *latent_shape]`, `labels` `[n, len(names)]` in [0, 1], NaN = unknown: such rows do not count for that
    label. `none`: mean with minus mean without. `joint`: the effect of one label with all others fixed, by least squares.
    `orthogonal`: the difference of means projected off those of the others (InterFaceGAN, arXiv:1907.10786, section 3.3).
    """
    flat, shape = encodings.flatten(1).double(), encodings.shape[1:]
    found, warnings = [], []
    counts = {name: _sides(labels[:, place]) for place, name in enumerate(names)}
    usable = [name for name in names if min(counts[name]) >= 2]
    for name in names:
        few, where = min(counts[name]), "with" if counts[name][0] <= counts[name][1] else "without"
        if name not in usable:
            warnings.append(f"{name}: {few} faces {where} it, so it has no direction")
        elif few < MIN_EXAMPLES:
            warnings.append(f"{name}: only {few} faces {where} it; its direction is mostly those faces")
    columns = [list(names).index(name) for name in usable]
    known_labels = labels[:, columns].double()
    vectors = differences(flat, known_labels, disentangle)
    halves = torch.arange(len(flat)) % 2 == 0
    crossed = [differences(flat[half], known_labels[half], disentangle) for half in (halves, ~halves)]
    for place, name in enumerate(usable):
        unit = F.normalize(vectors[place], dim=0)
        projections = flat @ unit
        yes, known = known_labels[:, place] > 0.5, ~known_labels[:, place].isnan()
        scale = projections.std()
        apart = (projections[known & yes].mean() - projections[known & ~yes].mean()) / scale
        halves_auc = [  # each half projected on the direction of the other
            separability((flat @ vector[place])[half & known], yes[half & known])
            for vector, half in zip(crossed, (~halves, halves), strict=True)
        ]
        aucs = [value for value in halves_auc if value is not None]
        with_it, without = counts[name]
        facts: JSON = {"found": "labels", "disentangle": disentangle, "with": with_it, "without": without}
        facts |= {"apart": round(float(apart), 4), "auc": round(sum(aucs) / len(aucs), 4) if aucs else None}
        found.append(Direction(name, (unit * scale).float().reshape(shape), space, facts))
    return found, warnings


def _sides(column: Tensor) -> tuple[int, int]:
    """How many faces have the label, and how many do not."""
    return int((column > 0.5).sum()), int((column <= 0.5).sum())


def differences(flat: Tensor, labels: Tensor, disentangle: Disentangle) -> Tensor:
    """`[k, d]` directions of labels `[n, k]` in encodings `[n, d]`, both float64, with any length."""
    if not labels.shape[1]:
        return flat.new_zeros(0, flat.shape[1])
    known = ~labels.isnan()
    yes, no = (labels > 0.5) & known, (labels <= 0.5) & known
    plain = (yes.double().T @ flat) / yes.sum(0).clamp(min=1)[:, None] - (no.double().T @ flat) / no.sum(0).clamp(
        min=1
    )[:, None]
    if disentangle == "joint":  # an unknown label is set to its mean, so that it has no effect
        signs = torch.where(known, yes.double(), torch.full_like(labels, torch.nan))
        centred = torch.nan_to_num(signs - signs.nanmean(0))
        gram = centred.T @ centred
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solved: Tensor = torch.linalg.solve(gram + ridge, centred.T @ (flat - flat.mean(0)))
        return solved
    if disentangle == "orthogonal":
        pure = []
        for place in range(len(plain)):
            others = torch.cat([plain[:place], plain[place + 1 :]])
            basis = torch.linalg.qr(others.T).Q if len(others) else others.T
            pure.append(plain[place] - basis @ (basis.T @ plain[place]))
        return torch.stack(pure)
    return plain


def separability(projections: Tensor, yes: Tensor) -> float | None:
    """The area under the ROC curve: how often a face with the label lies farther along than one without, in [0, 1].

    None if one side is empty.
    """
    positives, negatives = int(yes.sum()), int((~yes).sum())
    if not positives or not negatives:
        return None
    ranks = torch.empty_like(projections)
    ranks[projections.argsort()] = torch.arange(1, len(projections) + 1, dtype=projections.dtype)
    return float((ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def components(
    decode: Callable[[Tensor], Tensor],
    prior: Prior,
    shape: tuple[int, ...],
    count: int,
    *,
    like: Tensor,
    faces: int = 256,
    batch: int = 8,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Direction]:
    """`count` orthogonal directions along which images change most, on average over the prior: no labels, no data.

    The eigenvectors of E[J^T J], where J is the Jacobian of the image at 16x16 px by the latent. For a probe v of
    independent normal numbers, J^T v has that matrix as its covariance, and costs one backward pass (Ramesh et al. 2018,
    arXiv:1812.01161, use the same J). Each of `faces` gets two probes. `like` sets device and precision; `progress` receives the
    number of faces done.
    """
    total = min(torch.Size(shape).numel(), PROBES * faces)
    if not 1 <= count <= total:
        raise UsageError(
            f"unsupervised must be an integer from 1 to {total}, not {count}.",
            "The model has so many orthogonal directions.",
            f"Give --unsupervised {min(10, total)}, or up to {total}.",
        )
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for start in range(0, faces, batch):
        z = prior.draw(range(start, min(start + batch, faces)), shape).to(like).requires_grad_()
        image = F.adaptive_avg_pool2d(decode(z).float(), PROBE_SIDE)
        for index in range(PROBES):
            probe = torch.randn(image.shape, generator=generator).to(image)
            (gradient,) = torch.autograd.grad((image * probe).sum(), z, retain_graph=index < PROBES - 1)
            gradients.append(gradient.flatten(1).double().cpu())
        progress(len(z))
    _, lengths, vectors = torch.linalg.svd(torch.cat(gradients), full_matrices=False)
    shares = lengths.square() / lengths.square().sum()
    drawn = prior.draw(range(256), shape).flatten(1).double()
    found = []
    for place in range(count):
        vector = vectors[place]
        vector = vector * vector[vector.abs().argmax()].sign()  # either sign is an eigenvector: choose one reproducibly
        scale = (drawn @ vector).std()
        facts: JSON = {"found": "components", "share": round(float(shares[place]), 4)}
        found.append(Direction(f"component-{place + 1}", (vector * scale).float().reshape(shape), "latent", facts))
    return found


def amounts_of(words: Sequence[str]) -> dict[str, float]:
    """`Smiling=1.5` as a name and an amount. Raises UsageError for anything else."""
    found: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            amount = float(number)
        except ValueError:
            amount = float("nan")
        if not name or not abs(amount) <= 100:
            raise UsageError(
                f"`{word}` is not a direction with an amount.",
                "It is NAME=AMOUNT, in standard deviations from -100 to 100.",
                "Write --direction Smiling=1.5.",
            )
        found[name] = amount
    return found
