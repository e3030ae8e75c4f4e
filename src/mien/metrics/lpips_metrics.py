"""Metrics on LPIPS: diversity of samples, reconstruction error, perceptual path length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mien.core.families import Invertible
from mien.errors import UsageError
from mien.metrics import features
from mien.metrics.confidence import bootstrap
from mien.metrics.distances import mean_pairwise
from mien.metrics.features import PerceptualFeatures, planes
from mien.metrics.images import FirstImages, PackImages
from mien.metrics.inputs import MetricInputs
from mien.metrics.scores import Score, in_thousands
from mien.sampling.sampler import Sampler

MAX_EMBEDDED = 2000  # samples, and as many real images
MAX_BYTES = 1 << 29  # of their embeddings, which grow with the image
MAX_RECONSTRUCTED = 1000
WALKS = 1000
STEP = 1e-4  # of a walk, as a share of it: StyleGAN's (arXiv 1812.04948, section 4.1)
TRIM = 0.01  # of the walks at either end are left out, as there


def diversity(inputs: MetricInputs) -> Iterator[Score]:
    """Mean LPIPS over all pairs of samples; with that of as many real images."""
    extractor = PerceptualFeatures("alex", inputs.device)
    width = extractor(inputs.reference.read(slice(0, 1))).shape[1]
    count = min(inputs.fake.count, inputs.reference.count, MAX_EMBEDDED, max(MAX_BYTES // (4 * width), 2))
    fakes, reals = FirstImages(inputs.fake, count), FirstImages(inputs.reference, count)
    estimate = mean_pairwise(features.extract(fakes, extractor, inputs.listener("samples", fakes)))
    among_reals = mean_pairwise(features.extract(reals, extractor, inputs.listener("reference", reals))).value
    protocol = inputs.protocol(extractor, samples=count, of_reals=among_reals)
    yield Score.of("diversity", inputs.name("diversity", count), estimate, protocol)


def reconstruction(inputs: MetricInputs) -> Iterator[Score]:
    """Reconstruction error of real faces: mean absolute difference and LPIPS."""
    sampler = require_model(inputs, "reconstruction")
    model = sampler.model
    if not isinstance(model, Invertible):
        raise UsageError(
            "This model reconstructs nothing.",
            "It has no encoder.",
            "Leave reconstruction out of --metrics.",
        )
    extractor = PerceptualFeatures("alex", inputs.device)
    source = inputs.unseen if inputs.unseen and inputs.unseen.count else inputs.reference
    images = FirstImages(source, MAX_RECONSTRUCTED)
    l1, lpips = [], []
    for rows in features.blocks(images.count):
        real = planes(images.read(rows), sampler.device_context.device) / 127.5 - 1.0
        labels = labels_of(source, rows, model.label_dim)
        grey = real.mean(1, keepdim=True) if sampler.image_spec.channels == 1 else real
        again = sampler.reconstruct(grey, labels).expand(-1, 3, -1, -1)
        with torch.inference_mode():
            lpips.append((extractor.embed(real) - extractor.embed(again)).square().sum(1).cpu())
        l1.append((real.cpu() - again).abs().flatten(1).mean(1) / 2.0)
        inputs.on_progress("reconstruction", len(real), images.count)
    suffix = f"{in_thousands(images.count)}_{source.split}"
    protocol = inputs.protocol(samples=images.count, of=source.split)
    for metric, values in (("reconstruction_l1", l1), ("reconstruction_lpips", lpips)):
        plain = {"extractor": "pixels in [0, 1]"} if values is l1 else features.protocol_of_extractor(extractor)
        name = f"{metric}_{suffix}" if metric[-1].isdigit() else f"{metric}{suffix}"  # l1_1k, not l11k
        yield Score.of(metric, name, bootstrap(joined(values)), {**protocol, **plain})


def path_length(inputs: MetricInputs) -> Iterator[Score]:
    """Perceptual path length: LPIPS of a small step on a walk between two seeds, over the step's square."""
    sampler = require_model(inputs, "ppl")
    extractor = PerceptualFeatures("vgg", inputs.device)
    model, lengths = sampler.model, []
    shares = np.random.default_rng(0).uniform(0.0, 1.0 - STEP, WALKS)
    for rows in features.blocks(WALKS):
        count = rows.stop - rows.start
        starts, ends = range(2 * rows.start, 2 * rows.stop, 2), range(2 * rows.start + 1, 2 * rows.stop, 2)
        a, b = sampler.latents(starts).double(), sampler.latents(ends).double()
        labels = sampler.labels(starts)
        embedded = []
        for extra in (0.0, STEP):
            points = [
                model.prior.path(a[i : i + 1], b[i : i + 1], float(shares[rows.start + i]) + extra)
                for i in range(count)
            ]
            with torch.inference_mode():
                embedded.append(extractor.embed(sampler.decode(torch.cat(points).float(), labels, sampler.space)).cpu())
        lengths.append((embedded[0] - embedded[1]).square().sum(1) / STEP**2)
        inputs.on_progress("ppl", count, WALKS)
    values = joined(lengths)
    low, high = np.quantile(values, (TRIM, 1.0 - TRIM))
    inner = values[(values >= low) & (values <= high)]
    protocol = inputs.protocol(extractor, samples=WALKS, step=STEP, seeds=[0, 2 * WALKS - 1])
    yield Score.of("ppl", f"ppl{in_thousands(WALKS)}", bootstrap(inner), protocol)


def require_model(inputs: MetricInputs, metric: str) -> Sampler:
    """The model itself. Raises UsageError when the inputs are only images."""
    if inputs.sampler is None:
        raise UsageError(f"{metric} needs a model.", "Folders hold only its images.", "Name the model, with --data.")
    return inputs.sampler


def labels_of(images: object, rows: slice, label_dim: int) -> Tensor | None:
    """The labels of a pack's images for a conditional model."""
    if not label_dim or not isinstance(images, PackImages) or images.pack.labels is None:
        return None
    labels = torch.from_numpy(np.array(images.pack.labels[images.rows[rows]]))
    return labels if labels.shape[1] == label_dim else None


def joined(values: list[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Concatenate arrays with one value per face."""
    return np.asarray(torch.cat(values).numpy(), np.float64)
