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
            lr_end=1e-5 / 64,
            decay_images=4_000_000,
            decay_power=0.75,
            epoch_images=16_000,
            lr_decay=1.0,
            alpha=0.9,
            beta1=0.5,
            beta2=0.999,
            eps=1e-8 / 64,
            weight_decay=2e-5 / 64,
        ),
        side=64,
        batch=64,
        flip=True,
        ema=None,
        seed=0,
        images=4_000_000,
        prepare=(
            "mien data prepare celeba.zip vaegan-2016.pack --size 64 --crop celeba-148 --resampler bicubic-no-antialias "
            "--blur 0.76 --holdout official --variants 600000",
        ),
        notes=(
            "Sources: arXiv:1512.09300, andersbll/autoencoding_beyond_pixels@24aa0f2 (celeba_aegan.py) and "
            "andersbll/deeppy@8cb658b: 250 epochs of 250 batches of 64.",
            "Rate: (0.025 - (e / 250)^0.75 (0.025 - 1e-5)) / 64 in epoch e, counted from 0; RMSprop does not mind the scale of a "
            "gradient. Losses are sums over the batch there and means here, so what is added to a gradient, 2e-5 times the "
            "weight, or to its root, 1e-8, is divided by 64. Biases, scales and the two heads of the encoder do not decay.",
            "First weights: uniform within 1 / sqrt(3 fan_in), DeepPy's AutoFiller; fan_in of a transposed convolution is "
            "outputs x kernel. Normalisation of maps has an eps of 1e-6, of single features DeepPy's default of 1e-5.",
            "Data: CelebA's training and validation parts, 178x218; columns 15 to 162 and rows 40 to 187; a Gaussian blur with a "
            "deviation of sqrt(148 / 64) / 2 = 0.76 px; bicubic to 64 px without antialiasing; x / 127.5 - 1. The "
            "pictures are taken in turn until there are 600,000, each shifted by N(0, 2 px), scaled and turned by N(0, 0.01), with "
            "changes of gamma, contrast (0.05) and hue (0.01).",
            "A whole batch is mirrored or not there; here each image is. Its order is that of the files, here it is shuffled.",
            "The sign trap: the paper prints L_GAN as a log-likelihood with update signs that only fit its negative; "
            "here, as in the authors' code, the decoder makes the critic fail.",
            "The authors' code differs from the paper: its encoder's linear layer has 1024 features (2048 in the table), and the "
            "critic is not shown copies (--recipe.reconstructions-as-fakes, in algorithm 1). The code stands here.",
            "Deviation: outside training DeepPy normalises by a running mean of 1 / deviation, torch by one of the variance.",
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
            lr_end=1e-6,
            decay_images=0,
            decay_power=1.0,
            epoch_images=13_056,
            lr_decay=0.99,
            alpha=0.9,
            beta1=0.5,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.0,
        ),
        side=64,
        batch=64,
        flip=False,
        ema=None,
        seed=1,
        images=1_305_600,
        prepare=(
            "mien data prepare lfw.zip torch-gan-2015.pack --size 64 --crop lfw-150 --resampler bicubic-no-antialias",
        ),
        notes=(
            "Source: the post of 2015-11-13, which publishes no code for it: prior, pixel and adversarial errors, the first two "
            "always minimised, the last balanced by the margin rule; copies and the originals go to the critic.",
            "The decoder's two errors are weighted there, and the weights are not published. Ours: 0.01 of the squared error "
            "summed over pixels: 3 nats at a mean squared error of 0.05, beside the adversary's 0.7.",
            "The margin is the post's: 0.3 to 0.7. Optimizer, rate (0.001 x 0.99^e from epoch 2 on), dropout without rescaling and "
            "data are those of its GAN (torch-gan-2015); its warm-up is not.",
        ),
    ),
)
