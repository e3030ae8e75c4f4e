"""Suggests one change for each health problem of a training: a flag of this run, if there is one."""

from __future__ import annotations

from mien.core.contracts import JSON
from mien.core.cores import cores


def remedy(name: str, run: JSON, lean: float, sound: int = 0) -> str:
    """The suggested change. `run` is the content of run.json, `lean` the direction of an imbalance, `sound` the images seen at the
    last healthy check.
    """
    found = run.get("recipe")
    recipe: JSON = found if isinstance(found, dict) else {}
    match name:
        case "variety":
            return anew(more_variety(recipe))
        case "critic strength":
            return anew(level_game(recipe))
        case "balance":
            return anew(other_gamma(recipe, lean))
        case "latent use":
            return anew(cheaper_information(recipe))
        case "originality":
            if not run.get("flip", True):
                return anew("--flip, which doubles the faces to learn from.")
            return f"Stop earlier, with --images {sound}." if sound else "Give it more faces to learn from."
        case "stability":
            return anew(half_the_rate(recipe))
        case "data loading":
            threads = int(run.get("loader_threads", 1))
            if threads < cores():
                return f"Resume with --loader-threads {max(2, 2 * threads)}: it changes nothing that is learned."
            return "Move the pack to a faster disk: more threads than cores do not read faster."
        case _:
            return "Free space on the disk that holds the run: nothing that is saved is lost."


def anew(change: str) -> str:
    """The hint that a change of the training needs a new run."""
    return f"Start again with {change}"


def more_variety(recipe: JSON) -> str:
    """For a generator whose faces are too alike."""
    if "kl_weight" in recipe and "critic" not in recipe:
        return cheaper_information(recipe)
    if "k_step" in recipe and number(recipe, "gamma") < 1.0:
        return f"--recipe.gamma {min(1.0, number(recipe, 'gamma') + 0.2):g}, which asks for more variety."
    return level_game(recipe)


def level_game(recipe: JSON) -> str:
    """For a critic that is too far ahead."""
    if "reg_interval" in recipe:
        return f"--recipe.gamma {10.0 * max(number(recipe, 'gamma'), 0.1):g}: a gentler critic."
    if recipe.get("balance") == "none":
        return "--recipe.balance margin: the player that is ahead pauses."
    return half_the_rate(recipe)


def other_gamma(recipe: JSON, k: float) -> str:
    """For BEGAN's k_t at a limit: 0 when fakes are harder to reconstruct than gamma sets, 1 when they are easier."""
    if "k_step" not in recipe:
        return half_the_rate(recipe)
    gamma, step = number(recipe, "gamma"), number(recipe, "k_step")
    if step > 0.01:
        return "--recipe.k-step 0.001: k_t moves too fast."
    if k < 0.5:
        return f"--recipe.gamma {min(1.0, gamma + 0.2):g}: fakes are harder to reproduce than reals times gamma."
    return f"--recipe.gamma {max(0.0, gamma - 0.2):g}: fakes are easier to reproduce than reals times gamma."


def cheaper_information(recipe: JSON) -> str:
    """For a latent that is ignored."""
    if "kl_weight" not in recipe:
        return half_the_rate(recipe)
    price = number(recipe, "kl_weight")
    if price > 1.0 or recipe.get("likelihood") in (None, "bands"):
        return (
            f"--recipe.kl-weight {max(1.0, price / 10.0) if price > 1.0 else price / 10.0:g}: information is too dear."
        )
    return "--recipe.likelihood bands: the price of information then follows the errors."


def half_the_rate(recipe: JSON) -> str:
    """For a training whose learning rate is too high."""
    name = next((field for field in recipe if field == "lr" or field.startswith("lr_critic")), "")
    if not name:
        return "half the learning rate."
    return f"--recipe.{name.replace('_', '-')} {number(recipe, name) / 2.0:g}: half the learning rate."


def number(recipe: JSON, name: str) -> float:
    """A field that is a number, or 0."""
    value = recipe.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
