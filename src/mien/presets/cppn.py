"""hardmaru's CPPN-GAN-VAE, both parts, in colour."""

from __future__ import annotations

from dataclasses import replace

from mien.core.run import Run
from mien.models.cppn import CPPNConfig, CPPNCriticConfig
from mien.presets.gan import AVERAGE, CRITIC, RECIPE
from mien.recipes.cppn import CPPNClassGANConfig, CPPNVAEGANConfig

PRESETS = (
    Run(
        preset="cppn-2016",
        story="a face as a function of the place: the same latent at any size",
        model=CPPNConfig(
            latent=32, body="wide", width=128, layers=3, scale=8.0, hidden=512, dropout=0.0, deviation=0.1
        ),
        recipe=CPPNVAEGANConfig(
            critic=CPPNCriticConfig(width=24, classes=False),
            vae_steps=4,
            joint_steps=4,
            joint_stop_below=0.6,
            critic_moves_above=0.6,
            critic_moves_below=0.75,
            lr_vae=1e-3,
            lr_joint=5e-3,
            lr_critic=1e-3,
            beta1=0.65,
            beta2=0.999,
        ),
        side=32,
        batch=500,
        flip=False,
        ema=None,
        seed=0,
        images=7_000_000,
        prepare=("mien data prepare faces.zip cppn.pack --size 32",),
        notes=(
            'Sources: hardmaru/cppn-gan-vae-tensorflow@12de312 and "Generating Large Images from Latent Vectors" (2016-04-01): '
            "100 epochs of the 70,000 digits of MNIST, in grey: a painter of 54,273 parameters. Here it paints in colour.",
            "Data there: digits of 28x28 as values from 0 to 1, of which 26x26 are cut out at random. Here whole faces; "
            "encoder and critic read values from 0 to 1. Losses are divided by places, not by values, as n_points there.",
        ),
    ),
    Run(
        preset="cppn-residual-2016",
        story="24 residual blocks of width 6 that paint, and a critic that names what it sees",
        model=CPPNConfig(
            latent=32, body="residual", width=6, layers=24, scale=8.0, hidden=512, dropout=0.35, deviation=0.05
        ),
        recipe=CPPNClassGANConfig(
            critic=CPPNCriticConfig(width=32, classes=True),
            kl_weight=10.0,
            joint_steps=16,
            joint_stop_above=0.98,
            critic_repeats=8,
            critic_moves_above=0.6,
            fake_accuracy_below=0.7,
            fake_accuracy_enough=0.75,
            real_accuracy_below=0.6,
            real_accuracy_enough=0.7,
            lr_joint=1e-3,
            lr_critic=1e-3,
            beta1=0.75,
            beta2=0.999,
            clip=5.0,
        ),
        side=32,
        batch=1000,
        flip=False,
        ema=None,
        seed=0,
        images=210_000_000,
        prepare=("mien data prepare faces.zip cppn.pack --size 32",),
        notes=(
            "Source: hardmaru/resnet-cppn-gan-tensorflow@9206e06 (2016-06-02): 3000 epochs of MNIST, in grey, with ten digits as "
            "classes. In grey the painter has 5,263 parameters; here it paints in colour.",
            "Data there: as of cppn-2016. The critic has an Adam for reals and fakes and another for reals alone, and stops after "
            "the move before which it was good enough. The painter starts from N(0, 0.05), half of part one's.",
            "With --conditional the classes are the combinations of the pack's labels, ten labels at most, and an unknown label "
            "leaves its combinations open; without, there is one class, so that the critic tells real from fake.",
            "Copies are not compared with their originals in pixels: only their class and the price of information hold them.",
        ),
    ),
    Run(
        preset="cppn-residual-2016-fixed",
        story="part two with first weights that see the place, and R3GAN's loss: many faces, each at any size",
        after="cppn-residual-2016",
        change="first weights with which places are as loud as latents; 12 residual blocks of width 32; the critic and the loss "
        "of mien's `gan`; no encoder",
        model=CPPNConfig(
            latent=32, body="residual", width=32, layers=12, scale=8.0, deviation=0.05, weights="level", encoder=False
        ),
        recipe=replace(  # as its gallery row was trained
            RECIPE,
            critic=replace(CRITIC, overlap=True),
            optimizer="adam",
            hold_norms=False,
            lr=1e-3,
            lr_end=2e-4,
            decay_images=150_000,
        ),
        side=32,
        batch=16,
        ema=replace(AVERAGE, half_life=5_000),
        seed=0,
        images=300_000,
        prepare=("mien data prepare faces.zip cppn.pack --size 32",),
        notes=(
            "Why cppn-residual-2016 draws no face: at its first layer latents have a deviation of 2.3 and x reaches 0.4, so tanh "
            "is flat where the places are. With level weights and a width of 32 its own game draws a face, the same for every "
            "latent; with R3GAN's loss (arXiv:2501.05441) it draws many. A width of 6 draws none (docs/gallery.md, ablation).",
            "--model.weights original, and --model.width 6 --model.layers 24, are the original's painter.",
        ),
    ),
)
