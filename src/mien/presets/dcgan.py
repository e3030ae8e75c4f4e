"""DCGAN (arXiv:1511.06434) with the constants of soumith/dcgan.torch."""

from __future__ import annotations

from mien.core.run import Run
from mien.models.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from mien.recipes.gan import GANConfig

PRESETS = (
    Run(
        preset="dcgan-2015",
        story="the all-convolutional GAN that the field started from",
        model=DCGANGeneratorConfig(latent=100, width=64, uniform=False),
        recipe=GANConfig(
            critic=DCGANDiscriminatorConfig(width=64),
            critic_steps=1,
            resample_fakes=False,
            lr=2e-4,
            beta1=0.5,
            beta2=0.999,
        ),
        side=64,
        batch=64,
        flip=True,
        random_crop=1.5,
        ema=None,
        seed=1,
        images=5_000_000,
        prepare=("mien data prepare celeba.zip dcgan-2015.pack --size 64 --box 30,40,168,178 --resampler area",),
        notes=(
            "Data: its README's CelebA: columns 30 to 167 and rows 40 to 177 of 178x218, shrunk to 64 px by image.scale, which "
            "averages what a pixel covers; 2 x - 1. While it learns, each image is enlarged to 96 px (bilinear, corners meeting), "
            "and a random 64 px of it, mirrored or not, are the sample (--random-crop 1.5). A 64 px file was a JPEG there.",
            "Sources: arXiv:1511.06434 and soumith/dcgan.torch@6eaac63: 25 epochs of 64 images at a time, latents from N(0, 1).",
            "The generator's step reuses the critic's fakes, as there; the critic's forward is computed again after its step, "
            "where the original kept the one from before.",
        ),
    ),
)
