"""The model card: the model, its training data, its scores and its prohibited uses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mien import __version__, presets
from mien.core.contracts import JSON
from mien.presets.citations import bibtex, of_options
from mien.report.formatting import duration, short
from mien.report.html import UNSEEN
from mien.report.metric_descriptions import metric_meaning
from mien.report.run_reader import RunRecord, is_number, read_record
from mien.storage import atomic
from mien.storage.regular_file import read_own

BEGIN = "<!-- Written by mien; the next report writes this part anew. -->"
END = "<!-- End of the part that mien writes. What stands below is yours and is kept. -->"
MOST_CARD = 16 << 20  # bytes
OWNER = """
## From the owner

Please complete: who trained this model and why, the licence of its weights, the rights to the training images and the consent
of the people in them, who is over- and under-represented among its faces, and how to reach you.
"""


def write_card(run_dir: Path, state: str | None = None) -> Path:
    """Write MODEL_CARD.md of a run. Text outside the generated part is preserved.

    `state` overrides the state in status.json. Raises DataError where there is no run.
    """
    path = run_dir / "MODEL_CARD.md"
    generated = f"{BEGIN}\n{card(read_record(run_dir, state))}\n{END}"
    try:
        text = read_own(path, MOST_CARD).decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
    except OSError:
        before = begin = end = after = ""
    if not (begin and end):
        front = "---\nlibrary_name: mien\ntags: [faces, image-generation, unconditional-image-generation]\n---\n"
        before, after = (before, OWNER) if before.strip() else (front, OWNER)
    atomic.write_bytes(path, f"{before}{generated}{after}".encode("utf-8", "surrogateescape"))
    return path


def card(record: RunRecord) -> str:
    """The generated part of the card as Markdown."""
    run, word = record.run, shlex.quote(code(record.path))
    sections = {
        f"{plain(record.name)}": _description(record),
        "Intended use and limits": (
            "For study, art and research on generative models. The faces show no real person, but they carry whatever is "
            "common, rare or missing in the training images. Do not use them as evidence of anybody, to decide about "
            "anybody, or as a stand-in for real people in a study. "
            f"A face is {run.get('side', '?')} pixels high and wide."
        ),
        "Misuse": (
            "Do not pass the faces off as real people, for false accounts, or to deceive. Files written by mien say in "
            "their metadata that they are synthetic; leave that in place."
        ),
        "Training data": _data(record.data),
        "Procedure": _procedure(record),
        "Evaluation": _evaluation(record),
        "Memorisation": _memorisation(record),
        "Use": f"```sh\nmien sample {word} --seeds 0-63 -o faces.png\nmien walk {word} --seeds 3 42 7 -o walk.mp4\n```",
        "Citation": _citation(run),
    }
    (title, first), *others = sections.items()
    return "\n\n".join([f"# {title}", first, *(f"## {name}\n\n{text}" for name, text in others)])


def _description(record: RunRecord) -> str:
    run, steered = record.run, record.status.get("steered")
    story = plain(str(run.get("story") or "")).rstrip(".")
    return (
        f"A generator of faces, made with mien {__version__} from the preset `{code(run.get('preset', '?'))}`"
        f"{f': {story}' if story else ''}. State: {plain(str(record.status.get('state', 'unknown')))}, "
        f"after {record.seen:,} images and {duration(record.seconds)} of training."
        + (f" It started with the weights of the model `{code(run['parent'])}` (SHA-256)." if run.get("parent") else "")
        + " A network that has learned from other photographs took part in its training."
        * (run.get("assisted") is True)
        + (
            f" Steps of one player alone, made by hand: {steered}; no command repeats it."
            if is_number(steered) and steered
            else ""
        )
    )


def _data(data: JSON) -> str:
    name, labels = str(data.get("name", "unknown")), data.get("labels")
    lines = [
        f"- Source: {plain(Path(name).name or name)}",
        f"- Images: {data['count']:,}" if isinstance(data.get("count"), int) else "- Images: unknown",
        f"- Fingerprint: `{code(data.get('fingerprint', 'unknown'))}`",
    ]
    if isinstance(labels, list) and labels:
        lines.append(f"- Labels: {plain(', '.join(str(label) for label in labels[:60]))}")
    consent = (
        "The images are drawings made by mien; they show no person and need no consent."
        if name == "drawn"
        else "mien does not know the licence of these images, nor whether the people in them agreed. The owner says so below."
    )
    return "\n".join(lines) + f"\n\n{consent}"


def _procedure(record: RunRecord) -> str:
    run, environment = record.run, record.environment
    config: JSON = {
        name: run[name] for name in ("model", "recipe", "ema", "batch", "side", "seed", "flip") if name in run
    }
    machine = ", ".join(
        f"{name} {plain(str(environment[name]))}"
        for name in ("device", "precision", "threads", "torch")
        if name in environment
    )
    return "\n".join([f"Machine: {machine or 'not recorded'}.", "", "```yaml", *outline(config), "```"])


def _evaluation(record: RunRecord) -> str:
    if not record.latest_scores:
        return "Not measured."
    rows = ["| score | value | interval | better | at images seen |", "|---|---|---|---|---|"]
    for score in record.latest_scores:
        ends = [short(score[end]) if is_number(score.get(end)) else "?" for end in ("low", "high")]
        number = f"{score['value']:.4g}" if is_number(score.get("value")) else "?"
        seen = f"{score['seen']:,}" if is_number(score.get("seen")) else "?"
        better = metric_meaning(score["metric"]).better
        name = plain(str(score.get("name", score["metric"])))
        rows.append(f"| {name} | {number} | {ends[0]} to {ends[1]} | {better} | {seen} |")
    return "\n".join([*rows, "", "Each score's protocol (extractor, resizer, samples, reference) is in `eval/`."])


def _memorisation(record: RunRecord) -> str:
    measured = [score for score in record.latest_scores if score["metric"] == "memorisation"]
    if not measured or not is_number(measured[0].get("value")):
        return "Not measured: whether some faces are copies of training images is not known."
    return f"Measured: {measured[0]['value']:.4g}. {metric_meaning('memorisation').text}"


def _citation(run: JSON) -> str:
    known = [presets.KINDS[kind] for kind in kinds(run) if kind in presets.KINDS]
    keys = [key for kind in known for key in getattr(kind, "cites", ())]
    entries = bibtex([*keys, *of_options(run)])
    return f"```bibtex\n{entries}\n```" if entries else "This model stands on no paper that mien knows of."


def outline(value: JSON, indent: str = "") -> Iterator[str]:
    """A configuration as indented lines, `name: value` with values as JSON."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{code(name)}:"
            yield from outline(item, indent + "  ")
        else:
            yield f"{indent}{code(name)}: {json.dumps(item)}"


def kinds(value: Any) -> Iterator[str]:
    """Every `kind` named in a configuration, outermost first."""
    if isinstance(value, dict):
        if isinstance(value.get("kind"), str):
            yield value["kind"]
        for item in value.values():
            yield from kinds(item)


def plain(text: str) -> str:
    """Text for Markdown: one line, with special characters escaped."""
    line = " ".join(UNSEEN.sub("\ufffd", text).split())
    return (
        re.sub(r"([\\`*_{}\[\]()#+!|~&<>])", r"\\\1", line)
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
        .replace("\\&", "&amp;")
    )


def code(text: object) -> str:
    """Text inside backticks."""
    return " ".join(UNSEEN.sub("\ufffd", str(text)).replace("`", "'").split())
