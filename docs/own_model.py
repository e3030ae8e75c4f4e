"""A model of your own in one file: a linear face space, learned by squared error. Train it with

mien train docs/own_model.py:tiny --recipe.lr 1e-3
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn, optim

from mien import Batch, ImageSpec, Invertible, ModelConfig, Recipe, RecipeConfig, Run, Update
from mien.nn.priors import Normal


class LinearFaces(Invertible):
    def __init__(self, config: "LinearConfig", faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape, self.prior = (config.latent,), Normal()
        self.shape = (faces.channels, faces.side, faces.side)
        pixels = faces.channels * faces.side**2
        self.down, self.up = nn.Linear(pixels, config.latent), nn.Linear(config.latent, pixels)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.down(images.flatten(1))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.up(z).unflatten(1, self.shape).tanh()


@dataclass(frozen=True, kw_only=True)
class LinearConfig(ModelConfig):
    latent: int = 32  # numbers that describe a face

    def build(self, faces: ImageSpec) -> LinearFaces:
        return LinearFaces(self, faces)


class Reconstruct(Recipe):
    def __init__(self, config: "ReconstructConfig", model: LinearFaces) -> None:
        super().__init__(model)
        self.optimizers["model"] = optim.Adam(model.parameters(), lr=config.lr)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        images = next(batches).images
        z = self.model.encode(images)
        loss = (self.model.decode(z) - images).float().square().mean() + 1e-3 * z.float().square().mean()
        yield Update(self.optimizers["model"], loss, stats={"loss": loss})


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(RecipeConfig):
    lr: float = 3e-4  # Adam's learning rate

    def build(self, model: LinearFaces, faces: ImageSpec) -> Reconstruct:
        return Reconstruct(self, model)


PRESETS = {"tiny": Run(preset="tiny", model=LinearConfig(), recipe=ReconstructConfig(), side=32, images=50_000)}
