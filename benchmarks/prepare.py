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
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mien.data.pack import Pack
from mien.data.planning import Preparation, plan
from mien.data.preparation import cores
from mien.data.sources import find_source


def command(source: Path, pack: Path) -> list[str]:
    return [sys.executable, "-m", "mien", "data", "prepare", str(source), str(pack), "--size", "64"]


def bare_loop(source: Path) -> tuple[float, int]:
    """CPU seconds to read, decode, crop and resize every image of a ZIP in one process, and how many there are."""
    todo = plan(find_source(source), Preparation(side=64))
    from mien.data.geometry import find_crop

    box_of = find_crop(todo.cutting.crop).box
    archive = zipfile.ZipFile(source)
    started = time.perf_counter()
    for name in todo.listing.names:
        with Image.open(io.BytesIO(archive.read(name))) as image:
            upright = image.convert("RGB")
        upright.crop(box_of(*upright.size)).resize((64, 64), Image.Resampling.LANCZOS)
    return time.perf_counter() - started, len(todo.listing.names)


def rate(source: Path, repeats: int) -> None:
    """Shares of the bare rate, interleaved: by the clock, and by processor time, which other programs disturb less."""
    by_clock, by_processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            before = time.process_time()
            alone, count = bare_loop(source)
            alone_processor = time.process_time() - before
            used = processor_seconds()
            started = time.perf_counter()
            subprocess.run(command(source, Path(folder) / f"{number}.pack"), check=True, stdout=subprocess.DEVNULL)
            together = time.perf_counter() - started
            by_clock.append(alone / together / cores())
            by_processor.append(alone_processor / (processor_seconds() - used))
            print(
                f"one core, bare: {count / alone:7,.0f} images/s   prepare, {cores()} cores: {count / together:7,.0f} "
                f"images/s in {together:.1f} s   share {by_clock[-1]:.2f} by clock, {by_processor[-1]:.2f} by processor"
            )
    print(
        f"medians: {statistics.median(by_clock):.2f} by clock, {statistics.median(by_processor):.2f} by processor time"
    )


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--limit", type=int, default=10_000)
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.count)
    elif given.source is None:
        parser.error("give a SOURCE.zip")
    elif given.what == "rate":
        rate(given.source, given.repeats)
    else:
        kill(given.source, given.times, given.limit)


if __name__ == "__main__":
    main()
