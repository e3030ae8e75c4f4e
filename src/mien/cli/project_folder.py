"""`mien project` of a folder: reconstruction, latent and errors of each photograph, as shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from pathlib import Path

from torch import Tensor

from mien.cli.bulk import write_shards
from mien.cli.photos import BATCH, STEPS, find_latents, pixel_errors, to_images
from mien.cli.result import Result
from mien.core.contracts import JSON
from mien.core.families import Invertible
from mien.data.archives import printable
from mien.data.photo import Photo, can_align, decode_photo
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, Source
from mien.errors import DataError
from mien.metrics.framing import framing_of
from mien.report.grid import picture, png_bytes
from mien.report.shards import Face, Seeds, ShardFormat
from mien.sampling.sampler import Sampler
from mien.storage.provenance import Claim


@dataclass(frozen=True)
class FolderProjection:
    """How the photographs of a source are projected. A photograph's number is its place in the listing."""

    sampler: Sampler
    source: Source
    labels: Mapping[str, float]
    crop: str | None = None
    steps: int | None = None  # of gradient descent; None: the encoder, if there is one
    perceptual: bool = False  # LPIPS is part of what is descended

    @cached_property
    def listing(self) -> Listing:
        """The photographs. Raises DataError where there are none."""
        listing = self.source.listing()
        if not listing.names:
            raise DataError("The folder has no photographs.", "No file in it is an image.", "Name another folder.")
        return listing

    @cached_property
    def recipe(self) -> JSON:
        """What every face of the shards depends on."""
        encodes = isinstance(self.sampler.model, Invertible) and self.steps is None
        described: JSON = {
            "source": {**self.source.description, "stamp": self.listing.stamp},
            "crop": self.crop,
            "aligned": self.crop is None and can_align(),  # differs with what is installed
            "method": "encoder" if encodes else f"{self.steps or STEPS} steps of gradient descent",
            "space": self.sampler.encoding_space if encodes else "latent",
        }
        described |= {"lpips": True} if self.perceptual else {}
        described |= {"labels": dict(self.labels)} if self.labels else {}
        return {**self.sampler.metadata(verb="project", **described), "synthetic": False}

    def read(self, number: int, sampler: Sampler) -> Photo:
        """One photograph at the side of a sampler. Raises UnreadableFile."""
        name = self.listing.names[number]
        data = self.source.read(self.source.address(name))
        return decode_photo(printable(name), data, sampler.image_spec.side, self.crop, framing_of(sampler))

    def draw(self, numbers: Sequence[int]) -> Iterator[Face]:
        """What a shard holds of photographs; one that cannot be used has its reason instead of a picture."""
        native = self.sampler.with_options(replace(self.sampler.options, size=None))  # models read at their own side
        photos: dict[int, Photo] = {}
        refused: dict[int, str] = {}
        for number in numbers:
            try:
                photos[number] = self.read(number, native)
            except UnreadableFile as error:
                refused[number] = str(error)
        found = self.project(native, photos) if photos else {}
        rows = self.sampler.labels(numbers, self.labels)
        values: list[list[float]] = [[] for _ in numbers] if rows is None else rows.tolist()
        for number, row in zip(numbers, values, strict=True):
            image, latent, errors = found.get(number, (None, None, {"l1": nan, "psnr": nan}))
            name, notes = printable(self.listing.names[number]), photos[number].notes if number in photos else ()
            described = {**self.recipe, "photos": [name], "number": number}
            png = b"" if image is None else png_bytes(picture(image), described, Claim.FROM_PHOTOGRAPH)
            face_labels = dict(zip(self.sampler.label_names, row, strict=True)) if row else {}
            fields: dict[str, str | float] = {
                "photo_name": name,
                **errors,
                "notes": "; ".join(notes),
                "refused": refused.get(number, ""),
            }
            yield Face(number, png, face_labels, "photo", fields, latent)

    def project(
        self, native: Sampler, photos: Mapping[int, Photo]
    ) -> dict[int, tuple[Tensor, Tensor, dict[str, float]]]:
        """Of each photograph: the reconstruction `[C, H, W]`, the latent, and the errors."""
        images = to_images(native, list(photos.values()))
        points = find_latents(
            self.sampler, images, steps=self.steps, labels=self.labels, perceptual=self.perceptual,
            numbers=list(photos), progress=False,
        )  # fmt: skip
        reconstructions = self.sampler.decode(points.z, points.labels, points.space)
        if self.sampler.options.size:
            images = to_images(self.sampler, [self.read(number, self.sampler) for number in photos])
        rows = zip(reconstructions, points.z, pixel_errors(images, reconstructions), strict=True)
        return dict(zip(photos, rows, strict=True))


def project_folder(projection: FolderProjection, out: Path, kind: ShardFormat, size: int) -> Result | None:
    """The photographs of a source as shards; see `write_shards`."""
    seeds = Seeds([range(len(projection.listing.names))])
    recipe, draw = projection.recipe, projection.draw
    return write_shards(projection.sampler, seeds, draw, recipe, out, kind, size, BATCH, "photographs")
