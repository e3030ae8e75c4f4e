"""The images to evaluate: of a pack, of any folder, or sampled from a model, read in blocks as uint8."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mien.data.archives import Container, Folder, ZipContainer, images_in
from mien.data.decode import decode
from mien.data.pack import Pack, is_pack
from mien.data.readers import UnreadableFile
from mien.errors import DataError, Mismatch

Pixels = npt.NDArray[np.uint8]  # [n, H, W, 3]
CACHE_BYTES = 1 << 30  # of samples in a temporary file between two metrics
T = TypeVar("T")


class Images(ABC):
    """Images of one size that can be read by row."""

    name: str  # a name for readers
    split: str  # for the score's name: train, holdout, all, folder, or samples
    count: int
    size: tuple[int, int]  # height, width

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A fingerprint of the content, for the feature cache; empty if features must not be cached."""

    @abstractmethod
    def read(self, rows: slice) -> Pixels:
        """The images of some rows, `[n, H, W, 3]`."""

    def name_of(self, row: int) -> str:
        """What one image is called."""
        return f"image {row}"


class PackImages(Images):
    """A split of a pack; of a large one, `most` images evenly spread over it."""

    def __init__(self, pack: Pack, split: str = "train", most: int = 50_000) -> None:
        self.pack, self.split = pack, split
        rows = pack.rows(split)
        self.rows = rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]
        self.name, self.count, self.size = str(pack.path), len(self.rows), (pack.side, pack.side)

    @property
    def fingerprint(self) -> str:
        return f"{self.pack.fingerprint}/{self.split}/{self.count}"

    def read(self, rows: slice) -> Pixels:
        return np.asarray(self.pack.images[self.rows[rows]])

    def name_of(self, row: int) -> str:
        return self.pack.source_of(int(self.rows[row]))


class FolderImages(Images):
    """Every image of a folder or ZIP, in the order of their names."""

    split = "folder"

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DataError(f"There is no {path}.", "The path does not exist.", "Check the spelling.")
        if not path.is_dir() and not path.is_file():
            raise DataError(
                f"{path} is neither a file nor a folder.", "It cannot hold images.", "Give a folder or a ZIP."
            )
        self.name = str(path)
        self.container: Container = Folder(path) if path.is_dir() else ZipContainer(path)
        try:
            self.members = images_in(self.container, self.container.members())[0]
        except UnreadableFile as error:
            raise DataError(f"{path} cannot be read.", str(error), "Name a folder or a ZIP of images.") from error
        self.count = len(self.members)
        if not self.count:
            raise DataError(f"{path} holds no images.", "It has no file named like an image.", "Name another folder.")
        self.size = self.one(0).shape[:2]

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for member in self.members:
            with self.refused(member.name):
                content = self.container.read(member.name)
            digest.update(member.name.encode() + b"\0" + hashlib.sha256(content).digest())
        return digest.hexdigest()

    def name_of(self, row: int) -> str:
        return self.members[row].name

    def one(self, row: int) -> Pixels:
        name = self.members[row].name
        with self.refused(name):
            return np.asarray(decode(self.container.read(name)).image)

    @contextlib.contextmanager
    def refused(self, name: str) -> Iterator[None]:
        """Says which file cannot be read."""
        try:
            yield
        except UnreadableFile as error:
            why = f"{name} is {error}" if str(error).startswith("not an image") else f"{name}: {error}"
            raise DataError(
                f"{self.name} holds a file that is refused.", f"{why}.", "Remove it, and run again."
            ) from error

    def read(self, rows: slice) -> Pixels:
        images = []
        for row in range(*rows.indices(self.count)):
            image = self.one(row)
            if image.shape[:2] != self.size:
                height, width = image.shape[:2]
                raise Mismatch(
                    f"{self.name} holds images of more than one size.",
                    f"{self.members[row].name} is {width}x{height}, the first is {self.size[1]}x{self.size[0]}.",
                    "Resizing is part of a score: `mien data prepare` makes one size of them, and names how.",
                )
            images.append(image)
        return np.stack(images)


class Samplable(Protocol):
    """The part of the Sampler that metrics use."""

    @property
    def header(self) -> dict[str, Any]: ...

    @property
    def model_hash(self) -> str: ...

    def sample(self, seeds: Sequence[int]) -> Tensor: ...


class SampledImages(Images):
    """The faces of seeds 0 to count - 1."""

    split = "samples"

    def __init__(self, sampler: Samplable, count: int, name: str = "model") -> None:
        self.sampler, self.count, self.name = sampler, count, name
        side = int(sampler.header["faces"]["side"])
        self.size = (side, side)

    @property
    def fingerprint(self) -> str:
        return ""  # samples of a model are rarely evaluated twice

    def read(self, rows: slice) -> Pixels:
        start, stop, _ = rows.indices(self.count)
        return to_pixels(self.sampler.sample(range(start, stop)), start)


def to_pixels(images: Tensor, first_seed: int = 0) -> Pixels:
    """`[n, C, H, W]` in [-1, 1] -> uint8 `[n, H, W, 3]`, rounded to nearest. Raises DataError for what is not a
    number.
    """
    finite = images.flatten(1).isfinite().all(1)
    if not finite.all():
        seed = first_seed + int((~finite).nonzero()[0])
        raise DataError(
            f"The model's face of seed {seed} is not made of numbers.",
            "Its pixels hold NaN or infinity: the weights have diverged, or the file is damaged.",
            "Judge an earlier checkpoint of the run.",
        )
    whole = ((images.clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte()
    return np.ascontiguousarray(whole.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


class FirstImages(Images):
    """The first images of others."""

    def __init__(self, images: Images, count: int) -> None:
        self.images, self.count = images, min(count, images.count)
        self.name, self.split, self.size = images.name, images.split, images.size

    @property
    def fingerprint(self) -> str:
        return f"{self.images.fingerprint}/first {self.count}" if self.images.fingerprint else ""

    def name_of(self, row: int) -> str:
        return self.images.name_of(row)

    def read(self, rows: slice) -> Pixels:
        return self.images.read(slice(*rows.indices(self.count)))


class CachedImages(Images):
    """Images that stay in a temporary file after the first read, if they fit, because sampling is expensive."""

    def __init__(self, images: Images) -> None:
        self.images, self.count = images, images.count
        self.name, self.split, self.size = images.name, images.split, images.size
        self.stored = np.zeros(images.count, np.bool_)
        self.shape = (*self.size, 3)
        self.bytes = math.prod(self.shape)  # of an image
        try:
            self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        except OSError:  # no place for temporary files
            self.file = io.BytesIO()
        weakref.finalize(self, self.file.close)

    @property
    def fingerprint(self) -> str:
        return self.images.fingerprint

    def read(self, rows: slice) -> Pixels:
        start, stop, _ = rows.indices(self.count)
        self.file.seek(start * self.bytes)
        if self.stored[start:stop].all():
            known = self.file.read((stop - start) * self.bytes)
            return np.frombuffer(bytearray(known), np.uint8).reshape(stop - start, *self.shape)
        block = self.images.read(rows)
        if stop * self.bytes <= CACHE_BYTES:
            with contextlib.suppress(OSError):  # a full disk: they are read again
                self.file.write(block.tobytes())
                self.file.flush()
                self.stored[start:stop] = True
        return block


def open_images(path: Path, split: str = "all") -> Images:
    """A pack's split, or every image of a folder or ZIP."""
    return PackImages(Pack.open(path), split) if is_pack(path) else FolderImages(path)


def prefetch(tasks: Iterable[Callable[[], T]], depth: int = 2) -> Iterator[T]:
    """The results of tasks in order, the next few of them computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[T]] = deque()
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
