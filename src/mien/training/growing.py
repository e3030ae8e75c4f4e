"""Growing: a network of twice the side starts as its parent enlarged (after Karras et al. 2017, arXiv:1710.10196, section 2).

The coarse resolutions are the parent's. Before the first step the new layers learn to imitate it: the generator draws the
parent's faces enlarged, and the critic gives an image the parent's logit for the image reduced. No fading in is needed then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import Adoptive, Batch, ImageSpec, Model, ModelConfig, NetworkConfig
from mien.core.device import DeviceContext, mix
from mien.core.eager_optimizer import eager_step
from mien.core.run import Run
from mien.training.train_state import TrainState

STEPS, BATCH = 300, 16
GENERATOR_RATE, CRITIC_RATE = 2e-3, 1e-3  # of Adam, at the start; 0 at the end


def imitate(
    state: TrainState, run: Run, faces: ImageSpec, batches: Iterator[Batch], networks: Mapping[str, Tensor], side: int
) -> float | None:
    """Fit the layers that a parent of `side` does not have, in place. Returns the mean error of a pixel, in [0, 2].

    `networks` are the parent's weights, as in the recipe's state_dict. None if the parent is not this run's model at another side.
    """
    small = replace(faces, side=side)
    parent = _build(run.model.resized(faces.side, side), small, networks, "model", state.context)
    model = state.recipe.model
    fitted = _new(model, parent) if isinstance(parent, Model) else []
    if not isinstance(parent, Model) or not fitted:
        return None
    torch.manual_seed(mix(run.seed, side, faces.side))
    config = getattr(run.recipe, "critic", None)
    judge = None
    if isinstance(config, NetworkConfig):
        judge = _build(config.resized(faces.side, side), small, networks, "critic", state.context)
    critic = getattr(state.recipe, "critic", None)
    optimizers = [torch.optim.Adam(fitted, GENERATOR_RATE, betas=(0.9, 0.99))]
    fitted_critic = _new(critic, judge) if isinstance(critic, nn.Module) and judge is not None else []
    if fitted_critic:
        optimizers.append(torch.optim.Adam(fitted_critic, CRITIC_RATE, betas=(0.9, 0.99)))
    held = [parameter for parameter in (*fitted, *fitted_critic) if not parameter.requires_grad]
    for parameter in held:  # --recipe.freeze holds them once they know what their parent knew
        parameter.requires_grad_(True)
    error = 0.0
    for step in range(STEPS):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * (1.0 - step / STEPS)
        batch = state.context.batch(next(batches))
        z = model.prior.sample(len(batch.images), model.latent_shape, state.recipe.shared_noise).to(fitted[0])
        with state.context.autocast():
            with torch.no_grad():
                target = _scale(parent.decode(z, batch.labels).float(), faces.side)
            drawn = model.decode(z, batch.labels).float()
            loss = (drawn - target).abs().mean()
            gradients = torch.autograd.grad(loss, fitted)
            error = float(loss.detach())
            if judge is not None and critic is not None and fitted_critic:
                images = torch.cat([batch.images, drawn.detach().to(batch.images)])
                labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
                with torch.no_grad():
                    wanted = judge(_scale(images, side), labels).float()
                gap = (critic(images, labels).float() - wanted).square().mean()
                gradients += torch.autograd.grad(gap, fitted_critic)
        for parameter, gradient in zip([*fitted, *fitted_critic], gradients, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        for optimizer in optimizers:
            eager_step(optimizer)
            optimizer.zero_grad(set_to_none=True)
    for parameter in held:
        parameter.requires_grad_(False)
    if state.ema is not None:
        state.ema.model.load_state_dict(model.state_dict())
    return error


def _build(
    config: ModelConfig | NetworkConfig,
    faces: ImageSpec,
    networks: Mapping[str, Tensor],
    name: str,
    context: DeviceContext,
) -> nn.Module | None:
    """The parent's network with its weights; None if they are of another architecture."""
    network = config.build(faces)
    theirs = {key.removeprefix(f"{name}."): tensor for key, tensor in networks.items() if key.startswith(f"{name}.")}
    if {key: tensor.shape for key, tensor in theirs.items()} != {k: t.shape for k, t in network.state_dict().items()}:
        return None
    network.load_state_dict(theirs)
    context.place(network)
    return network.eval().requires_grad_(False)


def _new(network: nn.Module, parent: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network that are not the parent's."""
    if not isinstance(network, Adoptive):
        return []
    theirs = network.translate(parent.state_dict())
    return [p for name, p in network.named_parameters() if name not in theirs or theirs[name].shape != p.shape]


def _scale(images: Tensor, side: int) -> Tensor:
    """Images at another side: cubic when they grow, means of squares when they shrink."""
    if side > images.shape[-1]:
        return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False).clamp(-1.0, 1.0)
    return F.adaptive_avg_pool2d(images, side)
