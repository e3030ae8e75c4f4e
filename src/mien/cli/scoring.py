"""Runs judged by one protocol, so that their scores can stand in one column; what is measured already is kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mien.cli.evaluate import Listener, save
from mien.core.contracts import JSON
from mien.core.device import DeviceContext
from mien.core.run import Device
from mien.errors import UsageError
from mien.metrics.api import of_model, own_data
from mien.metrics.evaluate import DEFAULT, inception, known, load_extractor, measure, words_of
from mien.metrics.features import Extractor
from mien.metrics.inputs import Judged
from mien.report.run_reader import read_record
from mien.sampling.sampler import Sampler

#: What each score of Inception's must share with a wanted one to count as measured; the others have eyes of their own.
OF_THE_MODEL = ("model_sha256", "prior", "reference", "legacy")
OF_THE_EYE = (*OF_THE_MODEL, "extractor", "extractor_sha256", "resizer", "precision", "samples")
#: The first score of the metrics that give several or call them otherwise.
FIRST = {
    "prdc": "precision",
    "identity": "memorisation_identity",
    "reconstruction": "reconstruction_l1",
    "conditions": "classifier",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How runs are judged."""

    extractor: Extractor
    metrics: tuple[str, ...]
    samples: int | None  # None: as many as there are real images, at most 10,000
    device: Device
    code: Path | None = None  # the file of a model of the user's

    def measure(self, run: Path, data: str | None = None) -> list[str]:
        """Measure what the newest model of a run lacks, into its eval/. Returns the warnings.

        `data` is the pack to judge against; a run knows its own.
        """
        pack = data if data is not None else own_data(run)
        sampler = Sampler.load(run, device=self.device, precision="fp32", code=self.code)
        judged = of_model(sampler, str(run), pack, "train", self.samples, self.extractor)
        record = read_record(run)
        missing = [metric for metric in self.metrics if not measured(judged, metric, record.scores)]
        if missing:
            print(f"mien: judging {run} ({', '.join(missing)})", file=sys.stderr, flush=True)
            judged.told = listener = Listener(quiet=False)
            scores = measure(judged, missing)
            listener.close()
            save(judged, scores, run / "eval", run)
        return judged.warnings


def protocol_of(
    metrics: str, samples: int | None, extractor: str | None, device: Device, code: Path | None = None
) -> Protocol:
    """A protocol from a command's words. Raises UsageError for an unknown metric, and what a missing network raises."""
    words = tuple(known(words_of(metrics)))
    if samples is not None and samples < 2:
        raise UsageError(f"--samples {samples} is not possible.", "One face has no spread.", "Give thousands.")
    here = DeviceContext.choose(device, "fp32").device.type
    eye = load_extractor(extractor) if extractor else inception(device=here, metrics=words)
    return Protocol(extractor=eye, metrics=words, samples=samples, device=device, code=code)


def measured(judged: Judged, metric: str, scores: Sequence[JSON]) -> bool:
    """Whether a metric was measured already: of this very model, by this protocol."""
    wanted = judged.passport()
    parts = OF_THE_EYE if metric in DEFAULT else OF_THE_MODEL
    first = FIRST.get(metric, metric)
    return any(
        score["metric"] == first and all(score.get("passport", {}).get(part) == wanted.get(part) for part in parts)
        for score in scores
    )
