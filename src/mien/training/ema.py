"""Exponential moving average (EMA) of the model's weights; its half-life is counted in images."""

from __future__ import annotations

from copy import deepcopy

import torch

from mien.core.contracts import Model
from mien.core.run import EMAConfig
from mien.core.schedules import cosine


class EMA:
    """The averaged copy of a model. Floating-point buffers are averaged like weights; integer buffers are copied."""

    def __init__(self, model: Model, config: EMAConfig) -> None:
        self.config = config
        self.model = deepcopy(model).requires_grad_(False)
        self.model.eval()

    def decay(self, batch: int, seen: int) -> float:
        """The weight of the old average after a step of `batch` images, `seen` in all: 0.5^(batch / half-life)."""
        half_life = float(self.config.half_life)
        if self.config.ramp:
            half_life = cosine(0.0, half_life, seen, self.config.ramp)
        if self.config.warmup:
            half_life = min(half_life, self.config.warmup * seen)
        return float(0.5 ** (batch / max(half_life, 1e-8)))

    @torch.no_grad()
    def update(self, model: Model, batch: int, seen: int) -> None:
        """Update the average after `model` was trained on `batch` more images."""
        weight = 1.0 - self.decay(batch, seen)
        averaged, current = [], []
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, current, weight)
