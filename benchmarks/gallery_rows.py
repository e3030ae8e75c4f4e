"""The rows of the gallery: each system that mien reproduces, its ablations, and `gan` beside them, and how each is trained here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system that mien reproduces, and how it is trained here."""

    name: str  # of its run and pictures
    preset: str
    title: str
    side: int = 32
    minutes: float = 5.0  # CPU time of its training
    flags: tuple[str, ...] = ()
    labels: str = ""  # of the pack, for a run that is told them
    drawn: bool = False  # on the built-in drawn faces, which FID of photographs does not judge
    of: str = ""  # the row that this one is an ablation of: it is shown there, and not in the table
    encodes: bool = False  # reconstructions and attribute vectors are shown too
    today: bool = False  # one of mien's own presets, shown for comparison
    beside: tuple[tuple[str, str, tuple[str, ...]], ...] = ()  # more pictures: suffix, caption, flags of `mien sample`


GENDER = "Male=gender_Male"
ATTRIBUTES = "Male=gender_Male,Older=age_50-59"
RECONSTRUCTED = 16  # photographs, as the first of the archive
SMALL_BEGAN = ("--model.width", "32", "--recipe.lr", "2e-4", "--recipe.carry-images", "40000")
SMALL_ZHAO = ("--model.width", "32", "--model.encoder-width", "32", "--batch", "16")
SMALL_HOMOGAN = ("--model.width", "64", "--recipe.critic.width", "64")
SYMMETRIC = ("--model.output", "symmetric", "--recipe.critic-input", "symmetric", "--batch", "16")
TAMED = (
    *("--model.batch-norm", "--recipe.generator-steps", "1"),
    *("--recipe.updates", "simultaneous", "--recipe.critic-pause-above", "1"),
)
ASKED = (
    "asked",
    "The same eight latents, asked for a woman (left) and a man (right)",
    ("--seeds", "0-7", "--combine", "Male"),
)
GAMMAS = ("began-2017-gamma-3", "began-2017", "began-2017-gamma-7")
LARGE = (
    ("64", "Seed 3 at 64 px", ("--seeds", "3", "--size", "64")),
    ("1080", "The same latent at 1,080 px", ("--seeds", "3", "--size", "1080")),
)
ROWS: tuple[Row, ...] = (
    Row(
        name="began-2017",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.5",
        minutes=5.0,
        flags=SMALL_BEGAN,
    ),
    Row(
        name="began-2017-gamma-3",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.3",
        minutes=5.0,
        flags=(*SMALL_BEGAN, "--recipe.gamma", "0.3"),
    ),
    Row(
        name="began-2017-gamma-7",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.7",
        minutes=5.0,
        flags=(*SMALL_BEGAN, "--recipe.gamma", "0.7"),
    ),
    Row(
        name="began-zhao-2020",
        preset="began-zhao-2020",
        title="sicongzhao's BEGAN (2020), with its faults",
        minutes=2.0,
        flags=SMALL_ZHAO,
    ),
    Row(
        name="began-zhao",
        preset="began-zhao",
        title="sicongzhao's BEGAN without its faults",
        minutes=4.0,
        flags=SMALL_ZHAO[:-2],
    ),
    Row(
        name="vae-torch-2015",
        preset="vae-torch-2015",
        title="VAE of the Torch blog (2015)",
        encodes=True,
        minutes=3.0,
        flags=("--model.width", "64", "--batch", "32"),
    ),
    Row(
        name="vae-simpsons-2023",
        preset="vae-simpsons-2023",
        title="Simpsons VAE (2023)",
        side=64,
        minutes=3.0,
        flags=("--model.width", "32", "--batch", "32"),
        drawn=True,
    ),
    Row(
        name="dcgan-2015",
        preset="dcgan-2015",
        title="DCGAN (2015)",
        minutes=4.0,
        flags=(
            "--batch",
            "16",
            "--random-crop",
            "1",
        ),  # the original's windows of 2/3 are cut from loosely cropped faces
    ),
    Row(
        name="torch-gan-2015",
        preset="torch-gan-2015",
        title="GAN of the Torch blog (2015)",
        minutes=10.0,
        flags=("--model.width", "64", "--batch", "16"),
    ),
    Row(
        name="homogan-15-fixed",
        preset="homogan-15-fixed",
        title="homogan's fifteenth experiment (2020), corrected",
        minutes=10.0,
        flags=SMALL_HOMOGAN,
        labels=GENDER,
        beside=(ASKED,),
    ),
    Row(
        name="homogan-15-fixed-64",
        preset="homogan-15-fixed",
        title="homogan's fifteenth experiment, corrected, at 64 px",
        side=64,
        minutes=17.0,
        flags=SMALL_HOMOGAN,
        labels=GENDER,
        beside=(ASKED,),
    ),
    Row(
        name="homogan-15-fixed-as-original",
        preset="homogan-15",
        title="homogan-15 itself, but for the range of its images and the size of its batches",
        of="homogan-15-fixed",
        minutes=1.5,
        flags=(*SMALL_HOMOGAN, *SYMMETRIC),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-cross-entropy",
        preset="homogan-15",
        title="cross-entropy, with batch normalisation, G:D 1:1, both at once, and a critic that pauses",
        of="homogan-15-fixed",
        minutes=16.0,
        flags=(*SMALL_HOMOGAN, *SYMMETRIC, *TAMED),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-no-norm",
        preset="homogan-15-fixed",
        title="as it is now, without batch normalisation",
        of="homogan-15-fixed",
        minutes=2.5,
        flags=(*SMALL_HOMOGAN, "--model.no-batch-norm"),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-small-labels",
        preset="homogan-15-fixed",
        title="as it is now, with Glorot's weights for the labels",
        of="homogan-15-fixed",
        minutes=2.5,
        flags=(*SMALL_HOMOGAN, "--model.label-std", "None", "--recipe.critic.label-std", "None"),
        labels=GENDER,
    ),
    Row(
        name="cppn-2016",
        preset="cppn-2016",
        title="CPPN-GAN-VAE, part one (2016)",
        minutes=6.0,
        flags=("--model.width", "64", "--batch", "16"),
        beside=LARGE,
    ),
    Row(
        name="cppn-residual-2016",
        preset="cppn-residual-2016",
        title="CPPN-GAN-VAE, part two (2016)",
        minutes=6.0,
        flags=("--batch", "16"),
        beside=LARGE,
    ),
    Row(
        name="cppn-residual-2016-fixed",
        preset="cppn-residual-2016-fixed",
        title="CPPN, part two, corrected",
        minutes=10.0,
        beside=LARGE,
    ),
    Row(
        name="cppn-residual-2016-own-game",
        preset="cppn-residual-2016",
        title="the original's game, with the corrected painter",
        of="cppn-residual-2016-fixed",
        minutes=5.0,
        flags=("--model.weights", "level", "--model.width", "32", "--model.layers", "12", "--batch", "16"),
    ),
    Row(
        name="cppn-residual-2016-fixed-weights",
        preset="cppn-residual-2016-fixed",
        title="the corrected preset with the original's first weights",
        of="cppn-residual-2016-fixed",
        minutes=2.5,
        flags=("--model.weights", "original"),
    ),
    Row(
        name="cppn-residual-2016-fixed-narrow",
        preset="cppn-residual-2016-fixed",
        title="the corrected preset with the original's 24 blocks of width 6",
        of="cppn-residual-2016-fixed",
        minutes=2.5,
        flags=("--model.width", "6", "--model.layers", "24"),
    ),
    Row(
        name="vaegan-torch-2015",
        preset="vaegan-torch-2015",
        title="VAE/GAN hybrid of the Torch blog (2015)",
        encodes=True,
        minutes=6.0,
        flags=("--model.width", "64", "--batch", "16"),
    ),
    Row(
        name="vaegan-2016",
        preset="vaegan-2016",
        title="VAE/GAN of Larsen et al. (2016)",
        encodes=True,
        minutes=12.0,
        flags=(
            *("--model.width", "32", "--recipe.critic.width", "16", "--batch", "32"),
            *("--recipe.lr", "1e-4"),  # for half the batch; above 1e-4 reimplementations saw it diverge
        ),
    ),
    Row(
        name="gan",
        preset="gan",
        title="mien's `gan`",
        minutes=6.0,
        today=True,
    ),
)
