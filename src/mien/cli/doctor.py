"""`mien doctor`: check this machine and its speed, or the health of a run."""

from __future__ import annotations

import platform
import re
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mien import __version__
from mien.cli.doctor_run import examine
from mien.cli.model_options import CodeFile, ComputeDevice
from mien.cli.result import Result
from mien.core.cores import cores
from mien.core.device import DeviceContext, has_bf16_units
from mien.errors import UsageError
from mien.storage import checkpoint


def doctor(
    run: Path | None = None,
    /,
    *,
    strict: bool = False,
    data: str | None = None,
    code: CodeFile = None,
    device: ComputeDevice = "auto",
) -> Result:
    """Check this machine, or the health of a run.

    Without a run: versions, device, bf16 units, threads, disk, and a one-second benchmark. With a run, which may be unfinished
    or killed: divergence, mode collapse, memorisation and other problems. Examples:

        mien doctor
        mien doctor RUN
        mien doctor RUN --strict

    Parameters
    ----------
    run
        A run's directory.
    strict
        Exit with a code for an alarm: 5 for a fault of training, 6 for a disk that fills up, 4 for slow data loading.
    data
        Pack that the run was trained on, if it has moved.
    """
    if run is not None:
        return examine(run, data, code, device, strict)
    if strict or data or code:
        raise UsageError("--strict, --data and --code need a run.", "No run is named.", "Name a run directory.")
    context = DeviceContext.choose()
    kind = context.device.type
    facts: dict[str, Any] = {
        "mien": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if kind == "cuda" else kind,
        "precision": context.precision,
        "bf16_units": has_bf16_units(kind),
        "bf16_matrix_units": bool(torch.cpu._is_amx_tile_supported()) if kind == "cpu" else has_bf16_units(kind),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "free_gigabytes": round(checkpoint.free_bytes(Path.cwd()) / 1e9, 1),
        "packages": {name: version_of(name) for names in extras().values() for name in names},
        "extras": extras(),
        "ffmpeg": shutil.which("ffmpeg") is not None,
        "gigaflops": {name: round(speed(context.device, name == "bf16"), 1) for name in ("fp32", "bf16")},
    }
    lines = [f"{name:<18} {value}" for name, value in facts.items() if not isinstance(value, dict)]
    for extra, names in facts["extras"].items():
        found = [f"{name} {facts['packages'][name] or 'not installed'}" for name in names]
        lines.append(f"{f'extra {extra}':<18} {', '.join(found)}")
    lines += [
        f"{f'{name} convolution':<18} {value:,} billion operations/s" for name, value in facts["gigaflops"].items()
    ]
    return Result("\n".join(lines), facts)


def extras() -> dict[str, list[str]]:
    """The packages of each extra of mien, as its metadata lists them; without those for its development."""
    found: dict[str, list[str]] = {}
    for line in metadata.requires("mien") or ():
        match = re.match(r"([\w.-]+)[^;\[]*;.*extra == ['\"]([\w-]+)['\"]", line)
        if match and match[2] not in ("dev", "all"):
            found.setdefault(match[2], []).append(match[1])
    return found


def version_of(package: str) -> str | None:
    """The installed version of an optional package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@torch.no_grad()
def speed(device: torch.device, bf16: bool, seconds: float = 0.5) -> float:
    """Billions of multiplications and additions a second of a 3x3 convolution of 64 maps at 32 px, batch 16."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(device)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(16, 64, 32, 32, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        layer(images)
        rounds, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            layer(images)
            rounds += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return rounds * 2 * 16 * 64 * 64 * 9 * 32 * 32 / (time.perf_counter() - started) / 1e9
