"""Bulk sampling: the faces of many seeds, or the frames of a walk, as shards, drawn by all processes of `torchrun`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from mien.cli.result import Result
from mien.core import distributed
from mien.core.contracts import JSON
from mien.errors import Interrupted, Preempted
from mien.report.grid import picture, png_bytes
from mien.report.progress import clock
from mien.report.shards import FINISHED, MANIFEST, Face, Seeds, ShardFormat, Shards
from mien.sampling.sampler import Sampler
from mien.training.signals import StopFlag, handled

PAUSE = 10.0  # seconds between two lines of progress


def sample_shards(
    sampler: Sampler,
    seeds: Seeds,
    labels: Mapping[str, float],
    recipe: JSON,
    out: Path,
    kind: ShardFormat,
    size: int,
    block: int,
) -> Result | None:
    """The faces of seeds as shards; see `write_shards`."""

    def draw(part: Sequence[int]) -> Iterator[Face]:
        rows = sampler.labels(part, labels)
        values: list[list[float]] = [[] for _ in part] if rows is None else rows.tolist()
        for seed, image, row in zip(part, sampler.sample(part, rows), values, strict=True):
            face_labels = dict(zip(sampler.label_names, row, strict=True)) if row else {}
            yield Face(seed, png_bytes(picture(image), {**recipe, "seeds": [seed]}), face_labels)

    return write_shards(sampler, seeds, draw, recipe, out, kind, size, block)


def write_shards(
    sampler: Sampler,
    seeds: Seeds,
    draw: Callable[[Sequence[int]], Iterator[Face]],
    recipe: JSON,
    out: Path,
    kind: ShardFormat,
    size: int,
    block: int,
    what: str = "faces",
) -> Result | None:
    """Write what `draw` makes of seeds, or of other numbers, in blocks; None in every process but the first.

    Goes on where an earlier command ended. Raises Mismatch for a folder with shards of another request, Preempted or Interrupted
    after a signal.
    """
    context = sampler.device_context
    if context.device.type == "cpu":
        torch.set_num_threads(1)  # with another number of threads sums may round differently, and bytes must be equal
    described = {**recipe, "device": context.device.type, "precision": context.precision}
    shards, flag = Shards(out, kind, described, seeds, size), StopFlag()

    def in_blocks(chosen: Sequence[int]) -> Iterator[Face]:
        for start in range(0, len(chosen), block):
            if flag.code:
                raise (Interrupted if flag.code == Interrupted.exit_code else Preempted)(
                    "Stopped between two shards.",
                    "The process received a signal.",
                    "Run the same command again: finished shards stay.",
                )
            yield from draw(chosen[start : start + block])

    with handled(flag.receive), distributed.world("cpu") as world, ExitStack() as stack:
        shards.open(write=False)
        content = distributed.broadcast(shards.manifest if world.first else None)
        if content is None:
            if world.first:
                stack.enter_context(shards.locked())
                shards.open(write=True)
                shards.reopen()
            missing = distributed.broadcast(shards.missing() if world.first else None)
            progress = Progress(shards, len(missing)) if world.first else None
            for shard in missing[world.rank :: world.size]:
                shards.write(shard, in_blocks)
                if progress:
                    progress.show()
            distributed.barrier()
            content = shards.close() if world.first else None
        if not world.first:
            return None
    assert content is not None
    data = {"folder": str(out), "manifest": str(out / MANIFEST), "shards": len(shards), what: len(seeds)}
    text = f"{len(seeds):,} {what} in {len(shards):,} shards: {out / MANIFEST}"
    if refused := sum(entry.get("refused", 0) for entry in content["shardlist"]):
        text += f"\n{refused:,} of them cannot be used; `refused` beside each says why"
    return Result(text, {**data, "sha256": content["sha256"], **({"refused": refused} if refused else {})})


class Progress:
    """Lines on stderr: shards of all processes so far, and an estimate of the time that is left."""

    def __init__(self, shards: Shards, missing: int) -> None:
        self.shards, self.before = shards, len(shards) - missing
        self.began = self.shown = time.monotonic()

    def show(self) -> None:
        """Print a line, at most every ten seconds. Finished shards are counted in the folder, whoever wrote them."""
        now = time.monotonic()
        if now - self.shown < PAUSE:
            return
        self.shown = now
        done = sum(1 for _ in (self.shards.folder / FINISHED).glob("[0-9]*.json"))
        rate = (done - self.before) / (now - self.began)  # shards a second, more than 0: this process has written one
        left = clock((len(self.shards) - done) / rate) if rate > 0 else "?"
        pictures = rate * self.shards.size
        print(
            f"{done:,} of {len(self.shards):,} shards  {pictures:.0f} pictures/s  {left} left",
            file=sys.stderr,
            flush=True,
        )
