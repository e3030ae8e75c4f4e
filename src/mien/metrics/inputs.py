"""Inputs of a metric: samples, reference, extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mien.core.families import CompressedModel
from mien.errors import DataError, Mismatch
from mien.metrics import features
from mien.metrics.features import Extractor, Features, InceptionFeatures
from mien.metrics.images import CachedImages, Images, Pixels
from mien.metrics.scores import in_thousands
from mien.sampling.sampler import Sampler


@dataclass
class MetricInputs:
    """Samples, reference and extractor. Features are computed when a metric first needs them."""

    fake: Images
    reference: Images
    extractor: Extractor
    unseen: Images | None = None  # real images outside the training set
    sampler: Sampler | None = None  # of the fakes, for the metrics that need the model itself
    legacy: str | None = None  # the package whose conventions the extractor follows
    device: str = "cpu"  # for the networks beside the extractor
    extrapolate: bool = True  # whether to add the extrapolation of FID for few images, which computes some more FIDs
    on_progress: Callable[[str, int, int], None] = lambda _what, _count, _total: None
    warnings: list[str] = field(default_factory=list)
    pictures: dict[str, Pixels] = field(default_factory=dict)  # [n, H, W, 3] by name

    def __post_init__(self) -> None:
        self.fake = CachedImages(self.fake)
        if self.fake.size != self.reference.size:
            (height, width), (real_height, real_width) = self.fake.size, self.reference.size
            raise Mismatch(
                f"{self.fake.name} makes {width}x{height}, {self.reference.name} holds {real_width}x{real_height}.",
                "Resizing one to the other would be part of the score.",
                "Judge it against images of its own size: `mien data prepare --size`.",
            )
        for images in (self.fake, self.reference):
            if images.count < 2:
                raise DataError(
                    f"{images.name} holds {images.count or 'no'} image{'s' * (images.count != 1)}.",
                    "A score compares two distributions, and one image has no spread.",
                    "Give hundreds, better thousands.",
                )

    def listener(self, what: str, images: Images) -> Callable[[int], None]:
        """A callback for the progress on some images."""
        return lambda count: self.on_progress(what, count, images.count)

    def of_fakes(self, extractor: Extractor) -> Features:
        """Features of the samples. Raises DataError if they are not finite."""
        return finite(features.extract(self.fake, extractor, self.listener("samples", self.fake)), self.fake)

    def of_reals(self, extractor: Extractor, images: Images | None = None) -> Features:
        """Features of real images, cached."""
        images = images or self.reference
        return finite(features.cached_features(images, extractor, self.listener(images.split, images)), images)

    @cached_property
    def fakes(self) -> Features:
        return self.of_fakes(self.extractor)

    @cached_property
    def reals(self) -> Features:
        return self.of_reals(self.extractor)

    def name(self, metric: str, count: int | None = None) -> str:
        """`fid10k_train`; with another package's conventions, or another extractor than Inception, behind it."""
        protocol = f"{metric}{in_thousands(count or self.fake.count)}_{self.reference.split}"
        own = None if isinstance(self.extractor, InceptionFeatures) else self.extractor.name
        return "_".join(word for word in (protocol, self.legacy, own, self.prior, self.drawing) if word)

    @property
    def drawing(self) -> str:
        """The options that samples were drawn with, where they differ from the defaults: `truncation_0.7`."""
        options = self.sampler.options.metadata if self.sampler else {}
        return "_".join(f"{name}_{value}".replace(":", "-") for name, value in options.items())

    @property
    def prior(self) -> str | None:
        """The distribution that latents were drawn from, if it is not the model's own prior."""
        density = self.sampler.density if self.sampler else None
        return f"fitted_{density.kind}" if density else None

    def protocol(self, extractor: Extractor | None = None, **more: Any) -> dict[str, Any]:
        """The protocol of a score."""
        model: dict[str, Any] = {}
        if self.sampler:
            model = {"model_sha256": self.sampler.model_hash, "seeds": [0, self.fake.count - 1]}
            density = self.sampler.density
            model |= {"prior": self.prior, "fit": density.facts} if density else {}
            model |= {"options": self.sampler.options.metadata} if self.drawing else {}
            drawn = self.sampler.model
            if isinstance(drawn, CompressedModel) and drawn.compression and not self.sampler.options.uncompressed:
                model["compression"] = drawn.compression
        return {
            **features.protocol_of_extractor(extractor or self.extractor),
            "reference": {
                "fingerprint": self.reference.fingerprint,
                "split": self.reference.split,
                "count": self.reference.count,
                "size": list(self.reference.size),
            },
            "samples": self.fake.count,
            **model,
            **({"legacy": self.legacy} if self.legacy else {}),
            **more,
        }


def finite(values: Features, images: Images) -> Features:
    """Return finite features. Raises DataError otherwise."""
    if not features.all_finite(values):
        raise DataError(
            f"The features of {images.name} are not numbers.",
            "The extractor overflowed on them.",
            "Judge with --precision fp32.",
        )
    return values
