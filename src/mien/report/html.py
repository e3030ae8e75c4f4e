"""Safe HTML: all text that `tag` did not create is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mien.storage.bounded_json import dumps
from mien.storage.provenance import Claim, Provenance

STATIC = Path(__file__).parent / "static"
VOID = frozenset({"img", "input", "meta", "link", "br", "col"})
# Invisible characters, bidirectional controls and lone surrogates are removed from names.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already; only this module's functions create it."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Escape any value for text or a quoted attribute."""
    return text if isinstance(text, Markup) else Markup(html.escape(UNSEEN.sub("\ufffd", str(text)), quote=True))


def tag(element: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` and `aria_label` stand for class and aria-label; None and False leave an attribute out."""
    parts = [element]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escaped(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if element in VOID else f"{opening}{join(*children)}</{element}>")


def join(*children: object) -> Markup:
    """Several pieces one after the other; None and False are left out."""
    return Markup("".join(escaped(child) for child in children if child is not None and child is not False))


def document(
    title: str, body: Markup, styles: Sequence[str], scripts: Sequence[str], data: Any, claim: Claim = Claim.REPORT
) -> str:
    """A whole page in one file. `styles` and `scripts` are names in static/; `data` is read by the scripts.

    The policy in its head lets the browser run those scripts and show inline pictures, and nothing else.
    """
    css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("base.css", *styles))
    code = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(css)}'; script-src '{digest(code)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # In a script element only "<" could end the data early; JSON allows it to be written so.
    values = dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        *(tag("meta", name=name, content=content) for name, content in Provenance(claim=claim).meta().items()),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(css)),
    )
    last = join(
        tag("script", Markup(values), id="data", type="application/json"),
        tag("script", Markup(code)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body, last), lang='en')}\n"


def digest(text: str) -> str:
    """How a Content-Security-Policy names what an element holds."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
