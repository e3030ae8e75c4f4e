"""Densities fitted to the encodings of real faces, to draw latents from in place of the prior.

Where an encoder puts faces is never quite what the prior says, and a face drawn from where none lies is a bad one
(Dai and Wipf 2019, arXiv:1903.05789; for BEGAN it is what sicongzhao proposed and did not build). The mixture is scikit-learn's,
the flow zuko's; both are fitted to whitened encodings, and drawn from by seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.errors import Mismatch, UsageError
from mien.nn.priors import normals
from mien.sampling.sidecar import Extra

Kind = Literal["mixture", "flow"]

MOST = 1024  # numbers of an encoding: a full covariance of more is neither stored nor estimated
LEAST = 50  # encodings
COMPONENTS = (1, 2, 5, 10, 20)  # that are tried
UNSEEN = 0.1  # of the encodings are held out to choose and to stop
CHUNK = 8  # rows of a draw that are computed together, always so many: a latent depends on its seed alone


@dataclass(frozen=True, eq=False)
class Whitening:
    """To zero mean and unit covariance, and back."""

    mean: Tensor  # [d], float64
    factor: Tensor  # [d, d], float64, lower triangular: the covariance is factor @ factor.T

    @staticmethod
    def of(flat: Tensor) -> Whitening:
        """Fitted to rows `[n, d]`. A little is added to the diagonal, so that silent dimensions stay harmless."""
        covariance = torch.cov(flat.T).reshape(flat.shape[1], flat.shape[1])
        ridge = 1e-4 * covariance.diagonal().mean() + 1e-12
        return Whitening(flat.mean(0), torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)).to(flat)))

    def white(self, flat: Tensor) -> Tensor:
        whitened: Tensor = torch.linalg.solve_triangular(self.factor, (flat - self.mean).T, upper=False)
        return whitened.T

    def coloured(self, white: Tensor) -> Tensor:
        return white @ self.factor.T + self.mean


@dataclass(frozen=True, eq=False)
class Density(ABC):
    """Where encodings lie."""

    whitening: Whitening
    shape: tuple[int, ...]  # of an encoding
    told: JSON  # how it was fitted: count, held_out and gaussian (nats a dimension on unseen encodings), and the kind's own

    @property
    def mean(self) -> Tensor:
        """`[*shape]`, toward which truncation goes."""
        return self.whitening.mean.float().reshape(self.shape)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """One latent a seed, `[n, *shape]`, float32: equal for equal seeds in any batch."""
        count, width = len(seeds), len(self.whitening.mean)
        noise = torch.from_numpy(normals(seeds, width + 1))
        pieces = []
        for start in range(0, count, CHUNK):
            some = noise[start : start + CHUNK]
            padded = torch.cat([some, some[-1:].expand(CHUNK - len(some), -1)])
            with torch.no_grad():
                white = self.shaped(padded[:, :width], torch.special.ndtr(padded[:, width]))
            pieces.append(self.whitening.coloured(white)[: len(some)])
        return torch.cat(pieces or [noise[:, :width]]).float().reshape(count, *self.shape)

    @abstractmethod
    def shaped(self, noise: Tensor, share: Tensor) -> Tensor:
        """Normal numbers `[n, d]` and uniform ones `[n]`, float64 -> whitened encodings `[n, d]`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, beside the whitening."""


@dataclass(frozen=True, eq=False)
class Mixture(Density):
    """A mixture of normal distributions with full covariances."""

    weights: Tensor  # [k], float64, sums to 1
    means: Tensor  # [k, d]
    factors: Tensor  # [k, d, d], lower triangular

    def shaped(self, noise: Tensor, share: Tensor) -> Tensor:
        chosen = torch.bucketize(share, self.weights.cumsum(0)).clamp(max=len(self.weights) - 1)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}


@dataclass(frozen=True, eq=False)
class Flow(Density):
    """An invertible network: coupling layers, affine in half of the numbers at a time."""

    network: Any  # a zuko.flows.Flow

    def shaped(self, noise: Tensor, share: Tensor) -> Tensor:
        return self.network().transform.inv(noise.float()).double()  # type: ignore[no-any-return]

    def tensors(self) -> dict[str, Tensor]:
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items() if tensor is not None}


def fit(encodings: Tensor, kind: Kind, told: Callable[[str], None] = lambda _: None) -> Density:
    """A density of encodings `[n, *shape]`. Raises UsageError without its library, or for encodings that are too few or too wide.

    Held-out nats a dimension are of whitened encodings: a single normal distribution has about -1.419.
    """
    flat = encodings.flatten(1).double()
    if flat.shape[1] > MOST:
        raise UsageError(
            f"An encoding of this model has {flat.shape[1]:,} numbers.",
            f"A density is fitted to {MOST:,} at most; a flow's latents are as many as its pixels.",
            "Draw from the prior.",
        )
    if len(flat) < LEAST:
        raise UsageError(
            f"{len(flat)} encodings are too few.",
            "A density is fitted to thousands.",
            f"Give a pack of {LEAST} faces or more.",
        )
    unseen = torch.arange(len(flat)) % round(1 / UNSEEN) == 0
    whitening = Whitening.of(flat[~unseen])
    white, held_out = whitening.white(flat[~unseen]), whitening.white(flat[unseen])
    shape, facts = tuple(encodings.shape[1:]), {"count": len(flat)}
    if kind == "mixture":
        return fit_mixture(white, held_out, whitening, shape, facts, told)
    return fit_flow(white, held_out, whitening, shape, facts, told)


def fit_mixture(
    white: Tensor,
    held_out: Tensor,
    whitening: Whitening,
    shape: tuple[int, ...],
    facts: JSON,
    told: Callable[[str], None],
) -> Mixture:
    """The number of components that explains unseen encodings best."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise missing("scikit-learn", error) from error
    width, scores, best = white.shape[1], {}, None
    for count in COMPONENTS:
        if count > 1 and len(white) < 2 * count * width:
            break
        model = GaussianMixture(count, reg_covar=1e-3, max_iter=100, tol=1e-4 * width, random_state=0)
        with catch_warnings():
            simplefilter("ignore")  # that 100 rounds were not enough: unseen encodings judge what they gave
            model.fit(white.numpy())
        scores[count] = float(model.score(held_out.numpy())) / width
        told(f"{count} components: {scores[count]:.4f} nats a dimension")
        if best is None or scores[count] > scores[best.n_components]:
            best = model
        elif len(scores) > 2:
            break
    assert best is not None
    factors = torch.linalg.cholesky(torch.from_numpy(best.covariances_))
    facts |= {
        "components": best.n_components,
        "held_out": round(scores[best.n_components], 5),
        "gaussian": round(scores[1], 5),
    }
    return Mixture(whitening, shape, facts, torch.from_numpy(best.weights_), torch.from_numpy(best.means_), factors)


STEPS, BATCH, RATE, PATIENCE = 2000, 256, 1e-3, 6  # of the flow: steps at most, Adam's rate, looks without progress
LOOK = 50  # steps between two looks at the unseen encodings


def network_of(width: int) -> Any:
    """Six affine coupling layers (arXiv:1605.08803), each of a permutation of its own."""
    try:
        import zuko
    except ImportError as error:
        raise missing("zuko", error) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = (min(256, max(32, width)),) * 2
        return zuko.flows.MAF(width, transforms=6, hidden_features=hidden, passes=2, randperm=True)


def fit_flow(
    white: Tensor,
    held_out: Tensor,
    whitening: Whitening,
    shape: tuple[int, ...],
    facts: JSON,
    told: Callable[[str], None],
) -> Flow:
    """By maximum likelihood; the weights that explain unseen encodings best are kept."""
    width = white.shape[1]
    network, generator = network_of(width), torch.Generator().manual_seed(0)
    rows, unseen = white.float(), held_out.float()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    best, kept, stale = -torch.inf, {name: t.clone() for name, t in network.state_dict().items() if t is not None}, 0
    with torch.enable_grad():
        for step in range(STEPS + 1):
            if step % LOOK == 0:
                with torch.no_grad():
                    score = float(network().log_prob(unseen).mean()) / width
                told(f"step {step}: {score:.4f} nats a dimension")
                if score > best:
                    best, stale = score, 0
                    kept = {name: t.clone() for name, t in network.state_dict().items() if t is not None}
                else:
                    stale += 1
                if stale >= PATIENCE:
                    break
            some = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
            optimizer.zero_grad()
            (-network().log_prob(some).mean() / width).backward()
            optimizer.step()
    network.load_state_dict(kept)
    gaussian = float(-0.5 * (unseen.square() + log(2 * pi)).mean())
    facts |= {"steps": step, "held_out": round(best, 5), "gaussian": round(gaussian, 5)}
    return Flow(whitening, shape, facts, network.eval().requires_grad_(False))


def missing(package: str, error: ImportError) -> UsageError:
    """The error for an extra that is not installed."""
    return UsageError(
        f"This density needs {package}.",
        f"{error}.",
        "pip install 'mien[latent]', or draw from the prior: --latents prior.",
    )


def tensors_of(density: Density) -> dict[str, Tensor]:
    """What an extra stores."""
    return {"mean": density.whitening.mean, "factor": density.whitening.factor, **density.tensors()}


def density_of(extra: Extra, kind: Kind) -> Density:
    """A stored density. Raises Mismatch for tensors that are not one, UsageError without its library."""
    try:
        tensors: Mapping[str, Tensor] = extra.tensors
        shape = tuple(int(n) for n in extra.header["shape"])
        facts = dict(extra.header["fit"])
        whitening = Whitening(tensors["mean"].double(), tensors["factor"].double())
        width = torch.Size(shape).numel()
        if tuple(whitening.mean.shape) != (width,) or tuple(whitening.factor.shape) != (width, width):
            raise ValueError(f"the shape {shape} does not fit its tensors")
        if kind == "mixture":
            weights, means, factors = (tensors[name].double() for name in ("weights", "means", "factors"))
            if tuple(means.shape) != (len(weights), width) or tuple(factors.shape) != (len(weights), width, width):
                raise ValueError("its components do not fit")
            return Mixture(whitening, shape, facts, weights, means, factors)
        network = network_of(width)
        named = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        network.load_state_dict(named)
        return Flow(whitening, shape, facts, network.eval().requires_grad_(False))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise Mismatch(
            f"The fitted {kind} of this model cannot be used.",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}.",
            f"Remove extras/{kind}.safetensors, and fit it again.",
        ) from error
