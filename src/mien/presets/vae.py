"""VAEs: the Simpsons VAE, that of the Torch blog, and our best."""

from __future__ import annotations

from mien.core.run import EMAConfig, Run
from mien.models.simpsons import SimpsonsConfig
from mien.models.torchvae import TorchVAEConfig
from mien.models.vae import VAEModelConfig
from mien.recipes.vae import VAEConfig

PRESETS = (
    Run(
        preset="vae-simpsons-2023",
        story="a large convolutional VAE that drew Simpsons, blurred by a large weight of its KL",
        model=SimpsonsConfig(latent=512, width=128),
        recipe=VAEConfig(
            likelihood="mean",
            kl="mean",
            kl_weight=1.7,
            free_nats=0.0,
            warmup_images=0,
            lr=8e-4,
            lr_end=8e-4,
            decay_images=0,
            beta1=0.9,
            beta2=0.999,
            clip=0.1,
        ),
        side=128,
        batch=64,
        flip=False,
        ema=None,
        seed=0,
        images=493_850,
        prepare=("mien data prepare cropped.zip simpsons.pack --size 128 --crop squash --resampler bicubic",),
        notes=(
            "Source: Leikrit/LMH_Summer_Programme@b962e54, VAE/VAE_Simpsons.ipynb: 50 epochs of 9,877 images; 139.5 M parameters.",
            "Data: faces whole, their aspect ignored, by Pillow's resize, whose default is bicubic with antialiasing; "
            "x / 127.5 - 1; no mirror images.",
            "Fault kept, --recipe.kl mean: the divergence is averaged over 512 dimensions, and 1.7 times that against a mean "
            "squared error over 49,152 values is a beta of about 82: the latent carries almost no information.",
            "Its blur comes from there, not from transposed convolutions, as its page says.",
            "Here a batch of one works, where the original's squeeze() failed, and a side under 128 px has fewer halvings.",
        ),
    ),
    Run(
        preset="vae-torch-2015",
        story='the VAE of "Generating Faces with Torch", whose decoder is its generator',
        model=TorchVAEConfig(latent=512, width=128, dropout=0.0, encoder_width=32, hidden=1024),
        recipe=VAEConfig(
            likelihood="unit",
            kl="sum",
            kl_weight=1.0,
            free_nats=0.0,
            warmup_images=0,
            lr=1e-3,
            lr_end=1e-3,
            decay_images=0,
            beta1=0.9,
            beta2=0.999,
            clip=None,
        ),
        side=64,
        batch=100,
        flip=False,
        ema=None,
        seed=1,
        images=1_300_000,
        prepare=(
            "mien data prepare lfw.zip torch-gan-2015.pack --size 64 --crop lfw-150 --resampler bicubic-no-antialias",
        ),
        notes=(
            "Data: that of the post's GAN (torch-gan-2015): LFW, 50 px off every side, bicubic without antialiasing, -1 to 1.",
            "Source: the post of 2015-11-13, which gives pixel-wise reconstruction, a KL term and the decoder, and no code.",
            "Our choices: Adam at 1e-3 and batch 100 from y0ast/VAE-Torch, which the post credits; its sums over pixels and "
            "dimensions, here divided by the number of pixel values; a Gaussian of unit variance; the discriminator's "
            "convolutions as the encoder; 100 epochs of LFW.",
        ),
    ),
    Run(
        preset="vae",
        story="our best VAE: a learned variance for every band of detail, and a learned prior",
        model=VAEModelConfig(
            latent=128, width=64, max_width=256, blocks=1, patch=2, full_res_width=16, couplings=8, coupling_width=256
        ),
        recipe=VAEConfig(
            lr_end=1e-4,
            decay_images=1_000_000,
            beta2=0.99,
            clip=1.0,
        ),
        side=64,
        batch=64,
        ema=EMAConfig(half_life=10_000, warmup=0.1),
        images=1_000_000,
        notes=(
            "The decoder's variance is the one that fits best (sigma-VAE, arXiv:2006.13202), separately for every band of the "
            "Haar transform: fine detail, whose errors are small, counts as much as coarse, whose errors are large.",
            "The variances fall with the errors, so the posterior does not collapse, and there is neither a beta to tune nor a "
            "warm-up.",
            "Informative codes are not distributed like N(0, I). A flow of affine couplings (arXiv:1605.08803, 1611.02731) is "
            "trained together with the VAE as its prior; --model.couplings 0 is the VAE without it.",
        ),
    ),
)
