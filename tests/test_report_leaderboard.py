"""Comparing runs: the order, what cannot be told apart, and what must not be compared."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mien.data.pack import Pack
from mien.models.eigenfaces import EigenfacesConfig
from mien.report.comparison import (
    Entry,
    Standing,
    best,
    columns,
    compared,
    disagreements,
    parameters,
    refusals,
    standing,
)
from mien.report.grid import save_png
from mien.report.leaderboard import leaderboard, write_leaderboard
from mien.report.run_reader import RunRecord, read_record
from mien.report.sample_rows import draw_sample_row
from mien.report.table_text import as_json, as_text
from mien.training.baseline import fit_baseline
from tests.report_example import face, write, write_run


def scored(run_dir: Path, values: dict[str, float], spread: float = 0.01, **protocol: Any) -> RunRecord:
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
            "protocol": {"extractor": "inception-2015", "samples": 10_000, **protocol},
        }
        for metric, value in values.items()
    ]
    (run_dir / "eval").mkdir(exist_ok=True)
    (run_dir / "eval" / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_record(run_dir)


def scored_at(tmp_path: Path, *values: float, metric: str = "fid") -> list[RunRecord]:
    return [scored(tmp_path / f"{metric}-{value}", {metric: value}) for value in values]


def page_of(*records: RunRecord, out: Path) -> str:
    return write_leaderboard(compared(records), [], out).read_text(encoding="utf-8")


def test_the_best_stands_first_whichever_way_is_better(tmp_path: Path) -> None:
    a, b = scored(tmp_path / "a", {"fid": 40.0}), scored(tmp_path / "b", {"fid": 30.0})
    plain = read_record(write_run(tmp_path / "c", lines=20, grids=0, scores=False))
    assert [entry.name for entry in compared([a, plain, b]).entries] == ["b", "a", "c"]
    c, d = scored(tmp_path / "d", {"recall": 0.2}), scored(tmp_path / "e", {"recall": 0.4})
    assert [entry.name for entry in compared([c, d]).entries] == ["e", "d"]
    several = scored(tmp_path / "f", {"recall": 0.2, "coverage": 0.1, "fid": 9.0})
    assert columns([several, b])[0].name == "fid10k_train"


def test_nothing_is_called_best_where_no_two_runs_were_measured_alike(tmp_path: Path) -> None:
    plain = [read_record(write_run(tmp_path / name, lines=20, grids=0, scores=False)) for name in "ab"]
    one = page_of(plain[0], scored(tmp_path / "c", {"fid": 30.0}), out=tmp_path / "one.html")
    none = page_of(*plain, out=tmp_path / "none.html")
    assert "No run has a score yet" in none and "No two runs have a score" in one
    assert "Best first" not in none + one
    assert "Best first" in page_of(*scored_at(tmp_path, 30.0, 40.0), out=tmp_path / "two.html")


def test_what_cannot_be_told_apart_shares_the_first_place(tmp_path: Path) -> None:
    board = compared(scored_at(tmp_path, 30.0, 30.5, 33.0))
    assert best(board.entries, board.columns[0]) == [True, True, False]
    assert best(board.entries[:1], board.columns[0]) == [False], "one run alone is not a winner"


def test_equal_runs_agree(tmp_path: Path) -> None:
    records = [scored(tmp_path / name, {"fid": 30.0}, model_sha256=name, extrapolated=ord(name)) for name in "ab"]
    assert disagreements(records) == [], "which model it is, and what stands beside a score, is no protocol"
    assert "Not comparable" not in page_of(*records, out=tmp_path / "l.html")


@pytest.mark.parametrize("what", ["data", "protocol", "side", "seeds", "state", "threads", "old"])
def test_every_difference_that_matters_is_said_aloud(tmp_path: Path, what: str) -> None:
    scored(tmp_path / "a", {"fid": 30.0})
    other = tmp_path / "b"
    scored(other, {"fid": 30.0}, **({"resizer": "bilinear"} if what == "protocol" else {}))
    if what == "data":
        (other / "data.json").write_text('{"fingerprint": "another"}')
    elif what == "side":
        (other / "run.json").write_text(json.dumps({**json.loads((other / "run.json").read_text()), "side": 128}))
    elif what == "state":
        (other / "status.json").write_text('{"state": "running"}')
    elif what == "threads":
        (other / "env.json").write_text(json.dumps({**json.loads((other / "env.json").read_text()), "threads": 16}))
    elif what == "old":
        (other / "checkpoints" / "0000099999").mkdir(parents=True)
    elif what == "seeds":
        for path in (other / "samples").iterdir():
            save_png(face(0, 1), path, {"seeds": [64, 127]})
    lines = disagreements([read_record(tmp_path / "a"), read_record(other)])
    words = {
        "data": "another",
        "protocol": "resizer",
        "side": "32, 128",
        "seeds": "[64, 127]",
        "state": "Not finished: b",
        "threads": "threads 2, 16",
        "old": "b at 12,800",
    }
    assert len(lines) == 1 and words[what] in lines[0]
    page = page_of(read_record(tmp_path / "a"), read_record(other), out=tmp_path / "l.html")
    assert 'role="alert"' in page and "Not comparable as they stand" in page
    assert bool(refusals([read_record(tmp_path / "a"), read_record(other)])) == (what in ("data", "side"))


def test_scores_measured_in_two_ways_never_share_a_column(tmp_path: Path) -> None:
    a, b = scored(tmp_path / "a", {"fid": 30.0}), scored(tmp_path / "b", {"fid": 31.0}, precision="fp32")
    board = compared([a, b])
    assert [column.name for column in board.columns] == [
        "fid10k_train (precision unknown)",
        "fid10k_train (precision fp32)",
    ]
    first, second = (standing(entry, board.columns[0]) for entry in board.entries)
    assert first is not None and first.value == 30.0 and second is None
    assert best(board.entries, board.columns[0]) == [False, False]


def edited(run_dir: Path, **changes: Any) -> RunRecord:
    """The run again with other fields in its run.json."""
    known = json.loads((run_dir / "run.json").read_text())
    write(run_dir / "run.json", {**known, **changes})
    return read_record(run_dir)


def test_a_training_that_used_another_network_never_shares_a_column_with_a_clean_one(tmp_path: Path) -> None:
    clean, other = scored(tmp_path / "clean", {"fid": 40.0}), scored(tmp_path / "other", {"fid": 35.0})
    scored(tmp_path / "helped", {"fid": 10.0})
    helped = edited(tmp_path / "helped", assisted=True)
    board = compared([helped, clean, other])
    assert [(column.name, column.assisted) for column in board.columns] == [
        ("fid10k_train", False),
        ("fid10k_train (assisted)", True),
    ]
    assert [entry.name for entry in board.entries] == ["other", "clean", "helped"], "clean runs rank first"
    first, second = board.columns
    assert standing(board.entries[2], first) is None and standing(board.entries[2], second) is not None
    assert standing(board.entries[0], second) is None
    assert best(board.entries, first) == [True, False, False], "the assisted run takes no part"
    assert not any("different ways" in line for line in board.alarms), "one protocol on each track"
    table = as_text(board)
    assert "fid10k_train (assisted)" in table
    assert "fid10k_train (assisted)" in page_of(helped, clean, out=tmp_path / "page.html")


def test_a_run_from_another_models_weights_says_so(tmp_path: Path) -> None:
    scored(tmp_path / "child", {"fid": 30.0})
    child = edited(tmp_path / "child", parent="0" * 64)
    assert "starts with another model's weights" in html.unescape(page_of(child, out=tmp_path / "a.html"))
    alone = scored(tmp_path / "alone", {"fid": 30.0})
    assert "another model" not in page_of(alone, out=tmp_path / "b.html")


def seeded(run_dir: Path, seed: int, fid: float, lr: float = 1e-3) -> RunRecord:
    """A run that says what it is."""
    scored(run_dir, {"fid": fid})
    run = json.loads((run_dir / "run.json").read_text())
    write(run_dir / "run.json", {**run, "seed": seed, "identity": {"preset": run["preset"], "lr": lr, "seed": seed}})
    return read_record(run_dir)


def test_seeds_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    records = [seeded(tmp_path / f"s{seed}", seed, fid) for seed, fid in ((0, 30.0), (1, 36.0), (2, 33.0))]
    other = seeded(tmp_path / "other", 0, 32.0, lr=2e-3)
    board = compared([*records, other])
    assert [len(entry.records) for entry in board.entries] == [1, 3]
    assert standing(board.entries[1], board.columns[0]) == Standing(33.0, 30.0, 36.0, 3)
    assert best(board.entries, board.columns[0]) == [True, True], "32 lies in the range of the seeds"
    again = seeded(tmp_path / "again", 0, 50.0)
    assert len(compared([*records, again]).entries) == 2, "the same seed twice is no second seed"
    text = as_text(compared(records))
    assert "torch-gan-2015" in text and "33 +-3" in text and "  s1" in text and "half their range" in text
    page = page_of(*records, out=tmp_path / "l.html")
    assert "mean and range of 3 seeds" in page and page.count('class="seed"') == 3


def test_what_failed_is_a_row_that_says_why(tmp_path: Path) -> None:
    (record,) = scored_at(tmp_path, 30.0)
    diverged = read_record(write_run(tmp_path / "d", lines=20, grids=0, scores=False, state="diverged"))
    nothing = Entry(name="began-2017-s0", preset="began-2017", failure="A side of 24 px is not possible.")
    board = compared([diverged, record], [nothing])
    assert [entry.name for entry in board.entries] == ["fid-30.0", "d", "began-2017-s0"]
    for shown in (as_text(board), leaderboard(board, [], "x"), json.dumps(as_json(board))):
        assert "A side of 24 px" in shown and "diverged" in shown
    assert "nothing" not in as_text(compared([], [nothing])), "no run at all is a table too"


def test_the_same_seeds_are_drawn_by_every_model(tmp_path: Path, blob_pack: Pack) -> None:
    fitted = fit_baseline(blob_pack, tmp_path / "eigenfaces", EigenfacesConfig(components=4))
    plain = write_run(tmp_path / "plain", lines=20, grids=0, scores=False)
    strips = [draw_sample_row(read_record(path)) for path in (fitted, plain)]
    assert [len(strip.pictures) for strip in strips] == [2, 0] and "contains no model" in strips[1].missing
    page = leaderboard(compared([read_record(fitted), read_record(plain)]), strips, "Faces")
    assert "eigenfaces: faces of seeds 8 to 15" in page and "contains no model" in page and "fitted" in page


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
    a = scored(tmp_path / "a", {"fid": 30.0, "kid": 0.02})
    b = read_record(write_run(tmp_path / "b", lines=20, grids=0, scores=False))
    page = page_of(b, a, out=tmp_path / "new" / "l.html")
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
        "2 threads",
    ):
        assert words in page, words
    text = as_text(compared([b, a]))
    for words in ("30 +-0.3", "12,800", "2,400", "10k_train", "torch 2.13.0"):
        assert words in text, words
    assert max(map(len, text.splitlines())) < 100
