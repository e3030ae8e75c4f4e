"""Our best VAE: residual encoder and decoder without normalisation, so that no image depends on its batch.

The latent modulates the decoder at every resolution: with only one input at the coarsest resolution, fine detail is lost.

The prior is learned: a normalizing flow maps latents, N(0, I), to codes (arXiv:1611.02731, section 3.2). A VAE with sharp
reconstructions cannot also match its codes to N(0, I), so that samples of that prior would not be faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, ModelConfig
from mien.core.families import Gaussian, VariationalModel
from mien.errors import UsageError
from mien.models.residual import label_layers, widths_of
from mien.nn.coupling import CouplingFlow
from mien.nn.labels import GeneratorConditioning, LabelChannel
from mien.nn.pixel_shuffle import SLOPE, input_layer, output_layer, scaled
from mien.nn.priors import Normal
from mien.nn.residual_blocks import block_stage, projections


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: VAEModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)[::-1]
        total = config.blocks * len(widths)
        self.channel = LabelChannel(faces.label_dim, faces.side) if faces.label_dim else None
        channels = faces.channels + (self.channel is not None)
        self.first = input_layer(channels, widths[0], config.patch, config.full_res_width)
        self.stages = nn.ModuleList(block_stage(width, 0, config.blocks, total) for width in widths)
        self.widen = projections(widths)
        self.last = scaled(nn.Linear(widths[-1] * 16, 2 * config.latent), 0.5)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = images if self.channel is None else self.channel(images, labels)
        x = self.first(images)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.widen[index - 1](F.avg_pool2d(x, 2))
            x = stage(x)
        mean, log_variance = self.last(F.leaky_relu(x, SLOPE).flatten(1)).chunk(2, 1)
        return mean, log_variance


class Decoder(nn.Module):
    """Codes `[n, latent]` -> images; the output is linear."""

    def __init__(self, config: VAEModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)
        total = config.blocks * len(widths)
        labelled, channel = label_layers(config.conditioning, faces.label_dim, config.latent)
        self.labelled, self.channel = labelled, channel
        latent = 2 * config.latent if labelled is not None else config.latent
        self.first = scaled(nn.Linear(latent, (widths[0] - (channel is not None)) * 16), 1.0)
        self.stages = nn.ModuleList(block_stage(width, 0, config.blocks, total) for width in widths)
        self.narrow = projections(widths)
        self.style = nn.ModuleList(scaled(nn.Linear(latent, width), 0.0) for width in widths)
        self.last = output_layer(widths[-1], faces.channels, config.patch, config.full_res_width, shared=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z if self.labelled is None else self.labelled(z, labels)
        x = self.first(z).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = x if self.channel is None else self.channel(x, labels)
        for index, stage in enumerate(self.stages):
            if index:
                x = F.interpolate(self.narrow[index - 1](x), scale_factor=2.0, mode="nearest")
            x = stage(x * (1 + self.style[index](z))[:, :, None, None])
        return self.last(F.leaky_relu(x, SLOPE))  # type: ignore[no-any-return]


class ResidualVAE(VariationalModel):
    """Encoder and decoder, mirror images, and the flow from latents to the codes between them."""

    def __init__(self, config: VAEModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        self.encoder, self.decoder = Encoder(config, faces), Decoder(config, faces)
        self.flow = CouplingFlow(config.latent, config.couplings, config.coupling_width)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_code(self.flow(z), labels)

    def decode_code(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(codes, labels)  # type: ignore[no-any-return]

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        return Gaussian(*self.encoder(images, labels))

    def latents_of(self, codes: Tensor) -> Tensor:
        return self.flow.inverse(codes)[0]

    def kl(self, posterior: Gaussian, codes: Tensor) -> Tensor:
        if not self.flow.layers:
            return super().kl(posterior, codes)
        latents, volume = self.flow.inverse(codes)
        entropy = 0.5 * (1.0 + posterior.log_variance.to(latents.dtype)).sum(1)  # constants of both terms cancel
        return (0.5 * latents.square().sum(1) - volume - entropy)[:, None]

    @torch.inference_mode(False)
    @torch.no_grad()
    def kl_per_dimension(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Of a learned prior: of the Gaussian that the posterior is near its mean, once the flow has led it back."""
        if not self.flow.layers:
            return super().kl_per_dimension(images, labels)
        posterior = self.posterior(images, labels)
        means = posterior.mean.to(self.flow.precision(posterior.mean))
        latents = self.flow.inverse(means)[0].double()
        slopes = torch.func.vmap(torch.func.jacrev(lambda code: self.flow.inverse(code[None])[0][0]))(means)
        spread = slopes.double() * torch.exp(0.5 * posterior.log_variance.double())[:, None]  # a row for each latent
        alone = torch.linalg.qr(spread.mT).R.diagonal(dim1=1, dim2=2).square()  # variance given the latents before it
        nats: Tensor = 0.5 * (latents.square() + spread.square().sum(2) - 1.0 - alone.log())
        return nats


@dataclass(frozen=True, kw_only=True)
class VAEModelConfig(ModelConfig):
    """Compute grows with the square of `width`."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "realnvp2017", "lossy2017")
    grows: ClassVar[tuple[str, ...]] = ("width", "max_width", "full_res_width")  # with `--scale`

    latent: int = 128  # numbers that describe a face, N(0, 1), and as many of its code
    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    max_width: int = 256  # upper bound on the number of feature maps
    blocks: int = 1  # residual blocks a resolution
    patch: int = 2  # pixels a side for each position of the finest features
    full_res_width: int = 0  # feature maps at full resolution; 0 rearranges channels into pixels, and back
    couplings: int = 0  # layers of the flow from the latents to the decoder's codes; 0 = they are the same
    coupling_width: int = 256  # hidden numbers of each such layer
    conditioning: GeneratorConditioning = (
        "norm"  # with labels, the decoder's: they scale every stage's features, or are a feature map (homogan)
    )

    def build(self, faces: ImageSpec) -> ResidualVAE:
        if self.couplings < 0 or (self.couplings and (self.latent < 2 or self.coupling_width < 1)):
            raise UsageError(
                f"A flow of {self.couplings} couplings, {self.coupling_width} wide, over {self.latent} numbers is not possible.",
                "Each tells one half of the numbers by the other half, through hidden numbers.",
                "Use --model.couplings 0 for none, or a latent of 2 or more and a width of 1 or more.",
            )
        return ResidualVAE(self, faces)
