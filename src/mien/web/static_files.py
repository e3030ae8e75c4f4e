"""The page's files: a fixed table, read once. No name from a request ever becomes a path."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from mien.errors import DataError

if TYPE_CHECKING:
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webp": "image/webp",
}


def page_files() -> dict[str, bytes]:
    """Every file of the page by name."""
    return {file.name: file.read_bytes() for file in sorted(STATIC.iterdir()) if file.suffix in KINDS}


class StaticFiles:
    """The files with their types and tags."""

    def __init__(self) -> None:
        self.files = {
            name: (content, KINDS[Path(name).suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
            for name, content in page_files().items()
        }

    def answer(self, name: str, known: str) -> Response:
        """A file, or that it has not changed. Raises DataError for a name that is not in the table."""
        from starlette.responses import Response  # not above: an export needs `page_files` without the extra `web`

        if name not in self.files:
            raise DataError("There is nothing here.", "The page has no such file.", "Open the page at /.")
        content, kind, tag = self.files[name]
        headers = {"etag": tag, "cache-control": "no-cache"}
        if known == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)
