"""homogan (A. Nieto et al., UPC 2020): sixteen experiments on the way to faces with given features, each a change of one before it.

Their order is the story that the project's README tells; where its code says otherwise, the notes say so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mien.core.run import Run, override
from mien.models.homogan import HomoganCriticConfig, HomoganGeneratorConfig
from mien.recipes.adversarial import AdversarialConfig

SOURCE = (
    "Source: albertnieto/homogan, README and code. Weights as Keras draws them (Glorot uniform), its constants of batch "
    "normalisation; Adam adds 1e-8 here, 1e-7 there."
)
SQUASHED = "--size 128 --crop squash --resampler nearest"  # nearest neighbours, 178x218 to 128x128: faces are widened


def data(preset: str, flags: str) -> tuple[str, ...]:
    """The command that prepares what a preset learned from."""
    return (f"mien data prepare celeba.zip {preset}.pack {SQUASHED} {flags}",)


FIRST = Run(
    preset="homogan-01",
    story="a DCGAN-like start, and whatever it draws",
    change="the start: dense layers to 8x8, four doublings mixed by 1x1 convolutions, batch normalisation everywhere, dropout "
    ".3 in the critic; both players move at once",
    prepare=data("homogan-01", "--limit 10000"),
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
    recipe=AdversarialConfig(
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
        balance="none",
        margin=(0.3, 0.7),
        l2_target=(0.9, 1.2),
        l2_step=1e-5,
        l1=0.0,
        l2=0.0,
        critic_rests_above=None,
        critic_scale=0.5,
        critic_steps=1,
        generator_steps=1,
        generator_rhythm="times",
        generator_ratio=1,
        fresh_latents=False,
        joint=False,
        shown="standardised",
        fake_labels="data",
        smooth_real=0.0,
        smooth_fake=0.0,
        flip_targets=0.0,
        frozen_targets=False,
        generator_noise=0.0,
        critic_noise=0.0,
        spectral="none",
        optimizer="adam",
        lr=1e-4,
        beta1=0.9,
        beta2=0.999,
        alpha=0.9,
        lr_decay=1.0,
        lr_decay_images=13_000,
        lr_floor=1e-6,
        warmup_calls=(),
        warmup_divisors=(),
    ),
    side=128,
    batch=16,
    flip=False,
    conditional=False,
    average=None,
    seed=0,
    images=350_000,
    notes=(
        SOURCE,
        "Fault kept, --recipe.shown standardised: each real image has mean 0 and deviation 1, which leaves the range of the "
        "generator's tanh; its comment says [0, 1].",
        "35 epochs of 10,000 images.",
    ),
)


def then(before: Run, preset: str, story: str, change: str, notes: tuple[str, ...] = (), **fields: Any) -> Run:
    """The run that comes after `before`: `fields` of the run, and knobs in a mapping."""
    knobs = fields.pop("knobs", {})
    named = replace(before, preset=preset, story=story, after=before.preset, change=change, **fields)
    return replace(override(named, knobs), notes=(SOURCE, *notes))


UNIT = (
    "Fault kept: data in [0, 1] against a tanh (--recipe.shown unit, --model.output unit). What is darker than 0 is clipped "
    "when it is drawn."
)
RATIO = (
    "Ratio G:D 1:3 is train_g = 3 there: the generator moves in every third batch, where its description says three times a "
    "batch. --recipe.generator-rhythm times is the description."
)
SOFT = {"recipe.smooth_real": 0.1, "recipe.smooth_fake": 0.1, "recipe.flip_targets": 0.05}
HARD = dict.fromkeys(SOFT, 0.0)

SECOND = then(
    FIRST,
    "homogan-02",
    "the same in classes, watched in TensorBoard",
    "the code is rewritten in classes and logs to TensorBoard; what is learned stays",
    ("25 epochs of 10,000 images.",),
    images=250_000,
    prepare=data("homogan-02", "--limit 10000"),
)
THIRD = then(
    SECOND,
    "homogan-03",
    "smaller players, and accuracies to watch them by",
    "the generator loses its first two 1x1 convolutions, the critic its second block; dropout .5; accuracies are logged",
    ("34 epochs. Its script holds the rule of homogan-04 already: --recipe.critic-rests-above 4.",),
    images=340_000,
    prepare=data("homogan-03", "--limit 10000"),
    knobs={"model.layout": "slim", "recipe.critic.layout": "slim", "recipe.critic.block_dropout": 0.5},
)
FOURTH = then(
    THIRD,
    "homogan-04",
    "convolutions instead of dense layers, and a critic that waits",
    "the generator's dense layers become transposed convolutions, which are the same linear map with fewer scales behind it; "
    "the critic rests while the generator's loss is 4 or more",
    images=200_000,
    prepare=data("homogan-04", "--limit 10000"),
    knobs={"model.first": "convolution", "recipe.critic_rests_above": 4.0},
)
FIFTH = then(
    FOURTH,
    "homogan-05",
    "the critic waits no more",
    "the critic's rule is taken back",
    images=200_000,
    prepare=data("homogan-05", "--limit 10000"),
    knobs={"recipe.critic_rests_above": None},
)
SIXTH = then(
    FIFTH,
    "homogan-06",
    "softened and sometimes wrong targets for the critic",
    "the critic's targets are drawn from 0.9 to 1 and 0 to 0.1, and 5% of them are flipped",
    (
        "Fault kept, --recipe.frozen-targets: numpy inside a tf.function draws once, when it is traced, so smoothing and "
        "flips are the same in every batch. homogan-06-fixed draws anew.",
    ),
    images=200_000,
    prepare=data("homogan-06", "--limit 10000"),
    knobs={**SOFT, "recipe.frozen_targets": True},
)
SIXTH_FIXED = then(
    SIXTH,
    "homogan-06-fixed",
    "homogan-06 with targets drawn anew and reals in the generator's range",
    "targets are drawn for every batch; reals are shown from -1 to 1",
    prepare=data("homogan-06", "--limit 10000"),
    knobs={"recipe.frozen_targets": False, "recipe.shown": "symmetric"},
)
SEVENTH = then(
    SIXTH,
    "homogan-07",
    "another architecture, the one that stays",
    "one dense layer, four 4x4 doublings of 128 maps, a critic of five 5x5 convolutions with dropout .4 before the logit; no "
    "batch normalisation, no smoothing, no flips; Adam at 2e-4 with beta1 .5; the critic moves on reals, on fakes, then the "
    "generator on fresh latents; batches of 100",
    (UNIT, "100 epochs; the README says 200 later."),
    batch=100,
    images=1_000_000,
    prepare=data("homogan-07", "--limit 10000"),
    knobs={
        **HARD,
        "model.layout": "plain",
        "model.first": "dense",
        "model.hidden": 0,
        "model.batch_norm": False,
        "model.slope": 0.2,
        "model.output": "unit",
        "recipe.critic": HomoganCriticConfig(
            layout="plain",
            width=128,
            batch_norm=False,
            slope=0.2,
            block_dropout=0.0,
            dropout=0.4,
            embedding=0,
            attention=False,
        ),
        "recipe.updates": "split",
        "recipe.critic_scale": 1.0,
        "recipe.fresh_latents": True,
        "recipe.shown": "unit",
        "recipe.frozen_targets": False,
        "recipe.lr": 2e-4,
        "recipe.beta1": 0.5,
    },
)
EIGHTH = then(
    SEVENTH,
    "homogan-08",
    "men alone, and the softened targets are back",
    "22,000 images of men, batches of 200; smoothing and 5% flips come back, now drawn for every batch",
    (
        UNIT,
        "The README says images of men; the code takes bearded men without hat and glasses (No_Beard=0). Folder Experiment9 there.",
        "100 epochs.",
    ),
    batch=200,
    images=2_200_000,
    prepare=data("homogan-08", "--where Male=1,Wearing_Hat=0,Eyeglasses=0,No_Beard=0 --limit 22000"),
    knobs=SOFT,
)
NINTH = then(
    EIGHTH,
    "homogan-09",
    "as many women as men, and a generator that moves in every third batch",
    "5,000 men and 5,000 women, batches of 100; G:D 1:3",
    (UNIT, RATIO, "100 epochs. Folder Experiment10 there."),
    batch=100,
    images=1_000_000,
    prepare=data("homogan-09", "--balance Male --limit 10000"),
    knobs={"recipe.generator_steps": 3, "recipe.generator_rhythm": "every"},
)
TENTH = then(
    NINTH,
    "homogan-10",
    "the first wish: a man or a woman",
    "the label Male, through an embedding, is one more feature map of the generator and one more channel of the critic's "
    "images; G:D 1:1",
    (
        UNIT,
        "Fakes are made and judged with labels that are yes or no at random (--recipe.fake-labels uniform).",
        "100 epochs. Several labels add their embeddings up; a label between 0 and 1 lies between its two; an unknown one in "
        "the middle.",
    ),
    conditional=True,
    prepare=data("homogan-10", "--labels Male --balance Male --limit 10000"),
    knobs={
        "model.embedding": 50,
        "recipe.critic.embedding": 50,
        "recipe.fake_labels": "uniform",
        "recipe.generator_steps": 1,
    },
)
ELEVENTH = then(
    TENTH,
    "homogan-11",
    "the wish with a stronger critic: the best of the single wishes, its authors found",
    "G:D 1:3",
    (UNIT, RATIO, "100 epochs."),
    prepare=data("homogan-11", "--labels Male --balance Male --limit 10000"),
    knobs={"recipe.generator_steps": 3},
)
AXIS = (
    "Fault kept, --recipe.spectral height: after each move every kernel is divided by a norm of its five rows, not of the map "
    "that the layer is. homogan-12-fixed has the paper's."
)
TWELFTH = then(
    ELEVENTH,
    "homogan-12",
    "spectral normalisation, or what was meant to be it",
    "the critic's convolutions are divided by a spectral norm after each move; G:D 1:1",
    (
        UNIT,
        AXIS,
        "100 epochs. The authors saw steadier training and no white backgrounds, and less quality than homogan-11.",
    ),
    prepare=data("homogan-12", "--labels Male --balance Male --limit 10000"),
    knobs={"recipe.spectral": "height", "recipe.generator_steps": 1},
)
TWELFTH_FIXED = then(
    TWELFTH,
    "homogan-12-fixed",
    "homogan-12 with the spectral norm of its paper and one range for reals and fakes",
    "spectral normalisation of every layer as a map from inputs to outputs (arXiv:1802.05957); images from -1 to 1",
    prepare=data("homogan-12", "--labels Male --balance Male --limit 10000"),
    knobs={"recipe.spectral": "outputs", "recipe.shown": "symmetric", "model.output": "symmetric"},
)
ATTENTION = then(
    TWELFTH_FIXED,
    "homogan-attention",
    "what its authors proposed and never ran: self-attention with spectral normalisation",
    "both players attend to all places of the features at a quarter of the side (arXiv:1805.08318)",
    (
        "To be compared with homogan-11 and homogan-12, as its authors meant to. The spectral norm is the critic's alone.",
    ),
    prepare=data("homogan-12", "--labels Male --balance Male --limit 10000"),
    knobs={"model.attention": True, "recipe.critic.attention": True},
)
THIRTEENTH = then(
    TWELFTH,
    "homogan-13",
    "the same with a generator that moves in every third batch",
    "G:D 1:3; 220 epochs",
    (UNIT, AXIS, RATIO),
    images=2_200_000,
    prepare=data("homogan-13", "--labels Male --balance Male --limit 10000"),
    knobs={"recipe.generator_steps": 3},
)
FOURTEENTH = then(
    THIRTEENTH,
    "homogan-14",
    "and in every fifth",
    "G:D 1:5; 100 epochs",
    (UNIT, AXIS, RATIO.replace("1:3", "1:5").replace("= 3", "= 5").replace("third", "fifth").replace("three", "five")),
    images=1_000_000,
    prepare=data("homogan-14", "--labels Male --balance Male --limit 10000"),
    knobs={"recipe.generator_steps": 5},
)
BALD = "--where Male=1 --balance Bald"
FIFTEENTH = then(
    ELEVENTH,
    "homogan-15",
    "three wishes at once: glasses, beard, bald; its authors' best",
    "three labels go to the feature map and the channel through one linear layer, without embedding; the first layer is a 1x1 "
    "transposed convolution; no spectral norm",
    (
        UNIT,
        RATIO,
        "Fault kept in its data: the label that its pages call beard is No_Beard, the opposite. homogan-15-fixed has "
        "Beard=!No_Beard.",
        "100 epochs of about 9,091 images (its code: 50): all 4,547 bald ones, and 1,136 men who are not for each combination "
        "of Eyeglasses and No_Beard. The command here takes bald men and as many who are not, with the other two as they come.",
    ),
    images=909_100,
    prepare=data("homogan-15", f"--labels Eyeglasses,No_Beard,Bald {BALD}"),
    knobs={"model.embedding": 0, "recipe.critic.embedding": 0, "model.first": "convolution"},
)
FIFTEENTH_FIXED = then(
    FIFTEENTH,
    "homogan-15-fixed",
    "homogan-15 without its faults",
    "images from -1 to 1, the generator's own range; the beard label means beard; three moves of the critic for one of the "
    "generator, and called so",
    ("Critic 3, generator 1 is what homogan-15 does in three batches; --recipe.critic-steps says it as it is.",),
    prepare=data("homogan-15-fixed", f"--labels Eyeglasses,Beard=!No_Beard,Bald {BALD}"),
    knobs={
        "recipe.shown": "symmetric",
        "model.output": "symmetric",
        "recipe.critic_steps": 3,
        "recipe.generator_steps": 1,
        "recipe.generator_rhythm": "times",
    },
)
SIXTEENTH = then(
    FIFTEENTH,
    "homogan-16",
    "backgrounds taken away, noise between the layers",
    "images without background; noise of deviation .01 behind every LeakyReLU of both players",
    (
        UNIT,
        RATIO,
        "Pictures of 100 epochs and no text, configuration or code for the backgrounds are published: white and this network "
        "(model_15_noisy) are our reading. Its file model_16 lacks an import and cannot run; a variant has noise of .5 in the "
        "generator.",
        "Here fakes for the critic are made with the noise, there by `predict`, without.",
    ),
    prepare=data("homogan-16", f"--labels Eyeglasses,No_Beard,Bald {BALD} --matte white"),
    knobs={"recipe.generator_noise": 0.01, "recipe.critic_noise": 0.01},
)

PRESETS = (
    FIRST,
    SECOND,
    THIRD,
    FOURTH,
    FIFTH,
    SIXTH,
    SIXTH_FIXED,
    SEVENTH,
    EIGHTH,
    NINTH,
    TENTH,
    ELEVENTH,
    TWELFTH,
    TWELFTH_FIXED,
    THIRTEENTH,
    FOURTEENTH,
    FIFTEENTH,
    FIFTEENTH_FIXED,
    SIXTEENTH,
    ATTENTION,
)
