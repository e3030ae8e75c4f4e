"""VAE/GAN: as published in 2016, and the Torch blog's hybrid of the year before."""

from __future__ import annotations

from mien.core.run import Run
from mien.models.torch2015 import TorchDiscriminatorConfig
from mien.models.torchvae import TorchVAEConfig
from mien.models.vaegan import VAEGANCriticConfig, VAEGANModelConfig
from mien.recipes.vaegan import VAEGANConfig

PRESETS = (
    Run(
        preset="vaegan-2016",
        story="an autoencoder that compares faces by what a critic sees in them",
        model=VAEGANModelConfig(latent=128, width=64, hidden=1024, gain=1.0),
        recipe=VAEGANConfig(
            critic=VAEGANCriticConfig(width=32, hidden=512, gain=1.0),
            similarity="features",
            similarity_weight=1e-6,
            kl_weight=1.0,
            reconstructions_as_fakes=False,
            real_weight=0.5,
            offset=1e-3,
            generator_loss="saturating",
            balance="margin",
            equilibrium=0.68,
            margin=0.35,
            gate="player",
            optimizer="rmsprop",
            lr=0.025 / 64,
            lr_end=1e-5,
            decay_images=4_000_000,
            decay_power=0.75,
            alpha=0.9,
            beta1=0.5,
            beta2=0.999,
            weight_decay=1e-5,
        ),
        side=64,
        batch=64,
        flip=False,
        average=None,
        seed=0,
        images=4_000_000,
        notes=(
            "Sources: arXiv:1512.09300 and andersbll/autoencoding_beyond_pixels (CelebA script): 250 epochs of 250 batches of 64, "
            "rate 0.025 for sums over the batch, here for means: 0.025 / 64.",
            "The sign trap: the paper prints L_GAN as a log-likelihood with update signs that only fit its negative; "
            "here, as in the authors' code, the decoder makes the critic fail.",
            "The authors' code differs from the paper: its encoder's linear layer has 1024 features (2048 in the table), and the "
            "critic is not shown copies (--recipe.reconstructions-as-fakes, in algorithm 1). The code stands here.",
            "Our reading: the rate goes to 1e-5 with a power of 0.75, and a momentum of 0.9 in batch normalisation is 0.1 in "
            "torch's counting.",
        ),
    ),
    Run(
        preset="vaegan-torch-2015",
        story='the hybrid of "Generating Faces with Torch": a VAE in pixels whose decoder also plays the GAN',
        model=TorchVAEConfig(latent=512, width=128, dropout=0.0, encoder_width=32, hidden=1024),
        recipe=VAEGANConfig(
            critic=TorchDiscriminatorConfig(width=32, hidden=1024, batch_norm=False, map_dropout=0.2, dropout=0.5),
            similarity="pixels",
            similarity_weight=0.01,
            kl_weight=1.0,
            reconstructions_as_fakes=True,
            real_weight=0.5,
            offset=0.0,
            generator_loss="non-saturating",
            balance="margin",
            equilibrium=0.5,
            margin=0.2,
            gate="adversary",
            optimizer="rmsprop",
            lr=1e-3,
            lr_end=1e-3,
            decay_images=0,
            decay_power=1.0,
            alpha=0.9,
            beta1=0.5,
            beta2=0.999,
            weight_decay=0.0,
        ),
        side=64,
        batch=64,
        flip=False,
        average=None,
        seed=1,
        images=1_300_000,
        notes=(
            "Source: the post of 2015-11-13, which publishes no code for it: prior, pixel and adversarial errors, the first two "
            "always minimised, the last balanced by the margin rule; copies and the originals go to the critic.",
            "The decoder's two errors are weighted there, and the weights are not published. Ours: 0.01 of the squared error "
            "summed over pixels: 3 nats at a mean squared error of 0.05, beside the adversary's 0.7.",
            "The margin is the post's: 0.3 to 0.7. Rate and optimizer are those of its GAN.",
        ),
    ),
)
