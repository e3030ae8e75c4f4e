"""The encodings of a pack's images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from mien.data.pack import Pack
from mien.sampling.chunks import CHUNK
from mien.sampling.sampler import Sampler

BLOCK = 32 * CHUNK  # images encoded per step of the progress bar


def encoded(sampler: Sampler, pack: Pack, rows: Sequence[int], noisy: bool = False) -> Tensor:
    """The encodings of rows of a pack, with a progress bar; `noisy` ones are samples of the posterior, if there is one."""
    found = []
    generator = torch.Generator().manual_seed(0)
    with tqdm(total=len(rows), desc="encoding", unit=" faces", leave=False, disable=None) as bar:
        for start in range(0, len(rows), BLOCK):
            part = list(rows[start : start + BLOCK])
            images = torch.from_numpy(pack.images[part]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
            images = images.mean(1, keepdim=True) if sampler.image_spec.channels == 1 else images
            labels = (
                torch.from_numpy(pack.labels[part]) if sampler.model.label_dim and pack.labels is not None else None
            )
            noise = torch.randn(len(part), *sampler.model.latent_shape, generator=generator) if noisy else None
            found.append(sampler.encode(images, labels, noise))
            bar.update(len(part))
    return torch.cat(found)
