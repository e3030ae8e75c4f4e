"""Peak memory by count, of evaluation and preparation: a table, each row measured in processes of its own.

    python benchmarks/memory.py evaluate [--counts 5000 50000]
    python benchmarks/memory.py metrics [--counts 5000 50000]
    python benchmarks/memory.py prepare [--counts 20000 60000 200000]
    python benchmarks/memory.py list [--counts 100000 1000000]
    python benchmarks/memory.py read [--counts 100000 10000000]

`evaluate` judges that many samples of a small model, with an extractor of as many features as Inception has. `metrics` compares
two sets of that many random features, each metric in a process of its own. `prepare` makes a folder of that many different
PNG files of 16 pixels and prepares it. `list` takes a ZIP that is nothing but its directory,
plans, and assembles the pack from shards that are invented as they are read. `read` opens a pack of black pictures of 4 pixels
that take no disk, with an index, and does what a training does before its first step: the splits, and a batch of the loader. Ten
million need 0.6 GB in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
from PIL import Image

FILE = Path(__file__).resolve()
EXTRACTOR = """
import numpy as np

class Extractor:
    name, hash, resizer, precision = "projection", "1", "none", "fp32"
    matrix = np.random.default_rng(0).standard_normal((16 * 16 * 3, 2048), dtype=np.float32) / 1000

    def __call__(self, images):
        return images.reshape(len(images), -1).astype(np.float32) @ self.matrix
"""


def peak_of(words: list[str]) -> tuple[int, float]:
    """The largest resident memory of a command and all its children together, in bytes, and its seconds."""
    started, peak = time.perf_counter(), 0
    process, done = subprocess.Popen(words, stdout=subprocess.DEVNULL), threading.Event()

    def watch() -> None:
        nonlocal peak
        family = psutil.Process(process.pid)
        while not done.wait(0.05):
            try:
                resident = sum(one.memory_info().rss for one in (family, *family.children(recursive=True)))
            except psutil.NoSuchProcess:
                continue
            peak = max(peak, resident)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    assert code == 0, words
    return peak, time.perf_counter() - started


def mien(*words: object) -> list[str]:
    return [sys.executable, "-m", "mien", *map(str, words)]


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def pictures(folder: Path, count: int) -> Path:
    """A folder of different PNG files, a thousand in each folder inside it."""
    random = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            part = folder / f"part{number // 1000:05d}"
            part.mkdir(parents=True)
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((16, 16)).save(part / f"{number:08d}.png", compress_level=1)
    return folder


def prepare(counts: list[int]) -> None:
    row("files", "peak of all processes", "seconds")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            source = pictures(Path(name) / "faces", count)
            peak, seconds = peak_of(mien("data", "prepare", source, Path(name) / "faces.pack", "--size", 16))
            row(f"{count:,}", megabytes(peak), f"{seconds:.0f}")


def evaluate(counts: list[int]) -> None:
    row("samples", "metrics", "peak", "seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "extractor.py").write_text(EXTRACTOR)
        source, pack, run = pictures(folder / "faces", 2000), folder / "faces.pack", folder / "run"
        subprocess.run(mien("data", "prepare", source, pack, "--size", 16), check=True, stdout=subprocess.DEVNULL)
        small = ("--side", 16, "--model.width", 16, "--recipe.critic.width", 16, "--images", 64, "--batch", 16)
        train = mien("train", "dcgan-2015", "--data", pack, "--out", run, *small)
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        for metrics in ("fid", "fid,kid,prdc"):
            for count in counts:
                more = ("--data", pack, "--extractor", f"{folder / 'extractor.py'}:Extractor", "--metrics", metrics)
                peak, seconds = peak_of(mien("evaluate", run, "--samples", count, *more))
                row(f"{count:,}", metrics, megabytes(peak), f"{seconds:.0f}")


def directory_of(path: Path, count: int) -> Path:
    """A ZIP of so many PNG names that all mean one file: a local file, and a directory written piece by piece."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    data, checksum = buffer.getvalue(), zlib.crc32(buffer.getvalue())
    sizes = struct.pack("<III", checksum, len(data), len(data))
    with path.open("wb") as file:
        file.write(
            struct.pack("<IHHHHH", 0x04034B50, 20, 0, 0, 0, 0x21) + sizes + struct.pack("<HH", 1, 0) + b"a" + data
        )
        start = file.tell()
        fixed = struct.pack("<IHHHHHH", 0x02014B50, 20, 20, 0, 0, 0, 0x21) + sizes
        for number in range(count):
            name = f"part{number // 1000:05d}/{number:08d}.png".encode()
            file.write(fixed + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name)
        end = file.tell()
        size = end - start
        file.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start))
        file.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return path


def report(what: str) -> None:
    """Say how much memory this process has had until now."""
    print(f"{what}|{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}", flush=True)


def assembled(archive: Path, pack: Path) -> None:
    """List, plan and assemble, with shards of 256 black pictures of 4 pixels that are invented as they are read."""
    from mien.data import assembly
    from mien.data.planning import Preparation, plan
    from mien.data.preparation import gc_disabled
    from mien.data.shard import Shard
    from mien.data.source_kinds import find_source

    def invented(path: Path, pixels: bool = True) -> Shard:
        count = min(256, len(todo.listing.names) - 256 * int(path.name))
        geometry, sizes = [f"{number} 0 72 72" for number in range(count)], [(72, 72)] * count
        return Shard(side=4, pixels=[bytes(48 * count)], positions=list(range(count)), geometry=geometry, sizes=sizes)

    class Present(type(pack)):  # type: ignore[misc]
        def exists(self, **_: object) -> bool:
            return True

    with gc_disabled(), tempfile.TemporaryDirectory(dir=pack.parent) as folder:
        report("imports")
        todo = plan(find_source(archive), Preparation(side=4, holdout=0.1))
        report("list and plan")
        with (
            mock.patch.object(assembly.Shard, "load", invented),
            mock.patch.object(assembly, "shard_path", lambda _, number: Present(str(number))),
            assembly.Assembly(todo, Path(folder), pack) as job,
        ):
            while job.missing:
                job.take()
            report("all shards taken")
            job.finish(force=False)
        report("pack written")


METRICS = ("frechet", "kernel_distance", "monge", "manifolds", "memorisation")


def compared(metric: str, count: int) -> None:
    """Compare two sets of random features."""
    from mien.metrics import distances, prdc

    functions = {
        "frechet": distances.frechet,
        "kernel_distance": distances.kernel_distance,
        "monge": distances.monge,
        "manifolds": prdc.manifolds,
        "memorisation": lambda real, fake: prdc.memorisation(real, None, fake),
    }
    random = np.random.default_rng(0)
    real, fake = (random.standard_normal((count, 2048), np.float32) for _ in range(2))
    report(f"features of two sets, {2 * fake.nbytes / 1e6:,.0f} MB")
    functions[metric](real, fake)
    report(metric)


def metrics(counts: list[int]) -> None:
    row("samples", "after", "peak of the process", "seconds")
    for metric in METRICS:
        for count in counts:
            stages(count, "--compare", metric, count)


def read(pack: Path) -> None:
    """What a training does with a pack before its first step."""
    from mien.data.loader import Loader
    from mien.data.pack import Pack

    opened = Pack.open(pack)
    report("imports")
    assert len(opened.rows("train")) + len(opened.rows("holdout")) == len(opened)
    report("splits read")
    next(Loader(opened, batch=16, seed=0))
    report("first batch")


def generated(path: Path, count: int) -> Path:
    """A pack of black pictures, a tenth of them held out; its images are a hole in the file system."""
    path.mkdir()
    np.lib.format.open_memmap(path / "images.npy", "w+", np.uint8, (count, 4, 4, 3))
    with (path / "index.csv").open("w") as index:
        index.write("row,source,group,split,geometry\n")
        for number in range(count):
            split = "train" if number % 10 else "holdout"
            index.write(f"{number},part{number // 1000:05d}/{number:08d}.png,,{split},{number % 256} 0 72 72\n")
    splits = {"train": count - -(-count // 10), "holdout": -(-count // 10)}
    meta = {
        "format": 1,
        "count": count,
        "side": 4,
        "label_names": [],
        "fingerprint": "",
        "sha256": {},
        "splits": splits,
    }
    (path / "pack.json").write_text(json.dumps(meta))
    return path


def stages(count: int, *words: object) -> None:
    """Print what a process of this file reports, a row each."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, str(FILE), *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            what, _, peak = text.strip().partition("|")
            row(f"{count:,}", what, megabytes(int(peak)), f"{time.perf_counter() - started:.0f}")
    assert process.returncode == 0, words


def list_and_assemble(counts: list[int]) -> None:
    row("entries", "after", "peak of the process", "seconds")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            stages(count, "--assemble", directory_of(Path(name) / "faces.zip", count), Path(name) / "faces.pack")


def read_packs(counts: list[int]) -> None:
    row("entries", "after", "peak of the process", "seconds")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            stages(count, "--read", generated(Path(name) / "faces.pack", count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = {
        "evaluate": (evaluate, [5000, 50_000]),
        "metrics": (metrics, [5000, 50_000]),
        "prepare": (prepare, [20_000, 60_000, 200_000]),
        "list": (list_and_assemble, [100_000, 1_000_000]),
        "read": (read_packs, [100_000, 10_000_000]),
    }
    parser.add_argument("what", choices=work)
    parser.add_argument("--counts", type=int, nargs="+")
    options = parser.parse_args()
    function, counts = work[options.what]
    function(options.counts or counts)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--assemble", archive, pack]:
            assembled(Path(archive), Path(pack))
        case ["--compare", metric, count]:
            compared(metric, int(count))
        case ["--read", pack]:
            read(Path(pack))
        case _:
            main()
