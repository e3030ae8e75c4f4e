"""Which picture a table means: by path, base name or stem, whatever separators, case or zeros it writes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from urllib.parse import unquote

from mien.data.archives import IMAGE_SUFFIXES, base_name, suffix_of
from mien.data.table_labels import split_of

NONE, SEVERAL = -1, -2  # instead of a row: no picture is meant, or it is not clear which


def stem_of(name: str) -> str:
    """A base name without the suffix of a picture."""
    base = base_name(name)
    suffix = suffix_of(base)
    return base[: -len(suffix)] if suffix in IMAGE_SUFFIXES else base


def fold(name: str) -> str:
    """A name without differences of case or of Unicode's forms."""
    return unicodedata.normalize("NFC", name).casefold()


class NameIndex:
    """Finds rows by what a table writes. `root` is the name of the folder or archive that holds the pictures."""

    def __init__(self, names: Sequence[str], root: str = "") -> None:
        self.names, self.root = names, root
        self._exact = {name: row for row, name in enumerate(names)}

    def _group(self, keys: Sequence[str]) -> dict[str, int | list[int]]:
        """Key -> its row, or its rows."""
        found: dict[str, int | list[int]] = {}
        for row, key in enumerate(keys):
            before = found.setdefault(key, row)
            if isinstance(before, list):
                before.append(row)
            elif before != row:
                found[key] = [before, row]
        return found

    @cached_property
    def _bases(self) -> dict[str, int | list[int]]:
        return self._group([base_name(name) for name in self.names])

    @cached_property
    def _stems(self) -> dict[str, int | list[int]]:
        return self._group([stem_of(name) for name in self.names])

    @cached_property
    def _folded(self) -> dict[str, int | list[int]]:
        return self._group([fold(stem_of(name)) for name in self.names])

    @cached_property
    def _numbers(self) -> dict[str, int | list[int]]:
        """By their numbers without zeros in front: a spreadsheet makes 1 of 000001."""
        return self._group(
            [stem.lstrip("0") or "0" if (stem := stem_of(name)).isdecimal() else "" for name in self.names]
        )

    @cached_property
    def _folders(self) -> frozenset[str]:
        return frozenset(folder for name in self.names for folder in name.split("/")[:-1])

    def find(self, value: str, folder: str = "", split: str = "") -> int:
        """The row of the picture that `value` names, NONE or SEVERAL.

        `folder` is where the table lies; `split` is what the table's own name says, such as train.
        """
        row = self._find(value, folder, split)
        decoded = unquote(value) if row == NONE else value  # a%20b.png, as an address on the web
        return row if decoded == value else self._find(decoded, folder, split)

    def _find(self, value: str, folder: str, split: str) -> int:
        row = self._exact.get(f"{folder}/{value}" if folder else value, NONE)
        if row >= 0 or not value:
            return row
        plain = value.replace("\\", "/").rstrip("/")
        base = base_name(plain)
        parents = tuple(part for part in plain.split("/")[:-1] if part not in ("", ".", ".."))
        rows = self._candidates(base)
        fitting = [row for row in rows if self._agrees(parents, row)]
        if len(fitting) > 1:
            fitting = self._nearest(fitting, parents, folder, split)
        return NONE if not fitting else fitting[0] if len(fitting) == 1 else SEVERAL

    def _candidates(self, base: str) -> list[int]:
        """The pictures with a base name, or else with its stem, or else with nearly that."""
        found = self._bases.get(base)
        if found is None:
            stem = stem_of(base)
            found = self._stems.get(stem)
            found = self._folded.get(fold(stem)) if found is None else found
            if found is None and stem.isdecimal():
                found = self._numbers.get(stem.lstrip("0") or "0")
        return [] if found is None else [found] if isinstance(found, int) else found

    def _agrees(self, parents: tuple[str, ...], row: int) -> bool:
        """Whether the folder that a table names can be this picture's: another known folder, or another split, cannot."""
        if not parents:
            return True
        own = (self.root, *self.names[row].split("/")[:-1])
        last = parents[-1]
        if last in own:
            return True
        splits = {split for part in own if (split := split_of(part))}
        named = {split for part in parents if (split := split_of(part))}
        return last not in self._folders and not (splits and named and splits.isdisjoint(named))

    def _nearest(self, rows: list[int], parents: tuple[str, ...], folder: str, split: str) -> list[int]:
        """Of several pictures those whose folders agree longest with the table's; then those beside it or of its split."""

        def agreement(row: int) -> tuple[int, bool, bool]:
            own = self.names[row].split("/")[:-1]
            count = 0
            while count < min(len(own), len(parents)) and own[-1 - count] == parents[-1 - count]:
                count += 1
            beside = bool(folder) and self.names[row].startswith(f"{folder}/")
            return count, beside, bool(split) and any(split_of(part) == split for part in own)

        best = max(map(agreement, rows))
        return [row for row in rows if agreement(row) == best]
