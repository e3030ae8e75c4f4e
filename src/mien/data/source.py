"""A source: images by name, with the labels, identities and splits of each."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.data.pack import Labels

Landmarks = NDArray[
    np.float32
]  # [n, 5, 2]: left eye, right eye (in the image), nose, corners of the mouth; shares of the width and height


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a source, in the order of their names, and what its layout says of them."""

    layout: str  # such as `celeba`
    names: Sequence[str]
    label_names: tuple[str, ...] = ()
    labels: Labels | None = None  # [n, len(label_names)], in [0, 1]; NaN = not known
    scales: Mapping[str, tuple[float, float]] = field(
        default_factory=dict
    )  # what 0 and 1 of a label mean, such as years
    groups: Sequence[str] | None = None  # an identity for each image
    splits: Sequence[str] | None = None  # the layout's own partition: train, val, test
    landmarks: Landmarks | None = None  # where the faces are, if the source says so
    landmarks_of: tuple[int, int] = (
        0,
        0,
    )  # width and height of the pictures they were measured in, or of scaled copies
    crop: str = "center"  # the layout's own
    side: int | None = None  # pixels, when the source has one side only: a pack
    other_files: Mapping[str, int] = field(default_factory=dict)  # files left aside, by suffix
    remarks: Sequence[str] = ()  # what does not fit together, in sentences
    stamp: str = ""  # changes when the files do; never depends on their folder

    def take(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Listing:
        """The listing of some of its rows."""
        return replace(
            self,
            names=[self.names[row] for row in rows],
            labels=None if self.labels is None else self.labels[rows],
            landmarks=None if self.landmarks is None else self.landmarks[rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            splits=None if self.splits is None else [self.splits[row] for row in rows],
        )


class Source(ABC):
    """Where images come from. A worker process opens it again from its specification."""

    @property
    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """What `open_source` needs, as JSON: `kind` and its arguments."""

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a pack says of its source: no path of this machine."""

    @abstractmethod
    def listing(self) -> Listing:
        """Every image's name and what is known of it."""

    @abstractmethod
    def address(self, name: str) -> str:
        """What `read` takes for an image: where it lies, for a worker that has listed nothing."""

    @abstractmethod
    def read(self, address: str) -> bytes:
        """The bytes of one image file. Raises UnreadableFile."""


def stamp_of(parts: Sequence[object]) -> str:
    """A short name for a list of names, sizes and times."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()[:16]
