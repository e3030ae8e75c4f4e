"""Flow matching: one network and one loss, and a map from latents to faces that can be inverted."""

from __future__ import annotations

from mien.core.run import EMAConfig, Run
from mien.models.flow import FlowConfig
from mien.recipes.flow import FlowMatchingConfig

PRESETS = (
    Run(
        preset="flow",
        story="flow matching: a velocity field that maps noise to faces, and faces back to noise",
        model=FlowConfig(width=64, max_width=192, blocks=1, patch=2, method="multistep", steps=12),
        recipe=FlowMatchingConfig(),
        side=64,
        batch=32,
        ema=EMAConfig(half_life=20_000, warmup=0.1),
        images=2_000_000,
        notes=(
            "Straight lines (arXiv:2210.02747, 2209.03003), times from a logit-normal (arXiv:2403.03206); labels dropped for one "
            "face in ten, for guidance (arXiv:2207.12598).",
            "A face costs 12 function evaluations; --solver multistep:6 is twice as fast, and coarser.",
        ),
    ),
)
