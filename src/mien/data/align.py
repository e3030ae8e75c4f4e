"""Face detection and alignment: a similarity transform moves eyes and mouth to the positions of a template.

YuNet (Wu et al., "YuNet: a tiny millisecond-level face detector", 2023) detects the face. Its landmarks have an error of
about 4% of the distance between the eyes. MediaPipe's face mesh (Kartynnik et al., arXiv 1907.06724) refines them on a level
view to 1%. A similarity transform (Umeyama, 1991) maps eyes and mouth to the template.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.data.affine import Pixels, Points, Transform, invert, move, opencv, similarity, warp_quickly, warp_softly
from mien.data.tflite import Network
from mien.errors import UsageError

EYES_TO_MOUTH = (
    1.02  # ratio of the eyes-to-mouth and eye-to-eye distances: median of 1,000 faces, half CelebA, half FairFace
)
FIRST_SIDE = 128  # pixels, short side: enough for a face of LARGE of it, and a quarter of the next view's time
LARGE = 0.25  # share of the short side; smaller faces are looked for in the larger views
SECOND_SIDES = (256, 640)  # pixels: smaller photographs are enlarged for the detector, larger ones reduced
LAST_SIDE = 1600  # pixels, long side: for small faces in large photographs
SMALLEST = 16  # pixels, short side: smaller pictures show no face
MARGIN = 0.25  # share of the shorter side, added around the photograph when the face fills it
SURE_SCORE, SURE_PRESENCE = (
    0.93,
    17.0,
)  # in the first view no face that is turned reaches either (docs/LOG.md, 2026-11-29)
SIDEWAYS_PRESENCE = 8.0  # that no face on its side reaches
MESH_SIDE = 192  # pixels of the mesh network's input
MESH_POINTS = (  # for each landmark, the mesh points (of 468) whose mean it is
    (33, 133, 159, 145),  # the eye on the left of the picture: corners and lids
    (362, 263, 386, 374),  # right eye
    (1,),  # tip of the nose
    (61,),  # left corner of the mouth
    (291,),
)


@dataclass(frozen=True, kw_only=True)
class Template:
    """Target positions of eyes and mouth, as shares of the side. The mouth is below the eyes by EYES_TO_MOUTH."""

    eye_distance: float = 0.26  # between the eyes; 0.26 shows the whole head, 0.47 the face alone
    eye_height: float = 0.47  # of the eyes, from the top
    mouth_weight: float = (
        0.2  # weight of the mouth relative to one eye: 0 uses the eyes only, 1 makes the result depend on expressions
    )

    def points(self, side: int) -> Points:
        """Left eye, right eye (in the picture), middle of the mouth, in pixels."""
        half = self.eye_distance / 2
        mouth = self.eye_height + EYES_TO_MOUTH * self.eye_distance
        shares = [[0.5 - half, self.eye_height], [0.5 + half, self.eye_height], [0.5, mouth]]
        return np.array(shares) * side

    def __post_init__(self) -> None:
        if not 0.05 <= self.eye_distance <= 0.9 or not 0 < self.eye_height < 1 or not 0 <= self.mouth_weight <= 1:
            raise UsageError(
                f"The template {self} is out of range.",
                "eye_distance must be in [0.05, 0.9], eye_height in (0, 1), mouth_weight in [0, 1].",
                "Correct the value.",
            )


MESH_VIEW = Template(eye_distance=0.3, eye_height=0.38)  # similar to the framing of the mesh's training data


@dataclass(frozen=True)
class Detection:
    """A detected face."""

    landmarks: Points  # [5, 2]: left eye, right eye (in the picture), nose, left and right corner of the mouth
    score: float  # of the detector, in [0, 1]
    faces: int  # number of detected faces; this is the largest and most central


View = tuple[float, int, float]  # scale, margin in pixels, least width or height of a face as a share of the short side


@dataclass(frozen=True)
class _Candidate:
    """A face whose landmarks are refined once."""

    landmarks: Points  # [5, 2]
    score: float
    faces: int
    presence: float  # logit of the mesh network, on the level view
    view: View  # in which the detector found it

    @property
    def doubtful(self) -> bool:
        """Whether the face may be turned: upside down, the detector's score and the mesh's logit are low."""
        return self.score < SURE_SCORE and self.presence < SURE_PRESENCE

    @property
    def certainty(self) -> float:
        """What the right one of four turns has most of."""
        return self.score + self.presence / 100


@dataclass(frozen=True)
class Aligned:
    """An aligned face."""

    image: Image.Image  # RGB, side x side
    landmarks: Points  # [5, 2], in pixels of `image`
    score: float
    faces: int
    transform: Transform
    outside: float  # the share of `image` that lies outside the photograph, in [0, 1]


class Aligner:
    """Aligns faces to `side` pixels. Cheap to create and to pickle; each process loads the detector at first use."""

    def __init__(self, side: int, template: Template | None = None, *, min_score: float = 0.6) -> None:
        self.side, self.template, self.min_score = side, template or Template(), min_score
        self._mesh = Network("face-mesh")
        self._detector: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def align(self, image: Image.Image, landmarks: Points | None = None) -> Aligned | None:
        """Align the face of an upright photograph of any size. Returns None when no face is detected.

        `landmarks` [5, 2], in pixels, replace the detection.
        """
        pixels = np.asarray(image.convert("RGB"))
        detection = self.find(pixels) if landmarks is None else Detection(landmarks, 1.0, 1)
        if detection is None:
            return None
        transform = similarity(anchors(detection.landmarks), self.template.points(self.side), self._weights())
        picture, outside = warp_softly(pixels, transform, self.side)
        return Aligned(
            Image.fromarray(picture),
            move(transform, detection.landmarks),
            detection.score,
            detection.faces,
            transform,
            outside,
        )

    def load(self) -> None:
        """Load both networks now. Raises UsageError without their packages, DataError without their weights."""
        self._load_detector()
        self._mesh.load()

    def _load_detector(self) -> None:
        if self._detector is None:
            self._detector = load_detector(self.min_score)

    def find(self, pixels: Pixels) -> Detection | None:
        """Detect the largest and most central face, with landmarks in pixels of the photograph.

        Where the face is doubtful, the photograph is also searched turned by 90, 180 and 270 degrees: the detector finds faces
        upside down too, with their eyes where the mouth is.
        """
        found = self._search(pixels, 0)
        if found is None or (found.doubtful and not self._stands(pixels, found)):
            views = (found.view,) if found else None  # upright it is found there too
            turned = (self._search(pixels, quarters, views) for quarters in (1, 2, 3))
            candidates = [other for other in turned if other is not None and other.presence > 0]
            found = max([*candidates, *([found] if found else [])], key=lambda one: one.certainty, default=None)
        if found is None:
            return None
        landmarks, _ = self._refine(pixels, found.landmarks)  # again, in the level view of the first pass
        return Detection(landmarks, found.score, found.faces)

    def _stands(self, pixels: Pixels, found: _Candidate) -> bool:
        """Whether the mesh network sees more of a face in a doubtful one as it is than upside down."""
        if found.presence < SIDEWAYS_PRESENCE:
            return False
        return self._refine(pixels, 2 * found.landmarks.mean(axis=0) - found.landmarks)[1] < found.presence

    def _search(self, pixels: Pixels, quarters: int, views: Sequence[View] | None = None) -> _Candidate | None:
        """The largest and most central face of a photograph turned counterclockwise by quarters, in pixels of the photograph."""
        turned = np.ascontiguousarray(np.rot90(pixels, quarters))
        height, width = turned.shape[:2]
        short, long = min(height, width), max(height, width)
        if short < SMALLEST or long > 50 * short:
            return None
        faces = np.zeros((0, 15))
        for view in views or views_of(short, long):
            scale, margin, least = view
            faces = self.detect(turned, scale, margin)
            if len(faces) and faces[:, 2:4].max() >= least * short:
                break
        if not len(faces):
            return None
        middle = np.array([width, height]) / 2
        centres = faces[:, :2] + faces[:, 2:4] / 2
        off = np.linalg.norm((centres - middle) / middle, axis=1) / math.sqrt(2)  # 0 in the middle, 1 in a corner
        best = faces[np.argmax(np.sqrt(faces[:, 2] * faces[:, 3]) * (1 - 0.5 * np.minimum(off, 1)))]
        landmarks = best[4:14].reshape(5, 2)
        for _ in range(quarters):  # back by a quarter each
            landmarks = np.stack([height - 1 - landmarks[:, 1], landmarks[:, 0]], axis=1)
            height, width = width, height
        landmarks, presence = self._refine(pixels, landmarks)
        return _Candidate(landmarks, float(best[14]), len(faces), presence, view)

    def _refine(self, pixels: Pixels, landmarks: Points) -> tuple[Points, float]:
        """Landmarks of the mesh network, or the unchanged `landmarks` when it detects no face; and the logit of a face."""
        level = similarity(anchors(landmarks), MESH_VIEW.points(MESH_SIDE), np.ones(3))
        mesh, presence = self._mesh(np.divide(warp_quickly(pixels, level, MESH_SIDE), 255, dtype=np.float32))
        if presence.item() < 0:
            return landmarks, presence.item()
        points = mesh.reshape(-1, 3)[:, :2].astype(np.float64)
        refined = move(invert(level), np.stack([points[list(indices)].mean(axis=0) for indices in MESH_POINTS]))
        return refined, presence.item()

    def detect(self, pixels: Pixels, scale: float = 1.0, margin: int = 0) -> Points:
        """Detected faces [n, 15] in pixels of `pixels`: x, y, width, height, five landmarks, score."""
        cv2 = opencv()
        self._load_detector()
        if margin:
            pixels = cv2.copyMakeBorder(
                pixels, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(127, 127, 127)
            )
        if scale != 1:
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)
        self._detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, faces = self._detector.detect(pixels[:, :, ::-1])  # the network was trained on BGR
        if faces is None:
            return np.zeros((0, 15))
        detected: Points = faces.astype(np.float64)
        detected[:, :14] /= scale
        detected[:, [0, 1, *range(4, 14)]] -= margin
        return detected

    def _weights(self) -> NDArray[np.float64]:
        return np.array([1.0, 1.0, self.template.mouth_weight])


def views_of(short: int, long: int) -> list[View]:
    """The detector's views of a photograph of two sides in pixels, one after another until there is a face."""
    scale = min(max(1.0, SECOND_SIDES[0] / short), SECOND_SIDES[1] / long)
    found: list[View] = [(FIRST_SIDE / short, 0, LARGE)] if long <= 8 * short else []
    found += [(scale, 0, 0.0), (scale * 0.6, round(MARGIN * short), 0.0)]
    return [*found, (min(1.0, LAST_SIDE / long), 0, 0.0)] if long > SECOND_SIDES[1] else found


def load_detector(min_score: float) -> Any:
    """YuNet in OpenCV. Raises UsageError without OpenCV, DataError without the weights."""
    from mien.downloads import weights

    return opencv().FaceDetectorYN.create(str(weights.path("yunet")), "", (320, 320), min_score, 0.3, 50)


def anchors(landmarks: Points) -> Points:
    """The three points to align: both eyes and the middle of the mouth."""
    return np.stack([landmarks[0], landmarks[1], landmarks[3:].mean(axis=0)])
