"""Runs evaluated by one protocol, so that their scores are comparable; existing scores are reused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mien.cli.evaluate import Listener, check_samples, eval_folder, save
from mien.core.contracts import JSON
from mien.core.device import DeviceContext
from mien.core.run import Device
from mien.metrics.api import of_model, open_pack, training_data_of
from mien.metrics.evaluate import DEFAULT, GIVES, inception, known, load_extractor, measure, split_names
from mien.metrics.features import Extractor
from mien.metrics.inputs import MetricInputs
from mien.report.run_reader import read_record
from mien.sampling.sampler import Sampler

#: Protocol fields that an existing score must share to be reused; metrics with their own networks share fewer.
OF_THE_MODEL = ("model_sha256", "prior", "reference", "legacy")
OF_THE_EXTRACTOR = (*OF_THE_MODEL, "extractor", "extractor_sha256", "resizer", "precision", "samples")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How runs are evaluated."""

    extractor: Extractor
    metrics: tuple[str, ...]
    samples: int | None  # None: as many as there are real images, at most 10,000
    device: Device
    code: Path | None = None  # the file of a model of the user's

    def measure(self, run: Path, data: str | None = None) -> list[str]:
        """Measure the scores that the newest model of a run lacks, into its eval/. Returns the warnings.

        `data` is the pack to evaluate against; by default, the run's own.
        """
        pack = data if data is not None else training_data_of(run)
        sampler = Sampler.load(run, device=self.device, precision="fp32", code=self.code)
        inputs = of_model(sampler, str(run), open_pack(pack, sampler), "train", self.samples, self.extractor)
        record = read_record(run)
        missing = [metric for metric in self.metrics if not measured(inputs, metric, record.scores)]
        if missing:
            print(f"mien: evaluating {run} ({', '.join(missing)})", file=sys.stderr, flush=True)
            inputs.on_progress = listener = Listener(quiet=False)
            scores = measure(inputs, missing)
            listener.close()
            save(inputs, scores, eval_folder(run) or run / "eval", run)
        return inputs.warnings


def protocol_of(
    metrics: str,
    samples: int | None,
    extractor: str | None,
    device: Device,
    code: Path | None = None,
    download: bool = True,
) -> Protocol:
    """A protocol from flags. Raises UsageError for an unknown metric, and the error of a network that is missing.

    `download`: whether to download the network's weights if they are not here.
    """
    words = tuple(known(split_names(metrics)))
    check_samples(samples)
    here = DeviceContext.choose(device, "fp32").device.type
    eye = load_extractor(extractor) if extractor else inception(device=here, metrics=words, download=download)
    return Protocol(extractor=eye, metrics=words, samples=samples, device=device, code=code)


def measured(inputs: MetricInputs, metric: str, scores: Sequence[JSON]) -> bool:
    """Whether a metric was measured already, of this model and by this protocol."""
    wanted = inputs.protocol()
    parts = OF_THE_EXTRACTOR if metric in DEFAULT else OF_THE_MODEL
    first = GIVES.get(metric, (metric,))[0]
    return any(
        score["metric"] == first and all(score.get("protocol", {}).get(part) == wanted.get(part) for part in parts)
        for score in scores
    )
