"""`mien cite`: the papers of a run or a preset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mien import presets
from mien.cli.model_options import CodeFile
from mien.cli.result import Result
from mien.presets.citations import bibtex, of_options
from mien.storage.run_directory import RunDirectory


def cite(run: str, /, *, code: CodeFile = None) -> Result:
    """Print BibTeX for the papers that a run or a preset uses. Examples:

        mien cite runs/00000-quick-drawn64-s0 > references.bib
        mien cite torch-gan-2015

    Parameters
    ----------
    run
        A run directory, or the name of a preset.
    """
    run_json = RunDirectory(Path(run)).run_json
    config, _ = presets.find(run) if run_json is None else presets.find_named(run_json.get("preset"), code)
    cited = (key for cls in presets.configs_in(config) for key in getattr(cls, "cites", ()))
    keys = list(dict.fromkeys([*cited, *of_options(asdict(config))]))
    return Result(bibtex(keys), {"keys": keys, "bibtex": bibtex(keys)})
