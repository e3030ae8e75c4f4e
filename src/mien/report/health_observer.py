"""Checks the health of a run whenever the sample grid is drawn, and prints only what is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from mien.core.contracts import JSON, Model, Observer, Progress
from mien.core.families import VariationalModel
from mien.metrics import health, quick_checks
from mien.metrics.health import Symptom, Verdict, Window
from mien.report.best_effort import BestEffort
from mien.report.run_reader import read_health
from mien.storage import atomic
from mien.storage import checkpoint as checkpoints
from mien.storage.bounded_json import dumps
from mien.storage.regular_file import append_text

FIRST_GUESS = 8  # times the served model's bytes: a checkpoint of two players, an average and Adam's moments


class HealthCheck(Observer):
    """Writes health.json at every sample period, and a line of health.jsonl; prints a new warning or alarm once."""

    def __init__(
        self,
        run_dir: Path,
        faces: Callable[[], Tensor],
        reals: quick_checks.RealFaces,
        run: JSON,
        start: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        """`faces` returns the last grid, `[n, C, H, W]` in [-1, 1]; `run` is the content of run.json; `start` is
        where a resumed run continues: later lines are removed.
        """
        self.run_dir, self.faces, self.reals, self.run, self.say = run_dir, faces, reals, run, say
        self.best_effort = BestEffort(run_dir)
        self.checks = read_health(run_dir / "health.jsonl")
        self.window = Window()
        self.verdicts: list[Verdict] = []
        self.spread = 0.0
        self.checkpoint_bytes = 0
        self.said: set[tuple[str, str]] = set()
        self.last: Progress | None = None
        if any(check["seen"] > start for check in self.checks):
            self.forget(start)

    def after_step(self, progress: Progress, model: Model) -> None:
        if self.last is not None and progress.seen < self.last.seen:  # rolled back
            self.forget(progress.seen)
        self.last = progress
        if progress.log or (progress.show and not self.window.lines):
            self.window.add({**progress.stats, "waiting": progress.waiting})
        if progress.show:
            self.checkpoint_bytes = self.checkpoint_bytes or FIRST_GUESS * bytes_of(model)
            self.conclude(progress, self.check(progress, model))

    def check(self, progress: Progress, model: Model) -> list[Symptom]:
        """All symptoms that can be measured now."""
        faces = self.faces()[: quick_checks.GRID]
        drawn = bool(faces.isfinite().all())
        best = max((check["spread"] for check in self.checks), default=0.0)
        self.spread = quick_checks.spread(quick_checks.small(faces, quick_checks.FINE)) if drawn else 0.0
        found = symptoms_of_model(model, faces, self.reals, progress.seen, best) if drawn else []
        usual = [check["loss_size"] for check in self.checks]
        rollbacks = progress.rollbacks - (self.checks[-1]["rollbacks"] if self.checks else 0)
        found += symptoms_of_window(self.window, progress.seen)
        batch = self.run.get("batch")
        found = [health.settled(one, progress.seen, batch if isinstance(batch, int) else 1) for one in found]
        found.append(health.divergence(rollbacks, self.window, usual, drawn))
        found.append(health.disk(checkpoints.free_bytes(self.run_dir), self.checkpoint_bytes))
        return found

    def conclude(self, progress: Progress, symptoms: list[Symptom]) -> None:
        """Derive verdicts from the symptoms of a check, write them, and print new ones."""
        before = self.checks[-1]["verdicts"] if self.checks else {}
        ill = {name for name, known in before.items() if known["state"] in health.ILL}
        sound = next((check["seen"] for check in reversed(self.checks) if is_sound(check)), 0)
        self.verdicts = health.diagnose(in_order(symptoms), ill, self.run, sound)
        self.write(progress.seen, progress.seconds, progress.rollbacks)
        self.window = Window()

    def write(self, seen: int, seconds: float, rollbacks: int) -> None:
        """Write the verdicts to the files, and print new ones."""
        check = {
            "seen": seen,
            "seconds": round(seconds, 3),
            "rollbacks": rollbacks,
            "loss_size": self.window.loss_size,
            "spread": round(self.spread, 3),
            "verdicts": {v.name: {"state": v.state, "value": v.value, "bound": v.bound} for v in self.verdicts},
        }
        self.checks.append(check)
        with self.best_effort("health"):
            atomic.replace_text(self.run_dir / "health.json", page(seen, self.verdicts))
            append_text(self.run_dir / "health.jsonl", dumps(check) + "\n")
        for verdict in self.verdicts:
            if verdict.state in health.ILL and (verdict.name, verdict.state) not in self.said:
                self.said.add((verdict.name, verdict.state))
                self.say(f"mien: {verdict.state}: {verdict.name}. {verdict.evidence} {verdict.suggestion}")

    def forget(self, seen: int) -> None:
        """Remove the lines beyond `seen` after a rollback or a resume."""
        remaining = [check for check in self.checks if check["seen"] <= seen]
        self.checks, self.window = remaining, Window()
        with self.best_effort("health"):
            atomic.replace_text(self.run_dir / "health.jsonl", "".join(dumps(check) + "\n" for check in remaining))

    def after_commit(self, progress: Progress, checkpoint: Path) -> None:
        self.checkpoint_bytes = bytes_on_disk(checkpoint)

    def close(self, outcome: str) -> None:
        if outcome == "diverged":
            gone = health.diagnose([health.divergence(1, self.window, (), gave_up=True)], (), self.run)
            self.verdicts = [v for v in self.verdicts if v.name != health.DIVERGENCE] + gone
            last = self.last
            self.write(*((last.seen, last.seconds, last.rollbacks) if last else (0, 0.0, 0)))


def symptoms_of_model(
    model: Model, faces: Tensor, reals: quick_checks.RealFaces, seen: int, best: float
) -> list[Symptom]:
    """Symptoms of the samples and of the encoder. `best` is the largest spread of earlier samples."""
    drawn = quick_checks.small(faces, quick_checks.FINE)
    found = [
        health.collapse(quick_checks.different(drawn), reals.different, quick_checks.spread(drawn), best, seen),
        health.memorisation(reals.copies(faces), seen),
    ]
    if isinstance(model, VariationalModel):
        images = reals.some.mean(1, keepdim=True) if faces.shape[1] == 1 else reals.some
        found.append(health.posterior_collapse(quick_checks.latent_use(model, images, reals.labels), seen))
    return found


def symptoms_of_window(window: Window, seen: int) -> list[Symptom]:
    """Symptoms of the logged values."""
    found = (health.critic_too_strong(window, seen), health.pinned(window, seen), health.starvation(window))
    return [symptom for symptom in found if symptom is not None]


def in_order(symptoms: list[Symptom]) -> list[Symptom]:
    """Verdicts in their standard order."""
    return sorted(symptoms, key=lambda symptom: health.NAMES.index(symptom.name))


def page(seen: int, verdicts: list[Verdict]) -> str:
    """health.json."""
    return dumps({"format": 1, "seen": seen, "verdicts": [verdict.json() for verdict in verdicts]}, indent=1) + "\n"


def is_sound(check: JSON) -> bool:
    """Whether no verdict of a check is a fault."""
    return not any(known["state"] in health.ILL for known in check["verdicts"].values())


def bytes_on_disk(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def bytes_of(model: Model) -> int:
    """The bytes of a model's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
