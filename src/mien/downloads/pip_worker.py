"""Run by `package.download` in a process of its own: save one archive from the index that pip is set up for, and stop.

`pip download` cannot be used for it, because pip learns a source archive's dependencies by running the code inside.
Here pip's finder chooses the link and pip's session (index, proxy, certificates, credentials) streams the bytes, and
that is all: nothing is unpacked, built or installed. This file imports nothing of mien's.
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
    """Write the file `archive` of `package` to `target`, at most `limit` bytes. Returns why not, or nothing."""
    command = create_command("download")
    settings, _ = command.parse_args([*options, package])  # reads pip's configuration and environment too
    with command.main_context():
        session = command.get_default_session(settings)
        finder = command._build_package_finder(
            options=settings, session=session, target_python=make_target_python(settings), ignore_requires_python=True
        )
        candidates = finder.find_all_candidates(package)
        links = [found.link for found in candidates if found.link.filename == archive]
        if not links and candidates:
            return f"the package index has {package}, but no {archive}"
        if not links:
            return f"pip found no {package}, or did not reach its package index"
        # A compressed transfer would be unpacked in passing, and the archive's bytes would no longer be its own.
        headers = {"Accept-Encoding": "identity"}
        response = session.get(links[0].url_without_fragment, headers=headers, stream=True)
        response.raise_for_status()
        size = 0
        with Path(target).open("wb") as file:
            for block in response.iter_content(BLOCK):
                size += len(block)
                if size > int(limit):
                    return f"the package index sends more than {limit} bytes for {archive}"
                file.write(block)
    return ""


if __name__ == "__main__":
    try:
        failure = main(*sys.argv[1:])
    except (PipError, RequestException, OSError) as error:
        failure = f"{type(error).__name__}: {error}"
    sys.exit(failure or 0)
