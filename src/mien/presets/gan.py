"""Our best adversarial recipe, and its smallest setting, which is the default: faces from five minutes of a 2-core CPU."""

from __future__ import annotations

from dataclasses import replace

from mien.core.run import EMAConfig, Run
from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.recipes.augmentation import Augmentation
from mien.recipes.relativistic_gan import RelativisticGANConfig

GENERATOR = ResidualGeneratorConfig(latent=64, width=48, max_width=160, blocks=1, patch=2, full_res_width=16)
CRITIC = ResidualCriticConfig(width=48, max_width=160, blocks=1, patch=2, full_res_width=16)
FEW = Augmentation(p=0.6, images=100_000)  # for small data, where the rule turns it on
GAME = RelativisticGANConfig(critic=CRITIC, gamma=0.4, gamma_end=0.4, gamma_side=64, resample_fakes=False, augment=FEW)
AVERAGE = EMAConfig(half_life=5_000, warmup=0.1)
#: What stands here is what the rules say on a CPU, of data that are not few.
BY_RULE = ("batch", "average.half_life", "recipe.reg_fraction", "recipe.augment.mode")
NOTES = (
    "Blocks and loss after R3GAN (arXiv:2501.05441), penalties lazy and on a quarter of the batch.",
    "The last doubling is a smooth one with a few feature maps behind it: rearranging channels into pixels instead leaves a "
    "period of two pixels, and doubles FID (docs/LOG.md).",
    "Both players learn from the same fakes, and the reals need no gradient in the generator's step: 1.15 times as fast.",
)

GAN = Run(
    preset="gan",
    story="our best adversarial recipe, scalable from a laptop to a large GPU",
    model=GENERATOR,
    recipe=GAME,
    side=64,
    batch=16,
    average=AVERAGE,
    images=1_000_000,
    by_rule=BY_RULE,
    notes=(*NOTES, "`--scale 4` costs four times as much an image: for a night of a laptop, or a GPU."),
)
PRESETS = (
    replace(
        GAN,
        preset="quick",
        story="a small relativistic GAN: faces on a laptop in minutes",
        minutes=5.0,
        notes=(*NOTES, "The smallest setting of `gan`."),
    ),
    GAN,
)
