"""Our best label-conditional GAN: the networks and the recipe of `gan`, with labels."""

from __future__ import annotations

from dataclasses import replace

from mien.core.run import Run
from mien.presets.gan import AVERAGE, BY_RULE, CRITIC, GENERATOR, RECIPE

PRESETS = (
    Run(
        preset="cgan",
        story="label-conditional faces: gan with any labels of the pack, one or many, known or not",
        model=replace(GENERATOR, conditioning="norm"),
        recipe=replace(
            RECIPE,
            critic=replace(CRITIC, conditioning="projection"),
            hold_norms=False,
            label_dropout=0.2,
            label_weight=0.5,
        ),
        side=64,
        batch=16,
        conditional=True,
        ema=replace(AVERAGE, half_life=1_000),
        by_rule=BY_RULE,
        images=1_000_000,
        minutes=20.0,
        prepare=("mien data prepare celeba.zip six.pack --labels Eyeglasses,Male,Smiling,Bald,No_Beard,Blond_Hair",),
        notes=(
            "Labels are embedded beside the latent and scale the features of every stage; the critic is a projection critic "
            "(arXiv:1802.05637). A fake has the labels of the real face that it is paired with (arXiv:2501.05441), so that the "
            "critic cannot recognise it by its labels.",
            "The critic is taught labels: a real face must be worth more with its own than with any of them turned into its "
            "opposite (--recipe.label-weight).",
            "Blocks, losses and optimizer are gan's. An unknown label has no effect on either network.",
        ),
    ),
)
