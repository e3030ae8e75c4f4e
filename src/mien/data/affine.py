"""Similarity transforms of photographs, antialiased, with blurred reflection padding.

Pixels outside the photograph are its reflection; the blur grows with the distance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import UsageError

Points = NDArray[np.float64]  # [n, 2]: x, y in pixels; 0 is the left or upper edge, not the centre of the first pixel
Transform = NDArray[np.float64]  # [2, 3]: points of the photograph -> points of the output
Pixels = NDArray[np.uint8]  # [height, width, 3], RGB

FADES = ((0.03, 0.015), (0.10, 0.05), (0.35, 0.15))  # (distance at full strength, blur), as shares of the side


def opencv() -> Any:
    """Import OpenCV (extra `faces`). Raises UsageError without it."""
    try:
        import cv2
    except ImportError as error:
        raise UsageError(
            "Face alignment and background replacement need OpenCV.",
            f"{error}.",
            "Install it: pip install 'mien[faces]'.",
        ) from error
    cv2.setNumThreads(1)  # the workers already use every core
    return cv2


def similarity(source: Points, target: Points, weights: NDArray[np.float64]) -> Transform:
    """The weighted least-squares similarity transform from `source` to `target` (Umeyama 1991, eq. 40)."""
    share = (weights / weights.sum())[:, None]
    source_mean, target_mean = (share * source).sum(axis=0), (share * target).sum(axis=0)
    a, b = source - source_mean, target - target_mean
    cosine = float((share * a * b).sum())
    sine = float((share[:, 0] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum())
    spread = max(float((share * a * a).sum()), 1e-12)
    rotation = np.array([[cosine, -sine], [sine, cosine]]) / spread
    return np.hstack([rotation, (target_mean - rotation @ source_mean)[:, None]])


def move(transform: Transform, points: Points) -> Points:
    """Apply a transform to points."""
    return points @ transform[:, :2].T + transform[:, 2]


def invert(transform: Transform) -> Transform:
    """The inverse transform."""
    rotation = np.linalg.inv(transform[:, :2])
    return np.hstack([rotation, -rotation @ transform[:, 2:]])


def warp(pixels: Pixels, transform: Transform, side: int, *, soften: bool = True) -> Pixels:
    """Apply a transform to a photograph: a `side` by `side` picture, antialiased; `soften` blurs the padding."""
    cv2 = opencv()
    scale = math.sqrt(abs(np.linalg.det(transform[:, :2])))
    while scale < 1 / 8 and min(pixels.shape[:2]) > 16:  # strong reduction: halve first, so that the canvas stays small
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        shrink = np.diag([pixels.shape[1] / width, pixels.shape[0] / height])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        transform, scale = np.hstack([transform[:, :2] @ shrink, transform[:, 2:]]), 2 * scale
    factor = max(1, math.ceil(1 / scale - 0.01))  # the canvas samples every source pixel; Lanczos then reduces it
    canvas = side * factor
    enlarged = transform * factor
    centres = enlarged.copy()
    centres[:, 2] += enlarged[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's origin is the centre of the first pixel
    picture: Pixels = cv2.warpAffine(
        pixels, centres, (canvas, canvas), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    if soften:
        picture = soften_outside(picture, enlarged, pixels.shape[1], pixels.shape[0])
    if factor == 1:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def soften_outside(picture: Pixels, transform: Transform, width: int, height: int) -> Pixels:
    """Blur the padding outside the photograph: slightly at its edge, beyond recognition farther out."""
    cv2 = opencv()
    side = picture.shape[0]
    corners = move(invert(transform), np.array([[0, 0], [side, 0], [0, side], [side, side]], dtype=np.float64))
    if corners.min() >= 0 and (corners <= [width, height]).all():
        return picture
    distance = distance_outside(transform, side, width, height)
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)  # a wide blur needs no higher resolution
    result = picture.astype(np.float32)
    for reach, blur in FADES:
        wide = cv2.GaussianBlur(small, (0, 0), blur * 64)
        blurred = cv2.resize(wide, (side, side), interpolation=cv2.INTER_CUBIC)
        share = np.clip(distance / np.float32(reach), 0, 1)[:, :, None]
        result += share * share * (3 - 2 * share) * (blurred - result)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def distance_outside(transform: Transform, side: int, width: int, height: int) -> NDArray[np.float32]:
    """Distance of each pixel [side, side] from a photograph of `width` by `height`, as a share of the side; 0 inside."""
    along = np.arange(side, dtype=np.float32) + 0.5
    x, y = (np.float32(a) * along + np.float32(b) * along[:, None] + np.float32(c) for a, b, c in invert(transform))
    outside = np.hypot(np.maximum(np.maximum(-x, x - width), 0), np.maximum(np.maximum(-y, y - height), 0))
    share: NDArray[np.float32] = outside * np.float32(math.sqrt(abs(np.linalg.det(transform[:, :2]))) / side)
    return share
