"""`mien compare`: rank runs on the same data, as a table and as a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.cli.model_options import CodeFile, ComputeDevice
from mien.cli.result import Result
from mien.cli.scoring import protocol_of
from mien.errors import Mismatch, UsageError
from mien.metrics.evaluate import METRIC_OF
from mien.report.comparison import Board, compared, refusals, standing
from mien.report.leaderboard import write_leaderboard
from mien.report.run_reader import RunRecord, read_record
from mien.report.sample_rows import draw_sample_row
from mien.report.table_text import as_json, as_text


def compare(
    *runs: Path,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    evaluate: Annotated[bool, Parameter(negative=())] = False,
    metrics: str = "fid,kid,prdc",
    samples: int | None = None,
    extractor: str | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    device: ComputeDevice = "auto",
    code: CodeFile = None,
) -> Result:
    """Compare runs on the same data, best first.

    Scores share a column only if they share a protocol. Runs of one configuration with several seeds share a row, with
    their mean and range. Examples:

        mien compare runs/*-quick-* runs/*-vae-*
        mien compare RUN RUN -o leaderboard.html
        mien compare RUN RUN --evaluate --metrics fid,kid --samples 5000

    Parameters
    ----------
    runs
        Two run directories or more.
    out
        HTML page to write, such as leaderboard.html, with the same seeds of each run and the curves. It needs no server.
    evaluate
        Measure missing scores first, all by one protocol.
    metrics
        With --evaluate, metrics: fid, kid, mind, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        With --evaluate, number of samples; by default as many as there are real images, at most 10,000.
    extractor
        With --evaluate, FILE.py:NAME instead of Inception, as for `mien evaluate`.
    force
        Compare runs on different data or of different sides, with a warning.
    """
    records = [read_record(run) for run in {run.resolve(): run for run in runs}.values()]
    if len(records) < 2:
        raise UsageError(
            "A comparison needs two runs or more.", f"{len(records)} is named.", "Name two run directories or more."
        )
    check_page(out)
    if (why := refusals(records)) and not force:
        raise Mismatch(
            "These runs cannot be compared.",
            " ".join(why),
            "Compare runs on one pack; --force compares them anyway.",
        )
    if evaluate:
        protocol = protocol_of(metrics, samples, extractor, device, code)
        for record in records:
            for warning in protocol.measure(record.directory):
                print(f"mien: {warning}", file=sys.stderr)
        records = [read_record(record.directory) for record in records]
    board = compared(records)
    advice = commands(board)
    missing = "\n".join(f"{name} has no score of this kind yet: {command}" for name, command in advice)
    text = "\n\n".join(filter(None, [as_text(board), missing]))
    found = {**as_json(board), "missing": [{"name": name, "command": command} for name, command in advice], "out": None}
    if out is not None:
        write_leaderboard(board, [draw_sample_row(record, code) for record in board.records], out)
        text, found = f"{text}\n\n{out}", {**found, "out": str(out)}
    return Result(text, found)


def check_page(out: Path | None) -> None:
    """Raises UsageError for a page that is not HTML."""
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{out} does not end in .html.", "A leaderboard is one HTML file.", "Write -o leaderboard.html."
        )


def commands(board: Board) -> list[tuple[str, str]]:
    """For each run without a score in the first column, the command that measures it by the same protocol."""
    missing = [
        record
        for entry in board.entries
        for record in entry.records
        if record.status.get("state") != "diverged" and not scored(board, record)
    ]
    return [(record.name, f"mien evaluate {record.directory}{words(board)}") for record in missing]


def scored(board: Board, record: RunRecord) -> bool:
    """Whether a run has a score in the first column."""
    alone = compared([record]).entries[0]
    return bool(board.columns) and standing(alone, board.columns[0]) is not None


def words(board: Board) -> str:
    """The flags of `mien evaluate` for the scores of the first column and of columns with the same number of samples."""
    if not board.columns:
        return ""
    protocol = board.columns[0].protocol
    alike: Sequence[str] = [
        column.metric for column in board.columns if column.protocol.get("samples") == protocol.get("samples")
    ]
    metrics = ",".join(dict.fromkeys(METRIC_OF.get(metric, metric) for metric in alike))
    split = (protocol.get("reference") or {}).get("split", "train")
    own = str(protocol.get("extractor", "inception")).startswith("inception")  # else only its author knows the file
    flags = [
        f" --metrics {metrics}",
        f" --samples {protocol['samples']}" if "samples" in protocol else "",
        f" --split {split}" if split != "train" else "",
        f" --legacy {protocol['legacy']}" if "legacy" in protocol else "",
        f" --precision {protocol['precision']}" if own and "precision" in protocol and "legacy" not in protocol else "",
        "" if own else " --extractor FILE.py:NAME",
    ]
    return "".join(flags)
