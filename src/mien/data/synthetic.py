"""The built-in data: drawn faces, every part chosen by a seed, every choice a label.

Parts are drawn by Pablo Stanley (avataaars) and come from the package python-avatars; resvg turns them into pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.data.source import Listing, Source

VERSION = 1  # of the way the faces are chosen: another number is another data set
COUNT = 8_000
SEED = 0

# the square around the head in the drawing's 264x280 units: the eyes always lie at (0.355, 0.545) and (0.645, 0.545)
VIEW = (42, 14, 180, 180)


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# names of parts in python-avatars; those that hide the eyes or keep a colour of their own are not among them
SHORT_HAIR = names(
    "BUZZCUT CAESAR CAESAR_SIDE_PART ELVIS FRIZZLE MOWGLI PIXIE POMPADOUR QUIFF SHAGGY SHAGGY_MULLET SHORT_CURLY"
) + names("SHORT_DREADS_1 SHORT_FLAT SHORT_ROUND SHORT_WAVED")
LONG_HAIR = names("BIG_HAIR BOB CURLY CURVY DREADS FRO LONG_NOT_TOO_LONG STRAIGHT_1 STRAIGHT_STRAND WILD")
TIED_HAIR = names("BUN")
CURLY_HAIR = names("BIG_HAIR CURLY CURVY DREADS FRO SHORT_CURLY SHORT_DREADS_1")
HATS = names("HAT TURBAN WINTER_HAT_1 WINTER_HAT_2 WINTER_HAT_3 WINTER_HAT_4")
BEARDS = names("BEARD_LIGHT BEARD_MAGESTIC BEARD_MEDIUM")
MUSTACHES = names("MOUSTACHE_FANCY MOUSTACHE_MAGNUM")
GLASSES = names("PRESCRIPTION_1 PRESCRIPTION_2 ROUND")
SUNGLASSES = names("SUNGLASSES WAYFARERS KURT")
SMILES = names("SMILE TWINKLE BIG_SMILE")
OPEN_MOUTHS = names("SMILE BIG_SMILE DEFAULT DISBELIEF")
NOSES = names("DEFAULT SMALL WIDE")
BROWS = names(
    "DEFAULT DEFAULT_NATURAL FLAT_NATURAL RAISED_EXCITED RAISED_EXCITED_NATURAL UP_DOWN UP_DOWN_NATURAL"
) + names("ANGRY_NATURAL SAD_CONCERNED_NATURAL")
MOUTHS = {
    "SMILE": 0.3,
    "TWINKLE": 0.25,
    "BIG_SMILE": 0.1,
    "DEFAULT": 0.1,
    "SERIOUS": 0.15,
    "SAD": 0.05,
    "DISBELIEF": 0.05,
}
EYES = {"DEFAULT": 0.62, "HAPPY": 0.1, "SIDE": 0.08, "SQUINT": 0.06, "SURPRISED": 0.07, "CLOSED": 0.04, "WINK": 0.03}
HAIR_COLOURS = {
    "Black_Hair": names("#2C1B18 #241C22"),
    "Brown_Hair": names("#4A312C #724133 #8B5A3C"),
    "Blond_Hair": names("#B58143 #D6B370 #ECDCBF"),
    "Red_Hair": names("#A55728 #C93305"),
    "Gray_Hair": names("#E8E1E1 #A9A4A6"),
}
HAIR_SHARES = {"Black_Hair": 0.3, "Brown_Hair": 0.3, "Blond_Hair": 0.2, "Red_Hair": 0.1, "Gray_Hair": 0.1}
SKINS = names("#FFDBB4 #F2C79B #EDB98A #D08B5B #AE6B3B #8A5433 #6B4530")  # light to dark
FABRICS = names(
    "#262E33 #65C9FF #5199E4 #25557C #929598 #3C4F5C #B1E2FF #A7FFC4 #FFAFB9 #FFFFB1 #FF488E #FF5C5C #FFFFFF"
)

LABEL_NAMES = (
    "Bald",
    "Beard",
    *sorted(HAIR_COLOURS),
    "Curly_Hair",
    "Eyeglasses",
    "Long_Hair",
    "Mouth_Slightly_Open",
    "Mustache",
    "Pale_Skin",
    "Smiling",
    "Sunglasses",
    "Wearing_Hat",
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Every choice that makes one drawn face: names of parts, and colours."""

    top: str
    hat: bool
    hair_label: str
    hair_colour: str
    hat_colour: str
    skin: str
    skin_tone: float  # 0 lightest to 1 darkest
    facial_hair: str
    accessory: str
    mouth: str
    eyes: str
    brows: str
    nose: str
    background: str

    @property
    def labels(self) -> tuple[float, ...]:
        """1 or 0 for each of LABEL_NAMES, of what is visible."""
        visible = {
            "Bald": self.top == "NONE",
            "Beard": self.facial_hair in BEARDS,
            "Curly_Hair": not self.hat and self.top in CURLY_HAIR,
            "Eyeglasses": self.accessory != "NONE",
            "Long_Hair": not self.hat and self.top in LONG_HAIR,
            "Mouth_Slightly_Open": self.mouth in OPEN_MOUTHS,
            "Mustache": self.facial_hair in MUSTACHES,
            "Pale_Skin": self.skin_tone < 0.12,
            "Smiling": self.mouth in SMILES,
            "Sunglasses": self.accessory in SUNGLASSES,
            "Wearing_Hat": self.hat,
            **{name: name == self.hair_label and not self.hat and self.top != "NONE" for name in HAIR_COLOURS},
        }
        return tuple(float(visible[name]) for name in LABEL_NAMES)


def choose(seed: int, index: int) -> Person:
    """The person at `index`: a pure function of (seed, index)."""
    generator = np.random.default_rng([seed, index])

    def chance(share: float) -> bool:
        return bool(generator.random() < share)

    def one_of(words: Any) -> str:
        if isinstance(words, dict):
            return str(generator.choice(list(words), p=list(words.values())))
        return str(words[generator.integers(len(words))])

    hat, bald, long = chance(0.12), chance(0.08), chance(0.48)
    top = one_of(HATS) if hat else "NONE" if bald else one_of(LONG_HAIR + TIED_HAIR if long else SHORT_HAIR)
    hair_label = one_of(HAIR_SHARES)
    bearded, moustached = chance(0.06 if long and not (hat or bald) else 0.4), chance(0.14)
    spectacled, shaded = chance(0.27), chance(0.25)
    tone = float(generator.random())
    return Person(
        top=top,
        hat=hat,
        hair_label=hair_label,
        hair_colour=one_of(HAIR_COLOURS[hair_label]),
        hat_colour=one_of(FABRICS),
        skin=blend(SKINS, tone),
        skin_tone=tone,
        facial_hair=one_of(BEARDS) if bearded else one_of(MUSTACHES) if moustached and not long else "NONE",
        accessory=one_of(SUNGLASSES if shaded else GLASSES) if spectacled else "NONE",
        mouth=one_of(MOUTHS),
        eyes=one_of(EYES),
        brows=one_of(BROWS),
        nose=one_of(NOSES),
        background=pastel(float(generator.random()), float(generator.random()), float(generator.random())),
    )


def blend(colours: tuple[str, ...], share: float) -> str:
    """The colour a share in [0, 1] of the way along a row of colours."""
    place = share * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    left, right = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in colours[first : first + 2])
    return "#{:02X}{:02X}{:02X}".format(*np.round(left + (right - left) * (place - first)).astype(int))


def pastel(hue: float, saturation: float, value: float) -> str:
    """A plain, quiet background, from three shares in [0, 1]."""
    rgb = colorsys.hsv_to_rgb(hue, 0.06 + 0.26 * saturation, 0.72 + 0.26 * value)
    return "#{:02X}{:02X}{:02X}".format(*(round(255 * channel) for channel in rgb))


def svg(person: Person, shirt: str | None = None) -> str:
    """The drawing of a person, framed on the head; a shirt lies below that frame, and its colour is for wider ones."""
    import python_avatars as parts  # only where faces are drawn

    drawing = parts.Avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=(parts.HatType if person.hat else parts.HairType)[person.top],
        hat_color=person.hat_colour,
        eyebrows=parts.EyebrowType[person.brows],
        eyes=parts.EyeType[person.eyes],
        nose=parts.NoseType[person.nose],
        mouth=parts.MouthType[person.mouth],
        facial_hair=parts.FacialHairType[person.facial_hair],
        skin_color=person.skin,
        hair_color=person.hair_colour,
        facial_hair_color=person.hair_colour,
        accessory=parts.AccessoryType[person.accessory],
        clothing=None if shirt is None else parts.ClothingType.SHIRT_CREW_NECK,
        clothing_color=shirt or FABRICS[0],
    ).render()
    head, _, body = drawing.partition(">")
    frame = " ".join(map(str, VIEW))
    head = head.replace('viewBox="0 0 264 280"', f'viewBox="{frame}"')
    head = head.replace('width="264px"', f'width="{VIEW[2]}px"').replace('height="280px"', f'height="{VIEW[3]}px"')
    assert frame in head, head
    return f"{head}>{body}"


class SyntheticFaces(Source):
    """`count` drawn faces at `side` pixels."""

    def __init__(self, side: int, count: int = COUNT, seed: int = SEED) -> None:
        self.side, self.count, self.seed = side, count, seed

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": "drawn", "side": self.side, "count": self.count, "seed": self.seed}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "drawn", "name": "drawn faces", "version": VERSION, "count": self.count, "seed": self.seed}

    def listing(self) -> Listing:
        labels = np.array([choose(self.seed, index).labels for index in range(self.count)], dtype=np.float32)
        return Listing(
            layout="drawn",
            names=[f"{index:06d}.png" for index in range(self.count)],
            label_names=LABEL_NAMES,
            labels=labels.reshape(self.count, len(LABEL_NAMES)),
            stamp=f"drawn-{VERSION}-{self.seed}-{self.count}",
        )

    def address(self, name: str) -> str:
        return name.removesuffix(".png")

    def read(self, address: str) -> bytes:
        import resvg_py  # only where faces are drawn

        person = choose(self.seed, int(address))
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=svg(person),
                width=self.side,
                height=self.side,
                background=person.background,
                skip_system_fonts=True,
            )
        )
