"""SOAP (Vyas et al. 2024, arXiv:2409.11321): Adam in the eigenbasis of Shampoo's preconditioner.

G `[m, n]` is the gradient of a matrix of weights W; L and R average G G^T and G^T G; the columns of Q_L and Q_R are their
eigenvectors. V is Adam's second moment, of the rotated gradient:

    G' = Q_L^T G Q_R
    V <- beta2 V + (1 - beta2) G'^2
    W <- W - lr Q_L (G' / (sqrt(V / (1 - beta2^t)) + eps)) Q_R^T    with eps relative to the size of G' (FLOOR)

Adam scales each weight on its own, although the inputs of a layer are correlated. Along eigenvectors they are not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn, optim

FLOOR = 1e-3  # of the root mean square of G', added to sqrt(V): where a gradient is nothing but rounding, nothing moves


class SOAP(optim.Optimizer):
    """Adam for vectors; for linear and convolutional layers Adam along the eigenvectors of their recent gradients.

    A convolution is the matrix `[outputs, inputs x kernel]`, one for each of its groups. There is no first moment (beta1 = 0).
    `parameters` may be groups with their own number of `matrices`, which `by_matrices` finds for the convolutions of a network.
    `memory` is the share of L and R that a step keeps, `every` the number of steps between two looks for eigenvectors (one
    orthogonal iteration each; the first steps have more of them). A side longer than `largest` is not rotated. With `hold` every
    matrix keeps the norm that it had before its first step, if that was not 0 (forced weight normalization, Karras et al. 2024,
    arXiv:2312.02696, section 2.3, of a whole matrix instead of its rows): weights that grow would learn ever more slowly.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]],
        lr: float,
        beta2: float = 0.99,
        eps: float = 1e-8,
        memory: float = 0.9,
        every: int = 20,
        largest: int = 1024,
        hold: bool = False,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.0, beta2), "eps": eps, "matrices": 1})
        self.memory, self.every, self.largest, self.hold = memory, every, largest, hold

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        moving = [
            (weights, group) for group in self.param_groups for weights in group["params"] if weights.grad is not None
        ]
        states = [self.state[weights] for weights, _ in moving]  # made here, in the order that a checkpoint has them

        def move(index: int) -> None:
            weights, group = moving[index]
            held = self.held_norm(weights, states[index])
            direction = self.direction(weights.grad, group, states[index])
            weights.add_(direction.reshape(weights.shape), alpha=-group["lr"])
            if held is not None:
                weights.mul_(torch.where(held > 0.0, held / weights.norm(), 1.0))

        threads = torch.get_num_threads() if all(w.is_cpu for w, _ in moving) else 1
        costs = [cost(weights.shape, group["matrices"], self.largest) for weights, group in moving]
        on_threads(move, even_shares(costs, threads))

    def held_norm(self, weights: Tensor, state: dict[str, Any]) -> Tensor | None:
        """The norm that a matrix of weights had before its first step, scalar; None where nothing is held."""
        if not self.hold or weights.dim() < 2:
            return None
        if "norm" not in state:
            state["norm"] = weights.norm()
        held: Tensor = state["norm"]
        return held

    def direction(self, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """The step of one tensor for a learning rate of 1, with as many elements as `gradient`. Updates `state`."""
        step = state["step"] = state.get("step", 0) + 1
        bases: list[tuple[int, Tensor]] = []
        if gradient.dim() > 1:
            gradient = gradient.reshape(group["matrices"], gradient.shape[0] // group["matrices"], -1)
            bases = self.bases(gradient, step, state)
        rotated = gradient
        for side, basis in bases:
            rotated = basis.mT @ rotated if side == 1 else rotated @ basis
        if "square" not in state:
            state["square"] = torch.zeros_like(rotated, memory_format=torch.contiguous_format)
        square, beta2 = state["square"], group["betas"][1]
        square.mul_(beta2).addcmul_(rotated, rotated, value=1.0 - beta2)
        corrected = square / (1.0 - beta2**step)
        size = corrected.mean((1, 2), keepdim=True).sqrt() if bases else 0.0
        direction: Tensor = rotated / corrected.sqrt_().add_(FLOOR * size + group["eps"])
        for side, basis in bases:
            direction = basis @ direction if side == 1 else direction @ basis.mT
        return direction

    def bases(self, gradient: Tensor, step: int, state: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """Side 1 with Q_L `[k, m, m]` and side 2 with Q_R `[k, n, n]`, for gradients `[k, m, n]`."""
        due = step % self.every == 0 or (step < self.every and step & (step - 1) == 0)  # 1, 2, 4, 8, 16, 20, 40, ...
        found = []
        for side, length in enumerate(gradient.shape[1:], start=1):
            if not 1 < length <= self.largest:
                continue
            pair = (gradient, gradient.mT) if side == 1 else (gradient.mT, gradient)
            average, basis = f"products_{side}", f"basis_{side}"
            if average in state:
                state[average].baddbmm_(*pair, beta=self.memory, alpha=1.0 - self.memory)
            else:
                state[average] = torch.bmm(*pair)
            if due:
                state[basis] = iterated(state[average], state.get(basis))
            found.append((side, state[basis]))
        return found


def cost(shape: torch.Size, matrices: int, largest: int) -> int:
    """About how long the step of a tensor takes, in multiplications; memory and calls counted as measured for `gan`."""
    count = shape.numel()
    sides = (shape[0] // matrices, shape[1:].numel()) if len(shape) > 1 else ()
    return 2_400_000 + 30 * count + sum((count + 24 * matrices * side) * side for side in sides if side <= largest)


def even_shares(costs: Sequence[int], count: int) -> list[list[int]]:
    """Indices of `costs` in `count` shares whose sums are about equal: the largest first, each to the smallest share."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = sums.index(min(sums))
        shares[least].append(index)
        sums[least] += costs[index]
    return shares


def on_threads(work: Callable[[int], None], shares: Sequence[Sequence[int]]) -> None:
    """Call `work` for all indices, each share on a thread. A call has one thread, so that their number changes no result."""
    threads = torch.get_num_threads()

    def alone(share: Sequence[int]) -> None:
        torch.set_num_threads(1)  # each time: in some libraries it holds for all threads, whichever sets it
        with torch.no_grad():
            for index in share:
                work(index)

    others = [pool(len(shares) - 1).submit(alone, share) for share in shares[1:]]
    try:
        alone(shares[0])
    finally:
        wait(others)
        torch.set_num_threads(threads)
    for other in others:
        other.result()  # raises what a call has raised


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for their share of the next step: to begin and end them with each step takes longer."""
    return ThreadPoolExecutor(threads, "soap")


os.register_at_fork(after_in_child=pool.cache_clear)  # a child has none of its parent's threads


def iterated(average: Tensor, basis: Tensor | None) -> Tensor:
    """One orthogonal iteration for the eigenvectors of `average` `[k, n, n]`, from `basis`, or from the axes.

    A thousandth of the mean eigenvalue is added to each, which changes no eigenvector: where no gradient has been yet, the axes
    stay.
    """
    axes = torch.eye(average.shape[-1], dtype=average.dtype, device=average.device)
    floor = average.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * 1e-3
    ahead = average + floor * axes
    ahead = ahead if basis is None else ahead @ basis
    new: Tensor = torch.linalg.qr(ahead.cpu() if ahead.is_mps else ahead).Q  # Metal has no QR decomposition
    return new.to(ahead.device).contiguous()  # as a checkpoint has it: kernels round another layout otherwise


def by_matrices(network: nn.Module, weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Weights of a network in groups by the number of matrices that a tensor is: the groups of its convolution, or 1."""
    counts = {id(layer.weight): layer.groups for layer in network.modules() if isinstance(layer, nn.Conv2d)}
    groups: dict[int, list[nn.Parameter]] = {}
    for weight in weights:
        groups.setdefault(counts.get(id(weight), 1), []).append(weight)
    return [{"params": found, "matrices": count} for count, found in sorted(groups.items())]
