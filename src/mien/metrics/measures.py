"""What can be measured in a picture of a face: pose and expression by a face mesh, light and colour by pixels.

The mesh is MediaPipe's (Kartynnik et al., arXiv 1907.06724): 468 points in three dimensions. A model's faces share their geometry,
so one transform, estimated from a few of them, brings all faces to the mesh's view.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mien.data.affine import Points, Transform, similarity, warp
from mien.data.align import MESH_SIDE, MESH_VIEW, anchors
from mien.data.tflite import Network
from mien.metrics.identity import landmarks
from mien.metrics.images import Pixels

Values = npt.NDArray[np.float64]  # [n, measures]; NaN where a face has no mesh
SEARCHED = 48  # faces that are searched for landmarks; a mesh needs them in half of these
MIN_PRESENCE = 0.0  # of the mesh network, a logit
LUMA = np.array([0.299, 0.587, 0.114])

Mesh = npt.NDArray[np.float64]  # [468, 3]: right, down, away from the camera, in pixels


def _apart(mesh: Mesh, a: int, b: int) -> float:
    return math.dist(mesh[a], mesh[b])


def _turn(mesh: Mesh) -> float:
    """Angle to the right of the picture: the cheek on that side is farther away."""
    across = mesh[454] - mesh[234]
    return math.atan2(across[2], across[0])


def _look_up(mesh: Mesh) -> float:
    """Angle: the forehead is farther away than the chin."""
    down = mesh[152] - mesh[10]
    return math.atan2(-down[2], down[1])


def _smile(mesh: Mesh) -> float:
    """How far the corners of the mouth are apart, and above its middle, in distances of the eyes."""
    middle, corners = (mesh[13] + mesh[14]) / 2, (mesh[61] + mesh[291]) / 2
    return (_apart(mesh, 61, 291) / 2 + float(middle[1] - corners[1])) / _apart(mesh, 33, 263)


#: Numbers are points of the mesh: eyes 33-133 and 362-263 with lids 159-145 and 386-374, brows 105 and 334, lips 13 and 14,
#: corners of the mouth 61 and 291, outline 10 (top), 152 (chin), 234 and 454 (sides).
MESH: dict[str, Callable[[Mesh], float]] = {
    "turn_right": _turn,
    "look_up": _look_up,
    "smile": _smile,
    "open_mouth": lambda m: _apart(m, 13, 14) / _apart(m, 33, 263),
    "open_eyes": lambda m: _apart(m, 159, 145) / _apart(m, 33, 133) + _apart(m, 386, 374) / _apart(m, 362, 263),
    "raised_brows": lambda m: (_apart(m, 105, 159) + _apart(m, 334, 386)) / _apart(m, 33, 263),
    "wide_face": lambda m: _apart(m, 234, 454) / _apart(m, 10, 152),
}
PIXELS = ("brightness", "light_from_left", "warmth", "contrast", "light_hair", "light_background")


def of_pixels(image: Pixels) -> list[float]:
    """The measures `PIXELS` of one uint8 picture `[H, W, 3]` in which a face fills the middle half."""
    colours = image / 255.0
    light = colours @ LUMA
    side = len(light)
    quarter, edge = side // 4, side // 10 + 1
    middle = slice(quarter, side - quarter)
    face, mean = light[middle, middle], float(light[middle, middle].mean())
    red, _, blue = colours[middle, middle].mean((0, 1))
    left, right = np.array_split(face, 2, axis=1)
    corners = np.concatenate([light[: side // 3, :edge], light[: side // 3, -edge:]])
    return [
        mean,
        float(left.mean() - right.mean()) / (mean + 0.05),
        float(red - blue) / (mean + 0.05),
        float(face.std()) / (mean + 0.05),
        float(light[:edge, middle].mean()) - mean,
        float(corners.mean()) - mean,
    ]


class FaceMeasures:
    """Measures of pictures that share their geometry: `names`, and a call that gives their values."""

    def __init__(self, examples: Pixels) -> None:
        """For pictures like `examples`. Raises UsageError without its packages, DataError without its weights.

        Without faces in them, as in drawings, only pixels are measured.
        """
        found = [face for image in examples[:SEARCHED] for face in landmarks(image)]
        self.view: Transform | None = None
        if len(found) >= len(examples[:SEARCHED]) / 2:
            middle: Points = np.median(found, axis=0)
            self.view = similarity(anchors(middle), MESH_VIEW.points(MESH_SIDE), np.ones(3))
        self.network = Network("face-mesh")
        if self.view is not None:
            self.network.load()

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured."""
        return PIXELS if self.view is None else (*MESH, *PIXELS)

    def __call__(self, images: Pixels) -> Values:
        """Values `[n, len(names)]` of uint8 pictures `[n, H, W, 3]`."""
        return np.array([[*self._of_mesh(image), *of_pixels(image)] for image in images])

    def _of_mesh(self, image: Pixels) -> list[float]:
        if self.view is None:
            return []
        inputs = np.divide(warp(image, self.view, MESH_SIDE), 255, dtype=np.float32)
        points, presence = self.network(inputs)
        if presence.item() < MIN_PRESENCE:
            return [math.nan] * len(MESH)
        mesh = points.reshape(-1, 3).astype(np.float64)
        return [measure(mesh) for measure in MESH.values()]


class PixelMeasures:
    """The measures that need no network."""

    names = PIXELS

    def __call__(self, images: Pixels) -> Values:
        """Values `[n, len(names)]` of uint8 pictures `[n, H, W, 3]`."""
        return np.array([of_pixels(image) for image in images])
