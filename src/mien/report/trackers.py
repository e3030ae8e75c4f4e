"""Experiment trackers: Weights & Biases, MLflow and Trackio, each behind the same four calls."""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from PIL import Image

from mien.core.contracts import JSON, Model, Observer, Progress
from mien.errors import UsageError
from mien.report.best_effort import BestEffort
from mien.storage.run_directory import RunDirectory

PROJECT = "mien"  # where the tracker's own settings name no other
PATIENCE = 60.0  # seconds that the end of a run waits for what is not sent yet
FAILED = ("diverged", "failed")


class Tracker(Protocol):
    """One tracker's client. Every call may raise whatever that client raises."""

    def start(self, directory: Path, known: str, config: JSON) -> str:
        """Begin a run named like `directory`, or go on with the run `known`. Returns the run's identity."""
        ...

    def log(self, scalars: Mapping[str, float], seen: int) -> None:
        """Log scalars by name, at a number of images seen."""
        ...

    def picture(self, image: Image.Image, seen: int) -> None:
        """Log a sample grid."""
        ...

    def close(self, outcome: str) -> None:
        """End the run; `outcome` as for observers."""
        ...


class WeightsAndBiases:
    """https://docs.wandb.ai: offline with WANDB_MODE=offline, then `wandb sync`. Its files lie in the run's directory."""

    def start(self, directory: Path, known: str, config: JSON) -> str:
        import wandb

        identity = known or secrets.token_hex(4)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=identity, name=directory.name, config=config,
            dir=os.environ.get("WANDB_DIR", directory), resume="allow", reinit="create_new",
            settings=wandb.Settings(console="off"),  # the progress line stays on its terminal
        )  # fmt: skip
        self.run.define_metric("*", step_metric="seen")  # wandb's own steps cannot count images of a run that goes back
        self.image = wandb.Image
        return identity

    def log(self, scalars: Mapping[str, float], seen: int) -> None:
        self.run.log({"seen": seen, **scalars})

    def picture(self, image: Image.Image, seen: int) -> None:
        self.run.log({"seen": seen, "samples": self.image(image)})

    def close(self, outcome: str) -> None:
        self.run.finish(exit_code=int(outcome in FAILED))


class MLflow:
    """https://mlflow.org: a server with MLFLOW_TRACKING_URI, else mlflow.db in the working directory."""

    def start(self, directory: Path, known: str, config: JSON) -> str:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric, self.client = Metric, MlflowClient()
        if known:
            self.client.update_run(known, status="RUNNING")
            self.identity = known
            return known
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self.client.create_experiment(project)
        self.identity = str(self.client.create_run(number, run_name=directory.name).info.run_id)
        parameters = [Param(name, str(value)[:500]) for name, value in flat(config).items()]
        self.client.log_batch(self.identity, params=parameters)
        return self.identity

    def log(self, scalars: Mapping[str, float], seen: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.identity, [self.metric(name, value, now, seen) for name, value in scalars.items()])

    def picture(self, image: Image.Image, seen: int) -> None:
        self.client.log_image(self.identity, image, key="samples", step=seen, synchronous=True)

    def close(self, outcome: str) -> None:
        status = "FINISHED" if outcome == "done" else "FAILED" if outcome in FAILED else "KILLED"
        self.client.set_terminated(self.identity, status)


class Trackio:
    """https://github.com/gradio-app/trackio: local in TRACKIO_DIR; `trackio show --project mien` opens its page."""

    def start(self, directory: Path, known: str, config: JSON) -> str:
        import trackio

        identity = known or f"{directory.name}-{secrets.token_hex(4)}"  # its runs go on by name
        self.run = trackio.init(PROJECT, name=identity, config=flat(config), resume="allow", embed=False)
        self.image = trackio.Image
        return identity

    def log(self, scalars: Mapping[str, float], seen: int) -> None:
        self.run.log(dict(scalars), step=seen)

    def picture(self, image: Image.Image, seen: int) -> None:
        self.run.log({"samples": self.image(image)}, step=seen)

    def close(self, outcome: str) -> None:
        self.run.finish()


#: By the name of --track, which is also that of the package and of the extra.
TRACKERS: dict[str, Callable[[], Tracker]] = {"wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio}


def flat(config: Any, name: str = "") -> dict[str, Any]:
    """A nested configuration by dotted names."""
    if not isinstance(config, Mapping):
        return {name: config}
    return {
        key: value for part, inner in config.items() for key, value in flat(inner, f"{name}.{part}".strip(".")).items()
    }


def scalars(progress: Progress) -> dict[str, float]:
    """What a log line has, by the names that trackers and TensorBoard show."""
    return {
        **{f"train/{name}": value for name, value in progress.stats.items()},
        "speed/images_per_second": progress.images_per_second,
        "speed/waiting": progress.waiting,
        **{f"score/{name}": value for name, value in progress.scores.items()},
    }


def require(name: str | None) -> None:
    """Raise UsageError unless the tracker is installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UsageError(
            f"--track {name} is not possible here.", f"{name} is not installed.", f"pip install 'mien[{name}]'"
        )


class Tracking(Observer):
    """Sends stats, scores, sample grids and the configuration to a tracker, from a thread of its own.

    A tracker that fails or hangs costs a warning, never the training. status.json has the run's identity there, and the
    images seen when it logged last: a resumed run goes on in the same one, and what it computes again is not sent twice.
    """

    def __init__(self, run_dir: Path, name: str, config: JSON) -> None:
        self.directory, self.name = RunDirectory(run_dir), name
        self.best_effort = BestEffort(run_dir)
        self.jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.errors: SimpleQueue[Exception] = SimpleQueue()
        self.tracker: Tracker | None = TRACKERS[name]()
        known = self.directory.status.get("trackers")
        self.known: JSON = known if isinstance(known, dict) else {}
        mine = self.known.get(name)
        identity, self.seen = "", 0
        if isinstance(mine, dict) and isinstance(mine.get("run"), str) and isinstance(mine.get("seen"), int):
            identity, self.seen = mine["run"], mine["seen"]
        try:
            self.identity = self.tracker.start(run_dir, identity, config)
        except Exception as error:  # whatever the client raises
            self.tracker = None
            self.errors.put(error)
        else:
            self.remember(self.seen)
            self.thread = Thread(target=self.work, name=f"mien {name}", daemon=True)
            self.thread.start()
        self.report()

    def remember(self, seen: int) -> None:
        """Write the identity and the images seen into status.json."""
        self.seen = seen
        self.known[self.name] = {"run": self.identity, "seen": seen}
        self.directory.update_status(trackers=self.known)

    def work(self) -> None:
        """Do the jobs in order, until there is None."""
        while (job := self.jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # as above
                self.errors.put(error)

    def report(self) -> None:
        """Warn of failed jobs: once on the terminal, a count in status.json."""
        while True:
            try:
                error = self.errors.get_nowait()
            except Empty:
                return
            with self.best_effort(self.name):
                raise OSError(f"{type(error).__name__}: {error}") from error

    def after_step(self, progress: Progress, model: Model) -> None:
        self.report()
        if self.tracker is None or progress.seen <= self.seen:
            return
        tracker, seen = self.tracker, progress.seen
        if progress.log:
            values = scalars(progress)
            self.jobs.put(lambda: tracker.log(values, seen))
        path = self.directory.samples / f"{seen:010d}.png"
        if progress.show and path.exists():

            def send() -> None:
                with Image.open(path) as image:
                    tracker.picture(image.convert("RGB"), seen)

            self.jobs.put(send)
        if progress.log:
            self.remember(seen)

    def close(self, outcome: str) -> None:
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            self.jobs.put(lambda: tracker.close(outcome))
            self.jobs.put(None)
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                self.errors.put(TimeoutError(f"it did not answer for {PATIENCE:.0f} s"))
        self.report()
