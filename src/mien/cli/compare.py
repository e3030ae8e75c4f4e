"""`mien compare`: runs on the same data side by side, as a table and as a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.result import Result
from mien.cli.scoring import protocol_of
from mien.core.run import Device
from mien.errors import Mismatch, UsageError
from mien.report.comparison import Board, compared, refusals, standing
from mien.report.leaderboard import write_leaderboard
from mien.report.run_reader import RunRecord, read_record
from mien.report.sample_rows import draw_sample_row
from mien.report.table_text import as_json, as_text

GROUPS = {"precision": "prdc", "recall": "prdc", "density": "prdc", "coverage": "prdc"}  # scores that one metric gives
GROUPS |= {"memorisation_pixels": "memorisation", "memorisation_identity": "identity"}
GROUPS |= {"reconstruction_l1": "reconstruction", "reconstruction_lpips": "reconstruction"}


def compare(
    *runs: Path,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    evaluate: Annotated[bool, Parameter(negative=())] = False,
    metrics: str = "fid,kid,prdc",
    samples: int | None = None,
    extractor: str | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: Device = "auto",
    code: Path | None = None,
) -> Result:
    """Set runs on the same data side by side, best first.

    Scores stand in one column only if they were measured in one way. Runs of one configuration and several seeds are one
    row: their mean and range. Examples:

        mien compare runs/*-quick-* runs/*-vae-*
        mien compare RUN RUN -o leaderboard.html
        mien compare RUN RUN --evaluate --metrics fid,kid --samples 5000

    Parameters
    ----------
    runs
        Two run directories or more.
    out
        A page to write, leaderboard.html: with the same seeds drawn by each, and curves. Opens from disk.
    evaluate
        Measure first what a run's newest model lacks, all by one protocol.
    metrics
        With --evaluate: of fid, kid, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        With --evaluate: how many faces are drawn; as many as there are real images by default, at most 10,000.
    extractor
        With --evaluate: FILE.py:NAME in place of Inception, as for `mien evaluate`.
    force
        Compare runs on different data or of different sides all the same, with a loud banner.
    device
        Where to compute.
    code
        The file of a model of your own.
    """
    records = [read_record(run) for run in {run.resolve(): run for run in runs}.values()]
    if len(records) < 2:
        raise UsageError("There is nothing to compare.", "It takes two runs.", "Name two run directories or more.")
    check_page(out)
    if (why := refusals(records)) and not force:
        raise Mismatch(
            "These runs cannot be compared.",
            " ".join(why),
            "Compare runs on one pack; --force compares them all the same.",
        )
    if evaluate:
        protocol = protocol_of(metrics, samples, extractor, device, code)
        for record in records:
            for warning in protocol.measure(record.directory):
                print(f"mien: {warning}", file=sys.stderr)
        records = [read_record(record.directory) for record in records]
    board = compared(records)
    advice = commands(board)
    text = "\n\n".join(
        [
            *(["\n".join(f"! {line}" for line in board.alarms)] if board.alarms else []),
            as_text(board),
            *(
                ["\n".join(f"{name} has no score of this kind yet: {command}" for name, command in advice)]
                if advice
                else []
            ),
        ]
    )
    found = {**as_json(board), "missing": [{"name": name, "command": command} for name, command in advice], "out": None}
    if out is not None:
        write_leaderboard(board, [draw_sample_row(record, code) for record in board.records], out)
        text, found = f"{text}\n\n{out}", {**found, "out": str(out)}
    return Result(text, found)


def check_page(out: Path | None) -> None:
    """Raises UsageError for a page that no browser would open."""
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out} is no page.", "A leaderboard is one HTML file.", "Write -o leaderboard.html.")


def commands(board: Board) -> list[tuple[str, str]]:
    """For each run that the first column lacks, the command that measures it as the others were."""
    lacking = [
        record
        for entry in board.entries
        for record in entry.records
        if record.status.get("state") != "diverged" and not scored(board, record)
    ]
    return [(record.name, f"mien evaluate {record.directory}{words(board)}") for record in lacking]


def scored(board: Board, record: RunRecord) -> bool:
    """Whether a run stands in the first column."""
    alone = compared([record]).entries[0]
    return bool(board.columns) and standing(alone, board.columns[0]) is not None


def words(board: Board) -> str:
    """The flags of `mien evaluate` that give the scores of the first column and its like."""
    if not board.columns:
        return ""
    shown = board.columns[0].protocol
    alike: Sequence[str] = [
        column.metric for column in board.columns if column.protocol.get("samples") == shown.get("samples")
    ]
    metrics = ",".join(dict.fromkeys(GROUPS.get(metric, metric) for metric in alike))
    split = (shown.get("reference") or {}).get("split", "train")
    own = str(shown.get("extractor", "inception")).startswith("inception")  # else only its author knows where it is
    flags = [
        f" --metrics {metrics}",
        f" --samples {shown['samples']}" if "samples" in shown else "",
        f" --split {split}" if split != "train" else "",
        f" --legacy {shown['legacy']}" if "legacy" in shown else "",
        f" --precision {shown['precision']}" if own and "precision" in shown and "legacy" not in shown else "",
        "" if own else " --extractor FILE.py:NAME",
    ]
    return "".join(flags)
