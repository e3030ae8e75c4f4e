"""A script that `package_file.download` runs in its own process: it saves one archive from pip's configured index.

`pip download` is not used, because pip runs the code of a source archive to find its dependencies. Here pip's finder chooses
the link and pip's session (index, proxy, certificates, credentials) streams the bytes. Nothing is unpacked, built or
installed. This file imports nothing from mien.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pip._internal.cli.cmdoptions import make_target_python
from pip._internal.commands import create_command
from pip._internal.exceptions import PipError
from pip._vendor.requests import RequestException

BLOCK = 1 << 20  # bytes read at once


def main(package: str, archive: str, target: str, limit: str, *options: str) -> str:
    """Write the file `archive` of `package` to `target`, at most `limit` bytes. Returns an error message or ""."""
    command = create_command("download")
    settings, _ = command.parse_args([*options, package])  # also reads pip's configuration and environment
    with command.main_context():
        session = command.get_default_session(settings)
        finder = command._build_package_finder(
            options=settings, session=session, target_python=make_target_python(settings), ignore_requires_python=True
        )
        candidates = finder.find_all_candidates(package)
        links = [candidate.link for candidate in candidates if candidate.link.filename == archive]
        if not links and candidates:
            return f"the package index has {package}, but not {archive}"
        if not links:
            return f"pip did not find {package}, or could not reach its package index"
        # With a compressed transfer requests would decompress the archive, and its bytes would change.
        headers = {"Accept-Encoding": "identity"}
        response = session.get(links[0].url_without_fragment, headers=headers, stream=True)
        response.raise_for_status()
        size = 0
        with Path(target).open("wb") as file:
            for block in response.iter_content(BLOCK):
                size += len(block)
                if size > int(limit):
                    return f"the package index sent more than {limit} bytes for {archive}"
                file.write(block)
    return ""


if __name__ == "__main__":
    try:
        failure = main(*sys.argv[1:])
    except (PipError, RequestException, OSError) as error:
        failure = f"{type(error).__name__}: {error}"
    sys.exit(failure or 0)
