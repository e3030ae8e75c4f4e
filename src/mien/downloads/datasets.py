"""Public data sets: their addresses, licences and credentials.

Credentials come from the environment or from Kaggle's own file in the user's home, never from a place that could be
committed. They are sent to Kaggle only.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mien.downloads.connection import RetryPolicy
from mien.downloads.download import transfer
from mien.downloads.weights import cache_folder
from mien.errors import DataError, UsageError, did_you_mean
from mien.storage import bounded_json

KAGGLE = "https://www.kaggle.com/api/v1/datasets/download/"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The address and the licence of a data set."""

    title: str
    address: str
    file: str  # local file name
    size: int | None = None  # bytes
    sha256: str | None = None  # None: the publisher may repack it; only the archive's own checksums are checked
    licence: str
    page: str  # web page with the terms and a manual download


DATA_SETS: dict[str, DataSet] = {
    "celeba": DataSet(
        title="CelebA: 202,599 aligned faces of 10,177 people, 40 attributes, landmarks, official split",
        address=KAGGLE + "jessicali9530/celeba-dataset",
        file="celeba-dataset.zip",
        licence="non-commercial research only; the images belong to their owners, and may not be passed on or sold",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
    "lfw": DataSet(
        title="Labeled Faces in the Wild, funneled: 13,233 faces of 5,749 people, 250x250",
        address="https://ndownloader.figshare.com/files/5976015",
        file="lfw-funneled.tgz",
        size=243_346_528,
        sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",  # as scikit-learn pins it
        licence="no formal licence: news photographs, published for research on face recognition",
        page="https://scikit-learn.org/stable/datasets/real_world.html",
    ),
    "lfw-deepfunneled": DataSet(
        title="Labeled Faces in the Wild, deep-funneled: the same faces, with a better alignment",
        address=KAGGLE + "jessicali9530/lfw-dataset",
        file="lfw-dataset.zip",
        licence="no formal licence: news photographs, published for research on face recognition",
        page="https://www.kaggle.com/datasets/jessicali9530/lfw-dataset",
    ),
    "utkface": DataSet(
        title="UTKFace: 23,708 faces with age, gender and ethnicity in the file names",
        address=KAGGLE + "jangedoo/utkface-new",
        file="utkface-new.zip",
        licence="non-commercial research only; the copyright of the images stays with their owners",
        page="https://susanqq.github.io/UTKFace/",
    ),
    "ffhq-thumbnails": DataSet(
        title="FFHQ thumbnails: 70,000 aligned faces, 128x128",
        address=KAGGLE + "greatgamedota/ffhq-face-data-set",
        file="ffhq-face-data-set.zip",
        licence="CC BY-NC-SA 4.0 by NVIDIA; each photograph under its own Creative Commons or public-domain terms",
        page="https://github.com/NVlabs/ffhq-dataset",
    ),
    "simpsons": DataSet(
        title="Simpsons faces: 9,877 cropped cartoon faces, 200x200",
        address=KAGGLE + "kostastokis/simpsons-faces",
        file="simpsons-faces.zip",
        licence="none stated: the drawings belong to the makers of The Simpsons; for private study only",
        page="https://www.kaggle.com/datasets/kostastokis/simpsons-faces",
    ),
}


def find(name: str) -> DataSet:
    """The table's entry for a name. Raises UsageError, which lists the names, for an unknown one."""
    if name not in DATA_SETS:
        known = ", ".join(DATA_SETS)
        raise UsageError(f"There is no data set `{name}`.", f"Known: {known}.", did_you_mean(name, DATA_SETS))
    return DATA_SETS[name]


def fetch(
    name: str,
    folder: Path | None = None,
    *,
    accept_licence: bool,
    address: str | None = None,
    sha256: str | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """Download a data set into `folder` (default: the cache) and return its archive; a complete archive is not downloaded again.

    `address` replaces the address of the table; then neither its checksum nor credentials are used. Raises UsageError until
    the licence is accepted, and the errors of `transfer`.
    """
    data_set = find(name)
    if not accept_licence:
        raise UsageError(
            f"The licence of {name} has not been accepted.",
            f"{data_set.licence}. Terms: {data_set.page}",
            f"If you agree: mien data fetch {name} --accept-licence",
        )
    target = (folder or cache_folder() / "datasets" / name) / data_set.file
    if address is None:
        secret = kaggle_credentials() if data_set.address.startswith(KAGGLE) else {}
        digest = sha256 or data_set.sha256
        return transfer(data_set.address, target, sha256=digest, size=data_set.size, secret=secret, retry=retry)
    check_address(address)
    file_name = Path(urlsplit(address).path).name
    return transfer(address, target.with_name(file_name or data_set.file), sha256=sha256, retry=retry)


def check_address(address: str) -> None:
    """Raise UsageError for an address that is not HTTP, or that carries a password."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"{address[:80]} is not a valid address.", "--url takes http:// or https://.", "Correct the address."
        )
    if parts.password or parts.username:
        raise UsageError(
            "The address contains a user name or a password.",
            "It would be saved in the shell's history and in logs.",
            "Download the file with a tool that is logged in, and prepare it from that path.",
        )


def kaggle_credentials() -> dict[str, str]:
    """The header that logs in to Kaggle, from its environment variables or its own file; empty without credentials.

    Most data sets need no login. Raises DataError for a file that cannot be parsed, or that is inside a Git work tree.
    """
    if token := os.environ.get("KAGGLE_API_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        return _basic(user, key)
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    file = (Path(folder).expanduser() if folder else Path.home() / ".kaggle") / "kaggle.json"
    if not file.is_file():
        return {}
    tree = next((place for place in file.resolve().parents if (place / ".git").exists()), None)
    if tree is not None and tree != Path.home().resolve():
        raise DataError(
            f"{file} is not read.",
            f"It is inside a Git work tree ({tree}), where a password could be committed.",
            "Move it to .kaggle in your home, or set KAGGLE_USERNAME and KAGGLE_KEY.",
        )
    try:
        content = bounded_json.read_object(file, 1 << 16, username=str, key=str)
        return _basic(str(content["username"]), str(content["key"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} does not contain credentials.",
            f"It must be JSON with `username` and `key` ({type(error).__name__}).",
            "Download it again from your Kaggle account's settings.",
        ) from None  # the error's text would quote the file


def _basic(user: str, key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}
