"""Evaluation during training: scores of the EMA model at every evaluation period, the best checkpoint, early stopping.

All state is in eval/during.jsonl, which a rollback or a resume cuts as it cuts metrics.jsonl.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from mien.core import distributed
from mien.core.contracts import JSON, ImageSpec, Model, Observer, Progress
from mien.core.device import DeviceContext
from mien.core.families import Invertible
from mien.core.run import CONVERGENCE, Run
from mien.data.pack import Pack
from mien.downloads import weights
from mien.errors import DataError, MienError, Preempted, UsageError, did_you_mean
from mien.metrics.evaluate import inception, known, load_extractor, measure, split_names
from mien.metrics.features import Extractor
from mien.metrics.images import PackImages, SampledImages
from mien.metrics.inputs import MetricInputs
from mien.metrics.scores import Score
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.bounded_json import dumps, read_lines
from mien.storage.regular_file import append_text
from mien.storage.run_directory import RunDirectory

#: Scores that can rank checkpoints: the metric that computes the score, and whether higher is better.
RANKING_SCORES: Mapping[str, tuple[str, bool]] = {
    "fid": ("fid", False),
    "kid": ("kid", False),
    "mind": ("mind", False),
    "sface": ("sface", False),
    "coverage": ("prdc", True),
    "precision": ("prdc", True),
    "recall": ("prdc", True),
    "density": ("prdc", True),
    "reconstruction_lpips": ("reconstruction", False),
    "reconstruction_l1": ("reconstruction", False),
    "ppl": ("ppl", False),
    CONVERGENCE: ("", False),
}
NEEDED_WEIGHTS = {
    "identity": "sface",
    "sface": "sface",
    "diversity": "lpips-alex",
    "reconstruction": "lpips-alex",
    "ppl": "lpips-vgg",
}


def prepare(run: Run, pack: Pack, faces: ImageSpec, device: str) -> Extractor:
    """The extractor of a run's evaluations, after a check that all their inputs are available.

    Raises UsageError for options that do not fit the run, DataError for missing weights or a pack of one image: before
    training, not after an hour of it.
    """
    metrics = known(split_names(run.evaluate_metrics), "--evaluate-metrics")
    if run.patience and not ranking(run):
        raise UsageError(
            f"--patience {run.patience} has nothing to rank checkpoints by.",
            f"--evaluate-metrics {run.evaluate_metrics} gives no score that does.",
            f"Add one of {', '.join(dict.fromkeys(source for source, _ in RANKING_SCORES.values()))}.",
        )
    ranking(run)
    if "reconstruction" in metrics and not encodes(run, faces):
        raise UsageError(
            f"`{run.preset}` reconstructs nothing.",
            "It has no encoder.",
            "Leave reconstruction out of --evaluate-metrics.",
        )
    if len(pack.rows()) < 2:
        raise DataError(
            f"{pack.path} has one training image.",
            "A score compares two distributions, and one image has no spread.",
            "Leave out --evaluate-every.",
        )
    for metric in metrics:
        if metric in NEEDED_WEIGHTS:
            weights.path(NEEDED_WEIGHTS[metric])
    return (
        load_extractor(run.evaluate_extractor) if run.evaluate_extractor else inception(device=device, metrics=metrics)
    )


def encodes(run: Run, faces: ImageSpec) -> bool:
    """Whether the run's model has an encoder, as far as a model without weights shows it."""
    try:
        return isinstance(run.model.outline(faces), Invertible)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return True  # an invalid config, which the run reports next, or a custom model that needs real weights


def ranking(run: Run) -> str:
    """The score that ranks a run's checkpoints, or "" if it measures none that can. Raises UsageError."""
    metrics = split_names(run.evaluate_metrics)
    if not run.keep_best:
        found = (score for metric in metrics for score, (source, _) in RANKING_SCORES.items() if source == metric)
        return next(found, "")
    if run.keep_best not in RANKING_SCORES:
        raise UsageError(
            f"No checkpoint is the best by `{run.keep_best}`.",
            f"--keep-best is one of {', '.join(RANKING_SCORES)}.",
            did_you_mean(run.keep_best, RANKING_SCORES),
        )
    if run.keep_best != CONVERGENCE and RANKING_SCORES[run.keep_best][0] not in metrics:
        raise UsageError(
            f"--keep-best {run.keep_best} is not measured.",
            f"--evaluate-metrics is {run.evaluate_metrics}.",
            f"Add {RANKING_SCORES[run.keep_best][0]} to it.",
        )
    return run.keep_best


def all_lines(home: RunDirectory) -> list[JSON]:
    """The scores so far."""
    return list(read_lines(home.evaluations, metric=str, name=str, value=float, seen=float))


def history(home: RunDirectory, score: str) -> list[JSON]:
    """The lines of one score under its newest protocol, in order."""
    lines = [line for line in all_lines(home) if line["metric"] == score and isfinite(line["value"])]
    return [line for line in lines if line["name"] == lines[-1]["name"]]


def best_of(lines: Sequence[JSON], score: str) -> JSON:
    """The best line; the earliest one of equal lines."""
    return (max if RANKING_SCORES[score][1] else min)(lines, key=lambda line: float(line["value"]))


def out_of_patience(run: Run, home: RunDirectory) -> str:
    """The reason for early stopping, or an empty string."""
    if not run.patience:
        return ""
    score = ranking(run)
    lines = history(home, score)
    if not lines:
        return ""
    best = best_of(lines, score)
    since = len(lines) - 1 - lines.index(best)
    if since < run.patience:
        return ""
    value = f"{best['name']} was {best['value']:.4g} at {best['seen']:,} images"
    return f"{value}, and no better in {since} evaluation{'s' * (since > 1)} since"


def update_best(run: Run, home: RunDirectory) -> None:
    """Write checkpoints/BEST: the best evaluated checkpoint that still exists; without one the file is removed."""
    before = checkpoint.read_best(home.checkpoints)
    score = ranking(run) if run.evaluate_every or run.keep_best else str(before.get("metric", ""))
    standing = {int(path.name) for path in checkpoint.all_of(home.checkpoints)}
    lines = [line for line in history(home, score) if line["seen"] in standing]
    best = best_of(lines, score) if lines else None
    checkpoint.write_best(home.checkpoints, best and {name: best[name] for name in ("seen", "metric", "name", "value")})


class BestByConvergence(Observer):
    """Ranks checkpoints by the mean of BEGAN's M over the preceding steps, as sicongzhao's code does."""

    def __init__(self, home: RunDirectory, run: Run) -> None:
        self.home, self.run = home, run

    def after_commit(self, progress: Progress, path: Path) -> None:
        value = progress.stats.get(CONVERGENCE)
        try:
            if value is None:
                self.home.log(f"--keep-best {CONVERGENCE}: `{self.run.preset}` has no such measure")
                return
            self.home.evaluations.parent.mkdir(exist_ok=True)
            line = {"seen": progress.seen, "metric": CONVERGENCE, "name": CONVERGENCE, "value": value}
            append_text(self.home.evaluations, dumps(line) + "\n")
            update_best(self.run, self.home)
        except OSError as error:
            self.home.log(f"BEST cannot be written: {error}")


class OnlineEvaluator(Observer):
    """Evaluates a run during training and follows its commits. Every rank has one; rank 0 writes."""

    def __init__(
        self, home: RunDirectory, run: Run, pack: Pack, header: JSON, engine: DeviceContext, extractor: Extractor
    ) -> None:
        self.home, self.run, self.header, self.extractor = home, run, header, extractor
        # As `mien evaluate` draws, so that it gives the same scores for the same checkpoint.
        self.engine = DeviceContext(engine.device, "fp64" if engine.precision == "fp64" else "fp32")
        self.reference, self.unseen = PackImages(pack, "train"), PackImages(pack, "holdout")
        self.metrics = split_names(run.evaluate_metrics)

    @property
    def last_seen(self) -> int:
        return max((line["seen"] for line in all_lines(self.home)), default=0)

    def stop_reason(self) -> str:
        return out_of_patience(self.run, self.home)

    def scores(self, seen: int, model: Model, stopping: Callable[[], bool]) -> Mapping[str, float]:
        def on_progress(what: str, count: int, total: int) -> None:
            if stopping() and not distributed.processes():  # ranks that share the work finish it together
                raise Preempted(
                    "The evaluation was interrupted.",
                    "A signal requested the run to stop.",
                    "Start the same command again: it resumes with an evaluation.",
                )

        started = time.perf_counter()
        sampler = Sampler(model, self.header, self.engine, "")
        inputs = MetricInputs(
            fake=SampledImages(sampler, self.run.evaluate_samples),
            reference=self.reference,
            extractor=self.extractor,
            unseen=self.unseen if self.unseen.count > 1 else None,
            sampler=sampler,
            device=self.engine.device.type,
            extrapolate=False,
            on_progress=on_progress,
        )
        try:
            found = measure(inputs, self.metrics)
        except Preempted:
            return {}
        except MienError as error:
            self.say(f"not evaluated at {seen:,} images, training goes on: {error.what} {error.why}")
            return {}
        self.write(seen, found)
        words = ", ".join(f"{score.name} {score.value:.4g}" for score in found)
        self.say(f"{words} at {seen:,} images ({time.perf_counter() - started:.0f} s)")
        return {score.name: score.value for score in found if isfinite(score.value)}

    def write(self, seen: int, scores: Sequence[Score]) -> None:
        """Append the scores to eval/during.jsonl; a full disk never stops training."""
        if distributed.rank():
            return
        try:
            self.home.evaluations.parent.mkdir(exist_ok=True)
            lines = [dumps({"seen": seen, **score.json()}) for score in scores]
            append_text(self.home.evaluations, "".join(f"{line}\n" for line in lines))
        except OSError as error:
            self.say(f"{self.home.evaluations} cannot be written: {error}")

    def say(self, line: str) -> None:
        """One line for the reader, and for log.txt."""
        if not distributed.rank():
            print(f"mien: {line}", file=sys.stderr, flush=True)
            self.home.log(line)

    def after_commit(self, progress: Progress, path: Path) -> None:
        try:
            update_best(self.run, self.home)
        except OSError as error:
            self.say(f"BEST cannot be written: {error}")
