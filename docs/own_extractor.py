"""An extractor of your own: DINOv2, or any network, from a file that `torch.export.save` wrote.

    DINOV2=dinov2_vitl14.pt2 mien evaluate RUN --extractor docs/own_extractor.py:dinov2 --metrics fid,prdc

On a machine that has the network: `torch.export.save(torch.export.export(network, (torch.rand(2, 3, 224, 224),),
dynamic_shapes=({0: torch.export.Dim("n")},)), "dinov2_vitl14.pt2")`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from mien.metrics.resize import resize


class Exported:
    """Images through Pillow's bicubic to 224 px and ImageNet's mean and deviation, as DINOv2 takes them."""

    resizer, precision = "bicubic 224, ImageNet range", "fp32"

    def __init__(self, file: Path) -> None:
        self.name, self.hash = file.stem, hashlib.sha256(file.read_bytes()).hexdigest()
        self.network = torch.export.load(file).module()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        x = resize(torch.from_numpy(images).permute(0, 3, 1, 2).float(), (224, 224), "bicubic") / 255.0
        mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        return self.network((x - mean) / deviation).numpy()


def dinov2() -> Exported:
    return Exported(Path(os.environ["DINOV2"]))
