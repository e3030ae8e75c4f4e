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

#: Distance at full strength and blur, as shares of the side; pixels of the side that such a blur needs.
FADES = ((0.03, 0.015, 64), (0.10, 0.05, 32), (0.35, 0.15, 16))


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


def warp(pixels: Pixels, transform: Transform, side: int) -> Pixels:
    """Apply a transform to a photograph: a `side` by `side` picture, antialiased; outside it lies its reflection."""
    cv2 = opencv()
    pixels, transform = reduced(*needed(pixels, transform, side), 1 / 8)
    scale = scale_of(transform)
    canvas = side if scale > 0.99 else math.ceil(side / scale)  # it samples every source pixel; then Lanczos
    kind = cv2.INTER_CUBIC if scale > 1 / 3 else cv2.INTER_LINEAR  # Lanczos removes what they differ in
    picture: Pixels = cv2.warpAffine(pixels, centred(transform * (canvas / side)), (canvas, canvas), flags=kind)
    if canvas == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def warp_softly(pixels: Pixels, transform: Transform, side: int) -> tuple[Pixels, float]:
    """`warp` with blurred padding, and the share of the picture that is padding, in [0, 1]."""
    distance = distance_outside(transform, side, pixels.shape[1], pixels.shape[0])
    return soften_outside(warp(pixels, transform, side), distance), float((distance > 0).mean())


def warp_quickly(pixels: Pixels, transform: Transform, side: int) -> Pixels:
    """`warp` for the eyes of a network: bilinear, from a photograph reduced or enlarged by two. A fifth of the time."""
    cv2 = opencv()
    pixels, transform = reduced(*needed(pixels, transform, side), 0.6)
    if scale_of(transform) > 0.8:  # bilinear interpolation alone would blur it
        pixels = cv2.resize(pixels, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        transform = np.hstack([transform[:, :2] / 2, transform[:, 2:]])
    picture: Pixels = cv2.warpAffine(pixels, centred(transform), (side, side), flags=cv2.INTER_LINEAR)
    return picture


def scale_of(transform: Transform) -> float:
    """Pixels of the output in one pixel of the photograph."""
    return math.sqrt(abs(transform[0, 0] * transform[1, 1] - transform[0, 1] * transform[1, 0]))


def centred(transform: Transform) -> Transform:
    """The transform for OpenCV, whose origin is the centre of the first pixel."""
    shift = transform[:, :2].sum(axis=1) / 2 - 0.5
    return np.hstack([transform[:, :2], (transform[:, 2] + shift)[:, None]])


def needed(pixels: Pixels, transform: Transform, side: int) -> tuple[Pixels, Transform]:
    """The part of a photograph that a transform shows, continued by reflection, and the transform of that part.

    OpenCV's own reflection takes three times as long.
    """
    corners = move(invert(transform), np.array([[0, 0], [side, 0], [0, side], [side, side]], dtype=np.float64))
    low, high = np.floor(corners.min(axis=0)).astype(int) - 16, np.ceil(corners.max(axis=0)).astype(int) + 16
    part = pixels
    for axis, first, last in ((0, low[1], high[1]), (1, low[0], high[0])):
        length = pixels.shape[axis]
        if first >= 0 and last <= length:
            part = part[first:last] if axis == 0 else part[:, first:last]
        else:
            part = part.take(reflected(np.arange(first, last), length), axis)
    return part, np.hstack([transform[:, :2], (transform[:, 2] + transform[:, :2] @ low)[:, None]])


def reflected(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """For places on and beyond a line of `length` pixels those on it, reflected at the centres of its first and last pixel."""
    period = max(2 * (length - 1), 1)
    inside: NDArray[np.int64] = np.minimum(places % period, period - places % period) if length > 1 else 0 * places
    return inside


def reduced(pixels: Pixels, transform: Transform, least: float) -> tuple[Pixels, Transform]:
    """A photograph that is halved until the scale of its transform is `least` or more, and the transform of what remains."""
    cv2 = opencv()
    while scale_of(transform) < least and min(pixels.shape[:2]) > 16:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        shrink = np.diag([pixels.shape[1] / width, pixels.shape[0] / height])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        transform = np.hstack([transform[:, :2] @ shrink, transform[:, 2:]])
    return pixels, transform


def soften_outside(picture: Pixels, distance: NDArray[np.float32]) -> Pixels:
    """Blur the padding at a distance [side, side] outside the photograph: slightly at its edge, beyond recognition farther out."""
    cv2 = opencv()
    padding = distance > 0
    if not padding.any():
        return picture
    side, result = len(picture), picture.copy()
    away, colours = distance[padding][:, None], picture[padding].astype(np.float32)
    for reach, blur, coarse in FADES:
        wide = cv2.GaussianBlur(
            cv2.resize(picture, (coarse, coarse), interpolation=cv2.INTER_AREA), (0, 0), blur * coarse
        )
        blurred = cv2.resize(wide, (side, side), interpolation=cv2.INTER_CUBIC)[padding]
        share = np.clip(away / np.float32(reach), 0, 1)
        colours += share * share * (3 - 2 * share) * (blurred - colours)
    result[padding] = np.clip(np.rint(colours), 0, 255)
    return result


def distance_outside(transform: Transform, side: int, width: int, height: int) -> NDArray[np.float32]:
    """Distance of each pixel [side, side] from a photograph of `width` by `height`, as a share of the side; 0 inside."""
    along = np.arange(side, dtype=np.float32) + 0.5
    x, y = (np.float32(a) * along + np.float32(b) * along[:, None] + np.float32(c) for a, b, c in invert(transform))
    outside = np.hypot(np.maximum(np.maximum(-x, x - width), 0), np.maximum(np.maximum(-y, y - height), 0))
    share: NDArray[np.float32] = outside * np.float32(scale_of(transform) / side)
    return share
