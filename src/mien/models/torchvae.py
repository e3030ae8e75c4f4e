"""The VAE of "Generating Faces with Torch": its decoder is the blog's generator.

The post does not describe its encoder. Here it is the blog's discriminator up to its hidden layer, without dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mien.core.contracts import ImageSpec, ModelConfig
from mien.core.families import VariationalModel
from mien.models.torch2015 import TorchGeneratorConfig
from mien.nn.priors import Normal


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: TorchVAEConfig, faces: ImageSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = faces.channels
        for outputs in (config.encoder_width, 2 * config.encoder_width, 3 * config.encoder_width):
            layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()]
            inputs = outputs
        flat = inputs * (faces.side // 8) ** 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, config.hidden), nn.ReLU())
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        return self.mean(x), self.log_variance(x)


class TorchVAE(VariationalModel):
    """The blog's generator with an encoder before it."""

    def __init__(self, config: TorchVAEConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.prior = Normal()
        self.decoder = TorchGeneratorConfig(latent=config.latent, width=config.width, dropout=config.dropout).build(
            faces
        )
        self.encoder = Encoder(config, faces)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class TorchVAEConfig(ModelConfig):
    """A decoder of 7,484,675 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "torch2015")

    latent: int = 512  # numbers that describe a face, N(0, 1)
    width: int = 128  # feature maps of the decoder's first and last stage; the middle ones have twice as many
    dropout: float = 0.0  # of whole maps of the decoder, after each ReLU
    encoder_width: int = 32  # feature maps of the encoder's first convolution; then twice and three times as many
    hidden: int = 1024  # features of the encoder's linear layer

    def build(self, faces: ImageSpec) -> TorchVAE:
        return TorchVAE(self, faces)
