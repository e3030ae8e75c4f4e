"""A batch shared between threads of one process: each computes the gradients of some rows, and all move the same weights.

Threads that split the rows of a batch keep their cores busier than threads that split every layer, which is what torch does on
its own. The result for a number of threads is exact; between numbers of threads the order of a few sums differs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import count
from typing import TypeVar

import torch
from torch import nn

from mien.core.contracts import Batch, Recipe
from mien.core.distributed import ThreadGroup

LEAST_SIDE = 32  # pixels; in smaller networks Python takes longer than the layers, and its threads wait for each other
RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

Result = TypeVar("Result")


def threads_for(recipe: Recipe, batch: int, side: int) -> int:
    """How many of this CPU's threads share a batch; 1 for recipes that cannot, and for small images."""
    if not recipe.least_rows or side < LEAST_SIDE or any(isinstance(layer, RANDOM) for layer in recipe.modules()):
        return 1
    fitting = (n for n in range(2, torch.get_num_threads() + 1) if batch % n == 0 and batch // n >= recipe.least_rows)
    return max(fitting, default=1)


class Replicas:
    """Copies of a recipe that have its weights, not copies of them; buffers and random streams are their own."""

    def __init__(self, recipe: Recipe, size: int) -> None:
        self.recipes = [recipe, *(replica(recipe) for _ in range(size - 1))]
        for rank, each in enumerate(self.recipes):
            each.rank, each.world = rank, size
        self.pool = ThreadPoolExecutor(size - 1, thread_name_prefix="rows")

    def run(self, work: Callable[[Recipe, Iterator[Batch]], Result], batches: Iterator[Batch]) -> list[Result]:
        """`work(recipe, its rows of the batches)` in all threads at once. Raises what a thread has raised."""
        size, cores = len(self.recipes), torch.get_num_threads()
        group, rows = ThreadGroup(size, cores), Rows(batches, size)

        def member(rank: int) -> Result:
            torch.set_num_threads(max(1, cores // size))  # of this thread
            with group.joined(rank):
                return work(self.recipes[rank], rows.of(rank))

        others = [self.pool.submit(member, rank) for rank in range(1, size)]
        failures: list[BaseException] = []
        results: list[Result] = []
        try:
            results.append(member(0))
        except BaseException as error:
            failures.append(error)
        finally:
            torch.set_num_threads(cores)
        for other in others:
            try:
                results.append(other.result())
            except BaseException as error:
                failures.append(error)
        if failures:  # of those that did not fail because another had
            raise next((e for e in failures if not isinstance(e, threading.BrokenBarrierError)), failures[0])
        return results


class Rows:
    """The rows of an iterator's batches, for threads that all pull the same number of batches."""

    def __init__(self, batches: Iterator[Batch], size: int) -> None:
        self.batches, self.size = batches, size
        self.pulled: list[Batch] = []
        self.lock = threading.Lock()

    def of(self, rank: int) -> Iterator[Batch]:
        """The batches of one thread."""
        for number in count():
            with self.lock:
                if number == len(self.pulled):
                    self.pulled.append(next(self.batches))
                batch = self.pulled[number]
            images, labels = batch.images.chunk(self.size)[rank], batch.labels
            yield Batch(images, None if labels is None else labels.chunk(self.size)[rank])


def replica(recipe: Recipe) -> Recipe:
    """A copy of a recipe whose parameters are the recipe's. Its optimizers name the parameters, and never step."""
    known = {id(recipe.shared_noise): torch.Generator()}
    for optimizer in recipe.optimizers.values():
        known[id(optimizer.state)] = type(optimizer.state)(dict)  # type: ignore[assignment]
    copy = deepcopy(recipe, known)
    for theirs, ours in zip(copy.parameters(), recipe.parameters(), strict=True):
        theirs.data = ours.data
    return copy
