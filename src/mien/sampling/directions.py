"""Named directions of a latent space: what to add to a latent so that its face smiles, ages, turns.

Of labels (the Torch blog of 2015, Larsen et al. 2016, arXiv:1512.09300, section 4.2): the mean encoding of the faces with a
label, minus that of the faces without. Without labels: where the picture changes most.
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

#: `latent`: what the prior draws and `decode` takes. `encoding`: what `encode` gives, where that has a decoder of its own.
Space = Literal["latent", "encoding"]
Purity = Literal["plain", "joint", "orthogonal"]

FEW = 20  # examples a side: with fewer, a direction is mostly those faces
LOOK = 16  # px: how coarsely a picture is looked at for what changes most
PICTURES = 2  # random pictures that each face's derivative is asked for: the face itself is as dear as one of them


@dataclass(frozen=True, eq=False)
class Direction:
    """A step in a latent space, with a name."""

    name: str
    vector: Tensor  # [*latent_shape]; as long as one standard deviation, along it, of the latents that it was found on
    space: Space
    told: JSON  # how it was found: found, and for labels with, without, apart and auc; for components share


@dataclass(frozen=True, eq=False)
class Directions(Mapping[str, Direction]):
    """The directions of one model, by name, in their order."""

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
        """These and newer ones, which take the place of those of the same name."""
        names = {direction.name for direction in newer}
        return Directions((*(direction for direction in self.all if direction.name not in names), *newer))

    def move(self, z: Tensor, amounts: Mapping[str, float], space: Space) -> Tensor:
        """Latents `[n, *latent_shape]` moved by `amounts`, in standard deviations. Raises UsageError for a name it lacks."""
        moved = z
        for name, amount in amounts.items():
            direction = self[name]
            if direction.space != space:
                raise UsageError(
                    f"`{name}` is a direction of {direction.space}s.",
                    f"This face is known by its {space}.",
                    f"Choose from: {', '.join(d.name for d in self.all if d.space == space) or 'none yet'}.",
                )
            moved = moved + amount * direction.vector.to(z)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        """What is stored: one tensor a direction, by its place."""
        return {f"vectors.{place}": direction.vector.clone() for place, direction in enumerate(self.all)}

    def told(self) -> list[JSON]:
        """What is stored beside them."""
        return [{"name": d.name, "space": d.space, **d.told} for d in self.all]

    @staticmethod
    def of(extra: Extra | None, shapes: Mapping[str, tuple[int, ...]]) -> Directions:
        """Those of a file, or none. `shapes` are the latent shapes of the spaces. Raises Mismatch where they differ."""
        if extra is None:
            return Directions()
        found = []
        try:
            for place, told in enumerate(extra.header["directions"]):
                rest = {name: value for name, value in told.items() if name not in ("name", "space")}
                vector = extra.tensors[f"vectors.{place}"].float()
                if told["space"] in shapes and tuple(vector.shape) != tuple(shapes[told["space"]]):
                    raise ValueError(f"{told['name']} has shape {tuple(vector.shape)}")
                found.append(Direction(str(told["name"]), vector, told["space"], rest))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mismatch(
                "The directions of this model cannot be used.",
                f"{type(error).__name__}: {error}.",
                "Remove extras/directions.safetensors, and find them again.",
            ) from error
        return Directions(tuple(found))


def by_labels(
    encodings: Tensor, labels: Tensor, names: Sequence[str], space: Space, purity: Purity = "plain"
) -> tuple[list[Direction], list[str]]:
    """A direction for each label with two examples of either side at least, and warnings.

    `encodings` is `[n, *latent_shape]`, `labels` `[n, len(names)]` in [0, 1], NaN = not known: such rows do not count for that
    label. `plain`: mean with minus mean without. `joint`: what one label adds while all others stay, by least squares.
    `orthogonal`: the plain one without what it shares with the others' (InterFaceGAN, arXiv:1907.10786, section 3.3).
    """
    flat, shape = encodings.flatten(1).double(), encodings.shape[1:]
    found, warnings = [], []
    counts = {name: _sides(labels[:, place]) for place, name in enumerate(names)}
    usable = [name for name in names if min(counts[name]) >= 2]
    for name in names:
        few, where = min(counts[name]), "with" if counts[name][0] <= counts[name][1] else "without"
        if name not in usable:
            warnings.append(f"{name}: {few} faces {where} it, so it has no direction")
        elif few < FEW:
            warnings.append(f"{name}: only {few} faces {where} it; its direction is mostly those faces")
    columns = [list(names).index(name) for name in usable]
    told = labels[:, columns].double()
    vectors = differences(flat, told, purity)
    halves = torch.arange(len(flat)) % 2 == 0
    crossed = [differences(flat[half], told[half], purity) for half in (halves, ~halves)]
    for place, name in enumerate(usable):
        unit = F.normalize(vectors[place], dim=0)
        projections = flat @ unit
        yes, known = told[:, place] > 0.5, ~told[:, place].isnan()
        scale = projections.std()
        apart = (projections[known & yes].mean() - projections[known & ~yes].mean()) / scale
        unseen = [  # each half judged along the direction of the other
            separability((flat @ vector[place])[half & known], yes[half & known])
            for vector, half in zip(crossed, (~halves, halves), strict=True)
        ]
        judged = [value for value in unseen if value is not None]
        with_it, without = counts[name]
        facts: JSON = {"found": "labels", "purity": purity, "with": with_it, "without": without}
        facts |= {"apart": round(float(apart), 4), "auc": round(sum(judged) / len(judged), 4) if judged else None}
        found.append(Direction(name, (unit * scale).float().reshape(shape), space, facts))
    return found, warnings


def _sides(column: Tensor) -> tuple[int, int]:
    """How many faces have a label, and how many do not."""
    return int((column > 0.5).sum()), int((column <= 0.5).sum())


def differences(flat: Tensor, labels: Tensor, purity: Purity) -> Tensor:
    """`[k, d]` directions of labels `[n, k]` in encodings `[n, d]`, both float64, with any length."""
    if not labels.shape[1]:
        return flat.new_zeros(0, flat.shape[1])
    known = ~labels.isnan()
    yes, no = (labels > 0.5) & known, (labels <= 0.5) & known
    plain = (yes.double().T @ flat) / yes.sum(0).clamp(min=1)[:, None] - (no.double().T @ flat) / no.sum(0).clamp(
        min=1
    )[:, None]
    if purity == "joint":  # a label that is not known is at its mean: it says nothing
        signs = torch.where(known, yes.double(), torch.full_like(labels, torch.nan))
        centred = torch.nan_to_num(signs - signs.nanmean(0))
        gram = centred.T @ centred
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solved: Tensor = torch.linalg.solve(gram + ridge, centred.T @ (flat - flat.mean(0)))
        return solved
    if purity == "orthogonal":
        pure = []
        for place in range(len(plain)):
            others = torch.cat([plain[:place], plain[place + 1 :]])
            basis = torch.linalg.qr(others.T).Q if len(others) else others.T
            pure.append(plain[place] - basis @ (basis.T @ plain[place]))
        return torch.stack(pure)
    return plain


def separability(projections: Tensor, yes: Tensor) -> float | None:
    """The chance that a face with the label lies farther along than one without (area under the ROC curve), in [0, 1].

    None where one side is empty.
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
    told: Callable[[int], None] = lambda _: None,
) -> list[Direction]:
    """`count` orthogonal directions along which pictures change most, on average over the prior: no labels, no data.

    The eigenvectors of E[J^T J], where J is the derivative of the picture at 16 by 16 by the latent. For a random picture v of
    independent normal numbers, J^T v has that matrix as its covariance, and costs one backward pass (Ramesh et al. 2018,
    arXiv:1812.01161, look at the same J). Each of `faces` gets two. `like` says device and precision; `told` hears how many faces
    were looked at.
    """
    total = min(torch.Size(shape).numel(), PICTURES * faces)
    if not 1 <= count <= total:
        raise UsageError(
            f"--unsupervised {count} is not possible.",
            f"There are {total} such directions of this model.",
            f"Give 1 to {total}.",
        )
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for start in range(0, faces, batch):
        z = prior.draw(range(start, min(start + batch, faces)), shape).to(like).requires_grad_()
        look = F.adaptive_avg_pool2d(decode(z).float(), LOOK)
        for picture in range(PICTURES):
            probe = torch.randn(look.shape, generator=generator).to(look)
            (gradient,) = torch.autograd.grad((look * probe).sum(), z, retain_graph=picture < PICTURES - 1)
            gradients.append(gradient.flatten(1).double().cpu())
        told(len(z))
    _, lengths, vectors = torch.linalg.svd(torch.cat(gradients), full_matrices=False)
    shares = lengths.square() / lengths.square().sum()
    drawn = prior.draw(range(256), shape).flatten(1).double()
    found = []
    for place in range(count):
        vector = vectors[place]
        vector = vector * vector[vector.abs().argmax()].sign()  # either sign is an eigenvector: take one for good
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
                f"`{word}` is not a step.",
                "A step is NAME=AMOUNT, in standard deviations.",
                "Write --direction Smiling=1.5.",
            )
        found[name] = amount
    return found
