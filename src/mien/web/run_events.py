"""A run as it happens, read from its files alone, so that either side may restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from mien.core.contracts import JSON
from mien.report.metric_descriptions import metric_meaning, stat_meaning
from mien.report.run_reader import is_number, sample_grids
from mien.storage import control
from mien.storage.bounded_json import dumps, parse_lines, read_lines
from mien.storage.regular_file import open_regular
from mien.storage.run_directory import read_json
from mien.web.registry import Registry, RunEntry

EVERY = 1.0  # seconds between two readings
OFTEN, YOUNG = 0.25, 30.0  # ... of a run that has not trained for so many seconds: its first pictures are waited for
HEARTBEAT = 15.0  # seconds without news
CURVE_POINTS = 240
SHOWN = ("fid", "kid")  # scores that stand beside a checkpoint


def state_of(run: RunEntry) -> JSON:
    """Where a run stands: state, images seen, pace, and the time that is left."""
    status, described = run.home.status, run.home.run_json or {}
    lines = tail(run.home.metrics)
    last = lines[-1] if lines else {}
    seen = max([value for value in (status.get("seen"), last.get("seen")) if is_number(value)], default=0)
    seconds = max([value for value in (status.get("seconds"), last.get("seconds")) if is_number(value)], default=0.0)
    paces = sorted(line["images_per_second"] for line in lines[-20:] if is_number(line.get("images_per_second")))
    pace = paces[len(paces) // 2] if paces else 0.0
    minutes, images = described.get("minutes"), described.get("images")
    state = str(status.get("state", "new"))
    alive = control.owner(run.home) is not None
    left = None
    if is_number(minutes):
        left = max(0.0, minutes * 60 - seconds)
    elif is_number(images) and pace:
        left = max(0.0, (images - seen) / pace)
    share = seconds / (minutes * 60) if is_number(minutes) and minutes else seen / images if is_number(images) else 0.0
    scores = scores_of(run)
    verdicts = (read_json(run.path / "health.json") or {}).get("verdicts")
    return {
        "state": state if alive or state not in ("running", "paused") else "stopped",
        "alive": alive,
        "seen": seen,
        "seconds": round(seconds, 1),
        "images_per_second": round(pace, 2),
        "share": round(min(1.0, share), 4),
        "left": None if left is None else round(left),
        "resumes": status.get("resumes", 0),
        "players": control.players(run.home),
        "steered": status["steered"] if is_number(status.get("steered")) else 0,
        "reason": status.get("reason", ""),
        "health": verdicts if isinstance(verdicts, list) else [],
        "samples": [seen for seen, _ in sample_grids(run.path)],
        "reconstructions": [seen for seen, _ in sample_grids(run.path, "reconstructions")],
        "checkpoints": [
            {"model": model.id, "seen": model.seen, "scores": scores.get(model.seen, [])} for model in run.models
        ],
    }


def tail(path: Path, most: int = 1 << 18) -> list[JSON]:
    """The last lines of a .jsonl file."""
    try:
        with open_regular(path) as file:
            file.seek(0, 2)
            start = max(0, file.tell() - most)
            file.seek(start)
            lines = file.read(most).splitlines()[1 if start else 0 :]
    except OSError:
        return []
    return [line for line in parse_lines(lines) if is_number(line.get("seen"))]


def curves(run: RunEntry) -> JSON:
    """Every number of metrics.jsonl over images seen: means of up to CURVE_POINTS pieces with their lowest and highest value.

    `scores` are those of evaluations, with their 95% intervals.
    """
    lines = [line for line in read_lines(run.home.metrics) if is_number(line.get("seen"))]
    size = max(1, -(-len(lines) // CURVE_POINTS))
    ends = range(len(lines), 0, -size)
    pieces = [lines[max(0, end - size) : end] for end in ends][::-1]
    names = sorted({name for line in lines for name, value in line.items() if is_number(value)} - {"seen", "seconds"})
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    ranges: dict[str, list[tuple[float, float] | None]] = {name: [] for name in names}
    for piece in pieces:
        for name in names:
            known = [line[name] for line in piece if is_number(line.get(name))]
            columns[name].append(sum(known) / len(known) if known else None)
            ranges[name].append((min(known), max(known)) if known else None)
    return {
        "seen": [piece[-1]["seen"] for piece in pieces],
        "curves": columns,
        "ranges": ranges,
        "meanings": {name: stat_meaning(name) for name in names},
        "scores": score_curves(run),
    }


def score_curves(run: RunEntry) -> list[JSON]:
    """The scores of evaluations over images seen, each with its interval and what it means; the newest of each number of images."""
    found: dict[str, dict[int, JSON]] = {}
    for path in sorted(run.path.glob("eval/*.jsonl")):
        for line in read_lines(path):
            if is_number(line.get("value")) and is_number(line.get("seen")):
                found.setdefault(str(line.get("metric")), {})[int(line["seen"])] = line
    curves = []
    for metric, points in sorted(found.items()):
        meaning, ordered = metric_meaning(metric), [points[seen] for seen in sorted(points)]
        bounds = [(line.get("low"), line.get("high")) for line in ordered]
        curves.append(
            {
                "name": metric.upper() if metric in SHOWN else metric,
                "seen": sorted(points),
                "values": [line["value"] for line in ordered],
                "ranges": [pair if all(map(is_number, pair)) else None for pair in bounds],
                "meaning": f"{meaning.text}{f' {meaning.better} is better.' if meaning.better else ''}",
            }
        )
    return curves


def scores_of(run: RunEntry) -> dict[int | None, list[JSON]]:
    """What evaluations said, by images seen: each score's name, its value with its bounds, and what it means."""
    found: dict[int | None, dict[str, JSON]] = {}
    for path in sorted(run.path.glob("eval/*.jsonl")):
        for line in read_lines(path):
            value, seen, metric = line.get("value"), line.get("seen"), str(line.get("metric"))
            if not is_number(value) or not is_number(seen) or metric not in SHOWN:
                continue
            meaning, low, high = metric_meaning(metric), line.get("low"), line.get("high")
            bounds = f", {low:.4g} to {high:.4g}" if is_number(low) and is_number(high) else ""
            better = f" {meaning.better} is better." if meaning.better else ""
            score = {"name": metric.upper(), "value": f"{value:.3g}", "meaning": f"{meaning.text}{better}{bounds}"}
            found.setdefault(int(seen), {})[metric] = score
    return {seen: list(scores.values()) for seen, scores in found.items()}


async def events(registry: Registry, id: str, closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Server-sent events: `state` whenever something changed, and a comment when nothing did for a while."""
    sent, quiet = "", time.monotonic()
    yield b"retry: 2000\n\n"
    while not closing.is_set():
        found = await asyncio.to_thread(lambda: state_of(registry.run(id)))
        state = dumps(found)
        if state != sent:
            yield f"event: state\ndata: {state}\n\n".encode()
            sent, quiet = state, time.monotonic()
        elif time.monotonic() - quiet > HEARTBEAT:
            yield b": still here\n\n"
            quiet = time.monotonic()
        try:
            young = found["alive"] and found["seconds"] < YOUNG
            await asyncio.wait_for(closing.wait(), OFTEN if young else EVERY)
        except TimeoutError:
            continue
