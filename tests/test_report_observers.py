"""What watches a run: it draws, logs and reports, forgives the disk, and moves no random state."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mien.core.contracts import Model, Progress
from mien.errors import UsageError
from mien.nn.priors import Normal
from mien.report import observers
from mien.report.best_effort import BestEffort
from mien.report.card import BEGIN, END, kinds, plain, write_card
from mien.report.grid import read_recipe
from mien.report.observers import Report, SampleGrids, TensorBoard
from mien.report.plots import plot_run
from tests.report_example import write_run

pytestmark = pytest.mark.usefixtures("with_plots")


class Painter(Model):
    """Paints each latent as one flat colour."""

    latent_shape = (3,)
    prior = Normal()

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z.tanh()[:, :, None, None].expand(-1, 3, 16, 16)


def draw(model: Model) -> Tensor:
    return model.decode(model.prior.draw(range(4), model.latent_shape))


def progress(seen: int, *, log: bool = True, show: bool = True) -> Progress:
    return Progress(
        seen, 6400, seen / 100, 100.0, {"generator_loss": 1.5, "critic_real": 0.5}, 0.01, log=log, show=show
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", lines=20, grids=0, scores=False, health=False)


def test_grids_are_drawn_at_sample_periods_and_carry_their_recipe(run_dir: Path) -> None:
    observer = SampleGrids(run_dir, draw=draw, recipe={"preset": "quick", "seeds": [0, 3]})
    for seen, show in ((640, True), (1280, False), (1920, True)):
        observer.after_step(progress(seen, show=show), Painter())
    observer.close("done")
    names = [path.name for path in sorted((run_dir / "samples").iterdir())]
    assert names == ["0000000640.png", "0000001920.png"]
    assert read_recipe(run_dir / "samples" / names[1]) == {"preset": "quick", "seeds": [0, 3], "seen": 1920}
    one, two = (Image.open(run_dir / "samples" / name).tobytes() for name in names)
    assert one == two, "the same seeds of the same model differ"


def test_grids_of_a_future_that_was_taken_back_go(run_dir: Path) -> None:
    observer = SampleGrids(run_dir, draw=draw, recipe={})
    for seen in (640, 1280, 1920, 1000):
        observer.after_step(progress(seen), Painter())
    assert sorted(path.name for path in (run_dir / "samples").iterdir()) == ["0000000640.png", "0000001000.png"]


def test_nothing_observed_moves_a_random_state(run_dir: Path) -> None:
    model = Painter()
    watching = [
        SampleGrids(run_dir, draw=draw, recipe={}),
        TensorBoard(run_dir, purge_step=0),
        Report(run_dir, every_seconds=0),
    ]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2])
    for observer in watching:
        for seen, show in ((640, True), (960, False), (1280, True)):
            observer.after_step(progress(seen, show=show), model)
        observer.after_commit(progress(1280), run_dir)
        observer.close("done")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before[2:]
    assert (
        (run_dir / "report.html").exists() and (run_dir / "MODEL_CARD.md").exists() and list(run_dir.glob("training.*"))
    )


@pytest.mark.parametrize("place", ["samples", "plots", "tensorboard", "report.html", "MODEL_CARD.md", "training.mp4"])
def test_a_disk_that_refuses_never_stops_training(
    run_dir: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = run_dir / place
    if "." in place:
        blocked.mkdir()  # a directory where a file should go, and the other way round: what even root cannot write
        (blocked / "full").touch()
    else:
        blocked.touch()
    watching = [SampleGrids(run_dir, draw=draw, recipe={}), TensorBoard(run_dir), Report(run_dir, every_seconds=0)]
    if place == "training.mp4":
        pytest.importorskip("av")
    for observer in watching:
        for seen, show in ((640, True), (960, False), (1280, True), (1600, False)):
            observer.after_step(progress(seen, show=show), Painter())
    for observer in watching:
        observer.close("done")
    kind = {"report.html": "report", "MODEL_CARD.md": "model card", "training.mp4": "film"}.get(place, place)
    said = capsys.readouterr().err
    assert said.count(f"mien: {kind} cannot be written, training goes on") == 1, said
    warnings = json.loads((run_dir / "status.json").read_text())["warnings"]
    assert set(warnings) == {kind} and warnings[kind] >= 1


def test_a_disk_that_is_full_for_the_status_too_is_forgiven(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgiving = BestEffort(run_dir)
    monkeypatch.setattr(
        "mien.storage.atomic.replace_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    for _ in range(3):
        with forgiving("samples"):
            raise OSError(28, "No space left on device")
    assert forgiving.counts == {"samples": 3}


def test_our_own_bugs_are_not_forgiven(run_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), BestEffort(run_dir)("samples"):
        _ = 1 / 0
    with BestEffort(run_dir)("film"):
        raise UsageError("no", "codec", "here")


def test_the_report_costs_little(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(*_: object) -> None:
        made.append(clock[0])
        clock[0] += 2.0

    monkeypatch.setattr(observers, "plot_run", lambda _: None)
    monkeypatch.setattr(observers, "write_report", slow)
    report = Report(run_dir, every_seconds=60)
    for _ in range(500):
        report.after_step(progress(640, show=clock[0] < 105), Painter())
        clock[0] += 1.0
    assert made[0] == 105 and len(made) == 3 and all(b - a >= 200 for a, b in itertools.pairwise(made))


def test_the_last_report_says_how_the_run_ended(run_dir: Path) -> None:
    write_run(run_dir, lines=20, grids=2, state="running")
    Report(run_dir).close("diverged")
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert ">diverged</span>" in text and "State: diverged" in (run_dir / "MODEL_CARD.md").read_text()
    assert list(run_dir.glob("training.*"))


def test_a_preempted_run_leaves_without_the_film(run_dir: Path) -> None:
    write_run(run_dir, lines=20, grids=2)
    Report(run_dir).close("preempted")
    assert (run_dir / "report.html").exists() and not list(run_dir.glob("training.*"))


def test_tensorboard_holds_stats_and_grids_by_images_seen(run_dir: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    grids = SampleGrids(run_dir, draw=draw, recipe={})
    for start, steps in ((0, (640, 1280, 1920)), (1280, (1920, 2560))):
        board = TensorBoard(run_dir, purge_step=start)
        for seen in steps:
            grids.after_step(progress(seen), Painter())
            board.after_step(progress(seen), Painter())
        board.close("interrupted")
        time.sleep(1.1)  # event files are named by the second
    events = accumulator.EventAccumulator(str(run_dir / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    assert events.Tags()["images"] == ["samples"]
    assert set(events.Tags()["scalars"]) >= {"train/generator_loss", "train/critic_real", "speed/images_per_second"}
    assert [event.step for event in events.Scalars("train/generator_loss")] == [640, 1280, 1920, 2560]


def test_without_tensorboard_nothing_is_written(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = TensorBoard(run_dir)
    board.after_step(progress(640), Painter())
    board.close("done")
    assert not (run_dir / "tensorboard").exists()


def test_plots_are_drawn_for_what_a_run_has(run_dir: Path) -> None:
    pytest.importorskip("matplotlib")
    assert [path.name for path in plot_run(run_dir)] == ["balance.png", "losses.png", "speed.png"]
    for name in ("balance.png", "losses.png"):
        with Image.open(run_dir / "plots" / name) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert image.width > 900 and (np.abs(pixels.astype(int) - (0, 114, 178)).sum(1) < 12).sum() > 500, "no curve"
    shutil.rmtree(run_dir / "plots")
    (run_dir / "metrics.jsonl").write_text('{"seen": 64, "seconds": 1, "loss": 0.3}\n{"seen": 128, "loss": 0.2')
    assert [path.name for path in plot_run(run_dir)] == ["losses.png"]


def test_without_matplotlib_there_are_no_plots(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot_run(run_dir) == [] and not (run_dir / "plots").exists()


def test_a_card_keeps_what_its_owner_wrote(run_dir: Path) -> None:
    path = write_card(run_dir)
    text = path.read_text()
    assert text.startswith("---\nlibrary_name: mien") and "8,000" in text and "Not measured" in text and "@" in text
    mine = text.replace("Please complete", "Trained by Ada").replace("tags: [faces,", "license: cc0-1.0\ntags: [faces,")
    path.write_text(mine)
    write_run(run_dir, lines=20, grids=0)
    again = write_card(run_dir).read_text()
    assert "Trained by Ada" in again and "license: cc0-1.0" in again and "fid10k" in again
    assert again.count(BEGIN) == again.count(END) == 1
    assert write_card(run_dir).read_text() == again


def test_a_card_that_someone_else_wrote_is_not_lost(run_dir: Path) -> None:
    (run_dir / "MODEL_CARD.md").write_text("# My faces\n")
    text = write_card(run_dir).read_text()
    assert text.startswith("# My faces\n") and BEGIN in text


def test_a_card_in_another_encoding_is_not_lost(run_dir: Path) -> None:
    (run_dir / "MODEL_CARD.md").write_bytes("# Mes visages r\xeav\xe9s\r\n".encode("latin1"))
    assert write_card(run_dir).read_bytes().startswith(b"# Mes visages r\xeav\xe9s\n")
    assert write_card(run_dir).read_bytes().count(b"r\xeav\xe9s") == 1


def test_a_card_that_is_a_link_is_not_published(run_dir: Path, tmp_path: Path) -> None:
    """`mien export --push` would have uploaded whatever file the card of a run names."""
    (tmp_path / "secret").write_text("secret\n")
    (run_dir / "MODEL_CARD.md").symlink_to(tmp_path / "secret")
    assert "secret" not in write_card(run_dir).read_text() and (tmp_path / "secret").read_text() == "secret\n"


def test_a_card_says_whose_images_they_are(run_dir: Path) -> None:
    data = {"name": "/home/ada/photos", "count": 12, "fingerprint": "ab`c", "labels": ["<b>", "a|b"]}
    (run_dir / "data.json").write_text(json.dumps(data))
    text = write_card(run_dir).read_text()
    assert "Source: photos" in text and "/home/ada" not in text and "does not know the licence" in text
    assert "&lt;b&gt;, a\\|b" in text and "`ab'c`" in text
    (run_dir / "data.json").write_text(json.dumps({**data, "name": "drawn"}))
    assert "need no consent" in write_card(run_dir).read_text()


def test_names_cannot_become_markdown() -> None:
    assert plain("a *b* [c](d) <e>\n# f") == "a \\*b\\* \\[c\\]\\(d\\) &lt;e&gt; \\# f"
    assert list(kinds({"kind": "A", "x": {"kind": "B", "y": [1]}, "z": 3})) == ["A", "B"]
