"""A comparison as text for a terminal, and as JSON for a program."""

from __future__ import annotations

from collections.abc import Sequence

from mien.core.contracts import JSON
from mien.report.comparison import Board, Column, Entry, Standing, best, machines, parameters, score_of, standing
from mien.report.formatting import duration
from mien.report.metric_descriptions import metric_meaning
from mien.report.run_reader import RunRecord

FACTS = ("images seen", "time", "images/s", "parameters")


def as_text(board: Board) -> str:
    """Warnings, and a table, best first; `*` marks the best of a column and every score within its confidence interval."""
    suffixes = {column.name.removeprefix(column.metric) for column in board.columns}
    short = len(suffixes) == 1
    header = ["", *(column.metric if short else column.name for column in board.columns), *FACTS]
    marks = [best(board.entries, column) for column in board.columns]
    lines, failures = [header], []
    for index, entry in enumerate(board.entries):
        cells = [
            cell(standing(entry, column)) + ("*" if marks[number][index] else " ")
            for number, column in enumerate(board.columns)
        ]
        lines.append([entry.name, *cells, *facts(entry)])
        for record in entry.records if len(entry.records) > 1 else ():
            alone = Entry(name=record.name, preset=entry.preset, records=(record,))
            values = [cell(standing(alone, column)) + " " for column in board.columns]
            lines.append([f"  {record.name}", *values, *facts(alone)])
        if entry.failure:
            failures.append(f"{entry.name}: {entry.failure}")
    parts = ["\n".join(f"! {line}" for line in board.alarms), "\n".join(aligned(lines))]
    if short and board.columns:
        seeds = (
            "; of several seeds: mean and half their range" if any(len(e.records) > 1 for e in board.entries) else ""
        )
        parts.append(f"Scores: {suffixes.pop().lstrip('_')}, +- half of the 95% interval{seeds}. * best, or as good.")
    described = machine_line(board.records)
    parts += ["\n".join(failures), f"Trained on: {described}." if described else ""]
    return "\n\n".join(filter(None, parts))


def cell(found: Standing | None) -> str:
    """A value and half the width of its interval, as text."""
    if found is None:
        return "-"
    half = (found.high - found.low) / 2
    return f"{found.value:.4g}" + (f" +-{half:.0f}" if half >= 100 else f" +-{half:.2g}" if half else "")


def facts(entry: Entry) -> list[str]:
    """Images seen, time, speed and size of a row, as text; `-` for unknown values."""
    if not entry.records:
        return ["-"] * len(FACTS)
    speed = f"{entry.seen / entry.seconds:,.0f}" if entry.seconds and not is_fitted(entry) else "-"
    count = parameters(entry.records[0])
    return [f"{entry.seen:,.0f}", duration(entry.seconds), speed, "-" if count is None else f"{count:,}"]


def is_fitted(entry: Entry) -> bool:
    """Whether a row was fitted and not trained: a baseline without a training speed."""
    return any(record.run.get("fitted") for record in entry.records)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column left-aligned, the others right-aligned."""
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]


def machine_line(records: Sequence[RunRecord]) -> str:
    """The machines of the runs, in one line."""
    words = {"threads": "{} threads", "torch": "torch {}"}
    return ", ".join(
        words.get(part, "{}").format(" and ".join(values)) for part, values in machines(records).items()
    ).replace("1 threads", "1 thread")


def as_json(board: Board) -> JSON:
    """The content of the table, with the protocol of each column."""
    return {
        "columns": [
            {
                "name": column.name,
                "metric": column.metric,
                "better": metric_meaning(column.metric).better,
                "protocol": column.protocol,
            }
            for column in board.columns
        ],
        "rows": [row(entry, board.columns) for entry in board.entries],
        "machine": dict(machines(board.records)),
        "alarms": list(board.alarms),
    }


def row(entry: Entry, columns: Sequence[Column]) -> JSON:
    found = {column.name: standing(entry, column) for column in columns}
    return {
        "name": entry.name,
        "preset": entry.preset,
        "failure": entry.failure or None,
        "scores": {name: vars(value) for name, value in found.items() if value is not None},
        "seen": entry.seen,
        "seconds": entry.seconds,
        "images_per_second": entry.seen / entry.seconds if entry.seconds and not is_fitted(entry) else None,
        "parameters": parameters(entry.records[0]) if entry.records else None,
        "runs": [
            {
                "path": str(record.directory),
                "seed": record.run.get("seed"),
                "state": record.status.get("state"),
                "seen": record.seen,
                "seconds": record.seconds,
                "scores": {column.name: score for column in columns if (score := score_of(record, column)) is not None},
            }
            for record in entry.records
        ],
    }
