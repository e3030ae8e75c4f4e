"""Runs on the same data side by side: equal seeds, scores with intervals, time and size. Loud where they cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mien import durable
from mien._version import __version__
from mien.core import JSON
from mien.errors import UsageError
from mien.report.charts import chart, chart_data
from mien.report.comparison import best, disagreements, interval, parameters, ranked, score_names, score_of
from mien.report.html import Markup, document, join, tag
from mien.report.meanings import metric_meaning
from mien.report.numbers import duration, short
from mien.report.page import tree
from mien.report.pictures import Compressed, Picture, pictures
from mien.report.record import Record, is_number, read_record
from mien.report.series import COLOURS, Panel, score_series

PAGE_BYTES = 4_000_000  # of pictures


def write_leaderboard(runs: Sequence[Path], out: Path, title: str = "Leaderboard") -> Path:
    """Write one self-contained page that compares `runs`. Raises DataError for what is no run, UsageError for none at all."""
    if not runs:
        raise UsageError("There is nothing to compare.", "No run was named.", "Name two run directories or more.")
    records = ranked([read_record(run) for run in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    durable.replace_text(out, leaderboard(records, title))
    return out


def leaderboard(records: Sequence[Record], title: str) -> str:
    """The page as text; `records` are in the order to show."""
    share = PAGE_BYTES // len(records)
    most = max(2, min(24, share // 40_000))
    compressed: Compressed = {}
    grids = [pictures(record.grids, compressed, most, share // most) for record in records]
    seens = [record.seen for record in records]
    panels = _panels(records)
    extent = (0.0, float(max([1, *seens])))
    passports = [_passport(records, name) for name in score_names(records)]
    body = join(
        tag(
            "header",
            tag("p", f"mien · {len(records)} runs", class_="overline"),
            tag("h1", title),
            _alarm(records),
            class_="page-head",
        ),
        tag(
            "main",
            tag("section", tag("h2", "Scores"), _table(records)),
            tag("section", tag("h2", "Faces"), _faces(records, grids)) if any(grids) else None,
            tag("section", tag("h2", "Curves"), _curves(panels, extent)) if panels else None,
            tag("section", tag("h2", "Passports"), *passports) if passports else None,
        ),
        tag(
            "footer",
            f"Made by mien {__version__}. The faces are synthetic. This page is one file and makes no request.",
            class_="page-foot",
        ),
    )
    data = {
        "from": 0,
        "to": int(extent[1]),
        "seconds": max([1.0, *(record.seconds for record in records)]),
        "grids": [
            [_second(record, picture.seen) for picture in shown] for record, shown in zip(records, grids, strict=True)
        ],
        "charts": [chart_data(panel) for panel in panels],
    }
    return document(f"{title} · mien", body, ("curves.css", "leaderboard.css"), ("curves.js", "leaderboard.js"), data)


def _alarm(records: Sequence[Record]) -> Markup | None:
    """Loud, and first: why the numbers below must not be held against each other."""
    lines = disagreements(records)
    if not lines:
        return None
    return tag(
        "div",
        tag("h2", "Not comparable as they stand"),
        tag("ul", *(tag("li", line) for line in lines)),
        class_="alarm",
        role="alert",
    )


def _curves(panels: Sequence[Panel], extent: tuple[float, float]) -> Markup:
    return tag("div", *(chart(panel, index, extent) for index, panel in enumerate(panels)), class_="more")


def _table(records: Sequence[Record]) -> Markup:
    names = score_names(records)
    winners = {name: best(records, name) for name in names}
    rows = [
        tag(
            "tr",
            tag("th", record.name, tag("small", str(record.run.get("preset", ""))), scope="row"),
            *(_score_cell(name, score_of(record, name), winners[name][index]) for name in names),
            _cell("Images seen", f"{record.seen:,}"),
            _cell("Time", duration(record.seconds)),
            _cell("Images a second", f"{record.seen / record.seconds:,.0f}" if record.seconds else "unknown"),
            _cell("Parameters", f"{count:,}" if (count := parameters(record)) is not None else "unknown"),
        )
        for index, record in enumerate(records)
    ]
    columns = [tag("th", "Run", scope="col")]
    for name in names:
        metric = next(str(score["metric"]) for record in records if (score := score_of(record, name)) is not None)
        better = metric_meaning(metric).better
        columns.append(
            tag("th", name, tag("small", f"{better} is better") if better else None, scope="col", class_="number")
        )
    columns += [
        tag("th", name, scope="col", class_="number")
        for name in ("Images seen", "Time", "Images a second", "Parameters")
    ]
    caption = "Best first. Bold: the best, and whatever its interval cannot be told from; brackets hold the intervals."
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", tag("tr", *columns)), tag("tbody", *rows), class_="board"),
        class_="scroll",
        role="region",
        aria_label="Scores of all runs",
        tabindex=0,
    )


def _cell(name: str, text: object, kind: str = "") -> Markup:
    return tag("td", text, class_=f"number {kind}".strip(), data_name=name)


def _score_cell(name: str, score: JSON | None, wins: bool) -> Markup:
    if score is None:
        return _cell(name, "not measured", "soft")
    if not is_number(score.get("value")):
        return _cell(name, "not a number", "soft")
    low, high = interval(score)
    shown = tag("small", f"[{short(low)}, {short(high)}]") if high > low else None
    number = f"{score['value']:.4g}"
    return _cell(name, join(tag("b", number) if wins else number, shown))


def _faces(records: Sequence[Record], grids: Sequence[Sequence[Picture]]) -> Markup:
    """A column for each run, the same seeds in the same places, and one slider over training time for all."""
    columns = [
        tag(
            "figure",
            tag(
                "div",
                *(
                    tag("img", src=picture.source, width=picture.width, height=picture.height, hidden=picture is not shown[-1],
                        alt=f"{record.name}: faces after {picture.seen:,} images seen", decoding="sync")
                    for picture in shown
                ),
                tag("p", "no grid", class_="soft") if not shown else None,
            ),
            tag("figcaption", record.name),
            class_="run",
        )
        for record, shown in zip(records, grids, strict=True)
    ]  # fmt: skip
    slider = tag("input", id="time", type="range", min=0, max=1000, value=1000, step=5, aria_label="Training time")
    longest = duration(max(record.seconds for record in records))
    player = tag("div", tag("label", "Training time", for_="time"), slider, tag("output", longest, id="at", for_="time"),
                 class_="player")  # fmt: skip
    hint = "The same seed stands in the same place of every grid. Slide to compare the runs after equal time on their machine."
    return join(tag("div", *columns, class_="runs"), player, tag("p", hint, class_="hint"))


def _panels(records: Sequence[Record]) -> list[Panel]:
    """A panel for each score that was measured at least twice in some run; a curve for each run."""
    found = []
    for name in score_names(records):
        curves = [(record, score_series(record.scores, name, record.name)) for record in records[:COLOURS]]
        series = tuple(curve for _, curve in curves if len(curve.seen))
        if any(len(curve.seen) > 1 for curve in series):
            metric = next(str(score["metric"]) for record in records if (score := score_of(record, name)) is not None)
            meaning = metric_meaning(metric)
            found.append(Panel(f"score-{name}", f"{meaning.title}, {name}".lstrip(", "), meaning.text, series))
    return found


def _passport(records: Sequence[Record], name: str) -> Markup:
    """What was done to get the scores of one name, once where all agree."""
    passports = {record.name: (score_of(record, name) or {}).get("passport") for record in records}
    known = {run: passport for run, passport in passports.items() if isinstance(passport, dict)}
    alike = len({repr(sorted(passport.items())) for passport in known.values()}) == 1
    shown = dict([next(iter(known.items()))]) if alike else known
    parts = [
        join(tag("p", run, class_="soft") if not alike else None, tree(passport)) for run, passport in shown.items()
    ]
    return tag("details", tag("summary", name), *parts) if parts else tag("p", f"{name}: no passport", class_="soft")


def _second(record: Record, seen: int) -> float:
    """Seconds of training when a run had seen so many images."""
    points = [
        (0.0, 0.0),
        *((line["seen"], line["seconds"]) for line in record.metrics if is_number(line.get("seconds"))),
    ]
    seens, seconds = np.array([*points, (record.seen, record.seconds)], dtype=np.float64).T
    return round(float(np.interp(seen, seens, seconds)), 1)
