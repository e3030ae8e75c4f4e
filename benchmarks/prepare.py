"""What preparation costs: rate against a bare loop of the same library, memory by count, and kills outlived.

python benchmarks/prepare.py rate SOURCE.zip       # share of cores x the single-core rate of decode, crop and resize
python benchmarks/prepare.py memory --count 200000 # peak memory of all processes together
python benchmarks/prepare.py kill SOURCE.zip       # SIGKILL at 20 random instants, the fingerprint compared
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mien.core.cores import cores
from mien.data.crops import Box, find_crop
from mien.data.pack import Pack
from mien.data.planning import Preparation, plan
from mien.data.source_kinds import find_source


def command(source: Path, pack: Path) -> list[str]:
    return [sys.executable, "-m", "mien", "data", "prepare", str(source), str(pack), "--size", "64"]


def bare_loop(archive: zipfile.ZipFile, names: list[str], box_of: Callable[[int, int], Box]) -> tuple[float, float]:
    """Seconds by clock and by processor that one process takes to read, decode, crop and resize every image."""
    clock, processor = time.perf_counter(), time.process_time()
    for name in names:
        with Image.open(io.BytesIO(archive.read(name))) as image:
            upright = image.convert("RGB")
        upright.crop(box_of(*upright.size)).resize((64, 64), Image.Resampling.LANCZOS)
    return time.perf_counter() - clock, time.process_time() - processor


def rate(source: Path, repeats: int, copies: int) -> None:
    """Shares of the bare rate, interleaved: by the clock, and by processor time, which other programs disturb less.

    With `copies` each picture is there several times, so that the cost of starting is told from the rate. Everything runs once
    before it is timed, and may keep Python's bytecode, as an installed program does.
    """
    by_clock, by_processor, seconds, wall = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        if copies > 1:
            source = copied(source, copies, Path(folder) / source.name)
        todo = plan(find_source(source), Preparation(side=64))
        names, box_of = list(todo.listing.names), find_crop(todo.preprocess.crop).box
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        warm = [*command(source, Path(folder) / "warm.pack"), "--limit", "1000"]
        subprocess.run(warm, check=True, stdout=subprocess.DEVNULL, env=environment)
        for number in range(repeats):
            with zipfile.ZipFile(source) as archive:
                alone, alone_processor = bare_loop(archive, names, box_of)
            used, started = processor_seconds(), time.perf_counter()
            ours = command(source, Path(folder) / f"{number}.pack")
            subprocess.run(ours, check=True, stdout=subprocess.DEVNULL, env=environment)
            together, processor = time.perf_counter() - started, processor_seconds() - used
            shutil.rmtree(Path(folder) / f"{number}.pack")
            by_clock.append(alone / together / cores())
            by_processor.append(alone_processor / processor)
            seconds.append(processor - alone_processor)
            wall.append(together)
            print(
                f"bare on 1 core {alone:6.2f} s, of processor {alone_processor:6.2f} s   "
                f"prepare on {cores()} {together:6.2f} s, of processor {processor:6.2f} s   "
                f"share {by_clock[-1]:.2f} by the clock, {by_processor[-1]:.2f} by processor",
                flush=True,
            )
    clock, processor, over, together = map(statistics.median, (by_clock, by_processor, seconds, wall))
    print(f"{len(names):,} images on {cores()} cores in {together:.2f} s, medians of {repeats}:")
    print(f"  by the clock  {clock:.2f} of cores x the rate of a bare loop on one core")
    print(f"  by processor  {processor:.2f}, {over:+.2f} s beside the bare loop's")


def copied(source: Path, copies: int, target: Path) -> Path:
    """An archive with every picture of `source` several times, and nothing else."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as larger:
        for name in archive.namelist():
            data = archive.read(name)
            for number in range(copies if name.endswith((".jpg", ".png")) else 0):
                larger.writestr(f"{number}/{name}", data)
    return target


def processor_seconds() -> float:
    """Processor seconds of all finished children of this process."""
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


def memory(count: int) -> None:
    """Peak of the resident memory of the command and all its workers, on generated images."""
    with tempfile.TemporaryDirectory() as folder:
        source, pack = Path(folder) / "many.zip", Path(folder) / "many.pack"
        pictures = []
        for number in range(64):
            coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((72, 72)).save(buffer, "JPEG")
            pictures.append(buffer.getvalue())
        with zipfile.ZipFile(source, "w", zipfile.ZIP_STORED) as archive:
            for number in range(count):
                archive.writestr(f"{number // 1000:05d}/img{number:08d}.jpg", pictures[number % 64])
        process = subprocess.Popen(command(source, pack), stdout=subprocess.DEVNULL)
        peak, done = [0], threading.Event()

        def watch() -> None:
            family = psutil.Process(process.pid)
            while not done.wait(0.1):
                try:
                    resident = sum(one.memory_info().rss for one in (family, *family.children(recursive=True)))
                except psutil.NoSuchProcess:
                    continue
                peak[0] = max(peak[0], resident)

        watcher = threading.Thread(target=watch)
        started = time.perf_counter()
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        assert code == 0 and len(Pack.open(pack)) == count
        seconds = time.perf_counter() - started
        print(f"{count:,} images in {seconds:.0f} s, peak {peak[0] / 1e6:.0f} MB over all processes together")


def kill(source: Path, times: int, limit: int) -> None:
    """Kill the command and its workers at random instants, then let it finish; each round begins anew."""
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = [*command(source, folder / "reference.pack"), "--limit", str(limit)]
        started = time.perf_counter()
        subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        reference, same = Pack.open(folder / "reference.pack").fingerprint, 0
        for number in range(times):
            pack = folder / f"{number}.pack"
            delay = generator.uniform(0.1, seconds)
            ours = [*command(source, pack), "--limit", str(limit)]
            process = subprocess.Popen(ours, stdout=subprocess.DEVNULL, start_new_session=True)
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shards = len(list(folder.glob(f".{number}.pack.*.partial/shard-*")))
            subprocess.run(ours, check=True, stdout=subprocess.DEVNULL)
            equal = Pack.open(pack).fingerprint == reference
            same += equal
            print(
                f"killed after {delay:5.2f} s with {shards:3} shards done: {'same' if equal else 'OTHER'}", flush=True
            )
            shutil.rmtree(pack)
            left = [path.name for path in folder.iterdir() if path.name != "reference.pack"]
            assert not left, left
    print(f"{same} of {times} the same fingerprint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rate", "memory", "kill"])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1, help="of each picture, to tell the rate from the start")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--limit", type=int, default=10_000)
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.count)
    elif given.source is None:
        parser.error("give a SOURCE.zip")
    elif given.what == "rate":
        rate(given.source, given.repeats, given.copies)
    else:
        kill(given.source, given.times, given.limit)


if __name__ == "__main__":
    main()
