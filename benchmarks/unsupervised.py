"""Seconds of one core that directions without labels take, for every family at 64 px: fresh networks, so nothing is learned here.

python benchmarks/unsupervised.py [PRESET ...]
"""

from __future__ import annotations

import argparse
import time

import torch

from mien import presets
from mien.cli.directions import components_with_progress
from mien.core.contracts import JSON, ImageSpec
from mien.core.device import DeviceContext
from mien.core.run import to_json
from mien.sampling.sampler import Sampler

FAMILIES = (
    *("quick", "cgan", "r3gan-2024", "flow", "vae", "vae-torch-2015", "vaegan-2016", "began-2017", "began-zhao"),
    *("dcgan-2015", "torch-gan-2015", "homogan-15", "cppn-2016", "cppn-residual-2016"),
)


def seconds(name: str) -> float:
    """Of processor time, for ten directions."""
    faces = ImageSpec(side=64)
    torch.manual_seed(0)
    model = presets.PRESETS[name].model.build(faces)
    for parameter in model.parameters():  # layers that start at zero pass no gradient on
        parameter.data.add_(torch.randn(parameter.shape) * 0.01)
    engine = DeviceContext.choose("cpu", "auto")
    engine.place(model)
    header: JSON = {"faces": to_json(faces)}
    sampler = Sampler(model.eval().requires_grad_(False), header, engine, "")
    started = time.process_time()
    found = components_with_progress(sampler, 10)
    assert len(found) == 10
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=FAMILIES)
    torch.set_num_threads(1)
    for name in parser.parse_args().presets:
        print(f"| `{name}` | {seconds(name):.1f} |", flush=True)


if __name__ == "__main__":
    main()
