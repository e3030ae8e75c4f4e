"""`mien directions --measured`: directions of what can be measured in a model's own faces, without data or labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from mien.errors import DataError, UsageError
from mien.metrics.images import Pixels, to_pixels
from mien.metrics.measures import PIXELS, SEARCHED, FaceMeasures, PixelMeasures
from mien.sampling.directions import Direction
from mien.sampling.measured import FEWEST, Scale, described, obedience, vectors
from mien.sampling.sampler import Sampler
from mien.sampling.unsupervised import decoder

FACES = (512, 3072)  # that directions are fitted to: as many as MAX_FLOPS allows
UNSEEN = 128  # faces that each direction is measured on
MAX_FLOPS = 2e13  # of drawing, in all: about half a minute of one core with bf16 units
BATCH = 64
MIN_CORRELATION = 0.3  # with less, a slider does not do what it says


def measured_directions(sampler: Sampler) -> tuple[list[Direction], list[str], bool]:
    """The directions that are obeyed, warnings, and whether the faces have a mesh.

    Raises DataError if no direction is obeyed.
    """
    model, shape = sampler.model, sampler.model.latent_shape
    count = affordable(sampler)
    latents = sampler.latents(range(count + UNSEEN))
    examples = drawn(sampler, latents[:SEARCHED])
    warnings = []
    measures: FaceMeasures | PixelMeasures
    try:
        measures = FaceMeasures(examples)
        if measures.view is None:
            warnings.append("no faces were found by the detector: only light and colour are measured")
    except (UsageError, DataError) as error:
        measures = PixelMeasures()
        warnings.append(f"only light and colour are measured: {error.what} {error.remedy}")
    with tqdm(total=count, desc="measured", unit=" faces", leave=False, disable=None) as bar:

        def measure(z: Tensor) -> Tensor:
            found = []
            for rows in torch.split(z, BATCH):
                found.append(torch.from_numpy(measures(drawn(sampler, rows))))
                bar.update(len(rows))
            return torch.cat(found).double()

        values = measure(latents[:count])
        usable = [
            place
            for place in range(len(measures.names))
            if (~values[:, place].isnan()).sum() >= FEWEST and Scale.of(values[:, place]).deviation > 1e-6
        ]
        names, values = [measures.names[place] for place in usable], values[:, usable]
        bar.total = count + UNSEEN * (1 + len(names))
        flat, scale = latents.flatten(1).double(), Scale.of(values)
        moves = vectors(flat[:count], scale.apply(values))
        found = obedience(moves, flat[count:], scale, lambda z: measure(z.to(latents))[:, usable], shape)
    directions = described(names, moves, found, count, shape)
    kept = [direction for direction in directions if direction.facts["correlation"] >= MIN_CORRELATION]
    warnings += [
        f"{direction.name}: correlation {direction.facts['correlation']:.2f} on unseen faces, left out"
        for direction in directions
        if direction not in kept
    ]
    if not kept:
        raise DataError(
            f"No direction of {type(model).__name__} is obeyed.",
            "Nothing that was measured follows the latent by a straight line.",
            "Train longer, or use --unsupervised 10.",
        )
    return kept, warnings, measures.names != PIXELS


@torch.inference_mode()
def drawn(sampler: Sampler, latents: Tensor) -> Pixels:
    """uint8 pictures `[n, H, W, 3]` of latents, computed together: they are measured, not shown."""
    images = decoder(sampler)(latents.to(sampler.device_context.device))
    return to_pixels(images.float().clamp(-1.0, 1.0).cpu())


def affordable(sampler: Sampler) -> int:
    """The number of faces for the fit, within MAX_FLOPS."""
    with FlopCounterMode(display=False) as counter:
        drawn(sampler, sampler.latents([0]))
    return int(min(max(MAX_FLOPS / max(1, counter.get_total_flops()), FACES[0]), FACES[1]))
