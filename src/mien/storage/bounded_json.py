"""Reads JSON that somebody else may have written: regular files only, bounded in bytes, in depth and in digits, shape checked.

Python's own reader takes any size, exceeds the recursion limit on nesting, accepts half of a surrogate pair (which no
encoder takes back), NaN, and integers that no float can hold. Every fault of a document is one exception here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.storage.regular_file import open_regular

if TYPE_CHECKING:  # not for the workers of a preparation, which start faster without torch
    from mien.core.contracts import JSON

MAX_BYTES = 64 << 20  # of a document: many times what mien writes
MAX_LINE = 1 << 20  # bytes of one line of a .jsonl file
MAX_DEPTH = 32  # nested lists and objects; what mien writes has under 10
MAX_DIGITS = 20  # of an integer: 64 bits

#: A string, or one bracket. Possessive, so that no text takes more than linear time.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class InvalidJSON(ValueError):
    """What is wrong with a document, in words that begin in lower case."""


def loads(
    content: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    file_names: bool = True,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """A JSON document. `file_names`: strings may hold bytes of file names that are not UTF-8, as Python escapes them.

    `pairs` is json's `object_pairs_hook`. Raises InvalidJSON.
    """
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(raw) > max_bytes:
        raise InvalidJSON(f"it has {len(raw):,} bytes, more than {max_bytes:,}")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and nesting(raw) > MAX_DEPTH:
        raise InvalidJSON(f"it is nested more than {MAX_DEPTH} deep")
    try:
        text = raw.decode("utf-8-sig")
        value = json.JSONDecoder(**RULES, object_pairs_hook=pairs).decode(text) if pairs else DECODER.decode(text)
        if SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape" if file_names else "strict")
    except UnicodeEncodeError:
        raise InvalidJSON("it holds half of a surrogate pair, which is no character") from None
    except ValueError as error:
        raise InvalidJSON(str(error)[:200]) from None
    return value


def nesting(raw: bytes) -> int:
    """How deep lists and objects are nested, brackets inside strings left out."""
    depth = deepest = 0
    for token in TOKEN.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidJSON(f"an integer has {len(digits)} digits, more than {MAX_DIGITS}")
    return int(digits)


def _finite(digits: str) -> float | None:
    """A number, or None, null, for NaN, Infinity and 1e999: no JSON has them, and what is computed from one is none either."""
    number = float(digits)
    return number if isfinite(number) else None


RULES: dict[str, Any] = {"parse_int": _integer, "parse_float": _finite, "parse_constant": _finite}
DECODER = json.JSONDecoder(**RULES)


def dumps(value: object, **options: Any) -> str:
    """A JSON document, with null for a number that is not finite, as `loads` reads it."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(DECODER.decode(json.dumps(value)), **options)


def loads_object(
    content: bytes | str, /, *, max_bytes: int = MAX_BYTES, file_names: bool = True, **shape: type
) -> JSON:
    """A JSON object whose fields have the types of `shape`. Raises InvalidJSON."""
    return require(loads(content, max_bytes=max_bytes, file_names=file_names), **shape)


def require(value: object, /, **shape: type) -> JSON:
    """`value` if it is an object with these fields; `float` allows integers, and no number is a bool. Raises InvalidJSON."""
    if not isinstance(value, dict):
        raise InvalidJSON(f"it is {_kind(value)}, not an object")
    for name, kind in shape.items():
        if name not in value:
            raise InvalidJSON(f"it has no `{name}`")
        item = value[name]
        allowed = (int, float) if kind is float else kind
        if not isinstance(item, allowed) or (isinstance(item, bool) and kind is not bool):
            raise InvalidJSON(f"`{name}` is {_kind(item)}, not {NAMES[kind]}")
    return value


NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "a list",
    bool: "true or false",
}


def _kind(value: object) -> str:
    return "null" if value is None else NAMES.get(type(value), type(value).__name__)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises OSError, InvalidJSON for a larger one."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InvalidJSON(f"{path.name} has more than {max_bytes:,} bytes")
    return content


def read_object(path: Path, max_bytes: int = MAX_BYTES, /, **shape: type) -> JSON:
    """The JSON object in a file. Raises OSError, InvalidJSON."""
    return require(loads(read_bytes(path, max_bytes), max_bytes=max_bytes), **shape)


def parse_lines(lines: Iterable[bytes], /, **shape: type) -> Iterator[JSON]:
    """The objects of JSON Lines. A line that is none, or lacks a field of `shape`, is passed over."""
    for line in lines:
        try:
            yield require(loads(line, max_bytes=MAX_LINE), **shape)
        except InvalidJSON:
            continue


def read_lines(path: Path, /, **shape: type) -> Iterator[JSON]:
    """The objects of a .jsonl file; none where it cannot be read. A line that is none, such as a torn one, is passed over."""
    try:
        file = open_regular(path)
    except OSError:
        return
    with file:
        yield from parse_lines(iter(lambda: file.readline(MAX_LINE + 1), b""), **shape)
