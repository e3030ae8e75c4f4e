"""BEGAN: the paper's, and sicongzhao's with its options, with its faults and without."""

from __future__ import annotations

from mien.core.run import EMAConfig, Run
from mien.models.began import BEGANModelConfig
from mien.models.zhao import ZhaoConfig
from mien.recipes.began import BEGANConfig

PRESETS = (
    Run(
        preset="began-2017",
        story="the critic is an autoencoder, and proportional control balances it with the generator",
        model=BEGANModelConfig(
            layout="author",
            width=128,
            hidden=64,
            latent=64,
            depth=2,
            skips=True,
            deviation=0.01,
        ),
        recipe=BEGANConfig(
            gamma=0.5,
            k_step=1e-3,
            norm="l1",
            updates="simultaneous",
            latents="independent",
            k_from="generator",
            lr=1e-4,
            lr_floor=0.0,
            beta1=0.9,
            beta2=0.999,
            plateau_steps=10_000,
            plateau_tolerance=0.9999,
            plateau_factor=0.5,
            plateau_decays_by_gamma=False,
            plateau_whole_history=False,
            plateau_lazy_mark=False,
            carry_images=256_000,
        ),
        side=64,
        batch=16,
        flip=False,
        ema=None,
        seed=0,
        images=3_200_000,
        prepare=("mien data prepare celeba.zip began-2017.pack --size 64 --crop celeba-148",),
        notes=(
            "Data: 360,000 faces of celebrities that were not published, more varied in pose than CelebA and cropped more tightly. "
            "CelebA's inner square, with an antialiased Lanczos resampler and values from -1 to 1, is our reading.",
            "Source: arXiv:1703.10717. Batch 16, 16,000 steps of vanishing residuals and 200,000 steps in all; lambda_k 0.001.",
            "--model.layout author is that of the author's layer library: 17,268,038 parameters at 128 px, the paper's 17.3M. "
            "figure is Figure 1 to the letter: 25,527,366, or 24,347,718 without skips.",
            "The paper shows gamma 0.3, 0.5 and 0.7; 0.5 stands here.",
            "The paper halves the rate when M stalls and does not say how it detects that: here, when the mean of M over 10,000 "
            "steps is not below 0.9999 times that of the 10,000 before (after carpedm20's BEGAN-pytorch).",
            "Adam's betas are TensorFlow's defaults. The output is linear; pictures are clipped to [-1, 1].",
        ),
    ),
    Run(
        preset="began-zhao-2020",
        story="sicongzhao's BEGAN with the faults of its code",
        model=ZhaoConfig(
            latent=64,
            width=64,
            encoder_width=64,
            layers=2,
            growth="linear",
            upsampling="nearest",
            initialise="linear",
            mean=0.0,
            deviation=0.002,
        ),
        recipe=BEGANConfig(
            gamma=0.75,
            k_step=1e-3,
            norm="l1",
            updates="alternating",
            latents="shared",
            k_from="critic",
            lr=1e-4,
            lr_floor=0.0,
            beta1=0.5,
            beta2=0.999,
            plateau_steps=3000,
            plateau_tolerance=0.97,
            plateau_factor=0.5,
            plateau_decays_by_gamma=True,
            plateau_whole_history=True,
            plateau_lazy_mark=True,
            carry_images=0,
        ),
        side=32,
        batch=64,
        flip=False,
        ema=None,
        seed=0,
        images=202_599_000,
        prepare=("mien data prepare celeba.zip began-zhao-2020.pack --size 32 --crop resize-center",),
        notes=(
            "Data: torchvision's Resize(32), bilinear with Pillow's antialiasing, then CenterCrop(32); values from -1 to 1; no "
            "mirror images.",
            "Source: sicongzhao/Face-Generation-and-Interpolation-with-BEGAN, @79f0ed2, of 2020-09-10. 1000 epochs of CelebA.",
            "Fault kept, --recipe.plateau-decays-by-gamma: the rates fall by gamma, and the factor lr_gamma is never read.",
            "Fault kept, --recipe.plateau-whole-history and --recipe.plateau-lazy-mark: M is averaged over all steps since the "
            "first, and its reference changes only on a plateau.",
            "Fault kept, --model.initialise linear: N(0, 0.002) is meant for all layers and reaches the linear ones alone.",
            "The code's learning rate is 1e-4, its description says 2e-4: the code made the published pictures.",
            "The published pictures are of 128 px with --model.upsampling transposed (G.pth holds 916,291 parameters).",
        ),
    ),
    Run(
        preset="began-zhao",
        story="sicongzhao's BEGAN without its faults",
        model=ZhaoConfig(latent=64, width=64, encoder_width=64, layers=2, initialise="framework"),
        recipe=BEGANConfig(
            gamma=0.75,
            updates="alternating",
            latents="shared",
            k_from="critic",
            lr=1e-4,
            beta1=0.5,
            plateau_steps=3000,
            plateau_tolerance=0.97,
            plateau_factor=0.5,
        ),
        side=64,
        batch=16,
        ema=EMAConfig(half_life=10_000, warmup=0.1),
        images=3_000_000,
        notes=(
            "began-zhao-2020 with a decay factor of its own, M compared between windows of 3000 steps, torch's initial weights "
            "in all layers, mirrored images, and an average of the weights.",
        ),
    ),
)
