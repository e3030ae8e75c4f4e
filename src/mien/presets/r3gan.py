"""R3GAN (arXiv:2501.05441) with the constants of its FFHQ presets."""

from __future__ import annotations

from mien.core.run import EMAConfig, Run
from mien.models.r3gan import R3GANCriticConfig, R3GANGeneratorConfig
from mien.recipes.augmentation import Augmentation
from mien.recipes.relativistic_gan import RelativisticGANConfig

PRESETS = (
    Run(
        preset="r3gan-2024",
        story="a modern baseline: a residual GAN with a relativistic loss and two gradient penalties",
        model=R3GANGeneratorConfig(latent=64, width=768, group=16),
        recipe=RelativisticGANConfig(
            critic=R3GANCriticConfig(width=768, group=16),
            lr=2e-4,
            lr_end=5e-5,
            gamma=2.0,
            gamma_end=0.2,
            gamma_side=0,
            decay_images=40_000_000,
            optimizer="adam",
            hold_norms=False,
            beta1=0.0,
            beta2=0.9,
            beta2_end=0.99,
            reg_interval=1,
            reg_fraction=1.0,
            style_mixing=0.0,
            label_dropout=0.0,
            label_weight=0.0,
            resample_reals=True,
            resample_fakes=True,
            freeze=0,
            augment=Augmentation(
                mode="ramp", p=0.3, images=40_000_000, target=0.6, geometry=1.0, colour=0.5, cutout=1.0
            ),
        ),
        side=64,
        batch=256,
        flip=True,
        ema=EMAConfig(half_life=1_000_000, warmup=0.0, ramp=40_000_000),
        seed=0,
        images=40_000_000,
        prepare=("mien data prepare ffhq.zip r3gan-2024.pack --size 64 --crop center",),
        notes=(
            "Data: FFHQ's aligned images whole, shrunk to 64 px with antialiasing (ours is Lanczos); from -1 to 1; mirrored.",
            "Source: arXiv:2501.05441, the FFHQ-64 preset. For 256 px: --recipe.gamma 150 --recipe.gamma-end 15; for 128 px "
            "nothing is published, and log interpolation between the two gives 17 to 1.7.",
            "Each network has a batch of reals of its own, and mien counts both: twice the numbers of the paper, whose 20 "
            "million images, and a half-life rising to 0.5 million, count one batch a step.",
            "Deviations: augmentation resamples images bilinearly, without the original's wavelet filter; fakes are fp32 in R2, "
            "not bf16.",
        ),
    ),
)
