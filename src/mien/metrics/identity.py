"""Identity embeddings of 128 numbers: SFace (Zhong et al. 2021, arXiv 2205.12010), for memorisation by identity.

SFace needs aligned faces. A pack's faces already share their geometry, and a model learns it. So one transform, estimated
from some real images, aligns all real images and all samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mien.data.affine import Points, Transform, similarity, warp_softly
from mien.data.align import load_detector
from mien.downloads import weights
from mien.errors import UsageError
from mien.metrics.features import Features
from mien.metrics.images import Images, Pixels

SIDE = 112  # pixels, side of the input
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
LEVEL = np.array([1.0, 1.0, 0.0, 1.0, 1.0])  # eyes and corners of the mouth say how a face stands; a nose turns with it
MAX_SEARCHED = 48  # real images that are searched for a face
DETECTOR_SIDE = 192  # pixels: smaller images are enlarged for the detector
MIN_SCORE = 0.6


class IdentityFeatures:
    """Identity embeddings of unit length, `[n, 128]`: their distance is at most 2, and about 1.1 at OpenCV's own
    bound.
    """

    precision = "fp32"

    def __init__(self, reference: Images) -> None:
        """For images with the geometry of `reference`. Raises UsageError without OpenCV."""
        try:
            import cv2
        except ImportError as error:
            raise UsageError(
                "Face recognition needs OpenCV.", f"{error}.", "Install it: pip install 'mien[faces]'."
            ) from error
        self.name, self.hash = "sface", weights.find("sface").sha256
        self.transform = shared_transform(reference)
        self.resizer = "aligned " + " ".join(f"{number:.4f}" for number in self.transform.flatten())
        self.network: Any = cv2.dnn.readNet(str(weights.path("sface")))

    def __call__(self, images: Pixels) -> Features:
        faces = np.stack([warp_softly(image, self.transform, SIDE)[0] for image in images])
        self.network.setInput(np.ascontiguousarray(faces.transpose(0, 3, 1, 2), np.float32))  # RGB, 0 to 255
        embedded = np.asarray(self.network.forward(), np.float32)
        lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
        unit: Features = embedded / np.maximum(lengths, 1e-12)
        return unit


def shared_transform(reference: Images) -> Transform:
    """The transform from images of the reference to SFace's template, by median landmarks; the whole image without faces."""
    step = max(reference.count // MAX_SEARCHED, 1)
    rows = range(0, reference.count, step)[:MAX_SEARCHED]
    found = [face for row in rows for face in landmarks(reference.read(slice(row, row + 1))[0])]
    if len(found) < MAX_SEARCHED // 8:  # drawings, or pictures without faces
        height, width = reference.size
        return np.array([[SIDE / width, 0.0, 0.0], [0.0, SIDE / height, 0.0]])
    return similarity(np.median(found, axis=0), TEMPLATE, LEVEL)


def landmarks(image: Pixels) -> list[Points]:
    """The five landmarks of the only face in an image; empty with no face or several."""
    import cv2

    scale = max(1.0, DETECTOR_SIDE / min(image.shape[:2]))
    view = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    detector = load_detector(MIN_SCORE)
    detector.setInputSize((view.shape[1], view.shape[0]))
    _, faces = detector.detect(view[:, :, ::-1])  # the network was trained on BGR
    return [] if faces is None or len(faces) != 1 else [faces[0, 4:14].reshape(5, 2).astype(np.float64) / scale]
