"""Flow matching (Lipman et al. 2022, arXiv:2210.02747, equation 23) along straight lines from noise e to images x.

x_t = (1 - t) e + t x,  logit(t) ~ N(time_mean, time_deviation^2)
L = E |v(x_t, t) - (x - e)|^2
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, optim

from mien.core import distributed
from mien.core.contracts import (
    Batch,
    ImageSpec,
    Model,
    Recipe,
    RecipeConfig,
    Update,
    require_fraction,
    require_positive,
)
from mien.core.families import FlowModel
from mien.core.schedules import cosine, linear
from mien.errors import UsageError
from mien.nn.ode import per_row
from mien.recipes import optimizers
from mien.recipes.losses import full


class FlowMatching(Recipe):
    """One loss: the mean squared error of the velocity v."""

    model: FlowModel

    def __init__(self, config: FlowMatchingConfig, model: FlowModel) -> None:
        super().__init__(model)
        self.config = config
        self.least_rows = 4
        self.optimizers["field"] = optim.Adam(
            model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True
        )

    def schedule(self, seen: int) -> None:
        c = self.config
        rate = cosine(c.lr, c.lr_end, seen, c.decay_images)
        if c.warmup_images:
            rate *= linear(0.0, 1.0, seen, c.warmup_images)
        optimizers.set_rate(self.optimizers["field"], rate)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        images, noise = batch.images, self.noise(batch.images)
        t = torch.sigmoid(c.time_mean + c.time_deviation * self.noise(images[:, 0, 0, 0]))
        x_t = torch.lerp(noise, images, per_row(t, images))
        velocity = self.model.velocity(x_t, t, self.drop_labels(batch.labels))
        errors = (full(velocity) - full(images - noise)).square().flatten(1).mean(1)
        late = full(t) > 0.5
        halves = torch.stack([~late, late]).to(errors.dtype)
        sums, rows = distributed.mean(torch.stack([(halves * errors).sum(1), halves.sum(1)]))
        early, late = sums / rows.clamp(min=1e-8)
        stats = {"velocity_error_early": early, "velocity_error_late": late}
        loss = errors.mean()
        yield Update(self.optimizers["field"], loss, clip=c.clip, stats={"velocity_error": loss, **stats})

    def drop_labels(self, labels: Tensor | None) -> Tensor | None:
        """The labels `[n, label_dim]`, unknown (NaN) for a random fraction of the rows, for guidance (arXiv:2207.12598)."""
        if labels is None or not self.config.label_dropout:
            return labels
        chance = 0.5 * (1.0 + torch.erf(self.noise(labels[:, :1]) / 2.0**0.5))
        return torch.where(chance < self.config.label_dropout, torch.full_like(labels, torch.nan), labels)


@dataclass(frozen=True, kw_only=True)
class FlowMatchingConfig(RecipeConfig):
    """Adam's constants and schedule, the distribution of t, and label dropout."""

    cites: ClassVar[tuple[str, ...]] = ("flow2022",)

    lr: float = 1e-3  # learning rate at the start
    lr_end: float = 2e-4  # learning rate after decay_images
    decay_images: int = 400_000  # images over which the rate goes from lr to lr_end, along half a cosine
    warmup_images: int = 5_000  # images over which the rate rises from 0; 0 = no warm-up
    beta1: float = 0.9  # Adam
    beta2: float = 0.99  # Adam
    clip: float | None = 1.0  # bound on the gradient's norm
    time_mean: float = 0.0  # mean of logit(t) (arXiv:2403.03206, section 3.1)
    time_deviation: float = 1.0  # standard deviation of logit(t)
    label_dropout: float = 0.1  # label dropout rate: fraction of images whose labels the model does not get

    def __post_init__(self) -> None:
        require_positive(self, "decay_images")
        require_fraction(self, "label_dropout")

    def build(self, model: Model, faces: ImageSpec) -> FlowMatching:
        if not isinstance(model, FlowModel):
            raise UsageError(
                f"{type(model).__name__} has no velocity field.",
                "Flow matching trains one.",
                "Use a flow model.",
            )
        return FlowMatching(self, model)
