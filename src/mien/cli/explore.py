"""`mien explore`: serve the explorer, a web page for models and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.model_options import CodeFile, ComputeDevice
from mien.cli.result import Result
from mien.core.run import Precision
from mien.errors import UsageError


def explore(
    *runs: Path,
    port: int | None = None,
    host: str = "127.0.0.1",
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
    device: ComputeDevice = "auto",
    precision: Precision = "fp32",
    code: CodeFile = None,
    allow_host: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    base_path: str = "",
) -> Result:
    """Explore faces in a browser: interpolate, mix, breed and film them, and watch a training run.

    Prints the address of the page and opens it. Nothing leaves this machine. Examples:

        mien explore                                  # every run under runs/, demo/run, and the bundled models
        mien explore runs/00007-quick-drawn64-s0
        mien explore model.safetensors --port 8040 --no-browser
        mien explore --allow-host faces.example.org --base-path /faces   # behind a reverse proxy

    Parameters
    ----------
    runs
        Runs, checkpoints, .safetensors files, folders of runs, or bundled models; without any, runs/, demo/run and all bundled
        models.
    port
        Port to listen on; by default 8040 or the next free one.
    host
        Address to listen on. From other machines, the page needs the token that is printed.
    browser
        Open the page.
    precision
        fp32 gives the same image on every device; bf16 is faster.
    allow_host
        Name under which a reverse proxy serves the page, as NAME or NAME:PORT; repeat it for more. Looking then needs the token.
    base_path
        Path below which the reverse proxy serves the page, as /faces.
    """
    from mien.web.background import check_packages

    check_packages()
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(
            f"port must be an integer from 0 to 65535, not {port}.", "It is a TCP port.", "Leave out --port."
        )
    from mien.web.registry import open_registry
    from mien.web.security import Proxy
    from mien.web.serve import serve

    proxy = Proxy(hosts=allow_host, base_path=base_path)
    address = serve(open_registry(runs, code, device, precision), host, port, browser, proxy)
    return Result(f"{address} has ended", {"address": address})
