"""The worker processes of a preparation: jobs handed out, deaths and hangs outlived."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mien.data.preprocess import PreprocessConfig
from mien.data.shard import shard_path
from mien.data.source import Landmarks, Source
from mien.data.worker import job_line
from mien.errors import MienError, StorageError

PATIENCE = 60.0  # seconds that one image may take
PAUSE = 0.02  # seconds between looks at the workers: waking for each of their words would cost a tenth of the rate
LAST_PAUSE = 0.002  # when nothing is left to hand out, and the end is waited for
COMMAND = [sys.executable, "-c", "from mien.data.worker import main; main()"]


class Worker:
    """One process, the shards it was given and the image it is at."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # one process a core, one thread each
        )
        self.shards: deque[int] = deque()  # running, then waiting: it never idles between two
        self.position = -1  # the image it is at in the running shard
        self.last_sign = time.monotonic()
        self._rest = b""

    def give(self, shard: int, line: str) -> None:
        assert self.process.stdin is not None
        if not self.shards:  # it has had nothing to say
            self.last_sign = time.monotonic()
        self.shards.append(shard)
        with contextlib.suppress(BrokenPipeError):  # it is dead, and will be missed when it is listened to
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def hear(self) -> list[str]:
        """The lines said since the last call; raises EOFError when the process is gone."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError
        self.last_sign = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def dismiss(self) -> None:
        """End it. What it has finished is on the disk."""
        self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died with words of ours unread
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class WorkerPool:
    """The workers of one preparation. Leaving the `with` block dismisses them, whatever they are at."""

    def __init__(self, most: int) -> None:
        """`most` workers at a time. The first starts at once, while the caller still looks at the source."""
        self.most = most
        self._workers: dict[int, Worker] = {}  # by the descriptor of their words
        self._selector = selectors.DefaultSelector()
        self._deaths_without_work = 0
        self._hire()

    def make_shards(
        self,
        folder: Path,
        shards: dict[int, Sequence[str]],
        source: Source,
        cutting: PreprocessConfig,
        on_images: Callable[[int], object],
        landmarks: Mapping[int, Landmarks] | None = None,
    ) -> None:
        """Make the files of `shards` (number -> names) in `folder`.

        `on_images` hears several times a second how many more images were begun. `landmarks` has those of each shard's images,
        where the source knows them and they are asked for.
        """
        waiting, marks = deque(sorted(shards)), landmarks or {}
        lost: dict[int, dict[int, str]] = {shard: {} for shard in shards}

        def hand_out(worker: Worker) -> None:
            while waiting and len(worker.shards) < 2:
                shard = waiting.popleft()
                path = shard_path(folder, shard)
                worker.give(shard, job_line(shard, path, source, shards[shard], cutting, lost[shard], marks.get(shard)))

        def replace(worker: Worker, reason: str) -> None:
            """After a death: the image it was at is refused, its shards wait again."""
            self._bury(worker, reason)
            if worker.shards and worker.position >= 0:
                lost[worker.shards[0]][worker.position] = reason
            waiting.extendleft(reversed(worker.shards))
            if waiting:
                hand_out(self._hire())

        for worker in [*self._workers.values()]:
            hand_out(worker)
        while waiting and len(self._workers) < self.most:
            hand_out(self._hire())
        while any(worker.shards for worker in self._workers.values()):
            begun = 0
            for key, _ in self._selector.select(timeout=1.0):
                worker = key.data
                try:
                    for line in worker.hear():
                        word, _, rest = line.partition(" ")
                        if word == "START":
                            worker.position = int(rest)
                            begun += 1
                        elif word == "DONE":
                            worker.shards.popleft()
                            worker.position = -1
                            hand_out(worker)
                        elif word == "FAILED":
                            raise StorageError(
                                "A worker could not go on.",
                                rest,
                                "Finished shards are kept: run the same command again.",
                            )
                except EOFError:
                    replace(worker, "ended the decoder")
            on_images(begun)
            time.sleep(PAUSE if waiting else LAST_PAUSE)
            now = time.monotonic()
            for worker in [w for w in self._workers.values() if w.shards and now - w.last_sign > PATIENCE]:
                replace(worker, f"took longer than {PATIENCE:.0f} s to decode")

    def _hire(self) -> Worker:
        worker = Worker()
        assert worker.process.stdout is not None
        self._workers[worker.process.stdout.fileno()] = worker
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _bury(self, worker: Worker, reason: str) -> None:
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        del self._workers[worker.process.stdout.fileno()]
        worker.dismiss()
        if worker.position < 0:
            self._deaths_without_work += 1
            if self._deaths_without_work > 3:
                raise MienError(
                    "A worker process could not start.", f"It {reason}.", "Run again with --workers 1 and --debug."
                )

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.dismiss()
        self._selector.close()
