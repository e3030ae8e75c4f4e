"""The report of a run: one page that opens from disk without network requests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mien import __version__
from mien.core.contracts import JSON
from mien.report.charts import chart, chart_data
from mien.report.formatting import duration, short
from mien.report.html import Markup, document, join, tag
from mien.report.metric_descriptions import metric_meaning
from mien.report.pictures import Compressed, Picture, pictures
from mien.report.reconstruction_section import balance, kl_section, reconstructions
from mien.report.run_reader import RunRecord, is_number, read_record
from mien.report.series import capitalised, health_panels, panels
from mien.storage import atomic

BESIDE = 2  # curves beside the faces; the others follow below
STATES = {
    "running": ("training", "watch"),
    "done": ("done", "good"),
    "preempted": ("stopped, state saved", "watch"),
    "interrupted": ("interrupted, state saved", "watch"),
    "diverged": ("diverged", "bad"),
    "failed": ("failed", "bad"),
}
TOLD_ELSEWHERE = frozenset({"format", "identity", "story", "notes"})  # fields of run.json
VERDICTS = {"healthy": "good", "warning": "watch", "alarm": "bad", "pending": ""}


def write_report(run_dir: Path, state: str | None = None, compressed: Compressed | None = None) -> Path:
    """Write report.html of the run in `run_dir`. Raises DataError where there is no run.

    `state` overrides status.json while a run ends. `compressed` caches the pictures between refreshes, so that each is
    compressed once.
    """
    record = read_record(run_dir, state)
    path = run_dir / "report.html"
    atomic.replace_text(path, report(record, {} if compressed is None else compressed))
    return path


def report(record: RunRecord, compressed: Compressed) -> str:
    """The page of a run as text."""
    grids = pictures(record.grids, compressed)
    seens = [picture.seen for picture in grids]
    learning, evidence = panels(record), health_panels(record)
    curves = (*learning, *evidence)
    ends = [float(series.seen[at]) for panel in curves for series in panel.series for at in (0, -1)]
    extent = (0.0, max([*ends, *map(float, seens), 1.0]))
    drawn = [chart(panel, index, extent) for index, panel in enumerate(curves)]
    charts, proofs = drawn[: len(learning)], drawn[len(learning) :]
    body = join(
        _head(record),
        tag(
            "main",
            tag(
                "section",
                tag("h2", "Learning"),
                tag(
                    "div",
                    _faces(grids),
                    tag("div", *charts[:BESIDE], class_="curves")
                    if charts
                    else tag("p", "No curves yet: the first line of metrics.jsonl is still to come.", class_="soft"),
                    class_="learning",
                ),
            ),
            reconstructions(record, compressed),
            balance(record),
            kl_section(record),
            _scores(record),
            _health(record, proofs),
            tag("section", tag("h2", "More curves"), tag("div", *charts[BESIDE:], class_="more"))
            if charts[BESIDE:]
            else None,
            _sampling(record),
            _facts(record),
        ),
        tag(
            "footer",
            f"Made by mien {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
            "The faces are synthetic, except the real ones above their reconstructions. "
            if record.reconstructions
            else "The faces are synthetic. ",
            "This page is one file and makes no request.",
            class_="page-foot",
        ),
    )
    data = {
        "from": int(extent[0]),
        "to": int(extent[1]),
        "grids": seens,
        "charts": [chart_data(panel) for panel in curves],
    }
    return document(f"{record.name} · mien", body, ("curves.css", "report.css"), ("curves.js", "report.js"), data)


def _head(record: RunRecord) -> Markup:
    run, status = record.run, record.status
    words, kind = STATES.get(str(status.get("state")), ("unknown", "watch"))
    goal = run.get("images")
    speeds = [line["images_per_second"] for line in record.metrics if is_number(line.get("images_per_second"))]
    speed = sorted(speeds)[len(speeds) // 2] if speeds else 0.0
    facts: list[tuple[str, str, str]] = [
        (
            "Images seen",
            f"{record.seen:,}",
            f"of {goal:,}" if isinstance(goal, int) and run.get("minutes") is None else "",
        ),
        ("Training time", duration(record.seconds), _allowance(record)),
        ("Speed", f"{speed:,.0f}" if speed else "not yet", "images a second, median" if speed else ""),
        ("Faces", f"{run.get('side', '?')} px", f"batch {run.get('batch', '?')}, seed {run.get('seed', '?')}"),
    ]
    reason = status.get("reason")
    return tag(
        "header",
        tag("p", "mien · report of a run", class_="overline"),
        tag("div", tag("h1", record.name), tag("span", words, class_=f"state {kind}"), class_="title"),
        tag("p", reason, class_="soft") if reason else None,
        tag(
            "dl",
            *(tag("div", tag("dt", a), tag("dd", b, tag("small", c) if c else None)) for a, b, c in facts),
            class_="facts",
        ),
        class_="page-head",
    )


def _allowance(record: RunRecord) -> str:
    """The time limit, and how often the run was resumed."""
    minutes, times = record.run.get("minutes"), record.status.get("resumes")
    return ", ".join(
        [
            *([f"of {duration(minutes * 60)}"] if is_number(minutes) else []),
            *([f"resumed {times} time{'s' if times != 1 else ''}"] if isinstance(times, int) and times else []),
        ]
    )


def _faces(grids: Sequence[Picture]) -> Markup:
    if not grids:
        return tag("p", "No faces yet: the first grid of samples is still to come.", class_="soft")
    last = len(grids) - 1
    shown = (
        tag(
            "img",
            src=picture.source,
            alt=f"Grid of faces after {picture.seen:,} images seen",
            width=picture.width,
            height=picture.height,
            decoding="sync",
            hidden=index != last,
        )
        for index, picture in enumerate(grids)
    )
    player = tag(
        "div",
        tag("button", "Play", id="play", type="button", aria_pressed="false"),
        tag(
            "input",
            id="time",
            type="range",
            min=0,
            max=last,
            value=last,
            step=1,
            aria_label="Images seen",
            autocomplete="off",
        ),
        tag("output", f"{grids[-1].seen:,}", id="seen", for_="time"),
        class_="player",
    )
    hint = (
        "The same seeds all along. Slide, or press the arrow keys; a click on a curve shows the faces of that moment."
    )
    return tag("div", tag("div", *shown), player, tag("p", hint, class_="hint"), class_="faces")


def _scores(record: RunRecord) -> Markup | None:
    if not record.latest_scores:
        return None
    rows = []
    for score in record.latest_scores:
        meaning = metric_meaning(str(score["metric"]))
        protocol = score.get("protocol")
        seen = f"{score['seen']:,}" if is_number(score.get("seen")) else "unknown"
        rows.append(
            tag(
                "tr",
                tag("th", meaning.title or score["metric"], tag("small", score.get("name", "")), scope="row"),
                tag("td", value(score), class_="number"),
                tag("td", meaning.text, tag("small", f"{meaning.better} is better") if meaning.better else None),
                tag(
                    "td",
                    f"at {seen} images",
                    tag("details", tag("summary", "protocol"), tree(protocol)) if isinstance(protocol, dict) else None,
                ),
            )
        )
    names = ("Score", "Value", "Meaning", "Measured")
    head = tag("tr", *(tag("th", name, scope="col", class_="number" if name == "Value" else None) for name in names))
    caption = (
        "The newest value of each; brackets hold its interval. Compare two numbers only if their protocols are equal."
    )
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *rows), class_="scores")
    return tag("section", tag("h2", "Scores"), table)


def value(score: JSON) -> Markup:
    """A score's value with its interval."""
    if not is_number(score.get("value")):
        return tag("span", "not a number")
    interval = [score.get("low"), score.get("high")]
    ends = [short(end) for end in interval if is_number(end)]
    return join(f"{score['value']:.4g}", tag("small", f"[{ends[0]}, {ends[1]}]") if len(ends) == 2 else None)


def _health(record: RunRecord, proofs: Sequence[Markup]) -> Markup | None:
    if not record.health:
        return None
    items = [
        tag(
            "li",
            tag(
                "span",
                verdict.get("state", "?"),
                class_=f"mark {VERDICTS.get(str(verdict.get('state')), 'watch')}".strip(),
            ),
            tag(
                "div",
                tag("h3", capitalised(str(verdict.get("name", "")))),
                tag("p", verdict.get("evidence", ""), class_="soft"),
                tag("p", verdict["suggestion"]) if verdict.get("suggestion") else None,
            ),
        )
        for verdict in record.health
    ]
    charts = tag("div", *proofs, class_="more") if proofs else None
    return tag("section", tag("h2", "Health"), tag("ul", *items, class_="verdicts"), charts)


def _sampling(record: RunRecord) -> Markup:
    run = shlex.quote(record.path)
    commands = (
        f"mien sample {run} --seeds 0-63 -o faces.png",
        f"mien walk {run} --seeds 3 42 7 -o walk.mp4",
    )
    text = "Seed 42 is the same face in every command; name the run as it lies on your disk."
    return tag(
        "section",
        tag("h2", "Sample it"),
        tag("p", text, class_="soft"),
        tag("pre", tag("code", "\n".join(commands)), tabindex="0"),
    )


def _facts(record: RunRecord) -> Markup:
    run = {name: item for name, item in record.run.items() if name not in TOLD_ELSEWHERE}
    story = record.run.get("story")
    left = tag(
        "div",
        tag("h2", "Configuration"),
        tag("p", story, class_="soft") if isinstance(story, str) and story else None,
        tree(run),
        class_="stack",
    )
    right = tag(
        "div", tag("h2", "Data"), tree(record.data), tag("h2", "Environment"), tree(record.environment), class_="stack"
    )
    return tag("section", tag("div", left, right, class_="pair"))


def tree(values: Mapping[str, Any]) -> Markup:
    """An object as a list of names and values, objects inside it indented; long lists are cut with their length."""
    if not values:
        return tag("p", "Nothing recorded.", class_="soft")
    pairs = (
        join(tag("dt", str(name).replace("_", " ")), tag("dd", _leaf(item), class_="inner" if _nested(item) else None))
        for name, item in values.items()
    )
    return tag("dl", *pairs, class_="tree")


def _nested(item: object) -> bool:
    return isinstance(item, dict) and bool(item)


def _leaf(item: object) -> Markup:
    match item:
        case dict() if item:
            return tree(item)
        case list() if any(isinstance(part, dict) for part in item):
            return join(*(_leaf(part) for part in item[:20]))
        case list():
            more = f" … {len(item)} in all" if len(item) > 60 else ""
            return join(", ".join(str(part) for part in item[:60]) + more or "none")
        case None:
            return join("none")
        case bool():
            return join("yes" if item else "no")
        case int() if abs(item) >= 10_000:
            return join(f"{item:,}")
        case _:
            return join(str(item))
