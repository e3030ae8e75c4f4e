"""Faces on request: the best conditional picture known from the same small networks and game as `quick`."""

from __future__ import annotations

from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.recipes.relativistic import RelativisticConfig
from mien.run import Averaging, Run

PRESETS = (
    Run(
        preset="cgan",
        story="faces on request: quick's game with any labels of the pack, one or many, known or not",
        model=ResidualGeneratorConfig(latent=64, width=48, widest=160, blocks=1, fold=2, conditioning="norm"),
        recipe=RelativisticConfig(
            critic=ResidualCriticConfig(width=48, widest=160, blocks=1, fold=2, conditioning="projection")
        ),
        side=64,
        batch=32,
        conditional=True,
        average=Averaging(half_life=5_000, warmup=0.1),
        images=1_000_000,
        minutes=20.0,
        prepare=("mien data prepare celeba.zip six.pack --labels Eyeglasses,Male,Smiling,Bald,No_Beard,Blond_Hair",),
        notes=(
            "Labels join the latent and scale the features of every stage; the critic compares its features with them "
            "(projection, arXiv:1802.05637) beside judging the face. A fake is asked for with the labels of the real "
            "face that it is "
            "paired with (arXiv:2501.05441), so that no combination gives it away.",
            "Blocks and losses after R3GAN (arXiv:2501.05441), as in quick. A label that is not known says nothing to "
            "either player.",
        ),
    ),
)
