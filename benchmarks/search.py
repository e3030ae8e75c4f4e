"""Which recipe draws better faces a minute: declared trials, in rounds that a third survives. Resumable; a table at the end.

    python benchmarks/search.py CELEBA WORK_DIR                    every trial: days on 2 cores
    python benchmarks/search.py CELEBA WORK_DIR --only "as it is" "Adam"
    python benchmarks/search.py CELEBA WORK_DIR --ablation         the recipe without each of its ingredients: an hour of a core
    python benchmarks/search.py CELEBA WORK_DIR --table            what has been measured so far (and with --ablation)
    python benchmarks/search.py CELEBA WORK_DIR --sheets           64 faces of each finalist, under names that tell nothing
    python benchmarks/search.py CELEBA WORK_DIR --images 0.01 --samples 100      a minute, to see that it runs

CELEBA is a folder or ZIP of aligned faces. A trial is a few flags of `mien train gan`; it has one core and one thread, and its
seconds are those of its process, not of the clock. A round prolongs the runs of the round before, or begins at the next side.
Annealing goes by images seen, so a run that is prolonged is the run that would have been longer from the start.
FID, KID, the distance of identities, precision, recall and coverage are of so many samples against every face of the pack.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from quality import Bench, mien, seen

#: What is tried, beside the preset as it is: what can be said in flags. docs/LOG.md has the rest.
TRIALS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "Adam": ("--recipe.optimizer", "adam", "--recipe.lr", "1e-3", "--recipe.lr-end", "2e-4"),
    "rate held": ("--recipe.lr-end", "2e-3"),
    "half the rate": ("--recipe.lr", "1e-3", "--recipe.lr-end", "2e-4"),
    "half the penalty": ("--recipe.gamma", "0.8", "--recipe.gamma-end", "0.2"),
    "beta2 as it ends": ("--recipe.beta2", "0.99"),
    "batch of 32": ("--batch", "32"),
    "rates fall over twice as many images": ("--recipe.decay-images", "240000"),
    "latent of 128": ("--model.latent", "128"),
}
METRICS = "fid,kid,prdc,sface"
COLUMNS = ("fid", "kid", "sface", "precision", "recall", "coverage")


@dataclass(frozen=True, kw_only=True)
class Round:
    """How far a trial goes, and how many seeds it has."""

    side: int
    images: int
    samples: int
    seeds: tuple[int, ...] = (0,)


#: About 2, 6 and 40 minutes of one core.
ROUNDS = (
    Round(side=32, images=33_000, samples=2000),
    Round(side=32, images=100_000, samples=2000),
    Round(side=64, images=220_000, samples=5000, seeds=(0, 1)),
)
SURVIVE = 3  # one in so many goes on to the next round

#: The recipe without each of its ingredients, by the flags that take it out; rates fall over the images of the round.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "all of it": (),
    "without SOAP": TRIALS["Adam"],
    "without burn-in": ("--recipe.lr", "4e-4", "--recipe.gamma", "0.4", "--recipe.beta2", "0.99"),  # as they end
    "without held norms": ("--recipe.no-hold-norms",),
    "without grouped blocks": (  # plain 3x3 ones of about as many operations
        *("--model.group", "0", "--model.width", "24"),
        *("--recipe.critic.group", "0", "--recipe.critic.width", "24"),
    ),
    "without full resolution": ("--model.full-res-width", "0", "--recipe.critic.full-res-width", "0"),
    "without small batches": ("--batch", "32"),
    "without an average": ("--ema.half-life", "1"),
}
ABLATION = Round(side=32, images=30_000, samples=2000, seeds=(0, 1))


@dataclass(frozen=True)
class Row:
    """One run, judged."""

    trial: str
    seed: int
    round: int
    images: int
    seconds: float  # of a core, training alone
    scores: dict[str, float]

    def __str__(self) -> str:
        scores = "".join(f"{self.scores[name]:10.4f}" for name in COLUMNS)
        speed = self.images / max(self.seconds, 1e-9)
        return f"{self.round}  {self.trial:<24}{self.seed:>3}{self.images:>9,}{self.seconds:>7.0f} s{speed:>6.0f}/s{scores}"


class Search:
    """Runs by trial, side and seed, and what is known of them."""

    def __init__(self, bench: Bench, share: float, ablation: bool = False) -> None:
        self.bench, self.share = bench, share
        self.rounds = (ABLATION,) if ablation else ROUNDS
        annealed = ("--recipe.decay-images", str(ABLATION.images))
        self.trials = {trial: (*flags, *annealed) for trial, flags in ABLATIONS.items()} if ablation else TRIALS

    def run(self, trial: str, side: int, seed: int) -> Path:
        return self.bench.work / f"{trial.replace(' ', '-')}-{side}-{seed}"

    def kept(self, trial: str, number: int, seed: int) -> Path:
        return self.bench.work / f"{self.run(trial, self.rounds[number].side, seed).name}-{number}.json"

    def row(self, trial: str, number: int, seed: int) -> Row | None:
        """What was measured, if it was."""
        file = self.kept(trial, number, seed)
        return Row(**json.loads(file.read_text())) if file.exists() else None

    def measure(self, trial: str, number: int, seed: int) -> Row:
        """Train as far as the round goes, and judge; what was measured stays."""
        found = self.row(trial, number, seed)
        if found:
            return found
        step, run = self.rounds[number], self.run(trial, self.rounds[number].side, seed)
        pack, images = self.bench.pack(step.side), max(int(step.images * self.share), 16)
        spent = run / "seconds.json"
        before = json.loads(spent.read_text()) if spent.exists() else 0.0
        start = core_seconds()
        words = ("--data", pack, "--out", run, "--images", images, "--threads", 1, "--seed", seed)
        failed = False
        try:
            mien("train", "gan", *words, *self.trials[trial])
        except subprocess.CalledProcessError:  # it diverged, and says so: that is a result
            failed = True
        seconds = before + core_seconds() - start
        spent.write_text(json.dumps(seconds))
        nothing = dict.fromkeys(COLUMNS, float("inf"))
        samples = min(step.samples, self.bench.samples)
        scores = nothing if failed else self.bench.judge(run, pack, METRICS, samples)
        named = {name: next(v for key, v in scores.items() if key.startswith(name)) for name in COLUMNS}
        row = Row(trial, seed, number, seen(run), seconds, named)
        self.kept(trial, number, seed).write_text(json.dumps(vars(row)))
        return row

    def judged(self, trial: str, number: int) -> float:
        """FID over the seeds of a round, in the mean."""
        rows = [self.measure(trial, number, seed) for seed in self.rounds[number].seeds]
        for row in rows:
            print(row, flush=True)
        return sum(row.scores["fid"] for row in rows) / len(rows)

    def halve(self, trials: Sequence[str]) -> list[str]:
        """Every round; returns those that are left, best first."""
        for number in range(len(self.rounds)):
            fids = {trial: self.judged(trial, number) for trial in trials}
            best = sorted(fids, key=fids.__getitem__)
            trials = best if number == len(self.rounds) - 1 else best[: max(1, len(best) // SURVIVE)]
        return list(trials)

    def rows(self) -> list[Row]:
        """Everything that was measured, round by round, best first."""
        asked = [(trial, n, seed) for trial in self.trials for n, step in enumerate(self.rounds) for seed in step.seeds]
        found = [row for row in (self.row(*which) for which in asked) if row]
        return sorted(found, key=lambda row: (-row.round, row.scores["fid"]))

    def sheets(self) -> None:
        """64 faces of every run of the last round, shuffled: whoever counts torn faces does not know whose they are."""
        last = [row for row in self.rows() if row.round == len(self.rounds) - 1]
        random.SystemRandom().shuffle(last)
        for index, row in enumerate(last):
            sheet = self.run(row.trial, self.rounds[-1].side, row.seed) / "faces.png"
            mien("sample", sheet.parent, "--seeds", "0-63", "-o", sheet)
            shutil.copy(sheet, self.bench.work / f"sheet-{index}.png")
        names = {f"sheet-{index}.png": f"{row.trial}, seed {row.seed}" for index, row in enumerate(last)}
        (self.bench.work / "whose.json").write_text(json.dumps(names, indent=1))


def core_seconds() -> float:
    """Of all processes that were started from here and have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=(*TRIALS, *ABLATIONS))
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--sheets", action="store_true")
    parser.add_argument("--images", type=float, default=1.0, help="multiplies every round")
    parser.add_argument("--samples", type=int, default=5000, help="at most so many")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    search = Search(Bench(given.celeba, given.work, 1, 1.0, given.samples), given.images, given.ablation)
    unknown = [trial for trial in given.only or () if trial not in search.trials]
    if unknown:
        parser.error(f"{unknown[0]!r} is {'no part of' if given.ablation else 'part of'} the ablation")
    if given.sheets:
        search.sheets()
    elif not given.table:
        search.halve(given.only or list(search.trials))
    print(f"\n   {'':<24}seed   images   core        {''.join(f'{name:>10}' for name in COLUMNS)}")
    print(*search.rows(), sep="\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
