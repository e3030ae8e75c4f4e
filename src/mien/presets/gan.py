"""Our best GAN, and its smallest setting, which is the default: faces after five minutes on a 2-core CPU."""

from __future__ import annotations

from dataclasses import replace

from mien.core.run import EMAConfig, Run
from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.recipes.augmentation import Augmentation
from mien.recipes.relativistic_gan import RelativisticGANConfig

GENERATOR = ResidualGeneratorConfig(latent=64, width=32, max_width=240, blocks=1, group=16, patch=2, full_res_width=16)
CRITIC = ResidualCriticConfig(width=32, max_width=240, blocks=1, group=16, patch=2, full_res_width=16, overlap=False)
SMALL_DATA = Augmentation(p=0.6, images=100_000)  # off, until the rule for small data turns it on
#: A large rate, a strong penalty and a short memory at first: burn-in, as in R3GAN.
RECIPE = RelativisticGANConfig(
    critic=CRITIC,
    optimizer="soap",
    hold_norms=True,
    lr=2e-3,
    lr_end=4e-4,
    gamma=1.6,
    gamma_end=0.4,
    gamma_side=64,
    beta2=0.9,
    beta2_end=0.99,
    decay_images=120_000,
    resample_fakes=False,
    augment=SMALL_DATA,
)
AVERAGE = EMAConfig(half_life=10_000, warmup=0.1)
#: Fields that the rules decide. Their values here are the rules' on a CPU, for data that are not small.
BY_RULE = ("batch", "ema.half_life", "model.jpeg", "recipe.reg_fraction", "recipe.augment.mode")
NOTES = (
    "Blocks and loss follow R3GAN (arXiv:2501.05441); its gradient penalties are lazy and use a quarter of the batch.",
    "The last upsampling is bilinear, with a few feature maps at full resolution: a pixel shuffle instead leaves a pattern with "
    "a period of two pixels, and doubles FID (docs/LOG.md).",
    "Blocks mix 16 feature maps each in their 3x3 convolutions; a large rate, a strong penalty and a short memory at first are "
    "R3GAN's burn-in. At 32 px FID after 100,000 images went from 34.6 to 28.4, the mean of two seeds (docs/LOG.md).",
    "Both players move by SOAP (arXiv:2409.11321), Adam in the eigenbasis of recent gradients, at twice Adam's rate: at 32 px FID "
    "after 30,000 images went from 51.8 to 40.4, one seed (docs/LOG.md).",
    "Matrices of weights keep the norm that they start with (forced weight normalization, arXiv:2312.02696, of a whole matrix): "
    "at 64 px FID went from 17.1 and 16.4 to 16.8 and 15.6 (docs/LOG.md).",
    "Where all faces come from JPEG files that were compressed alike, so is what it draws (`model.jpeg`): their marks are in every "
    "real face, and no small generator draws them.",
    "Both networks use the same fakes, and the generator's step the logits that reals had in the critic's: 1.2 times as fast.",
)

GAN = Run(
    preset="gan",
    story="our best GAN, which scales from a laptop to a large GPU",
    model=GENERATOR,
    recipe=RECIPE,
    side=64,
    batch=16,
    ema=AVERAGE,
    images=1_000_000,
    by_rule=BY_RULE,
    notes=(*NOTES, "`--scale 4` makes an image four times as expensive: for a night on a laptop, or a GPU."),
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
