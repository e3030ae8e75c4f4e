"""What the cells of a table hold: numbers as people write them, yes and no, dates, identifiers, or nothing."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mien.data.tables import is_number

UNKNOWN = {
    "", "nan", "none", "null", "(null)", "nil", "na", "n/a", "n.a.", "<na>", "#n/a", "#value!", "#ref!", "#div/0!", "nat",
    "?", "??", "-", "--", "\u2013", "\u2014", ".", "\\n", "unknown", "unk", "not known", "missing", "undefined",
    "not available", "n.d.", "0000-00-00", "0000-00-00 00:00:00",
}  # fmt: skip
YES_OR_NO = {
    **dict.fromkeys(("yes", "y", "true", "t", "on", "1", "1.0"), 1.0),
    **dict.fromkeys(("no", "n", "false", "f", "off", "0", "0.0"), 0.0),
}
SENTINELS = (-1.0, -9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0)  # numbers that often mean "not known"
UNITS = ("%", "°", "cm", "mm", "m", "kg", "g", "lb", "px", "y", "yr", "yrs", "yo", "year", "years")
UNIT = re.compile(rf"(.*\d)\s*({'|'.join(UNITS)})", re.IGNORECASE)
SPACED = re.compile(r"[+-]?\d{1,3}([ '\u2019\u00a0\u202f]\d{3})+([.,]\d+)?")  # 12 500
COMMA_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 12,500
DOT_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")  # 12.500
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)?,\d+")  # 1,5 and 12.500,5

CLOCK = r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[ap]\.?m\.?)?"
MONTH = r"jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
DATES = (
    re.compile(r"(?P<year>\d{4})[-/](?P<month>\d\d?)"),
    re.compile(r"(?P<year>\d{4})(?P<sign>[-/.:])(?P<month>\d\d?)(?P=sign)(?P<day>\d\d?)([T _,].*|Z)?"),
    re.compile(rf"(?P<day>\d\d?)(?P<sign>[-/.])(?P<month>\d\d?)(?P=sign)(?P<year>\d{{4}}|\d\d)(,? {CLOCK}.*)?"),
    re.compile(r"(?P<year>(18|19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)([T_ ]?\d{4,6}(\.\d+)?Z?)?"),
    re.compile(
        rf"(\w{{2,9}},? )?(?P<day>\d\d?)[. -]+({MONTH})[a-zä]*[., -]+(?P<year>\d{{2,4}})(,? .*)?", re.IGNORECASE
    ),
    re.compile(rf"(\w{{2,9}},? )?({MONTH})[a-zä]*[. -]+((?P<day>\d\d?),? )?({CLOCK} )?(?P<year>\d{{4}})(,? .*)?", re.I),
    re.compile(CLOCK, re.IGNORECASE),
)
TIME_TITLE = re.compile(r"date|time|stamp|created|modified|taken|datum|zeit", re.IGNORECASE)
ID_TITLE = re.compile(r"(?i:(^|[\s_\-.])(id|uid|uuid|guid|hash|md5|sha\d*|key|url|uri|link))$|[a-z]I[Dd]$")
IDENTIFIER = re.compile(
    r"(?i:[a-z][a-z0-9+.-]*://\S+|www\.\S+|[^\s@]+@[^\s@]+\.[a-z]+"  # addresses
    r"|(?=[a-z]*\d)[0-9a-f]{16,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # hashes
    r"|\d{12,}|([a-z]:|\.{1,2}|~)?[\\/].+|[^<>|:?*]*\.(jpe?g|png|webp|gif|bmp|tiff?|txt|json|npy|zip|csv))"  # files
)
MOST_CHARACTERS = 80  # of a class's name, a number, a date or an address: what is longer is a text
FAR = 100.0  # times the largest of a column's other numbers, at which a sign is rather a decimal point than thousands
MOST_QUOTED = 40  # of a cell in a remark


def quote(word: str) -> str:
    """A cell as a remark shows it: short, and without signs that a terminal obeys."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in word)
    return f"`{plain if len(plain) <= MOST_QUOTED else plain[:MOST_QUOTED] + '...'}`"


def quotes(words: Collection[str], most: int = 3) -> str:
    """The first of some cells as a remark shows them."""
    return ", ".join(map(quote, list(words)[:most])) + (", ..." if len(words) > most else "")


def is_known(word: str) -> bool:
    return word.strip().lower() not in UNKNOWN


def spelling(word: str) -> str:
    """A cell without what does not tell words apart: case, spaces around and between, Unicode's forms."""
    return " ".join(unicodedata.normalize("NFKC", word).split()).casefold()


def unite(words: Mapping[str, int]) -> dict[str, str]:
    """Each of some words, with their counts, as its most frequent spelling: `male ` and `male` as `Male`."""
    best: dict[str, str] = {}
    for word in sorted(words, key=lambda word: (-words[word], word)):
        best.setdefault(spelling(word), " ".join(word.split()))
    return {word: best[spelling(word)] for word in words}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The words of a column that are numbers, and how they were read."""

    values: Mapping[str, float]
    unit: str = ""  # such as %
    style: str = ""  # how commas or dots were read, where that is a choice: a sentence with {} for the column


def numbers_of(words: Collection[str], decimal_comma: bool = False) -> Numbers:
    """The numbers among some words. One reading of commas, dots and units holds for the column.

    `decimal_comma` says that the table writes 1,5 for one and a half.
    """
    values = {word: float(word) for word in words if is_number(word)}
    if len(values) == len(words):
        return Numbers(values=values)
    bare = {word: split_unit(word) for word in words if len(word) <= MOST_CHARACTERS}
    spaced = {
        word: re.sub(r"[ '\u2019\u00a0\u202f]", "", text) for word, (text, _) in bare.items() if SPACED.fullmatch(text)
    }
    texts = {word: spaced.get(word, text) for word, (text, _) in bare.items()}
    commas = [
        text
        for text in texts.values()
        if "," in text and (COMMA_GROUPS.fullmatch(text) or DECIMAL_COMMA.fullmatch(text))
    ]
    grouped = not decimal_comma and bool(commas) and all(COMMA_GROUPS.fullmatch(text) for text in commas)
    dotted = not grouped and any("." in text for text in commas)  # 12.500,5: then 12.500 is a thousand times twelve too
    if not dotted and not any("." in text or text.count(",") > 1 for text in commas):
        grouped, dotted, style = one_reading([*texts.values()], commas, grouped)
    else:
        style = ""
    values = {word: value for word, text in texts.items() if (value := read(text, grouped, dotted)) is not None}
    units = Counter(bare[word][1] for word in values)
    unit = units.most_common(1)[0][0] if units else ""
    return Numbers(
        values={word: value for word, value in values.items() if bare[word][1] == unit}, unit=unit, style=style
    )


def one_reading(texts: Sequence[str], commas: Sequence[str], grouped: bool) -> tuple[bool, bool, str]:
    """Whether commas and dots of a column, which no number has both of, are thousands, and a sentence about it.

    Beside decimals with the other sign, 1.234 is 1234 as long as that is no more than FAR times the largest of the others.
    """
    dots = [text for text in texts if "." in text and "," not in text and is_number(text)]
    if not commas or (not grouped and not dots):
        return grouped, False, ""
    mixed = grouped and any(not DOT_GROUPS.fullmatch(text) for text in dots)
    if grouped and not mixed:
        return (
            True,
            False,
            f"Commas in {{}} separate thousands: {quote(commas[0])} is {read(commas[0], True, False):.0f}.",
        )
    signs, groups = ("Commas", commas) if grouped else ("Dots", dots)
    large = [
        abs(read(text, True, True) or 0.0) for text in groups if (DOT_GROUPS, COMMA_GROUPS)[grouped].fullmatch(text)
    ]
    others = [abs(read(text, False, False) or 0.0) for text in texts if text not in groups]
    if len(large) == len(groups) and min(large) <= FAR * max(others, default=0.0):
        return grouped, not grouped, f"{signs} in {{}} separate thousands: {quote(groups[0])} is {large[0]:.0f}."
    both = " and ".join(f"{quote(text)} is {read(text, False, False):g}" for text in (dots[0], commas[0]))
    return False, False, f"Dots and commas in {{}} are both decimal: {both}."


def split_unit(word: str) -> tuple[str, str]:
    """`45 %` as `45` and `%`."""
    found = UNIT.fullmatch(word.strip()) if len(word) <= MOST_CHARACTERS else None
    return (found[1].strip(), found[2].lower()) if found else (word.strip(), "")


def read(text: str, grouped: bool, dotted: bool) -> float | None:
    """A number, whose commas are thousands (`grouped`) or decimal, whose dots are thousands (`dotted`) or decimal."""
    if grouped and COMMA_GROUPS.fullmatch(text):
        text = text.replace(",", "")
    elif not grouped and DECIMAL_COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif dotted and DOT_GROUPS.fullmatch(text):
        text = text.replace(".", "")
    return float(text) if is_number(text) else None


def is_date(word: str) -> bool:
    """Whether a word is a date or a time of day."""
    for pattern in DATES if len(word) <= MOST_CHARACTERS else ():
        if found := pattern.fullmatch(word.strip()):
            parts = {name: int(part) for name, part in found.groupdict().items() if part and part.isdecimal()}
            day, month = parts.get("day", 1), parts.get("month", 1)
            if min(day, month) in range(1, 13) and max(day, month) <= 31:
                return True
    return False


def are_dates(title: str, words: Mapping[str, int], numbers: Mapping[str, float]) -> bool:
    """Whether most cells of a column, words with their counts, are dates; numbers are where all are, or the title says so."""
    if 2 * sum(count for word, count in words.items() if is_date(word) and word not in numbers) > sum(words.values()):
        return True
    if len(numbers) < len(words):
        return False
    if all(len(word) in (8, 12, 14) and is_date(word) for word in words):
        return True  # 20190511
    seconds = [value / (1000 if abs(value) > 1e11 else 1) for value in numbers.values()]
    return TIME_TITLE.search(title) is not None and all(3e8 < value < 4.2e9 for value in seconds)  # 1979 to 2103


def are_identifiers(words: Mapping[str, int]) -> bool:
    """Whether most cells are addresses, names of files, hashes or numbers too long to count anything."""
    return 2 * sum(count for word, count in words.items() if IDENTIFIER.fullmatch(word[:400])) > sum(words.values())


def nearly_all_differ(words: Mapping[str, int] | Mapping[str | float, int]) -> bool:
    """Whether words, with their counts, hardly recur, so that they name or describe single pictures."""
    return len(words) > 2 and 3 * len(words) > 2 * sum(words.values())


def sentinels(values: Mapping[str, float]) -> list[str]:
    """Words for numbers such as -999 that lie apart from all others and often mean "not known"."""
    found = []
    for word, value in values.items():
        others = [other for other in values.values() if other != value] if value in SENTINELS else []
        if len(set(others)) > 2 and (min(others) >= 0 > value or 0 <= 3 * max(others) < value):
            found.append(word)
    return found


def same(first: str, second: str) -> bool:
    """Whether two cells say the same: 1 and 1.0, Male and male, yes and true."""
    plain, other = spelling(first), spelling(second)
    if plain == other:
        return True
    if plain in YES_OR_NO and other in YES_OR_NO:
        return YES_OR_NO[plain] == YES_OR_NO[other]
    one, two = (next(iter(numbers_of([word]).values.values()), math.nan) for word in (plain, other))
    return math.isclose(one, two, rel_tol=1e-6)
