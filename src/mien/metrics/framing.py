"""How a model's faces lie in their pictures, so that a photograph is cropped as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mien.core.contracts import Model
from mien.data.affine import Points
from mien.data.align import Aligner
from mien.data.photo import can_align
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler

SEEDS = range(24)

_measured: WeakKeyDictionary[Model, dict[str, Any]] = WeakKeyDictionary()


def framing_of(sampler: Sampler) -> Mapping[str, Any]:
    """How a photograph is cropped for a model: as its training data was.

    Where that data was a square of each picture, as of archives whose faces are aligned already, the eyes of faces that the model
    draws say how: the medians of their distance and height. Empty where nothing is known.
    """
    data = sampler.header.get("data")
    framing = data.get("framing") if isinstance(data, dict) else None
    framing = framing if isinstance(framing, dict) else {}
    if framing.get("crop", "center") != "center" or not can_align():
        return framing
    if sampler.model not in _measured:
        _measured[sampler.model] = measure(sampler)
    return _measured[sampler.model] or framing


def measure(sampler: Sampler) -> dict[str, Any]:
    """The crop `face` with the median distance and height of the eyes, as shares of the side; empty where few faces are found."""
    aligner, side = Aligner(sampler.image_spec.side), sampler.image_spec.side
    images = sampler.with_options(DrawOptions()).sample(SEEDS)
    pictures = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    found: list[Points] = []
    for number, picture in enumerate(pictures):
        if number - len(found) > len(pictures) / 2:  # a search for what is not there takes twelve times as long
            return {}
        if face := aligner.find(picture.repeat(3 // picture.shape[-1], -1)):
            found.append(face.landmarks[:2] / side)
    if len(found) < len(pictures) / 2:
        return {}
    eyes = np.array(found)  # [n, 2, 2]: left and right, x and y
    distance, height = np.median(np.hypot(*(eyes[:, 1] - eyes[:, 0]).T)), np.median(eyes[..., 1].mean(1))
    return {"crop": "face", "eye_distance": round(float(distance), 3), "eye_height": round(float(height), 3)}
