"""The layers that a parent does not give: fitted before the first step, so that a run starts where its parent stands.

A generator's new layers learn to draw the parent's faces, enlarged if the sides differ, and a critic's to give an image the
parent's logit for the image reduced. So growing (Karras et al. 2017, arXiv:1710.10196) needs no fading in. A critic that is all
new learns on its own first, while the generator stands still: at random it would undo what the generator has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core import distributed
from mien.core.contracts import Batch, ImageSpec, Model
from mien.core.device import mix
from mien.core.families import FlowModel
from mien.core.module_limit import limit_modules
from mien.core.run import Run
from mien.training.parent import MODULES, Parent, Transfer, label_tensors, within
from mien.training.train_state import NonFinite, TrainState, match_layout

STEPS = 300  # of the new layers
RATES = {"model": 2e-3, "critic": 1e-3}  # of Adam, falling to 0
ALONE = 200  # steps of a critic that is all new


def settle(
    state: TrainState, run: Run, spec: ImageSpec, parent: Parent, transfer: Transfer, batches: Iterator[Batch]
) -> list[str]:
    """Fit what is new in the model and the critic. Returns a line for each, for the log; the state stays at 0 images."""
    lines = []
    torch.manual_seed(mix(run.seed, spec.side, parent.spec.side))
    state.recipe.shared_noise.manual_seed(mix(run.seed, spec.side))
    critic = getattr(state.recipe, "critic", None)
    fresh = label_tensors(run, spec)
    error = imitate_model(state, spec, parent, new_parameters(state.recipe.model, "model", transfer, fresh), batches)
    if error is not None:
        lines.append(f"the model's new layers imitate the parent at {parent.spec.side} px: mean error {error:.3f} of 2")
    if isinstance(critic, nn.Module) and parent.config.critic is not None and transfer.share("critic"):
        new = new_parameters(critic, "critic", transfer, fresh)
        error = imitate_critic(state, critic, parent, new, batches)
        if error is not None:
            lines.append(f"the critic's new layers imitate the parent's logits: mean error {error:.2f}")
    elif isinstance(critic, nn.Module) and not transfer.share("critic"):
        train_critic(state, batches)
        lines.append(f"the critic is new, and has trained for {ALONE} steps before the generator")
    distributed.broadcast_module(state.recipe)
    if state.ema:
        distributed.broadcast_module(state.ema.model)
    return lines


def new_parameters(network: nn.Module, name: str, transfer: Transfer, fresh: set[str]) -> list[nn.Parameter]:
    """The parameters that the parent does not have, without those of labels."""
    names = {key for key in within(transfer.new, f"{name}.") if f"{name}.{key}" not in fresh}
    return [parameter for key, parameter in network.named_parameters() if key in names]


def imitate_model(
    state: TrainState, spec: ImageSpec, parent: Parent, new: Sequence[nn.Parameter], batches: Iterator[Batch]
) -> float | None:
    """Fit new layers of the model to the parent's faces. Returns the mean error of a pixel; None where that cannot be done."""
    model = state.recipe.model
    same = parent.model.latent_shape == model.latent_shape and parent.spec.channels == spec.channels
    if not new or not same or isinstance(model, FlowModel):
        return None
    teacher: Model = deepcopy(parent.model)
    teacher.load_state_dict(within(parent.networks, "model."))
    state.context.place(teacher)
    teacher.eval().requires_grad_(False)

    def loss() -> Tensor:
        batch = state.context.batch(next(batches))
        z = state.recipe.latents(len(batch.images))
        with state.context.autocast():
            target = resized(
                teacher.decode(z, batch.labels if teacher.label_dim == spec.label_dim else None), spec.side
            )
            return (model.decode(z, state.recipe.labels_of(batch)).float() - target).abs().mean()

    error = fit(new, loss, RATES["model"])
    if state.ema:  # the average of the new layers is what they are now
        averaged = dict(state.ema.model.named_parameters())
        chosen = {id(parameter) for parameter in new}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if id(parameter) in chosen:
                    averaged[name].copy_(parameter)
    return error


def imitate_critic(
    state: TrainState, critic: nn.Module, parent: Parent, new: Sequence[nn.Parameter], batches: Iterator[Batch]
) -> float | None:
    """Fit new layers of the critic to the parent's logits of real images and fakes. Returns the mean error."""
    config = parent.config.critic
    if not new or config is None or state.recipe.model.label_dim != parent.spec.label_dim:
        return None
    with limit_modules(MODULES):
        teacher = config.build(parent.spec)
    teacher.load_state_dict(within(parent.networks, "critic."))
    state.context.place(teacher)
    teacher.eval().requires_grad_(False)
    model = state.recipe.model

    def loss() -> Tensor:
        batch = state.context.batch(next(batches))
        labels = state.recipe.labels_of(batch)
        with state.context.autocast():
            with torch.no_grad():
                fakes = model.decode(state.recipe.latents(len(batch.images)), labels).to(batch.images)
                images = torch.cat([batch.images, fakes])
                both = None if labels is None else torch.cat([labels, labels])
                target = teacher(resized(images, parent.spec.side).to(images), both).float()
            return (critic(images, both).float() - target).abs().mean()

    frozen = [parameter for parameter in new if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    error = fit(new, loss, RATES["critic"])
    for parameter in frozen:
        parameter.requires_grad_(False)
    return error


def fit(parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], rate: float) -> float:
    """Adam on a loss, with a rate that falls to 0. Returns the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.Adam(parameters, rate, betas=(0.9, 0.99))
    last = []
    for step in range(STEPS):
        value = loss()
        gradients = torch.autograd.grad(value, list(parameters), allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else match_layout(parameter, gradient)
        optimizer.param_groups[0]["lr"] = rate * (1.0 - step / STEPS)
        optimizer.step()
        last += [float(value.detach())] if step >= STEPS - STEPS // 10 else []
    optimizer.zero_grad(set_to_none=True)
    return sum(last) / len(last)


def train_critic(state: TrainState, batches: Iterator[Batch]) -> None:
    """Steps of the recipe after each of which the model is put back; then everything but the critic is as before."""
    before = {name: tensor.clone() for name, tensor in state.recipe.state_dict().items()}
    model = {name: tensor.clone() for name, tensor in state.recipe.model.state_dict().items()}
    average, state.ema = state.ema, None
    try:
        for _ in range(ALONE):
            state.step(batches)
            state.recipe.model.load_state_dict(model)
    except NonFinite:  # the first steps of the run say so, and go back
        state.recipe.load_state_dict(before)
    after = within(state.recipe.state_dict(), "critic.")
    state.recipe.load_state_dict({**before, **{f"critic.{name}": tensor for name, tensor in after.items()}})
    for optimizer in state.recipe.optimizers.values():
        optimizer.state.clear()
    state.ema, state.seen = average, 0
    state.recipe.schedule(0)


def resized(images: Tensor, side: int) -> Tensor:
    """Images at another side: cubic when they grow, means of squares when they shrink."""
    images = images.float()
    if side > images.shape[-1]:
        return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False).clamp(-1.0, 1.0)
    return images if side == images.shape[-1] else F.adaptive_avg_pool2d(images, side)
