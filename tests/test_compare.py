"""`mien compare`: a table, a page, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mien.cli.scoring import protocol_of
from mien.data.pack import Pack
from mien.metrics.evaluate import METRIC_OF, METRICS
from mien.models.eigenfaces import EigenfacesConfig
from mien.report.metric_descriptions import METRICS as DESCRIBED
from mien.report.run_reader import read_record
from mien.training.baseline import fit_baseline
from tests.report_example import write_run
from tests.test_cli import PRINTED, call


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def eye(tmp_path: Path) -> str:
    file = tmp_path / "eye.py"
    file.write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    return f"{file}:pixels"


@pytest.fixture
def fitted(tmp_path: Path, blob_pack: Pack) -> list[Path]:
    """Two linear models of the same blobs, one with more components."""
    return [
        fit_baseline(blob_pack, tmp_path / f"with-{count}", EigenfacesConfig(components=count)) for count in (2, 40)
    ]


def test_the_command_for_a_missing_score_names_a_metric() -> None:
    """`--metrics classifier` is none: it is a score of `conditions`."""
    assert METRIC_OF["classifier"] == "conditions" and METRIC_OF["coverage"] == "prdc"
    assert {METRIC_OF.get(score, score) for score in DESCRIBED} <= set(METRICS)


def test_two_runs_as_a_table_as_json_and_as_a_page(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, lines=20, grids=1) for name in "ab"]
    said = call("compare", *runs)
    assert said.code == 0 and "42.65 +-1.3*" in said.out and "a " in said.out and "!" not in said.out
    page = tmp_path / "pages" / "leaderboard.html"
    data = json.loads(call("compare", *runs, "-o", page, "--json").out)
    assert [row["name"] for row in data["rows"]] == ["a", "b"] and data["alarms"] == [] and data["missing"] == []
    assert data["columns"][0]["name"] == "fid10k_train" and data["columns"][0]["better"] == "lower"
    assert data["rows"][0]["scores"]["fid10k_train"]["low"] < data["rows"][0]["scores"]["fid10k_train"]["value"]
    assert data["machine"]["threads"] == ["2"] and data["out"] == str(page)
    assert "contains no model" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["data", "side"])
def test_runs_of_different_things_are_refused_unless_forced(tmp_path: Path, what: str) -> None:
    a = write_run(tmp_path / "a", lines=20, grids=0)
    b = write_run(tmp_path / "b", lines=20, grids=0, **({"side": 64} if what == "side" else {"fingerprint": "other"}))
    said = call("compare", a, b)
    assert said.code == 9 and PRINTED.fullmatch(said.err) and "--force" in said.err and said.out == ""
    forced = call("compare", a, b, "--force")
    assert forced.code == 0 and forced.out.startswith("! The runs have ")


@pytest.mark.parametrize(
    ("line", "code"),
    [("", 2), ("a", 2), ("a a", 2), ("a b -o board.png", 2), ("a nowhere", 3), ("a . ", 3), ("a b --best", 2)],
)
def test_mistakes_are_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_run(tmp_path / name, lines=5, grids=0)
    said = call("compare", *line.split())
    assert said.code == code and PRINTED.fullmatch(said.err), said.err


def test_a_run_without_a_score_is_told_how_to_get_one(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", lines=20, grids=0), write_run(tmp_path / "b", lines=20, grids=0, scores=False)
    said = call("compare", a, b)
    assert f"mien evaluate {b} --metrics fid,kid,prdc --samples 10000" in said.out
    neither = write_run(tmp_path / "c", lines=20, grids=0, scores=False)
    said = call("compare", neither, b)
    assert said.code == 0 and f"mien evaluate {b}\n" in f"{said.out}\n"


def test_what_is_missing_is_measured_by_one_protocol(tmp_path: Path, fitted: list[Path], eye: str) -> None:
    words = ("--evaluate", "--metrics", "kid,prdc", "--samples", "48", "--extractor", eye, "--json")
    data = json.loads(call("compare", *fitted, *words).out)
    assert [row["name"] for row in data["rows"]] == ["with-40", "with-2"], "more components, nearer faces"
    assert len(data["columns"]) == 5 and all(len(row["scores"]) == 5 for row in data["rows"]) and not data["alarms"]
    lines = (fitted[0] / "eval" / "kid.jsonl").read_text()
    call("compare", *fitted, *words)
    assert (fitted[0] / "eval" / "kid.jsonl").read_text() == lines, "what is measured is kept"
    data = json.loads(call("compare", *fitted, *words[:3], *words[5:]).out)
    assert {column["name"] for column in data["columns"]} >= {"kid48_train_pixels-32", "kid96_train_pixels-32"}


def test_a_score_of_another_model_or_protocol_does_not_count(fitted: list[Path], eye: str) -> None:
    protocol = protocol_of("kid", 48, eye, "cpu")
    protocol.measure(fitted[0])
    file = fitted[0] / "eval" / "kid.jsonl"
    (line,) = file.read_text().splitlines()
    for part, other in (("model_sha256", "0" * 64), ("precision", "bf16"), ("samples", 47)):
        score = json.loads(line)
        score["protocol"][part] = other
        file.write_text(json.dumps(score) + "\n")
        protocol.measure(fitted[0])
        assert len(read_record(fitted[0]).scores) == 2, part
        file.unlink()


def test_unusable_protocols_are_refused(eye: str, tmp_path: Path, fitted: list[Path]) -> None:
    for words, said in (
        (("--metrics", "fidd"), "fidd"),
        (("--metrics", ","), "empty"),
        (("--samples", "1"), "samples must be an integer of 2 or more"),
    ):
        refused = call("compare", *fitted, "--evaluate", "--extractor", eye, *words)
        assert refused.code == 2 and said in refused.err and PRINTED.fullmatch(refused.err)
