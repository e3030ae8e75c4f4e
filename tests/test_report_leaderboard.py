"""Comparing runs: the order, what cannot be told apart, and what must not be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mien.errors import DataError, UsageError
from mien.report.comparison import best, disagreements, parameters, ranked, score_names
from mien.report.grid import save_png
from mien.report.leaderboard import write_leaderboard
from mien.report.record import Record, read_record
from tests.report_example import face, write_run


def scored(run_dir: Path, values: dict[str, float], spread: float = 0.01, **passport: Any) -> Record:
    """A run with one score of each metric, its interval `spread` of the value on either side."""
    write_run(run_dir, lines=20, grids=1, scores=False)
    lines = [
        {
            "metric": metric,
            "name": f"{metric}10k_train",
            "value": value,
            "low": value * (1 - spread),
            "high": value * (1 + spread),
            "seen": 12_800,
            "passport": {"extractor": "inception-2015", "samples": 10_000, **passport},
        }
        for metric, value in values.items()
    ]
    (run_dir / "eval").mkdir(exist_ok=True)
    (run_dir / "eval" / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_record(run_dir)


def test_the_best_stands_first_whichever_way_is_better(tmp_path: Path) -> None:
    a, b = scored(tmp_path / "a", {"fid": 40.0}), scored(tmp_path / "b", {"fid": 30.0})
    plain = read_record(write_run(tmp_path / "c", lines=20, grids=0, scores=False))
    assert [record.name for record in ranked([a, plain, b])] == ["b", "a", "c"]
    c, d = scored(tmp_path / "d", {"recall": 0.2}), scored(tmp_path / "e", {"recall": 0.4})
    assert [record.name for record in ranked([c, d])] == ["e", "d"]
    assert score_names([scored(tmp_path / "f", {"recall": 0.2, "coverage": 0.1, "fid": 9.0}), b])[0] == "fid10k_train"


def test_what_cannot_be_told_apart_shares_the_first_place(tmp_path: Path) -> None:
    records = [scored(tmp_path / str(value), {"fid": value}) for value in (30.0, 30.5, 33.0)]
    assert best(records, "fid10k_train") == [True, True, False]
    assert best(records[:1], "fid10k_train") == [False], "one run alone is not a winner"


def test_equal_runs_agree(tmp_path: Path) -> None:
    records = [scored(tmp_path / name, {"fid": 30.0}) for name in "ab"]
    assert disagreements(records) == []
    assert "Not comparable" not in write_leaderboard([tmp_path / "a", tmp_path / "b"], tmp_path / "l.html").read_text()


@pytest.mark.parametrize("what", ["data", "passport", "side", "seeds", "state"])
def test_every_difference_that_matters_is_said_aloud(tmp_path: Path, what: str) -> None:
    scored(tmp_path / "a", {"fid": 30.0})
    other = tmp_path / "b"
    scored(other, {"fid": 30.0}, **({"resizer": "bilinear"} if what == "passport" else {}))
    if what == "data":
        (other / "data.json").write_text('{"fingerprint": "another"}')
    elif what == "side":
        (other / "run.json").write_text(json.dumps({**json.loads((other / "run.json").read_text()), "side": 128}))
    elif what == "state":
        (other / "status.json").write_text('{"state": "running"}')
    elif what == "seeds":
        for path in (other / "samples").iterdir():
            save_png(face(0, 1), path, {"seeds": [64, 127]})
    lines = disagreements([read_record(tmp_path / "a"), read_record(other)])
    words = {
        "data": "another",
        "passport": "resizer",
        "side": "32, 128",
        "seeds": "[64, 127]",
        "state": "Not finished: b",
    }
    assert len(lines) == 1 and words[what] in lines[0]
    page = write_leaderboard([tmp_path / "a", other], tmp_path / "l.html").read_text(encoding="utf-8")
    assert 'role="alert"' in page and "Not comparable as they stand" in page


def test_parameters_are_counted_in_the_newest_whole_model(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", lines=5, grids=0)
    assert parameters(read_record(run_dir)) is None
    for seen, width in ((640, 3), (1280, 5)):
        folder = run_dir / "checkpoints" / f"{seen:010d}"
        folder.mkdir(parents=True)
        tensors = {"conv.weight": np.zeros((width, 4), np.float32), "norm.running_mean": np.zeros(9, np.float32)}
        save_file(tensors, folder / "model.safetensors")
    assert parameters(read_record(run_dir)) == 20
    (run_dir / "checkpoints" / "0000001280" / "model.safetensors").write_bytes(b"torn")
    assert parameters(read_record(run_dir)) == 12


def test_the_table_says_everything_of_every_run(tmp_path: Path) -> None:
    scored(tmp_path / "a", {"fid": 30.0, "kid": 0.02})
    write_run(tmp_path / "b", lines=20, grids=0, scores=False)
    page = write_leaderboard([tmp_path / "b", tmp_path / "a"], tmp_path / "new" / "l.html").read_text(encoding="utf-8")
    for words in (
        "fid10k_train",
        "lower is better",
        "[29.7, 30.3]",
        "not measured",
        "12,800",
        "5 s",
        "2,400",
        "unknown",
        "no grid",
    ):
        assert words in page, words


def test_no_runs_and_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        write_leaderboard([], tmp_path / "l.html")
    with pytest.raises(DataError, match="is not a run"):
        write_leaderboard([tmp_path], tmp_path / "l.html")
