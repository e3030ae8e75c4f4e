"""The model card of an export: the run's own card, or one from the metadata of the model's file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mien import __version__
from mien.report.card import MOST_CARD, OWNER, code, plain
from mien.sampling import bundled
from mien.sampling.sampler import Sampler
from mien.storage.regular_file import read_own


def card_of(sampler: Sampler, source: Path, name: str) -> str:
    """The card as Markdown. `source` is the run, checkpoint or file of the model."""
    path = bundled.locate(source)
    for place in (path, *path.resolve().parents[:3]):
        if any((place / part).is_file() for part in ("run.json", bundled.MODEL)):
            with contextlib.suppress(OSError):  # a link would publish what it names
                return read_own(place / bundled.CARD, MOST_CARD).decode("utf-8", "replace")
    header, faces = sampler.header, sampler.image_spec
    data = header.get("data", {})
    return (
        "---\nlibrary_name: mien\ntags: [faces, image-generation]\n---\n"
        f"# {plain(name)}\n\nA generator of faces made with mien {__version__}, preset `{code(header.get('preset', '?'))}`: "
        f"{faces.side} by {faces.side} pixels, trained on {data.get('count', 'an unknown number of')} images "
        f"(fingerprint `{code(data.get('fingerprint', 'unknown'))}`).\n\n"
        "The faces are synthetic and show no real person. Do not use them as evidence or to decide about a person, or to "
        f"deceive.\n{OWNER}"
    )
