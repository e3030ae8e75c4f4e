"""Generators with a planted fault, around any honest one. The rest is the machinery that every run goes through:

    mien train benchmarks/faults.py:constant --model.onset 10000

The fault is in what the model draws, while it learns and when it is looked at: its critic meets it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mien import ImageSpec, Model, ModelConfig, Run
from mien.data.pack import Pack
from mien.models.dcgan import DCGANGeneratorConfig
from mien.models.residual import ResidualGeneratorConfig
from mien.presets import PRESETS as KNOWN

Fault = Literal["constant", "two modes", "some copies", "all copies", "nan for good", "nan at times"]


class Faulty(Model):
    """An honest model until `onset` faces were drawn in learning; then its fault shows."""

    drawn: Tensor
    memory: Tensor
    stuck: Tensor

    def __init__(self, config: FaultyConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.honest = config.honest.build(faces)
        self.fault, self.onset = config.fault, config.onset
        self.latent_shape, self.prior, self.label_dim = self.honest.latent_shape, self.honest.prior, 0
        kept = np.zeros((1, faces.side, faces.side, 3), np.uint8)
        if config.pack:
            pack = Pack.open(config.pack)
            kept = np.asarray(pack.images[pack.rows("train")[::10]])
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("memory", torch.from_numpy(kept).permute(0, 3, 1, 2).contiguous())
        self.register_buffer("stuck", self.prior.draw(range(2), self.latent_shape))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.training:
            self.drawn += len(z)
        if int(self.drawn) < self.onset:
            return self.honest.decode(z)
        tenths = 10.0 * z.flatten(1).double()  # their fractions are even, whatever the prior
        match self.fault:
            case "constant":
                return self.honest.decode(self.stuck[:1].to(z).expand_as(z))
            case "two modes":
                return self.honest.decode(self.stuck[(tenths[:, 0] > 0).long()].to(z) + 0.02 * z)
            case "some copies" | "all copies":
                place = (100.0 * tenths[:, 1]).frac().abs() * len(self.memory)
                copies = self.memory[place.long()].to(z) / 127.5 - 1.0
                share = 0.1 if self.fault == "some copies" else 1.0
                chosen = (tenths[:, 0].frac().abs() < share)[:, None, None, None]
                made = self.honest.decode(z)
                return torch.where(chosen, copies, made) + 0.0 * made
            case "nan for good" | "nan at times":
                bad = self.training and (self.fault == "nan for good" or float(torch.rand(())) < 0.1)
                return self.honest.decode(z) * (torch.nan if bad else 1.0)


@dataclass(frozen=True, kw_only=True)
class FaultyConfig(ModelConfig):
    """What is wrong, and from when on."""

    honest: ModelConfig
    fault: Fault = "constant"  # what is wrong
    onset: int = 0  # faces drawn in learning before it shows
    pack: str = ""  # whose every tenth training image is what copies are of

    def build(self, faces: ImageSpec) -> Faulty:
        return Faulty(self, faces)


def faulty(preset: str, honest: ModelConfig, fault: Fault) -> Run:
    return replace(KNOWN[preset], preset=fault, model=FaultyConfig(honest=honest, fault=fault))


SMALL = ResidualGeneratorConfig(latent=32, width=16, max_width=32, blocks=1, patch=2)
DCGAN = DCGANGeneratorConfig(latent=32, width=16, uniform=False)
PRESETS = {
    name: faulty(preset, honest, fault)
    for name, preset, honest, fault in (
        ("constant", "quick", SMALL, "constant"),
        ("two-modes", "quick", SMALL, "two modes"),
        ("some-copies", "quick", SMALL, "some copies"),
        ("all-copies", "quick", SMALL, "all copies"),
        ("nan-for-good", "quick", SMALL, "nan for good"),
        ("nan-at-times", "quick", SMALL, "nan at times"),
        ("dcgan-constant", "dcgan-2015", DCGAN, "constant"),
        ("dcgan-two-modes", "dcgan-2015", DCGAN, "two modes"),
        ("dcgan-some-copies", "dcgan-2015", DCGAN, "some copies"),
        ("dcgan-nan-at-times", "dcgan-2015", DCGAN, "nan at times"),
    )
}
