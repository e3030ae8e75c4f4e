"""The default: the best picture known from five minutes of a 2-core CPU."""

from __future__ import annotations

from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.recipes.relativistic import RelativisticConfig
from mien.run import Averaging, Run

PRESETS = (
    Run(
        preset="quick",
        story="a small relativistic GAN: faces on a laptop in minutes",
        model=ResidualGeneratorConfig(latent=64, width=48, widest=160, blocks=1, fold=2),
        recipe=RelativisticConfig(critic=ResidualCriticConfig(width=48, widest=160, blocks=1, fold=2)),
        side=64,
        batch=32,
        average=Averaging(half_life=5_000, warmup=0.1),
        images=1_000_000,
        minutes=5.0,
        notes=("Blocks and losses after R3GAN (arXiv:2501.05441), penalties lazy and on a quarter of the batch.",),
    ),
)
