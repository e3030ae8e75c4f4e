"""The part of `mien doctor` that checks a run: verdicts from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mien.cli.result import Result
from mien.core.contracts import JSON
from mien.core.run import Device
from mien.errors import MienError
from mien.metrics import health, quick_checks
from mien.metrics.api import open_pack, training_data_of
from mien.metrics.health import Symptom, Window
from mien.report.health_observer import bytes_on_disk, in_order, symptoms_of_model, symptoms_of_window
from mien.report.run_reader import RunRecord, read_record
from mien.sampling.sampler import Sampler
from mien.storage import bounded_json, checkpoint

LAST_FRACTION, MIN_LINES = 10, 5  # curves are checked by their last tenth, and by at least so many lines
UNFINISHED = ("running", "preempted", "interrupted", "failed")  # states of a run that still needs disk space


def examine(run: Path, data: str | None, code: Path | None, device: Device, strict: bool) -> Result:
    """Verdicts on a run from its logs, its newest checkpoint and its data, with a note for what is missing."""
    record = read_record(run)
    checks = record.health_history
    newest = next((path for path in checkpoint.all_of(run / "checkpoints") if checkpoint.verify(path) is None), None)
    best = max((check["spread"] for check in checks), default=0.0)
    sample_symptoms, notes = of_model(record, newest, best, data, code, device)
    symptoms = [*sample_symptoms, *of_logs(record, newest, checks)]
    if newest and record.status.get("state") in UNFINISHED:
        symptoms.append(health.disk(checkpoint.free_bytes(run), bytes_on_disk(newest)))
    last_healthy = next((check["seen"] for check in reversed(checks) if not alarms_at(check)), 0)
    # There is no later check to confirm a symptom: one at the end is an alarm.
    verdicts = [v.json() for v in health.diagnose(in_order(symptoms), health.NAMES, record.run, last_healthy)]
    checked = {verdict["name"] for verdict in verdicts}
    for known in record.health:  # what cannot be checked again keeps its last verdict
        if known.get("name") in health.NAMES and known["name"] not in checked | {health.DISK}:
            notes.append(f"{known['name']}: the verdict is that of training")
            verdicts.append(known)
    verdicts.sort(key=lambda verdict: health.NAMES.index(verdict["name"]))
    past = episodes(checks)
    codes = {health.EXIT_CODES.get(v["name"], 5) for v in verdicts if v["state"] == "alarm"}
    exit_code = next((code for code in (5, 6, 4) if code in codes), 0) if strict else 0
    found = {"run": str(run), "seen": record.seen, "verdicts": verdicts, "notes": notes, "alarms": past}
    return Result("\n".join(report(verdicts, notes, past)), found, exit_code)


def of_model(
    record: RunRecord, newest: Path | None, best: float, data: str | None, code: Path | None, device: Device
) -> tuple[list[Symptom], list[str]]:
    """Symptoms of the newest checkpoint's samples, and why some are missing."""
    if newest is None:
        return [], ["there is no valid checkpoint, so samples cannot be checked"]
    try:
        sampler = Sampler.load(newest, device=device, code=code)
        faces = sampler.sample(range(quick_checks.GRID))
    except MienError as error:
        return [], [f"samples cannot be checked: {error.what} {error.remedy}"]
    if not bool(faces.isfinite().all()):
        return [health.divergence(0, Window(), (), drawn=False)], []
    try:
        pack = open_pack(data or training_data_of(record.directory), sampler)
    except MienError as error:
        hint = "" if data else " Name the pack with --data."
        return [], [f"samples cannot be compared with real images: {error.what} {error.why}{hint}"]
    symptoms = symptoms_of_model(sampler.model, faces, quick_checks.RealFaces(pack), int(newest.name), best)
    if pack.fingerprint == sampler.header.get("data", {}).get("fingerprint"):
        return symptoms, []
    others = [symptom for symptom in symptoms if symptom.name != health.MEMORY]
    return others, [f"{pack.path} is not the data that the run was trained on, so memorisation cannot be checked"]


def of_logs(record: RunRecord, newest: Path | None, checks: Sequence[JSON]) -> list[Symptom]:
    """Symptoms of the last lines of metrics.jsonl, of how the run ended, and of its rollbacks."""
    lines = record.metrics
    window, usual = Window(), Window()
    for index, line in enumerate(lines):
        (window if index >= len(lines) - max(MIN_LINES, len(lines) // LAST_FRACTION) else usual).add(line)
    counters = read_counters(newest)
    before = checks[-2]["rollbacks"] if len(checks) > 1 else 0
    rollbacks = max(0, int(counters.get("retry", 0)) - int(before))
    gave_up = record.status.get("state") == "diverged"
    usual_sizes = [usual.loss_size] if usual.lines else []
    return [
        *symptoms_of_window(window, record.seen),
        health.divergence(rollbacks, window, usual_sizes, gave_up=gave_up),
    ]


def read_counters(newest: Path | None) -> JSON:
    """state.json of a checkpoint."""
    return bounded_json.read_object(newest / "state.json") if newest else {}


def alarms_at(check: JSON) -> list[str]:
    """The names of the alarms at one check."""
    return [name for name, known in check["verdicts"].items() if known.get("state") == "alarm"]


def episodes(checks: Sequence[JSON]) -> list[JSON]:
    """Every alarm of the run: its first and last check, and whether it ended."""
    found: list[JSON] = []
    running: dict[str, JSON] = {}
    for check in checks:
        alarms = alarms_at(check)
        for name in alarms:
            if name not in running:
                running[name] = {"name": name, "from": check["seen"], "to": check["seen"], "over": False}
                found.append(running[name])
            running[name]["to"] = check["seen"]
        for name in set(running) - set(alarms):
            running.pop(name)["over"] = True
    return found


def report(verdicts: Sequence[Mapping[str, Any]], notes: Sequence[str], past: Sequence[JSON]) -> list[str]:
    """A line for each verdict; with the evidence and a suggestion if it is not healthy."""
    lines = []
    for verdict in verdicts:
        lines.append(f"{verdict['state']:<8} {verdict['name']:<20} {verdict['value']:.3g} (bound {verdict['bound']:g})")
        if verdict["state"] != "healthy":
            lines += [f"         {text}" for text in (verdict["evidence"], verdict["suggestion"]) if text]
    lines += [f"note     {note}" for note in notes]
    ended = [alarm for alarm in past if alarm["over"]]
    lines += [f"earlier  {a['name']}: alarm from {a['from']:,} to {a['to']:,} images, then it ended" for a in ended]
    return lines
