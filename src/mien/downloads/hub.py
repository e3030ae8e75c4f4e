"""Models on the Hugging Face Hub: `hf://OWNER/NAME` as a local folder, and the upload of a folder. No code from the Hub is run."""

from __future__ import annotations

from pathlib import Path

from mien.errors import DataError, UsageError

SCHEME = "hf://"
PATTERNS = ("model.safetensors", "extras/*.safetensors")


def fetch(address: str) -> Path:
    """The model of `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`, downloaded once. Raises DataError when the download fails."""
    repository, _, revision = address.removeprefix(SCHEME).partition("@")
    check(repository, f"Write {SCHEME}OWNER/NAME.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing() from None
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=list(PATTERNS))
    except Exception as error:  # its own errors, and those of its HTTP client
        raise DataError(
            f"{address} could not be downloaded.",
            first_line(error),
            "Check the name, the network, and `hf auth login`.",
        ) from error
    return Path(folder)


def push(folder: Path, repository: str, space: bool = False) -> str:
    """Upload a folder to a repository, or a static Space, of the logged-in user. Returns the address of the repository."""
    check(repository, "Write --push OWNER/NAME.")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise missing() from None
    api = HfApi()
    try:
        kind = {"repo_type": "space"} if space else {}
        sdk = {"space_sdk": "static"} if space else {}
        address = str(api.create_repo(repository, exist_ok=True, **kind, **sdk))
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="A model made with mien", **kind)
    except Exception as error:  # its own errors, and those of its HTTP client
        raise DataError(
            f"{folder} was not pushed to {repository}.", first_line(error),
            "Log in with `hf auth login`, and check the name. The folder is complete and can be uploaded by hand.",
        ) from error  # fmt: skip
    return address


def check(repository: str, remedy: str) -> None:
    """Raise UsageError for an invalid repository name."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UsageError(f"`{repository}` is not a repository name.", "A name has the form OWNER/NAME.", remedy)


def missing() -> UsageError:
    """The error when huggingface_hub is not installed."""
    return UsageError(
        "The Hub cannot be used.", "huggingface_hub is not installed.", "Install it: pip install 'mien[hub]'"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
