"""homogan (A. Nieto et al., UPC 2020): sixteen experiments on label-conditional faces, each a change of one before it.

The order is that of the project's README. Where its code differs from its text, the code counts, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mien.core.run import Run, override
from mien.models.homogan import HomoganCriticConfig, HomoganGeneratorConfig
from mien.recipes.homogan import HomoGANConfig
from mien.recipes.relativistic_gan import RelativisticGANConfig

SOURCE = (
    "Source: albertnieto/homogan@739cdd0, README and code. First weights (Glorot uniform), Adam and the constants of batch "
    "normalisation are Keras's. Data: CelebA's 178x218 to 128x128 by nearest neighbours, aspect ignored; no mirror images."
)
UNIT = (
    "Fault kept: data in [0, 1] against a tanh (--recipe.critic-input unit, --model.output unit). Values below 0 are clipped "
    "when a face is drawn."
)
INTERVAL = (
    "Ratio G:D 1:{n} is train_g = {n} there: the generator moves once in {n} batches, where its description says {n} times a "
    "batch. --recipe.generator-schedule per-step is the description."
)
RATIO = INTERVAL.format(n=3)
HEIGHT = (
    "Fault kept, --recipe.spectral-norm kernel-height: after each critic step every kernel is divided by a norm of its five "
    "rows, not of the layer as a linear map. homogan-12-fixed has the paper's."
)
SMOOTH = {"recipe.smooth_real": 0.1, "recipe.smooth_fake": 0.1, "recipe.flip_targets": 0.05}
SYMMETRIC = {"recipe.critic_input": "symmetric", "model.output": "symmetric"}
MEN_AND_WOMEN = "--balance Male --limit 10000"
MALE = f"--labels Male {MEN_AND_WOMEN}"
BALD = "--where Male=1 --balance Bald"

FIRST = Run(
    preset="homogan-01",
    model=HomoganGeneratorConfig(
        latent=256,
        layout="mixed",
        width=128,
        first="dense",
        hidden=1024,
        batch_norm=True,
        slope=0.3,
        embedding=0,
        attention=False,
        output="symmetric",
    ),
    recipe=HomoGANConfig(
        critic=HomoganCriticConfig(
            layout="mixed",
            width=32,
            batch_norm=True,
            slope=0.3,
            block_dropout=0.3,
            dropout=0.0,
            embedding=0,
            attention=False,
        ),
        updates="simultaneous",
        critic_steps=1,
        critic_interval=1,
        generator_steps=1,
        generator_schedule="per-step",
        critic_pause_above=None,
        critic_input="standardised",
        fake_labels="data",
        smooth_real=0.0,
        smooth_fake=0.0,
        flip_targets=0.0,
        frozen_targets=False,
        generator_noise=0.0,
        critic_noise=0.0,
        spectral_norm="none",
        lr=1e-4,
        beta1=0.9,
        beta2=0.999,
    ),
    side=128,
    batch=16,
    flip=False,
    conditional=False,
    ema=None,
    seed=0,
    images=350_000,
    film="gif",
)

#: For homogan-15's networks, with dropout off: it would blur the difference of two logits.
RELATIVISTIC = RelativisticGANConfig(
    critic=HomoganCriticConfig(width=128, label_std=1.0),
    lr=4e-4,
    lr_end=2e-4,
    gamma=0.8,
    gamma_end=0.4,
    beta2=0.95,
    beta2_end=0.99,
    decay_images=60_000,
)


class Experiment(NamedTuple):
    """One row of the table: how a preset differs from the one that it changes."""

    preset: str  # without "homogan-"
    after: str  # the preset that it changes
    changes: Mapping[str, Any]  # fields of the run, its model and its recipe
    data: str  # flags of `mien data prepare`
    story: str
    change: str
    notes: tuple[str, ...] = ()
    pack: str = ""  # the preset after which the pack is named, if not this one


TABLE = (
    Experiment(
        "01", "", {}, "--limit 10000",
        "a DCGAN-like start",
        "the start: dense layers to 8x8, four doublings mixed by 1x1 convolutions, batch normalisation everywhere, dropout .3 in "
        "the critic; both networks move at once",
        ("Fault kept, --recipe.critic-input standardised: each real image has mean 0 and deviation 1, which leaves the range of "
         "the generator's tanh; its comment says [0, 1].",
         "35 epochs of 10,000 images."),
    ),
    Experiment(
        "02", "01", {"images": 250_000}, "--limit 10000",
        "the same in classes, watched in TensorBoard",
        "the code is rewritten in classes and logs to TensorBoard; the training stays the same",
        ("25 epochs of 10,000 images.",),
    ),
    Experiment(
        "03", "02",
        {"images": 340_000, "model.layout": "slim", "recipe.critic.layout": "slim", "recipe.critic.block_dropout": 0.5},
        "--limit 10000",
        "smaller networks, and accuracies in the log",
        "the generator loses its first two 1x1 convolutions, the critic its second block; dropout .5; accuracies are logged",
        ("34 epochs. Its script holds the rule of homogan-04 already: --recipe.critic-pause-above 4.",),
    ),
    Experiment(
        "04", "03", {"images": 200_000, "model.first": "convolution", "recipe.critic_pause_above": 4.0}, "--limit 10000",
        "convolutions instead of dense layers, and a critic that pauses",
        "the generator's dense layers become transposed convolutions, which are the same linear map with fewer scales behind it; "
        "the critic pauses while the generator's loss is 4 or more",
    ),
    Experiment(
        "05", "04", {"recipe.critic_pause_above": None}, "--limit 10000",
        "the critic pauses no more",
        "the critic's rule is removed",
    ),
    Experiment(
        "06", "05", {**SMOOTH, "recipe.frozen_targets": True}, "--limit 10000",
        "label smoothing and flipped labels for the critic",
        "the critic's targets are drawn from 0.9 to 1 and 0 to 0.1, and 5% of them are flipped",
        ("Fault kept, --recipe.frozen-targets: numpy inside a tf.function draws once, when it is traced, so smoothing and flips "
         "are the same in every batch. homogan-06-fixed draws anew.",),
    ),
    Experiment(
        "06-fixed", "06", {"recipe.frozen_targets": False, "recipe.critic_input": "symmetric"}, "--limit 10000",
        "homogan-06 with new targets for every batch and reals in the generator's range",
        "targets are drawn for every batch; the critic gets reals from -1 to 1",
        pack="06",
    ),
    Experiment(
        "07", "06",
        {
            "batch": 100, "images": 1_000_000,
            "model.layout": "plain", "model.first": "dense", "model.hidden": 0, "model.batch_norm": False, "model.slope": 0.2,
            "model.output": "unit",
            "recipe.critic.layout": "plain", "recipe.critic.width": 128, "recipe.critic.batch_norm": False,
            "recipe.critic.slope": 0.2, "recipe.critic.block_dropout": 0.0, "recipe.critic.dropout": 0.4,
            **dict.fromkeys(SMOOTH, 0.0), "recipe.frozen_targets": False,
            "recipe.updates": "split", "recipe.critic_input": "unit", "recipe.lr": 2e-4, "recipe.beta1": 0.5,
        },
        "--limit 10000",
        "another architecture, which the rest keeps",
        "one dense layer, four 4x4 doublings of 128 maps, a critic of five 5x5 convolutions with dropout .4 before the logit; no "
        "batch normalisation, no smoothing, no flips; Adam at 2e-4 with beta1 .5; the critic moves on reals, on fakes, then the "
        "generator on new latents; batches of 100",
        (UNIT, "100 epochs; the README says 200 later."),
    ),
    Experiment(
        "08", "07", {"batch": 200, "images": 2_200_000, **SMOOTH},
        "--where Male=1,Wearing_Hat=0,Eyeglasses=0,No_Beard=0 --limit 22000",
        "men alone, and label smoothing is back",
        "22,000 images of men, batches of 200; smoothing and 5% flips come back, now drawn for every batch",
        (UNIT, "The README says images of men; the code takes bearded men without hat and glasses (No_Beard=0). Folder Experiment9 "
         "there.", "100 epochs."),
    ),
    Experiment(
        "09", "08",
        {"batch": 100, "images": 1_000_000, "recipe.generator_steps": 3, "recipe.generator_schedule": "interval"},
        MEN_AND_WOMEN,
        "as many women as men, and a generator that moves in every third batch",
        "5,000 men and 5,000 women, batches of 100; G:D 1:3",
        (UNIT, RATIO, "100 epochs. Folder Experiment10 there."),
    ),
    Experiment(
        "10", "09",
        {"conditional": True, "model.embedding": 50, "recipe.critic.embedding": 50, "recipe.fake_labels": "uniform",
         "recipe.generator_steps": 1},
        MALE,
        "the first label: a man or a woman",
        "the label Male, through an embedding, is one more feature map of the generator and one more channel of the critic's "
        "images; G:D 1:1",
        (UNIT, "Fakes, for the critic too, have labels that are 0 or 1 at random (--recipe.fake-labels uniform).",
         "100 epochs. Several labels add their embeddings up; a label between 0 and 1 lies between its two; an unknown one in the "
         "middle."),
    ),
    Experiment(
        "11", "10", {"recipe.generator_steps": 3}, MALE,
        "one label with a stronger critic: the best of the single labels, its authors found",
        "G:D 1:3",
        (UNIT, RATIO, "100 epochs."),
    ),
    Experiment(
        "12", "11", {"recipe.spectral_norm": "kernel-height", "recipe.generator_steps": 1}, MALE,
        "spectral normalisation, over the wrong axis",
        "the critic's convolutions are divided by a spectral norm after each step; G:D 1:1",
        (UNIT, HEIGHT,
         "100 epochs. The authors saw steadier training and no white backgrounds, and less quality than homogan-11."),
    ),
    Experiment(
        "12-fixed", "12", {"recipe.spectral_norm": "layer", **SYMMETRIC}, MALE,
        "homogan-12 with the spectral norm of its paper and one range for reals and fakes",
        "spectral normalisation of every layer as a map from inputs to outputs (arXiv:1802.05957); images from -1 to 1",
        pack="12",
    ),
    Experiment(
        "13", "12", {"images": 2_200_000, "recipe.generator_steps": 3}, MALE,
        "the same with a generator that moves in every third batch",
        "G:D 1:3; 220 epochs",
        (UNIT, HEIGHT, RATIO),
    ),
    Experiment(
        "14", "13", {"images": 1_000_000, "recipe.generator_steps": 5}, MALE,
        "and in every fifth",
        "G:D 1:5; 100 epochs",
        (UNIT, HEIGHT, INTERVAL.format(n=5)),
    ),
    Experiment(
        "15", "11",
        {"batch": 50, "images": 909_100, "model.embedding": 0, "recipe.critic.embedding": 0, "model.first": "convolution"},
        f"--labels Eyeglasses,No_Beard,Bald {BALD}",
        "three labels at once: glasses, beard, bald; its authors' best",
        "three labels go to the feature map and the channel through one linear layer, without embedding; the first layer is a 1x1 "
        "transposed convolution; no spectral norm",
        (UNIT, RATIO,
         "Fault kept in its data: the label that its pages call beard is No_Beard, the opposite. homogan-15-fixed has "
         "Beard=!No_Beard.",
         "100 epochs of about 9,091 images, in batches of 50 (docs/Experiment15/src/main.py): all 4,547 bald ones, and "
         "1,136 men who are not for each combination of "
         "Eyeglasses and No_Beard. The command here takes bald men and as many who are not, with the other two as they come."),
    ),
    Experiment(
        "15-fixed", "15",
        {"batch": 16, "model.output": "symmetric", "model.batch_norm": True, "model.label_std": 1.0, "recipe": RELATIVISTIC},
        f"--labels Eyeglasses,Beard=!No_Beard,Bald {BALD}",
        "homogan-15 without its faults, and with a loss that draws many faces for one label",
        "images from -1 to 1, the generator's own range; the beard label means beard; batch normalisation in the generator; "
        "batches of 16 and G:D 1:1; R3GAN's loss with its gradient penalties in place of cross-entropy; no dropout in the critic; "
        "labels enter as -1 and 1, as large as a pixel",
        ("Batch normalisation is not in the original. With cross-entropy no face appeared without it: at the start, pixels differ "
         "between seeds by .007 (one grey level; standard deviation, values from -1 to 1), with it by .42. With R3GAN's loss faces "
         "appear without it too, softer (docs/gallery.md); --model.no-batch-norm is the original's network.",
         "With cross-entropy the generator answers each label with one face, whatever the latent, and so do DCGAN's networks in "
         "their place, which have many faces without labels. A relativistic loss with gradient penalties "
         "(arXiv:2501.05441) draws many. docs/gallery.md has the ablation; homogan-15 has the original's loss.",
         "Glorot's weights make the critic's label channel .04 at most at 64 px, where pixels reach 1: it hardly sees labels.",
         "Batches of 16 and G:D 1:1: 9 generator steps for one of homogan-15 from the same images."),
    ),
    Experiment(
        "16", "15", {"batch": 100, "recipe.generator_noise": 0.01, "recipe.critic_noise": 0.01},
        f"--labels Eyeglasses,No_Beard,Bald {BALD} --matte white",
        "backgrounds removed, noise between the layers",
        "images without background; noise of deviation .01 behind every LeakyReLU but the generator's first: four and five; "
        "batches of 100",
        (UNIT, RATIO,
         "Pictures of 100 epochs and no text, configuration or code for the backgrounds are published: white and this network "
         "(model_15_noisy) are our reading. Its file model_16 lacks an import and cannot run; model_14 is homogan-11 with noise "
         "of .5 in the generator.", "Fakes for the critic are made without noise, those for the generator's step with it."),
    ),
    Experiment(
        "attention", "12-fixed", {"model.attention": True, "recipe.critic.attention": True}, MALE,
        "what its authors proposed and never ran: self-attention with spectral normalisation",
        "both networks have self-attention over the features at a quarter of the side (arXiv:1805.08318)",
        ("To be compared with homogan-11 and homogan-12, as its authors meant to. The spectral norm is the critic's alone.",),
        pack="12",
    ),
)  # fmt: skip


def runs() -> tuple[Run, ...]:
    """The rows as runs, each made from the one that it changes."""
    made: dict[str, Run] = {}
    for row in TABLE:
        before = made.get(row.after, FIRST)
        pack = f"homogan-{row.pack or row.preset}.pack"
        made[row.preset] = replace(
            override(before, row.changes),
            preset=f"homogan-{row.preset}",
            after=before.preset if row.after else "",
            story=row.story,
            change=row.change,
            # Nearest neighbours, 178x218 to 128x128: faces are widened, as there.
            prepare=(f"mien data prepare celeba.zip {pack} --size 128 --crop squash --resampler nearest {row.data}",),
            notes=(SOURCE, *row.notes),
        )
    return tuple(made.values())


PRESETS = runs()
