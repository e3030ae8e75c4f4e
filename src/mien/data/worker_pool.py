"""A pool of worker processes that decode images. It survives crashes and timeouts of its workers."""

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

IMAGE_TIMEOUT = 60.0  # seconds for one image
POLL_INTERVAL = 0.02  # seconds between polls of the workers: waking for each line would cost a tenth of the rate
LAST_POLL_INTERVAL = 0.002  # seconds, when no shard is waiting and the pool only waits for the last ones
COMMAND = [sys.executable, "-c", "from mien.data.worker import main; main()"]


class Worker:
    """One worker process, its assigned shards and the position of its current image."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # one process a core, one thread each
        )
        self.shards: deque[int] = deque()  # the running shard, then the next: the process does not idle between two
        self.position = -1  # of the current image in the running shard; -1 without one
        self.last_output = time.monotonic()
        self._rest = b""

    def assign(self, shard: int, line: str) -> None:
        assert self.process.stdin is not None
        if not self.shards:  # an idle worker prints nothing
            self.last_output = time.monotonic()
        self.shards.append(shard)
        with contextlib.suppress(BrokenPipeError):  # it has died; the next read finds that out
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def read_lines(self) -> list[str]:
        """The lines printed since the last call. Raises EOFError when the process has ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError
        self.last_output = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def stop(self) -> None:
        """Kill the process. Its finished shards are on the disk."""
        self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died before it read all input
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class WorkerPool:
    """The workers of one preparation. Leaving the `with` block kills them."""

    def __init__(self, max_workers: int) -> None:
        """At most `max_workers` at a time. The first starts now, while the caller still lists the source."""
        self.max_workers = max_workers
        self._workers: dict[int, Worker] = {}  # by the file descriptor of their output
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._start_worker()

    def make_shards(
        self,
        folder: Path,
        shards: dict[int, Sequence[str]],
        source: Source,
        preprocess: PreprocessConfig,
        on_images: Callable[[int], object],
        landmarks: Mapping[int, Landmarks] | None = None,
        first: Mapping[int, int] | None = None,
    ) -> None:
        """Make the files of `shards` (number -> names) in `folder`.

        `on_images` is called several times a second with the number of newly started images. `landmarks` maps each shard to
        the landmarks of its images, if the source has them and the crop uses them, and `first` to the row of its first image.
        """
        waiting, marks, rows = deque(sorted(shards)), landmarks or {}, first or {}
        lost: dict[int, dict[int, str]] = {shard: {} for shard in shards}

        def assign_shards(worker: Worker) -> None:
            while waiting and len(worker.shards) < 2:
                shard = waiting.popleft()
                path = shard_path(folder, shard)
                here = (shards[shard], preprocess, lost[shard], marks.get(shard), rows.get(shard, 0))
                worker.assign(shard, job_line(shard, path, source, *here))

        def replace(worker: Worker, reason: str) -> None:
            """Replace a dead or hanging worker: refuse its current image and queue its shards again."""
            self._remove_worker(worker, reason)
            if worker.shards and worker.position >= 0:
                lost[worker.shards[0]][worker.position] = reason
            waiting.extendleft(reversed(worker.shards))
            if waiting:
                assign_shards(self._start_worker())

        for worker in [*self._workers.values()]:
            assign_shards(worker)
        while waiting and len(self._workers) < self.max_workers:
            assign_shards(self._start_worker())
        while any(worker.shards for worker in self._workers.values()):
            started = 0
            for key, _ in self._selector.select(timeout=1.0):
                worker = key.data
                try:
                    for line in worker.read_lines():
                        status, _, rest = line.partition(" ")
                        if status == "START":
                            worker.position = int(rest)
                            started += 1
                        elif status == "DONE":
                            worker.shards.popleft()
                            worker.position = -1
                            assign_shards(worker)
                        elif status == "FAILED":
                            raise StorageError(
                                "A worker process failed.",
                                rest,
                                "Finished shards are saved: run the same command again to continue.",
                            )
                except EOFError:
                    replace(worker, "crashed the decoder")
            on_images(started)
            time.sleep(POLL_INTERVAL if waiting else LAST_POLL_INTERVAL)
            now = time.monotonic()
            for worker in [w for w in self._workers.values() if w.shards and now - w.last_output > IMAGE_TIMEOUT]:
                replace(worker, f"took longer than {IMAGE_TIMEOUT:.0f} s to decode")

    def _start_worker(self) -> Worker:
        worker = Worker()
        assert worker.process.stdout is not None
        self._workers[worker.process.stdout.fileno()] = worker
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _remove_worker(self, worker: Worker, reason: str) -> None:
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        del self._workers[worker.process.stdout.fileno()]
        worker.stop()
        if worker.position < 0:
            self._failed_starts += 1
            if self._failed_starts > 3:
                raise MienError(
                    "A worker process could not start.", f"It {reason}.", "Run again with --workers 1 and --debug."
                )

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._selector.close()
