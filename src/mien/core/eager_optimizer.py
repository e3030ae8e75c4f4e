"""Optimizers without torch's compiler.

Making one, and its first step, import `torch._dynamo` only to tell the compiler to leave them alone: 1.8 seconds of computing.
mien compiles nothing, so there is nobody to tell.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer

#: Methods that torch wraps so. What is wrapped can carry the compiler's answer, which is then not imported.
WRAPPED = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def answer_for_compiler() -> None:
    """Leave the compiler's answer where torch's wrappers look for it. A torch without these wrappers is left as it is."""
    for name in WRAPPED:
        plain = getattr(vars(Optimizer).get(name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


def eager_step(optimizer: Optimizer) -> None:
    """`optimizer.step()` to the bit, below the wrappers of the compiler and of profilers.

    An optimizer that is not torch's or mien's, or that has hooks, takes its step as it is.
    """
    ours = type(optimizer).__module__.partition(".")[0] in ("torch", "mien") and "step" not in vars(optimizer)
    if ours and not any(getattr(optimizer, name, None) for name in HOOKS):
        with torch.no_grad():
            inspect.unwrap(type(optimizer).step)(optimizer)
    else:
        optimizer.step()


answer_for_compiler()
