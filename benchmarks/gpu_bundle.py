"""A folder of wheels for a machine that has torch, and nothing else, and no network: mien and what it requires, without torch.

    python benchmarks/gpu_bundle.py BUNDLE [--python 3.12]
    # there: pip install --no-index --no-deps BUNDLE/*.whl, then python benchmarks/gpu.py OUT

Wheels are pure Python, or built for Linux on x86-64. Fails if they have more than 60 MB.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST = 60e6  # bytes
BESIDE_TORCH = ("numpy", "filelock")  # torch has brought filelock, and a machine for training has its own numpy
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def requirements() -> list[str]:
    """What mien requires, without torch and what is there beside it."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [line for line in listed if re.split(r"[<>=]", line)[0] not in ("torch", *BESIDE_TORCH)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    given = parser.parse_args()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = ["--only-binary", ":all:", "--python-version", given.python]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*pip, "download", "--dest", given.bundle, *target, *requirements()], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", given.bundle, ROOT], check=True)
    for name in BESIDE_TORCH:  # another package may have asked for them
        for wheel in given.bundle.glob(f"{name}-*.whl"):
            wheel.unlink()
    wheels = sorted(given.bundle.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
    total = sum(wheel.stat().st_size for wheel in wheels)
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:6.2f} MB  {wheel.name}")
    print(f"{total / 1e6:6.2f} MB in {len(wheels)} wheels")
    return int(total > MOST)


if __name__ == "__main__":
    sys.exit(main())
