"""DCGAN (arXiv:1511.06434) with the constants of soumith/dcgan.torch."""

from __future__ import annotations

from mien.core.run import Run
from mien.models.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from mien.recipes.adversarial import AdversarialConfig

PRESETS = (
    Run(
        preset="dcgan-2015",
        story="the all-convolutional GAN that the field started from",
        model=DCGANGeneratorConfig(latent=100, width=64, uniform=False),
        recipe=AdversarialConfig(
            critic=DCGANDiscriminatorConfig(width=64),
            updates="alternating",
            balance="none",
            margin=(0.3, 0.7),
            l2_target=(0.9, 1.2),
            l2_step=1e-5,
            l1=0.0,
            l2=0.0,
            critic_rests_above=None,
            critic_scale=1.0,
            critic_steps=1,
            generator_steps=1,
            generator_rhythm="times",
            generator_ratio=1,
            fresh_latents=False,
            joint=False,
            shown="symmetric",
            fake_labels="data",
            smooth_real=0.0,
            smooth_fake=0.0,
            flip_targets=0.0,
            frozen_targets=False,
            generator_noise=0.0,
            critic_noise=0.0,
            spectral="none",
            optimizer="adam",
            lr=2e-4,
            beta1=0.5,
            beta2=0.999,
            alpha=0.9,
            lr_decay=1.0,
            lr_decay_images=13_000,
            lr_floor=1e-6,
            warmup_calls=(),
            warmup_divisors=(),
        ),
        side=64,
        batch=64,
        flip=False,
        average=None,
        seed=1,
        images=5_000_000,
        notes=(
            "Sources: arXiv:1511.06434 and soumith/dcgan.torch: 25 epochs of 64 images at a time, latents from N(0, 1).",
            "The generator is judged on the fakes that the critic has just seen, as there; the critic's forward is computed "
            "again after its move, where the original kept the one from before.",
        ),
    ),
)
