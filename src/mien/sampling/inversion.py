"""The latent of an image, by gradient descent: Adam on z, so that the generator's image of z comes close to it.

As in BEGAN (Berthelot et al. 2017, arXiv:1703.10717, section 4.2: e_r = |x_r - G(z_r)|), for a generator without an encoder.
The error has many local minima: descent starts from several latents of the prior and continues from the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor

from mien.core.contracts import Prior
from mien.core.eager_optimizer import eager_step

SEARCH = 0.3  # share of the steps that descend from all starts; the others continue from the best alone


@dataclass(frozen=True)
class Step:
    """Progress of a descent."""

    step: int
    steps: int
    errors: Tensor  # [n], mean absolute difference of the best so far, pixels counted in [0, 1]
    images: Tensor  # [n, C, H, W], images of the best so far, in [-1, 1]


@dataclass(frozen=True)
class Inversion:
    """Result of a descent."""

    latents: Tensor  # [n, *latent_shape]
    images: Tensor  # [n, C, H, W], what the generator makes of them, in [-1, 1]
    errors: Tensor  # [n], mean absolute difference from the target images, pixels counted in [0, 1]
    steps: int  # taken


Distance = Callable[[Tensor, Tensor], Tensor]  # images, targets -> [n], what is descended


def absolute(images: Tensor, faces: Tensor) -> Tensor:
    """`[n]` mean absolute differences, pixels counted in [0, 1]."""
    return (images - faces).abs().flatten(1).mean(1) / 2.0


def descend(
    decode: Callable[[Tensor], Tensor],
    prior: Prior,
    faces: Tensor,
    starts: Tensor,
    *,
    steps: int,
    lr: float,
    distance: Distance = absolute,
    on_step: Callable[[Step], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Inversion:
    """Latents of `faces` `[n, C, H, W]` from `starts` `[n, r, *latent_shape]`; every step stays where the prior draws.

    `decode` takes `[m, *latent_shape]`, m = n or n r, rows in the order of `starts`. `cancel` is called before every step: once
    it returns True, the best so far is returned.
    """
    count, tries = starts.shape[:2]
    search = max(1, round(steps * SEARCH)) if tries > 1 else 0
    best = Best(faces)
    z, done = starts.flatten(0, 1), 0
    for length, single in ((search, False), (steps - search, True)):
        if single and tries > 1:
            z = best.latents
        repeated = faces if single else faces.repeat_interleave(tries, 0)
        z = z.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=lr)
        for step in range(length + single):  # the last evaluation changes nothing
            if done and cancel is not None and cancel():
                return best.found(done)
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + cos(pi * step / max(1, length)))
            images = decode(z).float()
            values = distance(images, repeated)
            best.update(z.detach(), images.detach(), values.detach(), len(values) // count)
            if step < length:
                (z.grad,) = torch.autograd.grad(values.sum(), z)
                eager_step(optimizer)
                with torch.no_grad():
                    z.copy_(prior.project(z))
                done += 1
                if on_step is not None:
                    on_step(Step(done, steps, best.errors(), best.images.clamp(-1.0, 1.0).cpu()))
    return best.found(done)


class Best:
    """The best latent of each face so far."""

    def __init__(self, faces: Tensor) -> None:
        self.faces = faces
        self.values = torch.full((len(faces),), torch.inf, device=faces.device)
        self.latents = self.images = torch.empty(0)

    def update(self, latents: Tensor, images: Tensor, values: Tensor, tries: int) -> None:
        """Keep what is better than before; each face has `tries` rows in a row."""
        lowest, place = values.view(-1, tries).min(1)
        rows = place + torch.arange(len(place), device=place.device) * tries
        better = (lowest < self.values) | self.values.isinf()
        if not self.latents.numel():
            self.latents, self.images, self.values = latents[rows], images[rows], lowest
            return
        self.values = torch.where(better, lowest, self.values)
        self.latents = torch.where(_wide(better, latents), latents[rows], self.latents)
        self.images = torch.where(_wide(better, images), images[rows], self.images)

    def errors(self) -> Tensor:
        return absolute(self.images.clamp(-1.0, 1.0), self.faces).cpu()

    def found(self, steps: int) -> Inversion:
        images = self.images.clamp(-1.0, 1.0)
        return Inversion(self.latents.float().cpu(), images.cpu(), self.errors(), steps)


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    """A mask `[n]` that broadcasts over the other axes of `like`."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))
