"""Faces found and levelled: each lands with its eyes and mouth where a template has them.

YuNet (Wu et al., "YuNet: a tiny millisecond-level face detector", 2023) finds the face, with landmarks good to some 4% of
the distance between the eyes. MediaPipe's face mesh (Kartynnik et al., arXiv 1907.06724) measures them on a level view, good
to 1%. A similarity transform (Umeyama, 1991) takes eyes and mouth to the template.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.data.affine import Pixels, Points, Transform, distance_outside, invert, move, opencv, similarity, warp
from mien.data.tflite import Network
from mien.errors import UsageError

EYES_TO_MOUTH = 1.02  # distances of eyes-to-mouth and eye-to-eye: median of 1,000 faces, half CelebA, half FairFace
FIRST_LOOK = (256, 640)  # pixels: smaller photographs are enlarged for the detector, larger ones reduced
SECOND_LOOK = 1600  # pixels, long side: for small faces in large photographs
SMALLEST = 16  # pixels, short side: there is no face to see in less
MARGIN = 0.25  # of the shorter side, added around a photograph that the face fills
MESH_SIDE = 192  # pixels that the mesh takes
MESH_POINTS = (  # of its 468 points, those whose mean is a landmark
    (33, 133, 159, 145),  # left eye as seen: corners and lids
    (362, 263, 386, 374),  # right eye
    (1,),  # tip of the nose
    (61,),  # left corner of the mouth
    (291,),
)


@dataclass(frozen=True, kw_only=True)
class Template:
    """Where eyes and mouth land, as shares of the side. The mouth's corners land below, by the mean face's proportion."""

    eye_distance: float = 0.26  # between the eyes; 0.26 shows the whole head, 0.47 the face alone
    eye_height: float = 0.47  # of the eyes, from the top
    mouth_weight: float = (
        0.2  # of the mouth against one eye: 0 aligns by the eyes alone, 1 tilts and scales with expressions
    )

    def points(self, side: int) -> Points:
        """Left eye, right eye (as seen), middle of the mouth, in pixels."""
        half = self.eye_distance / 2
        mouth = self.eye_height + EYES_TO_MOUTH * self.eye_distance
        shares = [[0.5 - half, self.eye_height], [0.5 + half, self.eye_height], [0.5, mouth]]
        return np.array(shares) * side

    def __post_init__(self) -> None:
        if not 0.05 <= self.eye_distance <= 0.9 or not 0 < self.eye_height < 1 or not 0 <= self.mouth_weight <= 1:
            raise UsageError(
                f"A face cannot be aligned with {self}.",
                "eye_distance is in [0.05, 0.9], eye_height in (0, 1), mouth_weight in [0, 1].",
                "Correct the value.",
            )


MESH_VIEW = Template(eye_distance=0.3, eye_height=0.38)  # about the framing that the mesh was trained on


@dataclass(frozen=True)
class Found:
    """A face in a photograph."""

    landmarks: Points  # [5, 2]: left eye, right eye (as seen), nose, left and right corner of the mouth
    score: float  # the detector's, in [0, 1]
    faces: int  # how many were found; this one is the largest and most central


@dataclass(frozen=True)
class Aligned:
    """A face in its place."""

    image: Image.Image  # RGB, side x side
    landmarks: Points  # [5, 2], in pixels of `image`
    score: float
    faces: int
    transform: Transform
    outside: float  # the share of `image` that lies outside the photograph, in [0, 1]


class Aligner:
    """Aligns faces to `side` pixels. Cheap to make and to send to a worker; each process loads the detector at first use."""

    def __init__(self, side: int, template: Template | None = None, *, min_score: float = 0.6) -> None:
        self.side, self.template, self.min_score = side, template or Template(), min_score
        self._mesh = Network("face-mesh")
        self._detector: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def align(self, image: Image.Image, landmarks: Points | None = None) -> Aligned | None:
        """The face of a photograph, upright and of any size, or None when none is found.

        `landmarks` [5, 2], in pixels, take the place of the detection when they are known.
        """
        pixels = np.asarray(image.convert("RGB"))
        found = self.find(pixels) if landmarks is None else Found(landmarks, 1.0, 1)
        if found is None:
            return None
        transform = similarity(anchors(found.landmarks), self.template.points(self.side), self._weights())
        picture = warp(pixels, transform, self.side)
        outside = float((distance_outside(transform, self.side, pixels.shape[1], pixels.shape[0]) > 0).mean())
        return Aligned(
            Image.fromarray(picture), move(transform, found.landmarks), found.score, found.faces, transform, outside
        )

    def load(self) -> None:
        """Load both networks now. Raises UsageError without their engines, DataError without their weights."""
        self._load_detector()
        self._mesh.load()

    def _load_detector(self) -> None:
        if self._detector is None:
            self._detector = load_detector(self.min_score)

    def find(self, pixels: Pixels) -> Found | None:
        """The largest and most central face, its landmarks in pixels of the photograph."""
        height, width = pixels.shape[:2]
        short, long = min(height, width), max(height, width)
        if short < SMALLEST or long > 50 * short:
            return None
        scale = min(max(1.0, FIRST_LOOK[0] / short), FIRST_LOOK[1] / long)
        looks = [(scale, 0), (scale * 0.6, round(MARGIN * short))]
        if long > FIRST_LOOK[1]:
            looks.append((min(1.0, SECOND_LOOK / long), 0))
        for scale, margin in looks:
            faces = self.detect(pixels, scale, margin)
            if len(faces):
                break
        else:
            return None
        middle = np.array([width, height]) / 2
        centres = faces[:, :2] + faces[:, 2:4] / 2
        off = np.linalg.norm((centres - middle) / middle, axis=1) / math.sqrt(2)  # 0 in the middle, 1 in a corner
        best = faces[np.argmax(np.sqrt(faces[:, 2] * faces[:, 3]) * (1 - 0.5 * np.minimum(off, 1)))]
        landmarks = best[4:14].reshape(5, 2)
        for _ in range(2):  # the second time on a view that the first has made level
            landmarks = self._measure(pixels, landmarks)
        return Found(landmarks, float(best[14]), len(faces))

    def _measure(self, pixels: Pixels, landmarks: Points) -> Points:
        """The mesh's landmarks, or the ones given where it sees no face."""
        view = similarity(anchors(landmarks), MESH_VIEW.points(MESH_SIDE), np.ones(3))
        mesh, presence = self._mesh(np.divide(warp(pixels, view, MESH_SIDE, soften=False), 255, dtype=np.float32))
        if presence.item() < 0:  # a logit
            return landmarks
        points = mesh.reshape(-1, 3)[:, :2].astype(np.float64)
        return move(invert(view), np.stack([points[list(chosen)].mean(axis=0) for chosen in MESH_POINTS]))

    def detect(self, pixels: Pixels, scale: float = 1.0, margin: int = 0) -> Points:
        """Faces [n, 15] in pixels of `pixels`: x, y, width, height, five landmarks, score."""
        cv2 = opencv()
        self._load_detector()
        view = pixels
        if margin:
            view = cv2.copyMakeBorder(view, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        if scale != 1:
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            view = cv2.resize(view, None, fx=scale, fy=scale, interpolation=way)
        self._detector.setInputSize((view.shape[1], view.shape[0]))
        _, faces = self._detector.detect(view[:, :, ::-1])  # the network was trained on BGR
        if faces is None:
            return np.zeros((0, 15))
        found: Points = faces.astype(np.float64)
        found[:, :14] /= scale
        found[:, [0, 1, *range(4, 14)]] -= margin
        return found

    def _weights(self) -> NDArray[np.float64]:
        return np.array([1.0, 1.0, self.template.mouth_weight])


def load_detector(min_score: float) -> Any:
    """YuNet in OpenCV. Raises UsageError without OpenCV, DataError without the weights."""
    from mien.downloads import weights

    return opencv().FaceDetectorYN.create(str(weights.path("yunet")), "", (320, 320), min_score, 0.3, 50)


def anchors(landmarks: Points) -> Points:
    """The three points that are aligned: both eyes and the middle of the mouth."""
    return np.stack([landmarks[0], landmarks[1], landmarks[3:].mean(axis=0)])
