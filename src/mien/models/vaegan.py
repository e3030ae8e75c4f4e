"""The three networks of "Autoencoding beyond pixels using a learned similarity metric" (Larsen et al. 2016, arXiv:1512.09300),
as their authors' code has them (andersbll/autoencoding_beyond_pixels@24aa0f2, on andersbll/deeppy@8cb658b).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import ClassVar

from torch import Tensor, nn

from mien.core.contracts import ImageSpec, ModelConfig, NetworkConfig, nearest_side
from mien.core.families import FeatureCritic, VariationalModel
from mien.errors import UsageError
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal

LEGAL = range(16, 257, 8)


def check_side(side: int) -> None:
    """Three halvings and doublings: the side is a multiple of 8."""
    if side not in LEGAL:
        raise UsageError(
            f"The networks of VAE/GAN cannot make {side} px.",
            "They halve and double three times, from 16 to 256 px.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )


def norm(width: int) -> BatchNorm2d:
    """Batch normalisation of maps with the original's constants: a momentum of 0.9 there is 0.1 in torch's counting."""
    return BatchNorm2d(width, eps=1e-6, momentum=0.1)


def full_norm(width: int) -> BatchNorm2d:
    """Batch normalisation of single features `[n, width, 1, 1]`: it keeps DeepPy's default eps, where maps have 1e-6."""
    return BatchNorm2d(width, eps=1e-5, momentum=0.1)


def halve(inputs: int, outputs: int) -> nn.Conv2d:
    """A strided 5x5 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False)


def double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Its transpose."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1, bias=False)


def initialise(network: nn.Module, gain: float) -> None:
    """Weights from U(-b, b) with b = gain / sqrt(3 fan_in), biases zero (AutoFiller, deeppy@8cb658b, filler.py).

    A transposed convolution lies there as the convolution that it transposes: its fan_in is outputs x kernel. Torch stores it
    the same way, `[inputs, outputs, k, k]`.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            bound = gain / sqrt(3.0 * module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: VAEGANModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        n = config.width
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((faces.channels, n, 2 * n, 4 * n)):
            layers += [halve(inputs, outputs), norm(outputs), nn.ReLU()]
        flat = 4 * n * (faces.side // 8) ** 2
        layers += [nn.Flatten(), nn.Linear(flat, config.hidden, bias=False), nn.Unflatten(1, (-1, 1, 1))]
        self.body = nn.Sequential(*layers, full_norm(config.hidden), nn.ReLU(), nn.Flatten())
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        return self.mean(x), self.log_variance(x)


class Decoder(nn.Module):
    """`[n, latent]` -> images in [-1, 1]."""

    def __init__(self, config: VAEGANModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        n, base = config.width, faces.side // 8
        maps = 4 * n * base**2  # the first normalisation is by feature, not by map
        layers: list[nn.Module] = [nn.Linear(config.latent, maps, bias=False), nn.Unflatten(1, (-1, 1, 1))]
        layers += [full_norm(maps), nn.ReLU(), nn.Flatten(), nn.Unflatten(1, (-1, base, base))]
        for inputs, outputs in ((4 * n, 4 * n), (4 * n, 2 * n), (2 * n, n // 2)):
            layers += [double(inputs, outputs), norm(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(n // 2, faces.channels, 5, padding=2), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)  # type: ignore[no-any-return]


class VAEGANModel(VariationalModel):
    """Encoder and decoder; the critic is the recipe's."""

    def __init__(self, config: VAEGANModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        check_side(faces.side)
        self.latent_shape = (config.latent,)
        self.prior = Normal()
        encoder = Encoder(config, faces)
        self.encoder, self.decoder = encoder, Decoder(config, faces)
        self.heads = (encoder.mean, encoder.log_variance)  # DeepPy's latent encoder has no weight decay
        initialise(self, config.gain)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class VAEGANModelConfig(ModelConfig):
    """An encoder of 18,071,360 parameters and a decoder of 4,693,155 at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("vaegan2016",)

    latent: int = 128  # numbers that describe a face, N(0, 1)
    width: int = 64  # feature maps of the encoder's first convolution; then twice and four times as many
    hidden: int = 1024  # features of the encoder's linear layer; the paper's table has 2048
    gain: float = 1.0  # of the first weights

    def build(self, faces: ImageSpec) -> VAEGANModel:
        return VAEGANModel(self, faces)


class VAEGANCritic(FeatureCritic):
    """Four convolutions and two linear layers to one logit; it perceives in the third strided convolution."""

    def __init__(self, config: VAEGANCriticConfig, faces: ImageSpec) -> None:
        super().__init__()
        check_side(faces.side)
        n = config.width
        layers: list[nn.Module] = [nn.Conv2d(faces.channels, n, 5, padding=2), nn.ReLU()]
        layers += [halve(n, 4 * n), norm(4 * n), nn.ReLU(), halve(4 * n, 8 * n), norm(8 * n), nn.ReLU()]
        self.look = nn.Sequential(*layers, halve(8 * n, 8 * n))
        flat = 8 * n * (faces.side // 8) ** 2
        head: list[nn.Module] = [norm(8 * n), nn.ReLU(), nn.Flatten(), nn.Linear(flat, config.hidden, bias=False)]
        head += [nn.Unflatten(1, (-1, 1, 1)), full_norm(config.hidden), nn.ReLU(), nn.Flatten()]
        self.judge = nn.Sequential(*head, nn.Linear(config.hidden, 1))
        initialise(self, config.gain)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.look(images)  # [n, 256, side/8, side/8], before normalisation
        return self.judge(features).squeeze(1), features


@dataclass(frozen=True, kw_only=True)
class VAEGANCriticConfig(NetworkConfig):
    """10,953,857 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("vaegan2016",)

    width: int = 32  # feature maps of the first convolution; then four and twice eight times as many
    hidden: int = 512  # features of the linear layer
    gain: float = 1.0  # of the first weights

    def build(self, faces: ImageSpec) -> VAEGANCritic:
        return VAEGANCritic(self, faces)
