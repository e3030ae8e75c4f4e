"""Flow matching (Lipman et al. 2022, arXiv:2210.02747, equation 23): at a random place on the straight line from noise to a
face, the field should point along the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, optim

from mien.core.contracts import Batch, ImageSpec, Model, Recipe, RecipeConfig, Update, require_positive
from mien.core.families import FlowModel
from mien.core.schedules import cosine, linear
from mien.errors import UsageError
from mien.nn.ode import per_row
from mien.recipes import optimizers
from mien.recipes.losses import full


class FlowMatching(Recipe):
    """One loss: the mean squared error of the velocity."""

    model: FlowModel

    def __init__(self, config: FlowMatchingConfig, model: FlowModel) -> None:
        super().__init__(model)
        self.config = config
        self.optimizers["field"] = optim.Adam(
            model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True
        )

    def schedule(self, seen: int) -> None:
        c = self.config
        rate = cosine(c.lr, c.lr_end, seen, c.anneal_images)
        if c.warmup_images:
            rate *= linear(0.0, 1.0, seen, c.warmup_images)
        optimizers.set_rate(self.optimizers["field"], rate)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        faces, noise = batch.images, self.noise(batch.images)
        t = torch.sigmoid(c.time_mean + c.time_deviation * self.noise(faces[:, 0, 0, 0]))
        there = torch.lerp(noise, faces, per_row(t, faces))
        velocity = self.model.velocity(there, t, self.told(batch.labels))
        errors = (full(velocity) - full(faces - noise)).square().flatten(1).mean(1)
        late = full(t) > 0.5
        stats = {
            "velocity_error_early": (errors * ~late).sum() / (~late).sum().clamp(min=1),
            "velocity_error_late": (errors * late).sum() / late.sum().clamp(min=1),
        }
        loss = errors.mean()
        yield Update(self.optimizers["field"], loss, clip=c.clip, stats={"velocity_error": loss, **stats})

    def told(self, labels: Tensor | None) -> Tensor | None:
        """The labels, of which a share of the rows is withheld, so that the field also knows faces nobody asked for."""
        if labels is None or not self.config.withhold:
            return labels
        chance = 0.5 * (1.0 + torch.erf(self.noise(labels[:, :1]) / 2.0**0.5))
        return torch.where(chance < self.config.withhold, torch.full_like(labels, torch.nan), labels)


@dataclass(frozen=True, kw_only=True)
class FlowMatchingConfig(RecipeConfig):
    """One optimizer, and when along the line it looks."""

    cites: ClassVar[tuple[str, ...]] = ("flow2022",)

    lr: float = 1e-3  # at the start
    lr_end: float = 2e-4  # after anneal_images
    anneal_images: int = 400_000  # over which the rate goes from start to end
    warmup_images: int = 5_000  # over which the rate rises from 0; 0 = none
    beta1: float = 0.9  # Adam
    beta2: float = 0.99  # Adam
    clip: float | None = 1.0  # bound on the gradient's norm
    time_mean: float = 0.0  # of the logit of the time looked at (arXiv:2403.03206, section 3.1)
    time_deviation: float = 1.0  # of the logit
    withhold: float = 0.1  # share of the faces whose labels are kept from the field

    def __post_init__(self) -> None:
        require_positive(self, "anneal_images")
        if not 0.0 <= self.withhold <= 1.0:
            raise UsageError(f"--recipe.withhold {self.withhold} is not possible.", "It is a share.", "Give 0 to 1.")

    def build(self, model: Model, faces: ImageSpec) -> FlowMatching:
        if not isinstance(model, FlowModel):
            raise UsageError(
                f"{type(model).__name__} has no velocity.", "Flow matching teaches a field.", "Give it a flow model."
            )
        return FlowMatching(self, model)
