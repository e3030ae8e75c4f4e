"""Faces on request: the best conditional picture known from the same small networks and game as `gan`."""

from __future__ import annotations

from dataclasses import replace

from mien.core.run import Run
from mien.presets.gan import AVERAGE, BY_RULE, CRITIC, GAME, GENERATOR

PRESETS = (
    Run(
        preset="cgan",
        story="faces on request: gan's game with any labels of the pack, one or many, known or not",
        model=replace(GENERATOR, conditioning="norm"),
        recipe=replace(GAME, critic=replace(CRITIC, conditioning="projection"), label_dropout=0.2),
        side=64,
        batch=16,
        conditional=True,
        average=replace(AVERAGE, half_life=1_000),
        by_rule=BY_RULE,
        images=1_000_000,
        minutes=20.0,
        prepare=("mien data prepare celeba.zip six.pack --labels Eyeglasses,Male,Smiling,Bald,No_Beard,Blond_Hair",),
        notes=(
            "Labels join the latent and scale the features of every stage; the critic compares its features with them "
            "(projection, arXiv:1802.05637) beside judging the face. A fake is asked for with the labels of the real "
            "face that it is "
            "paired with (arXiv:2501.05441), so that no combination gives it away.",
            "Blocks and losses after R3GAN (arXiv:2501.05441), as in gan. A label that is not known says nothing to "
            "either player.",
        ),
    ),
)
