"""The address of any face: a seed, a point between seeds, or a latent, and moves from there toward others. Plain text.

    42                      the face of seed 42
    42,0.25,0.5             a point in the plane of seeds: a quarter of the way to seed 43, half of the way to seed 1042
    42~7:0.3                three tenths of the way from 42 to 7
    42~7:0.3~(8~9:0.5):0.2  and from there a fifth of the way to the middle of 8 and 9
    @AAAAPwAAgD8            a latent itself: its float32 numbers, little-endian, in URL-safe base64

Every way between two faces is the prior's own path. In the plane, seed s stands at (0, 0), s + 1 at (1, 0), s + 1000 at (0, 1),
modulo 2^53; inside a cell both coordinates are eased by t^2 (3 - 2t), so that a movement is smooth across the seeds.
`web/static/address.js` computes the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, prod

import numpy as np
import torch
from torch import Tensor

from mien.core.contracts import Prior
from mien.errors import UsageError
from mien.nn.priors import MAX_SEED

ROW = 1000  # seeds from one row of the plane to the next
STEPS = 10_000  # coordinates and shares are multiples of 1 / STEPS, so that text says them exactly
LONGEST = 400_000  # characters: a latent of 64x64x12 numbers, and room
MOST_MOVES = 256
DEEPEST = 8  # brackets inside brackets
NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
TOKEN = re.compile(rf"(\d{{1,16}})(?:,({NUMBER}),({NUMBER}))?|@([A-Za-z0-9_-]+)|(\()")
SHARE = re.compile(rf":({NUMBER})")


@dataclass(frozen=True)
class SeedPoint:
    """A point in the plane of seeds; `x` and `y` in [0, 1) lead toward the next seed and the next row."""

    seed: int
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class RawLatent:
    """A latent written out, such as that of a photograph."""

    content: bytes  # float32, little-endian


@dataclass(frozen=True)
class Move:
    """A share of the way toward another face."""

    target: Address
    share: float


@dataclass(frozen=True)
class Address:
    """Where a face is."""

    start: SeedPoint | RawLatent
    moves: tuple[Move, ...] = ()

    def __str__(self) -> str:
        return write(self)


def parse(text: str) -> Address:
    """The address that `text` writes. Raises UsageError for anything else."""
    if len(text) > LONGEST:
        raise _wrong(text, f"It has {len(text):,} characters; {LONGEST:,} are the most.")
    address, end = _read(text, 0, 0)
    if end != len(text):
        raise _wrong(text, f"It goes on after character {end}.")
    return address


def _read(text: str, at: int, depth: int) -> tuple[Address, int]:
    """An address from character `at` on, and where it ends."""
    if depth > DEEPEST:
        raise _wrong(text, f"Its brackets are more than {DEEPEST} deep.")
    start, at = _point(text, at, depth)
    moves = list(start.moves)
    while at < len(text) and text[at] == "~":
        target, at = _point(text, at + 1, depth)
        share = SHARE.match(text, at)
        if share is None:
            raise _wrong(text, "After ~ and a face stands : and the share of the way, such as ~7:0.5.")
        moves.append(Move(target, rounded(float(share[1]))))
        at = share.end()
        if len(moves) > MOST_MOVES:
            raise _wrong(text, f"It has more than {MOST_MOVES} moves.")
    return Address(start.start, tuple(moves)), at


def _point(text: str, at: int, depth: int) -> tuple[Address, int]:
    """A seed, a point between seeds, a latent, or an address in brackets."""
    found = TOKEN.match(text, at)
    if found is None:
        raise _wrong(text, f"At character {at} a seed, @ or ( is expected.")
    if found[5]:
        inner, end = _read(text, found.end(), depth + 1)
        if text[end : end + 1] != ")":
            raise _wrong(text, "A bracket is not closed.")
        return inner, end + 1
    if found[4]:
        try:
            content = base64.urlsafe_b64decode(found[4] + "=" * (-len(found[4]) % 4))
        except (binascii.Error, ValueError) as error:
            raise _wrong(text, f"The latent is not base64: {error}.") from error
        values = np.frombuffer(content, "<f4") if len(content) % 4 == 0 else np.full(1, np.nan)
        if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > 1e4:
            raise _wrong(text, "The latent is not of finite float32 numbers up to 10,000.")
        return Address(RawLatent(content)), found.end()
    if int(found[1]) > MAX_SEED:
        raise _wrong(text, f"Seeds are 0 to {MAX_SEED}.")
    return Address(seed_point(int(found[1]), float(found[2] or 0), float(found[3] or 0))), found.end()


def seed_point(seed: int, x: float, y: float) -> SeedPoint:
    """The canonical form of a point: its cell's first seed, and what is left in [0, 1)."""
    x, y = rounded(x), rounded(y)
    across, down = floor(x), floor(y)
    return SeedPoint((seed + across + ROW * down) % (MAX_SEED + 1), rounded(x - across), rounded(y - down))


def rounded(number: float) -> float:
    """The nearest number that an address can say."""
    return floor(number * STEPS + 0.5) / STEPS


def write(address: Address) -> str:
    """An address as text; `parse` reads it back."""

    def point(target: Address) -> str:
        return f"({write(target)})" if target.moves else write(target)

    return _start(address.start) + "".join(f"~{point(move.target)}:{move.share:g}" for move in address.moves)


def _start(start: SeedPoint | RawLatent) -> str:
    if isinstance(start, RawLatent):
        return "@" + base64.urlsafe_b64encode(start.content).decode().rstrip("=")
    return f"{start.seed},{start.x:g},{start.y:g}" if start.x or start.y else str(start.seed)


def address_of(z: Tensor) -> Address:
    """The address of a latent itself, `[*latent_shape]` or `[1, *latent_shape]`."""
    return Address(RawLatent(z.detach().flatten().cpu().numpy().astype("<f4").tobytes()))


Rows = Callable[[Sequence[int]], Tensor]
Path = Callable[[Tensor, Tensor, float], Tensor]


def resolve(address: Address, of_seeds: Rows, of_latent: Callable[[RawLatent], Tensor], path: Path) -> Tensor:
    """What stands at an address, `[1, ...]`: `of_seeds` gives a row a seed, `path` leads from one to another."""
    if isinstance(address.start, RawLatent):
        here = of_latent(address.start)
    else:
        seed, across, down = address.start.seed, eased(address.start.x), eased(address.start.y)
        corners = [(seed + step) % (MAX_SEED + 1) for step in (0, 1, ROW, ROW + 1)]
        needed = corners if across and down else corners[:2] if across else corners[0:3:2] if down else corners[:1]
        rows = of_seeds(needed)
        here = rows[:1]
        if across:
            here = path(here, rows[1:2], across)
        if down:
            below = path(rows[2:3], rows[3:4], across) if across else rows[1:2]
            here = path(here, below, down)
    for move in address.moves:
        here = path(here, resolve(move.target, of_seeds, of_latent, path), move.share)
    return here


def eased(t: float) -> float:
    """From 0 to 1 with no speed at either end."""
    return t * t * (3.0 - 2.0 * t)


def latent(address: Address, prior: Prior, shape: tuple[int, ...]) -> Tensor:
    """The latent at an address, `[1, *shape]`. Raises UsageError for one of another shape."""

    def own(start: RawLatent) -> Tensor:
        values = np.frombuffer(start.content, "<f4")
        if len(values) != prod(shape):
            raise UsageError(
                f"This latent has {len(values)} numbers.",
                f"The model's have {prod(shape)}.",
                "Open it with the model that it was made with.",
            )
        return torch.from_numpy(values.astype(np.float32)).reshape(1, *shape)

    return resolve(address, lambda seeds: prior.draw(seeds, shape), own, prior.path)


def _wrong(text: str, why: str) -> UsageError:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return UsageError(
        f"`{shown}` is not the address of a face.", why, "Write a seed such as 42, or copy one from the explorer."
    )
