"""Kill training with SIGKILL at random instants, resume it, and compare the end to the bit with an undisturbed run.

    python benchmarks/kills.py --runs 30
    python benchmarks/kills.py --presets began-2017 vae vaegan-2016 --runs 1 --kills 5 --images 160

Every run saves after each step, so that a good part of the kills falls into a save.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien import presets
from mien.data.pack import Entry, PackWriter

#: Every width cut down: what is saved and restored is the same.
WIDTHS = {"width": 4, "max_width": 8, "latent": 8, "hidden": 16, "encoder_width": 4}
OFTEN = (
    *("--batch", "8", "--precision", "fp32", "--threads", "1"),
    *("--save-every", "8", "--log-every", "8", "--sample-every", "96"),
)
PATIENCE = 120.0  # seconds that a process may take to reach its next checkpoint


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    kills: int
    while_saving: int  # kills that left a half-written checkpoint, or one whose LATEST or pruning was still to come
    started_from: tuple[int, ...]  # images seen at which each resumed process went on
    digest: str  # of the last checkpoint
    logged: tuple[int, ...]  # images seen, of every line of metrics.jsonl


def cut_down(config: Any, prefix: str = "") -> list[str]:
    """The flags that make the networks of a configuration small."""
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and field.name in ("model", "recipe", "critic"):
            flags += cut_down(value, f"{prefix}{field.name}.")
        elif prefix and field.name in WIDTHS:
            flags += ["--" + f"{prefix}{field.name}".replace("_", "-"), str(WIDTHS[field.name])]
    return flags


def small(preset: str) -> tuple[str, ...]:
    """What `mien train` is told of a preset, that it saves after every step and takes little time to."""
    return (preset, *cut_down(presets.find(preset)[0]), *OFTEN)


def write_noise(path: Path, count: int = 96, side: int = 16) -> Path:
    """A small pack of noise."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    with PackWriter(path, side) as writer:
        writer.append(images, None, [Entry(f"{row}.png") for row in range(count)])
        writer.commit({})
    return path


def start(preset: str, pack: Path, out: Path, images: int, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A training process, its words in `out` with the suffix .txt."""
    line = [sys.executable, "-m", "mien", "train", *small(preset), "--data", pack]
    line += ["--out", out, "--images", images, *more]
    with out.with_suffix(".txt").open("ab") as words:
        return subprocess.Popen(list(map(str, line)), stdout=words, stderr=words)


def checkpoints(out: Path) -> list[int]:
    """The checkpoints of a run in images seen, in order."""
    folder = out / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def digest(out: Path) -> str:
    """SHA-256 over the last checkpoint: networks, average, optimizers, controllers, counters."""
    last = out / "checkpoints" / f"{checkpoints(out)[-1]:010d}"
    files = ("state.safetensors", "state.json", "model.safetensors")
    return hashlib.sha256(b"".join((last / name).read_bytes() for name in files)).hexdigest()


def logged(out: Path) -> tuple[int, ...]:
    """Images seen, line by line of metrics.jsonl."""
    return tuple(json.loads(line)["seen"] for line in (out / "metrics.jsonl").read_text().splitlines())


def finish(preset: str, pack: Path, out: Path, images: int) -> None:
    """Run to the end."""
    code = start(preset, pack, out, images).wait(600)
    if code:
        raise SystemExit(f"exit code {code}:\n{out.with_suffix('.txt').read_text()}")


def saving(out: Path) -> bool:
    """Whether a killed process was in the middle of a commit."""
    folder = out / "checkpoints"
    latest = (folder / "LATEST").read_text().strip()
    return any(folder.glob(".*tmp*")) or int(latest) != checkpoints(out)[-1] or len(checkpoints(out)) > 3


def kill_after(process: subprocess.Popen[bytes], out: Path, target: int, rng: random.Random) -> bool:
    """Kill a process at a random instant after its checkpoint at `target` images. False if it ended before."""
    deadline = time.monotonic() + PATIENCE
    newest, since, every = checkpoints(out)[-1:], 0.0, 0.05
    while process.poll() is None:
        now = checkpoints(out)[-1:]
        if now != newest:  # how long a step and a save take here and now
            every = min(time.monotonic() - since, 0.5) if since else every
            newest, since = now, time.monotonic()
        if now and now[0] >= target:
            time.sleep(rng.uniform(0.0, 1.5 * every))
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        if time.monotonic() > deadline:
            process.kill()
            raise SystemExit(f"no checkpoint in {PATIENCE} s:\n{out.with_suffix('.txt').read_text()}")
        time.sleep(0.002)
    return False


def storm(preset: str, pack: Path, out: Path, images: int, kills: int, rng: random.Random) -> Outcome:
    """Kill a run `kills` times, then let it end."""
    done = while_saving = 0
    started: list[int] = []
    for number in range(kills):
        lowest = checkpoints(out)[-1] + 8 if done else 8
        process = start(preset, pack, out, images)
        killed = kill_after(process, out, rng.randint(lowest, max(lowest, images * (number + 1) // (kills + 1))), rng)
        if done:
            started.append(json.loads((out / "status.json").read_text())["started_from"])
        if not killed:
            break
        done += 1
        while_saving += saving(out)
    finish(preset, pack, out, images)
    started.append(json.loads((out / "status.json").read_text())["started_from"])
    return Outcome(done, while_saving, tuple(started), digest(out), logged(out))


def trial(preset: str, asked: argparse.Namespace) -> bool:
    """Print a line a run, then the sum; whether every run ended as the undisturbed one."""
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pack = write_noise(home / "noise.pack")
        finish(preset, pack, home / "whole", asked.images)
        whole, lines = digest(home / "whole"), logged(home / "whole")
        print(f"{preset}, undisturbed: {whole[:16]}, {len(lines)} lines logged")
        print(f"{'run':>4}{'kills':>7}{'saving':>8}{'equal':>7}{'log':>6}  went on at")
        good, kills, hits = 0, 0, 0
        for number in range(asked.runs):
            end = storm(preset, pack, home / f"run{number}", asked.images, asked.kills, rng)
            equal, same_log = end.digest == whole, end.logged == lines
            good += equal and same_log and min(end.started_from) > 0
            kills, hits = kills + end.kills, hits + end.while_saving
            words = ", ".join(map(str, end.started_from))
            row = f"{number:>4}{end.kills:>7}{end.while_saving:>8}{equal!s:>7}{'ok' if same_log else 'differs':>6}  {words}"
            print(row, flush=True)
        print(
            f"{good} of {asked.runs} runs end with the bits of the undisturbed one; {kills} kills, {hits} while saving"
        )
    return good == asked.runs and kills == asked.runs * asked.kills


def main() -> int:
    """Exit code 1 unless every run of every preset ends as the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["quick"])
    parser.add_argument("--runs", type=int, default=30, help="of each preset")
    parser.add_argument("--kills", type=int, default=1, help="of each run")
    parser.add_argument("--images", type=int, default=400, help="8 a step")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    ended_equal = [trial(preset, asked) for preset in asked.presets]  # a list: one that fails does not stop the others
    return 0 if all(ended_equal) else 1


if __name__ == "__main__":
    sys.exit(main())
