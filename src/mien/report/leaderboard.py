"""A page that compares runs: equal seeds, scores with intervals, time and size, and warnings where they are not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mien import __version__
from mien.report.charts import chart, chart_data
from mien.report.comparison import Board, Column, Entry, Standing, best, has_parent, parameters, standing
from mien.report.formatting import duration, short
from mien.report.html import Markup, document, join, tag
from mien.report.metric_descriptions import metric_meaning
from mien.report.page import tree
from mien.report.pictures import Compressed, Picture, pictures
from mien.report.run_reader import RunRecord, is_number, score_name
from mien.report.sample_rows import ROW, SEEDS, SampleRow
from mien.report.series import COLOURS, Panel, score_series
from mien.report.table_text import is_fitted, machine_line
from mien.storage import atomic

PAGE_BYTES = 4_000_000  # of pictures


def write_leaderboard(board: Board, strips: Sequence[SampleRow], out: Path, title: str = "Leaderboard") -> Path:
    """Write one self-contained page that shows a comparison. `strips` are new samples of its runs."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.refuse_special(out)
    atomic.replace_text(out, leaderboard(board, strips, title))
    return out


def leaderboard(board: Board, strips: Sequence[SampleRow], title: str) -> str:
    """The page as text."""
    records = board.records
    share = PAGE_BYTES // max(1, len(records))
    most = max(2, min(24, share // 40_000))
    compressed: Compressed = {}
    grids = [pictures(record.grids, compressed, most, share // most) for record in records]
    seens = [record.seen for record in records]
    panels = _panels(records)
    extent = (0.0, float(max([1, *seens])))
    charts = [chart(panel, index, extent) for index, panel in enumerate(panels)]
    machine = machine_line(records)
    body = join(
        tag(
            "header",
            tag("p", f"mien · {len(records)} runs", class_="overline"),
            tag("h1", title),
            tag("p", f"Trained on {machine}.", class_="soft") if machine else None,
            _alarm(board.alarms),
            class_="page-head",
        ),
        tag(
            "main",
            tag("section", tag("h2", "Scores"), _table(board)),
            tag("section", tag("h2", "The same seeds"), _strips(strips)) if strips else None,
            tag("section", tag("h2", "After equal time"), _faces(records, grids)) if any(grids) else None,
            tag("section", tag("h2", "Curves"), tag("div", *charts, class_="more")) if charts else None,
            tag("section", tag("h2", "Protocols"), *map(_protocol, board.columns)) if board.columns else None,
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


def _alarm(lines: Sequence[str]) -> Markup | None:
    """A prominent warning about the comparison, at the top of the page."""
    if not lines:
        return None
    return tag(
        "div",
        tag("h2", "Not comparable as they stand"),
        tag("ul", *(tag("li", line) for line in lines)),
        class_="alarm",
        role="alert",
    )


def _table(board: Board) -> Markup:
    winners = [best(board.entries, column) for column in board.columns]
    rows = []
    for index, entry in enumerate(board.entries):
        cells = [
            _score_cell(column, standing(entry, column), winners[number][index])
            for number, column in enumerate(board.columns)
        ]
        several = f" · mean and range of {len(entry.records)} seeds" if len(entry.records) > 1 else ""
        fine_tuned = " · starts with another model's weights" * any(map(has_parent, entry.records))
        beside = f"{entry.preset}{several}{fine_tuned}"
        beneath = tag("small", beside) if beside != entry.name else None
        why = tag("small", entry.failure, class_="failure") if entry.failure else None
        rows.append(tag("tr", tag("th", entry.name, beneath, why, scope="row"), *cells, *_facts(entry)))
        for record in entry.records if several else ():
            alone = Entry(name=record.name, preset=entry.preset, records=(record,))
            cells = [_score_cell(column, standing(alone, column), False) for column in board.columns]
            rows.append(tag("tr", tag("th", record.name, scope="row"), *cells, *_facts(alone), class_="seed"))
    headings = [tag("th", "Run", scope="col"), *map(_heading, board.columns)]
    headings += [
        tag("th", name, scope="col", class_="number")
        for name in ("Images seen", "Time", "Images a second", "Parameters")
    ]
    if any(map(any, winners)):
        words = "Best first. Bold: the best, and every score within its interval. Brackets contain 95% intervals."
    elif board.columns:
        words = "Brackets contain 95% intervals. No two runs have a score that was measured alike."
    else:
        words = "No run has a score yet: mien evaluate RUN measures one."
    table = tag("table", tag("thead", tag("tr", *headings)), tag("tbody", *rows), class_="board")
    region = tag("div", table, class_="scroll", role="region", aria_label="Scores of all runs", tabindex=0)
    return join(tag("p", words, class_="soft"), region)


def _heading(column: Column) -> Markup:
    """The metric, and in small letters the rest of the column's name and which way is better."""
    better = metric_meaning(column.metric).better
    rest = column.name.removeprefix(column.metric).lstrip("_")
    small = [tag("small", text) for text in (rest, f"{better} is better" if better else "") if text]
    meaning = metric_meaning(column.metric).text or None
    return tag("th", column.metric, *small, scope="col", class_="number", title=meaning)


def _facts(entry: Entry) -> list[Markup]:
    if not entry.records:
        return [_cell(name, "", "soft") for name in ("Images seen", "Time", "Images a second", "Parameters")]
    speed = f"{entry.seen / entry.seconds:,.0f}" if entry.seconds and not is_fitted(entry) else "unknown"
    count = parameters(entry.records[0])
    return [
        _cell("Images seen", f"{entry.seen:,.0f}"),
        _cell("Time", duration(entry.seconds)),
        _cell("Images a second", "fitted" if is_fitted(entry) else speed),
        _cell("Parameters", "unknown" if count is None else f"{count:,}"),
    ]


def _cell(name: str, text: object, kind: str = "") -> Markup:
    return tag("td", text, class_=f"number {kind}".strip(), data_name=name)


def _score_cell(column: Column, score: Standing | None, wins: bool) -> Markup:
    if score is None:
        return _cell(column.name, "not measured", "soft")
    shown = tag("small", f"[{short(score.low)}, {short(score.high)}]") if score.high > score.low else None
    number = f"{score.value:.4g}"
    return _cell(column.name, join(tag("b", number) if wins else number, shown))


def _strips(strips: Sequence[SampleRow]) -> Markup:
    """A line of faces for each run: a seed has the same position in every line."""
    lines = []
    for strip in strips:
        faces = [
            tag("img", src=source, width=width, height=height, decoding="sync",
                alt=f"{strip.name}: faces of seeds {SEEDS[index * ROW]} to {SEEDS[index * ROW] + ROW - 1}")
            for index, (source, width, height) in enumerate(strip.pictures)
        ]  # fmt: skip
        shown = tag("div", *faces) if faces else tag("p", strip.missing, class_="soft")
        lines.append(tag("figure", tag("figcaption", strip.name), shown, class_="strip"))
    hint = f"Seeds {SEEDS[0]} to {SEEDS[-1]}, drawn by the newest model of each run when this page was written."
    return join(*lines, tag("p", hint, class_="hint"))


def _faces(records: Sequence[RunRecord], grids: Sequence[Sequence[Picture]]) -> Markup:
    """A column for each run, the same seeds in the same positions, and one slider over training time for all."""
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


def _panels(records: Sequence[RunRecord]) -> list[Panel]:
    """A panel for each score that was measured at least twice in some run; a curve for each run."""
    panels, metrics = [], {score_name(score): str(score["metric"]) for record in records for score in record.scores}
    for name, metric in metrics.items():
        series = tuple(
            curve for record in records[:COLOURS] if len((curve := score_series(record.scores, name, record.name)).seen)
        )
        if any(len(curve.seen) > 1 for curve in series):
            meaning = metric_meaning(metric)
            panels.append(Panel(f"score-{name}", f"{meaning.title}, {name}".lstrip(", "), meaning.text, series))
    return panels


def _protocol(column: Column) -> Markup:
    """How the scores of a column were measured."""
    if not column.protocol:
        return tag("p", f"{column.name}: no protocol", class_="soft")
    return tag("details", tag("summary", column.name), tree(column.protocol))


def _second(record: RunRecord, seen: int) -> float:
    """Seconds of training after a number of images seen."""
    points = [
        (0.0, 0.0),
        *((line["seen"], line["seconds"]) for line in record.metrics if is_number(line.get("seconds"))),
    ]
    seens, seconds = np.array([*points, (record.seen, record.seconds)], dtype=np.float64).T
    return round(float(np.interp(seen, seens, seconds)), 1)
