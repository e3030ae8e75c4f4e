"""Densities fitted to the encodings of real faces, to draw latents from in place of the prior.

The distribution of encodings never quite equals the prior, and images of latents far from every encoding are poor (Dai and Wipf
2019, arXiv:1903.05789; for BEGAN, sicongzhao proposed it and did not build it). The Gaussian mixture is scikit-learn's, the
normalizing flow zuko's; both are fitted to whitened encodings, and sampled by seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Any, ClassVar, Literal
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.core.eager_optimizer import eager_step
from mien.errors import Mismatch, UsageError
from mien.nn.priors import normals
from mien.sampling.sidecar import Extra

DensityKind = Literal["gmm", "flow"]

MAX_DIMENSIONS = 1024  # of an encoding: a full covariance of more is neither stored nor estimated
MIN_ENCODINGS = 50
COMPONENTS = (1, 2, 5, 10, 20)  # numbers of components that are tried
HELD_OUT = 0.1  # share of the encodings that chooses the number of components, or stops the flow
CHUNK = 8  # rows that are computed together, always as many: a latent depends on its seed alone


@dataclass(frozen=True, eq=False)
class Whitening:
    """To zero mean and unit covariance, and back."""

    mean: Tensor  # [d], float64
    factor: Tensor  # [d, d], float64, lower triangular: the covariance is factor @ factor.T

    @staticmethod
    def of(flat: Tensor) -> Whitening:
        """Fitted to rows `[n, d]`. The diagonal gets a small ridge, so that constant dimensions cause no division by zero."""
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
    """A probability density of encodings."""

    whitening: Whitening
    shape: tuple[int, ...]  # of an encoding
    facts: JSON  # how it was fitted: count, held_out and gaussian (nats a dimension on held-out encodings), and the kind's own
    kind: ClassVar[DensityKind]

    @property
    def mean(self) -> Tensor:
        """`[*shape]`, the mean, toward which truncation moves latents."""
        return self.whitening.mean.float().reshape(self.shape)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """One latent a seed, `[n, *shape]`, float32: equal for equal seeds in any batch."""
        count, width = len(seeds), len(self.whitening.mean)
        noise = torch.from_numpy(normals(seeds, width + 1))
        pieces = []
        for start in range(0, count, CHUNK):
            chunk = noise[start : start + CHUNK]
            padded = torch.cat([chunk, chunk[-1:].expand(CHUNK - len(chunk), -1)])
            with torch.no_grad():
                white = self.transform(padded[:, :width], torch.special.ndtr(padded[:, width]))
            pieces.append(self.whitening.coloured(white)[: len(chunk)])
        return torch.cat(pieces or [noise[:, :width]]).float().reshape(count, *self.shape)

    @abstractmethod
    def transform(self, noise: Tensor, share: Tensor) -> Tensor:
        """Standard normal `noise` `[n, d]` and uniform `share` `[n]`, float64 -> whitened encodings `[n, d]`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store, beside the whitening."""


@dataclass(frozen=True, eq=False)
class GaussianMixture(Density):
    """A Gaussian mixture with full covariances."""

    kind = "gmm"

    weights: Tensor  # [k], float64, sums to 1
    means: Tensor  # [k, d]
    factors: Tensor  # [k, d, d], lower triangular

    def transform(self, noise: Tensor, share: Tensor) -> Tensor:
        chosen = torch.bucketize(share, self.weights.cumsum(0)).clamp(max=len(self.weights) - 1)
        return self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], noise)

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}


@dataclass(frozen=True, eq=False)
class NormalizingFlow(Density):
    """A normalizing flow of affine coupling layers."""

    kind = "flow"

    network: Any  # a zuko.flows.Flow

    def transform(self, noise: Tensor, share: Tensor) -> Tensor:
        return self.network().transform.inv(noise.float()).double()  # type: ignore[no-any-return]

    def tensors(self) -> dict[str, Tensor]:
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items() if tensor is not None}


def fit(encodings: Tensor, kind: DensityKind, progress: Callable[[str], None] = lambda _: None) -> Density:
    """A density of encodings `[n, *shape]`. Raises UsageError without its library, or for too few or too wide encodings.

    `progress` receives a line after each attempt. Held-out nats a dimension are of whitened encodings: one normal distribution has
    about -1.419.
    """
    flat = encodings.flatten(1).double()
    if flat.shape[1] > MAX_DIMENSIONS:
        raise UsageError(
            f"An encoding of this model has {flat.shape[1]:,} dimensions.",
            f"A density is fitted to {MAX_DIMENSIONS:,} at most; a flow has as many dimensions as an image has numbers.",
            "Leave out --prior fitted.",
        )
    if len(flat) < MIN_ENCODINGS:
        raise UsageError(
            f"{len(flat)} encodings are too few.",
            "A density is fitted to thousands.",
            f"Give a pack of {MIN_ENCODINGS} images or more.",
        )
    is_held_out = torch.arange(len(flat)) % round(1 / HELD_OUT) == 0
    whitening = Whitening.of(flat[~is_held_out])
    white, held_out = whitening.white(flat[~is_held_out]), whitening.white(flat[is_held_out])
    shape, facts = tuple(encodings.shape[1:]), {"count": len(flat)}
    if kind == "gmm":
        return fit_mixture(white, held_out, whitening, shape, facts, progress)
    return fit_flow(white, held_out, whitening, shape, facts, progress)


def fit_mixture(
    white: Tensor,
    held_out: Tensor,
    whitening: Whitening,
    shape: tuple[int, ...],
    facts: JSON,
    progress: Callable[[str], None],
) -> GaussianMixture:
    """A mixture with the number of components that has the highest held-out likelihood."""
    try:
        from sklearn import mixture
    except ImportError as error:
        raise missing("scikit-learn", error) from error
    width, scores, best = white.shape[1], {}, None
    for count in COMPONENTS:
        if count > 1 and len(white) < 2 * count * width:
            break
        model = mixture.GaussianMixture(count, reg_covar=1e-3, max_iter=100, tol=1e-4 * width, random_state=0)
        with catch_warnings():
            simplefilter("ignore")  # 100 iterations may not converge: the held-out likelihood decides
            model.fit(white.numpy())
        scores[count] = float(model.score(held_out.numpy())) / width
        progress(f"{count} components: {scores[count]:.4f} nats a dimension")
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
    weights, means = torch.from_numpy(best.weights_), torch.from_numpy(best.means_)
    return GaussianMixture(whitening, shape, facts, weights, means, factors)


STEPS, BATCH, LR, PATIENCE = 2000, 256, 1e-3, 6  # of the flow: maximum steps, Adam's rate, evaluations without progress
EVALUATE_EVERY = 50  # steps between evaluations of the held-out likelihood


def network_of(width: int) -> Any:
    """Six affine coupling layers (arXiv:1605.08803), each with its own permutation."""
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
    progress: Callable[[str], None],
) -> NormalizingFlow:
    """A flow fitted by maximum likelihood, with the weights of the highest held-out likelihood."""
    width = white.shape[1]
    network, generator = network_of(width), torch.Generator().manual_seed(0)
    rows, held_out = white.float(), held_out.float()
    optimizer = torch.optim.Adam(network.parameters(), LR)
    best, stale, weights = -torch.inf, 0, copied(network)
    with torch.enable_grad():
        for step in range(STEPS + 1):
            if step % EVALUATE_EVERY == 0:
                with torch.no_grad():
                    score = float(network().log_prob(held_out).mean()) / width
                progress(f"step {step}: {score:.4f} nats a dimension")
                if score > best:
                    best, stale, weights = score, 0, copied(network)
                else:
                    stale += 1
                if stale >= PATIENCE:
                    break
            batch = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
            optimizer.zero_grad()
            (-network().log_prob(batch).mean() / width).backward()
            eager_step(optimizer)
    network.load_state_dict(weights)
    gaussian = float(-0.5 * (held_out.square() + log(2 * pi)).mean())
    facts |= {"steps": step, "held_out": round(best, 5), "gaussian": round(gaussian, 5)}
    return NormalizingFlow(whitening, shape, facts, network.eval().requires_grad_(False))


def copied(network: Any) -> dict[str, Tensor]:
    """A copy of a network's tensors."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor is not None}


def missing(package: str, error: ImportError) -> UsageError:
    """The error for an extra that is not installed."""
    return UsageError(
        f"This density needs {package}.",
        f"{error}.",
        "pip install 'mien[latent]', or leave out --prior fitted.",
    )


def tensors_of(density: Density) -> dict[str, Tensor]:
    """The tensors of a density's file."""
    return {"mean": density.whitening.mean, "factor": density.whitening.factor, **density.tensors()}


def density_of(extra: Extra, kind: DensityKind) -> Density:
    """A stored density. Raises Mismatch for tensors that are not one, UsageError without its library."""
    try:
        tensors: Mapping[str, Tensor] = extra.tensors
        shape = tuple(int(n) for n in extra.header["shape"])
        facts = dict(extra.header["fit"])
        whitening = Whitening(tensors["mean"].double(), tensors["factor"].double())
        width = torch.Size(shape).numel()
        if tuple(whitening.mean.shape) != (width,) or tuple(whitening.factor.shape) != (width, width):
            raise ValueError(f"the shape {shape} does not fit its tensors")
        if kind == "gmm":
            weights, means, factors = (tensors[name].double() for name in ("weights", "means", "factors"))
            if tuple(means.shape) != (len(weights), width) or tuple(factors.shape) != (len(weights), width, width):
                raise ValueError("its components do not fit")
            return GaussianMixture(whitening, shape, facts, weights, means, factors)
        network = network_of(width)
        named = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        network.load_state_dict(named)
        return NormalizingFlow(whitening, shape, facts, network.eval().requires_grad_(False))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise Mismatch(
            f"The fitted {kind} of this model cannot be used.",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}.",
            f"Remove extras/{kind}.safetensors, and fit it again.",
        ) from error
