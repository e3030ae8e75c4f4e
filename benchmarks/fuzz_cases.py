"""The cases of `benchmarks/fuzz.py`: small fixtures, command lines from the real flag tables, mutations of files, requests."""

from __future__ import annotations

import collections.abc
import copy
import hashlib
import importlib
import json
import os
import random
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin
from urllib.parse import quote

import numpy as np
from benchmarks import kills
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mien import presets
from mien.__main__ import VERBS, main
from mien.cli.flags import app_of
from mien.data.crops import CROPS
from mien.data.pack import Entry, PackWriter
from mien.metrics import framing
from mien.report import observers
from mien.storage import checkpoint

RUNS = {
    "quick": "plain.pack",
    "cgan": "faces.pack",
    "vae": "plain.pack",
    "flow": "faces.pack",
    "cppn-2016": "plain.pack",
}
OWN = """from mien.presets import PRESETS as P
PRESETS = {"tiny": P["quick"]}
class Pixels:
    resizer, precision, name, hash = "none", "fp32", "pixels", "0" * 64
    def __call__(self, images):
        return images.reshape(len(images), -1)[:, ::97].astype("float32")
features = Pixels
"""
DEEP = "[" * 100_000
TINY = "--batch 8 --threads 1 --save-every 16 --sample-every 16 --log-every 8"


def write_pack(path: Path, labels: tuple[str, ...]) -> None:
    """48 images of noise at 16 px."""
    rng = np.random.default_rng(0)
    with PackWriter(path, 16, labels) as writer:
        rows = rng.integers(0, 2, (48, len(labels))).astype(np.float32) if labels else None
        images = rng.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
        writer.append(images, rows, [Entry(f"{n}.png", split="train" if n % 4 else "val") for n in range(48)])
        writer.commit({})


def build(folder: Path) -> None:
    """Everything that a case may read, in the working directory `folder`, made by mien where it can be."""
    os.chdir(folder)
    write_pack(Path("faces.pack"), ("Smiling", "Male"))
    write_pack(Path("plain.pack"), ())
    rng = np.random.default_rng(1)
    Path("photos").mkdir()
    for n in range(12):
        pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 48)).save(f"photos/{n:03d}.{'png' if n % 3 else 'jpg'}")
    names = sorted(path.name for path in Path("photos").iterdir())
    Path("photos/labels.csv").write_text(
        "file,age,mood\n" + "".join(f"{n},{i + 20},{'ab'[i % 2]}\n" for i, n in enumerate(names))
    )
    Path("table.csv").write_text("file,age\n" + "".join(f"photos/{n},{i}\n" for i, n in enumerate(names)))
    Path("list.txt").write_text("".join(f"photos/{n}\n" for n in names))
    Path("lines").mkdir()
    for n in names:
        Path("lines", n).write_bytes(Path("photos", n).read_bytes())
    Path("lines/metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": n, "age": i}) + "\n" for i, n in enumerate(names))
    )
    np.savez("faces.npz", images=rng.integers(0, 256, (12, 20, 20, 3), dtype=np.uint8), age=np.arange(12))
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for n in names:
            archive.write(f"photos/{n}")
        archive.writestr("dataset.json", json.dumps({"labels": [[f"photos/{n}", i % 3] for i, n in enumerate(names)]}))
    Path("own.py").write_text(OWN)
    Path("config.json").write_text(
        json.dumps({"model": "src.models.model_14", "batch_size": 8, "epochs": 1, "lr": 0.1})
    )
    for number, (preset, pack) in enumerate(RUNS.items()):
        out = f"runs/{number:05d}-{preset}"
        more = ["--conditional"] if preset == "flow" else []
        line = ["train", preset, *kills.cut_down(presets.find(preset)[0]), *TINY.split(), *more]
        line += ["--data", pack, "--out", out, "--images", "48", "--evaluate-every", "24", "--evaluate-samples", "8"]
        assert main([*line, "--evaluate-extractor", "own.py:features", "--evaluate-metrics", "kid"]) == 0
    for run in ("runs/00000-quick", "runs/00001-cgan"):
        assert main(["directions", run, "--unsupervised", "2"]) == 0
    assert main(["data", "prepare", "photos.zip", "prepared.pack", "--size", "16"]) == 0
    assert main(["sample", "runs/00000-quick", "--seeds", "0-3", "-o", "drawn.png"]) == 0
    assert (
        main(["sample", "runs/00000-quick", "--seeds", "0-9", "--format", "tar", "--shard-size", "5", "-o", "shards"])
        == 0
    )
    assert (
        main(["project", "runs/00000-quick", "photos/001.png", "--steps", "2", "--save-latent", "z.safetensors"]) == 0
    )
    Path("model.safetensors").write_bytes(checkpoint.find_model(Path("runs/00000-quick")).read_bytes())
    Path("empty").write_bytes(b"")
    Path("junk.bin").write_bytes(random.Random(0).randbytes(5000))
    Path("deep.json").write_text(DEEP)
    Path("cut.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:3000])


# Command lines

MODELS = [*(f"runs/{number:05d}-{preset}" for number, preset in enumerate(RUNS)), "model.safetensors", "faces"]
LABELLED = [model for model in MODELS if "cgan" in model or "flow" in model]
STYLED = ["runs/00000-quick", "runs/00001-cgan", "model.safetensors", "faces"]
SOURCES = ["photos", "photos.zip", "table.csv", "list.txt", "lines", "faces.npz", "faces.pack", "shards"]
PHOTOS = ["photos/001.png", "photos/000.jpg", "photos", "drawn.png"]
#: Values of the right kind by the name of a flag; `|` separates them.
POOL = {
    "MODEL": MODELS, "RUN": MODELS, "RUNS": MODELS, "SOURCE": SOURCES, "PHOTOS": PHOTOS, "--photo": PHOTOS, "--photos": PHOTOS,
    "--data": ["faces.pack", "plain.pack"], "--real": ["photos", "plain.pack"], "--fake": ["photos", "runs/00000-quick/samples"],
    "--seeds": ["0-3", "1,2", "7", "3-5,9"], "--seed": ["0", "5"], "--label": ["Smiling=1", "Male=0.5"],
    "--label-from": ["Smiling=0"], "--label-to": ["Smiling=1"], "--combine": ["Smiling", "Smiling,Male", "Smiling:Male"],
    "--style": ["3:fine", "4:coarse", "5:1-2"], "--solver": ["euler:2", "multistep:3", "adaptive:1e-2"],
    "--crop": [*CROPS], "--box": ["0,0,16,16", "2,2,20,20"], "--resampler": ["lanczos", "area", "nearest"],
    "--background": ["white", "#102030"], "--matte": ["grey"], "--labels": ["Smiling", "age", "Happy=!Smiling"],
    "--where": ["Smiling=1", "age=20..25"], "--balance": ["Smiling"], "--holdout": ["0.2", "official", "0"],
    "--metrics": ["kid", "prdc", "memorisation", "diversity"], "--evaluate-metrics": ["kid", "prdc"],
    "--extractor": ["own.py:features"], "--evaluate-extractor": ["own.py:features"], "--code": ["own.py"],
    "--keep-best": ["kid"], "--presets": ["quick", "quick,vae"], "--direction": ["component-1=2", "component-2=-1"],
    "--latent": ["z.safetensors"],
    "--preset": ["quick", "began-zhao-2020"], "PRESET": [*presets.PRESETS, "own.py:tiny"],
    "PACK": ["faces.pack", "plain.pack", "prepared.pack"],
    "FILE": ["drawn.png", "config.json", "model.safetensors"], "NAME": [*presets.PRESETS], "--diff": ["quick gan"],
    "--from": ["runs/00000-quick", "model.safetensors"], "--resume": ["auto", "never", "must", "runs/00000-quick"],
    "--host": ["127.0.0.1"], "--critic": ["junk.bin"], "--url": ["http://127.0.0.1:9/x.zip"], "--file": ["photos.zip"],
    "--sha256": ["0" * 64], "--sign": ["own.py"], "--push": ["me/mine"], "--save-latent": ["out/z.safetensors"],
    "--device": ["cpu"], "--model": ["runs/00000-quick"], "--evaluate-samples": ["8"], "--samples": ["8", "12"],
    "--threads": ["1"], "--workers": ["1"], "--minutes": ["0.01"], "--repeats": ["1"], "--frames": ["4", "9"],
    "--steps": ["1", "3"],
    "--images": ["16", "24"], "--size": ["16", "24"], "--enlarge": ["2"], "--port": ["0"], "--side": ["16", "32"],
    "--scale": ["0.5"],
    "--batch": ["4", "8"], "--zoom": ["1", "2"], "--unsupervised": ["2"], "--limit": ["5"], "--shard-size": ["3"],
}  # fmt: skip
OUTS = {
    "sample": ["out.png", "folder"], "walk": ["w.webp", "w.gif", "w.png", "w.mp4"], "export": ["o.onnx", "folder"],
    "import": ["i.safetensors"], "evaluate": ["e.json", "folder"], "compare": ["c.html", "folder"], "train": ["new-run"],
}  # fmt: skip
HOSTILE = [
    "", " ", "-1", "0", "1e308", "nan", "inf", "9" * 30, "None", "true", "../../x", "/dev/full/x", "a" * 5000, "\x00",
    "é\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "=", ",", ":", "1=1=1", "0-", "5-1", "-", "--", "%s", "{}", "hf://", "hf://a/b", "faces", "own.py:none", "*",
    "junk.bin", "empty",
    "deep.json", "cut.safetensors", "fifo", "photos", "runs", "runs/00000-quick/run.json", "faces.pack/pack.json", ".", "/", "~",
    "-0.5", "1/2", "0x10", "1_000", "٣", "1e-400", "255.255.255.255", "caf\udce9.png",
]  # fmt: skip


class Flag(NamedTuple):
    """One flag of a verb, as its parser sees it."""

    name: str
    hint: Any
    default: Any
    required: bool
    positional: bool


@cache
def flags(verb: str, preset: str = "quick") -> tuple[Flag, ...]:
    """The real table of a verb's flags; those of `train` depend on the preset."""
    module, name = VERBS[verb].target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    if VERBS[verb].dynamic_flags:
        function, _ = function([preset])
    found = []
    for argument in app_of(function, verb).assemble_argument_collection(parse_docstring=True):
        if argument.show:
            default = argument.field_info.default
            names = argument.names
            positional = not names[0].startswith("-")
            found.append(Flag(names[0], argument.hint, default, argument.required, positional))
    return tuple(found)


def kinds(hint: Any) -> Iterator[Any]:
    """The types inside a hint, `None` left out."""
    if get_origin(hint) in (Union, types.UnionType, collections.abc.Sequence, tuple):
        for part in get_args(hint):
            if part not in (type(None), ...):
                yield from kinds(part)
    else:
        yield hint


def value(rng: random.Random, verb: str, flag: Flag) -> list[str]:
    """Words of the right kind for a flag."""
    if flag.name == "--out":
        return [rng.choice(OUTS.get(verb, ["out.png", "folder"]))]
    if verb == "data prepare" and flag.name == "PACK":
        return ["new.pack"] if rng.random() < 0.8 else ["new.zip"]
    if verb == "explore" and flag.name == "--port":
        return ["0"]
    if flag.name in POOL:
        return rng.choice(POOL[flag.name]).split(" ")
    hint = next(kinds(flag.hint))
    if get_origin(hint) is Literal:
        return [str(rng.choice(get_args(hint)))]
    number = flag.default if isinstance(flag.default, int | float) and not isinstance(flag.default, bool) else 2
    if hint is int:
        return [str(rng.choice([min(number, 16), 1, 2, 4]))]
    if hint is float:
        return [str(rng.choice([number, number / 2, 0.5, 1.0]))]
    return [rng.choice(["a", "x.png", "photos"])]


def command(rng: random.Random) -> list[str]:
    """A command line: valid by kind in half of the cases, with one to three faults in the others."""
    verb = rng.choice(
        [v for v in VERBS if v != "doctor"] + ["train", "sample", "walk", "edit", "data prepare", "doctor"]
    )
    preset = rng.choice(list(RUNS) if rng.random() < 0.7 else list(presets.PRESETS))
    table = flags(verb, preset)
    parts: list[list[str]] = []
    for flag in table:
        if flag.positional and (flag.required or rng.random() < 0.9):
            words = [preset] if flag.name == "PRESET" else value(rng, verb, flag)
            parts.append(words)
            if get_origin(flag.hint) is tuple and rng.random() < 0.3:
                parts.append(value(rng, verb, flag))
        elif not flag.positional and (flag.required or rng.random() < min(0.3, 2.5 / len(table))):
            name = flag.name
            if flag.hint is bool:
                parts.append([name])
            else:
                parts.append([name, *value(rng, verb, flag)])
    present = {part[0] for part in parts}
    if verb == "train":
        parts += [
            part.split(" ")
            for part in ("--data plain.pack", "--images 16", "--batch 8")
            if part.split(" ")[0] not in present
        ]
        if preset in RUNS:
            cut = kills.cut_down(presets.find(preset)[0])
            parts += [[a, b] for a, b in zip(cut[::2], cut[1::2], strict=True) if a not in present]
        parts += [] if "--out" in present or "--resume" in present else [["--out", "new-run"]]
    if verb in ("project", "edit", "walk") and "--steps" not in present and rng.random() < 0.8:
        parts.append(["--steps", "2"])
    if verb == "walk" and "--frames" not in present:
        parts.append(["--frames", "5"])
    if verb == "explore":
        parts.append(["--no-browser"])
    if verb == "evaluate" and "--extractor" not in present:
        parts.append(["--extractor", "own.py:features"])
    parts = fit(rng, verb, parts)
    if rng.random() < 0.5:
        for _ in range(rng.choice([1, 1, 2, 3])):
            spoil(rng, verb, table, parts)
    words = [word for part in parts for word in part]
    return [*verb.split(" "), *words, *(["--json"] if rng.random() < 0.2 else [])]


#: Flags of a verb that say nothing without others, or that the sandbox cannot serve: they come in as faults.
UNFIT: dict[str, str] = {
    "sample": "--density --sign", "walk": "--density --sign --mirror", "project": "--lpips --sign --shard-size --format",
    "edit": "--sign --latent", "export": "--sign --push", "evaluate": "--density", "benchmark": "--baseline",
    "data fetch": "--url --sha256 --file", "import": "--critic --preset --out",
    "train": "--resume --patience --keep-best --track --from --balance-labels", "compare": "--code",
}  # fmt: skip


def fit(rng: random.Random, verb: str, parts: list[list[str]]) -> list[list[str]]:
    """A command line whose words fit each other: what the model, the data and the other flags allow."""
    places, chosen = [part for part in parts if part[0][:2] != "--"], {p[0]: p for p in parts if p[0][:2] == "--"}

    def drop(*names: str) -> None:
        for name in names:
            chosen.pop(name, None)

    def put(name: str, *words: str) -> None:
        chosen[name] = [name, *words]

    drop(*UNFIT.get(verb, "").split())
    match verb:
        case "sample" | "walk" | "project" | "edit" | "export" | "directions" | "evaluate":
            if "--strip" in chosen:
                put("--strip", "3")
            if verb == "evaluate" and {"--fake", "--real"} & chosen.keys():
                fake = rng.choice([["photos"], ["lines"]])
                put("--real", "photos"), put("--fake", *fake)
                drop("--data", "--split", "--prior", "--density", "--code")
                places = []
            elif not places:
                places = [["runs/00001-cgan"]]
            model = places[0][0] if places else ""
            if model in ("faces", "model.safetensors") and verb in ("evaluate", "directions"):
                model = places[0][0] = "runs/00001-cgan"
            if verb == "edit":
                model = places[0][0] = rng.choice(MODELS[:2])
                put("--direction", rng.choice(POOL["--direction"]))
                if rng.random() < 0.5:
                    drop("--photo", "--steps", "--crop")
                    put("--seed", "5")
                else:
                    drop("--seed")
                    put("--photo", rng.choice(PHOTOS[:2]))
            drop("--prior") if model not in ("runs/00002-vae", "runs/00003-flow") else None
            if model not in LABELLED:
                drop("--label", "--label-from", "--label-to", "--combine")
            if model not in STYLED:
                drop("--style")
            if "flow" not in model:
                drop("--solver", "--guidance")
            if "cppn" not in model or verb == "export":
                drop("--size")
            if "--data" in chosen and verb in ("sample", "walk"):
                drop("--data")
            if verb == "directions":
                model = places[0][0] = rng.choice(MODELS[:2]) if len(chosen) < 2 else model
                if "--data" in chosen:
                    drop("--unsupervised", "--measured")
                    put("--data", "faces.pack")
                    put("--labels", "Smiling,Male") if "--labels" in chosen else None
                else:
                    drop("--labels", "--disentangle", "--images", "--split")
        case "compare":
            places = [[run] for run in rng.sample(MODELS[: len(RUNS)], 2)]
            put("--force")
            put("--out", "c.html") if "--out" in chosen else None
            put("--extractor", "own.py:features") if "--evaluate" in chosen else drop("--extractor", "--samples")
        case "benchmark":
            put("--extractor", "own.py:features")
            put("--metrics", rng.choice(["kid", "memorisation", "prdc"]))
            put("--samples", "12")
        case "data info":
            places = [["prepared.pack"]]
        case "data prepare":
            drop("--eye-distance", "--eye-height", "--max-outside")  # noise has no faces
            put("--crop", rng.choice(["squash", "center", "resize-center"])) if "--crop" in chosen else None
            drop("--variants") if "--dedupe" in chosen else None
            labelled = places and places[0][0] == "faces.pack"
            drop(
                "--box",
                "--background",
                "--matte",
                *([] if labelled else ["--labels", "--where", "--balance", "--holdout"]),
            )
            if labelled:
                drop("--where", "--size")
                put("--labels", "Smiling") if "--labels" in chosen else None
                put("--holdout", "0.2") if "--holdout" in chosen else None
        case "data fetch":
            places = []
            drop("--out", "--accept-licence")
        case "import":
            places = [["config.json"]]
        case "cite":
            places = [[rng.choice([*MODELS[: len(RUNS)], *presets.PRESETS])]]
        case "verify":
            places = [["drawn.png"]]
        case "doctor":
            places = [[rng.choice(MODELS[: len(RUNS)])]] if chosen.keys() - {"--device"} else places[:0]
        case "explore":
            drop("--browser")
            put("--base-path", "/mine") if "--base-path" in chosen else None
            put("--allow-host", "faces.example") if "--allow-host" in chosen else None
        case "train":
            drop("--data.split") if "--data" in chosen else None
            if chosen.keys() & {"--evaluate-every", "--evaluate-metrics", "--evaluate-extractor", "--evaluate-samples"}:
                put("--evaluate-every", "8")
                put("--evaluate-extractor", "own.py:features")
                put("--evaluate-metrics", rng.choice(["kid", "prdc", "memorisation"]))
                put("--evaluate-samples", "8")
    match verb:
        case "sample":
            if chosen.get("--format", [""])[-1] in ("tar", "parquet") or "--shard-size" in chosen:
                put("--format", "tar"), put("--out", "folder")
                drop("--combine", "--columns", "--enlarge")
            if "--combine" in chosen:
                drop("--columns")
            if chosen.get("--out", [""])[-1] == "folder":
                drop("--combine", "--columns", "--enlarge")
        case "walk":
            drop("--shard-size") if "--format" not in chosen else put("--out", "folder")
            if "--photos" in chosen:
                put("--photos", "photos/001.png"), chosen["--photos"].append("photos/000.jpg")
                drop("--seeds", "--prior", "--pairs", "--format", "--shard-size", "--label-from", "--label-to")
            else:
                drop("--crop", "--steps")
            if len(chosen.get("--seeds", ["", "0-3"])[-1]) < 3:
                put("--seeds", "0-3")
            if {"--pairs", "--columns"} & chosen.keys():
                put("--out", "w.png")
                drop("--fps", "--loop", "--format", "--shard-size")
            if {"--label-from", "--label-to"} & chosen.keys():
                put("--label-from", "Smiling=0"), put("--label-to", "Smiling=1")
                drop("--label")
            if chosen.get("--out", [""])[-1].endswith(".png"):
                drop("--fps", "--loop")
        case "project":
            places = [*places[:1], [rng.choice(["photos/001.png", "photos/000.jpg"])]]
            put("--out", "out.png")
        case "edit":
            put("--out", "out.png")
    return [*places, *chosen.values()]


def spoil(rng: random.Random, verb: str, table: Sequence[Flag], parts: list[list[str]]) -> None:
    """One fault in a command line."""
    parts[:] = [part for part in parts if part]
    match rng.choice(["value", "value", "value", "flag", "cut", "twice", "unknown", "word", "order"]):
        case "value" if parts:
            part = rng.choice(parts)
            part[-1] = rng.choice(HOSTILE)
        case "flag":
            flag = rng.choice(table)
            words = [rng.choice(HOSTILE)] if rng.random() < 0.5 else value(rng, verb, flag)
            parts.append([flag.name, *words] if not flag.positional else words)
        case "cut" if parts:
            rng.choice(parts).pop()
        case "twice" if parts:
            parts.append(list(rng.choice(parts)))
        case "unknown":
            parts.append([rng.choice(["--nope", "--Out", "-x", "--model.nope", "--=", "---"]), "1"])
        case "order":
            rng.shuffle(parts)
        case _:
            parts.append([rng.choice(HOSTILE)])


def few() -> None:
    """Fixtures of two runs instead of five, and on mutated files the verbs that take no second, for an excerpt."""
    quick = (
        "doctor",
        "sample",
        "compare",
        "cite",
        "walk",
        "evaluate",
        "export RUN --to hub",
        "edit",
        "data",
        "project",
    )
    for lines in (ON_RUN, ON_MODEL, ON_PACK, ON_SOURCE):
        lines[:] = [line for line in lines if line.startswith(quick)]
    for preset in list(RUNS)[2:]:
        del RUNS[preset]
    MODELS[2:5] = []
    observers.plot_run, framing.SEEDS = lambda run_dir: [], range(6)  # a second and a half each


# Mutations of files

VALUES: list[Any] = [
    None, True, -1, 0, 2**63, 10**18, 1e308, float("nan"), float("inf"), -0.0, "", "x", "../../x", "/etc/passwd",
    "\ud800", "a" * 10_000,
    [], {}, [[]], [None], {"": None}, "<script>", "\x00", [1] * 1000, "nan", 1.5, {"kind": "evil"}, "own.py:tiny",
    b"\xff".decode("latin1"),
]  # fmt: skip


def spots(document: Any) -> list[tuple[Any, Any]]:
    """Every place of a document, as its container and key."""
    found: list[tuple[Any, Any]] = []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, item in items:
        found += [(document, key), *spots(item)]
    return found


def mutate(rng: random.Random, document: Any) -> Any:
    """A document with one to three changes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = spots(document)
        if not places or rng.random() < 0.04:
            return copy.deepcopy(rng.choice(VALUES))
        container, key = rng.choice(places)
        match rng.choice(["value", "value", "value", "delete", "add", "swap", "number"]):
            case "delete":
                del container[key]
            case "add" if isinstance(container, dict):
                container[rng.choice(["kind", "x", "", "seen", "a" * 300])] = copy.deepcopy(rng.choice(VALUES))
            case "swap":
                other, place = rng.choice(places)
                if isinstance(other, dict | list) and (
                    place in other if isinstance(other, dict) else place < len(other)
                ):
                    container[key] = other[place] if not isinstance(other[place], dict | list) else None
            case "number" if isinstance(container[key], int | float):
                container[key] = rng.choice([-container[key], container[key] * 1000, container[key] + 1, 10**9, 0, 0.5])
            case _:
                container[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def spoiled_text(rng: random.Random, text: bytes) -> bytes:
    """Bytes with a fault that no JSON writer makes."""
    place = rng.randrange(len(text) + 1)
    return rng.choice(
        [b"", text[:place], text[:place] + rng.randbytes(3) + text[place:], DEEP.encode(), b"\xff\xfe" + text, text * 2,
        text[place:], b"5", b"[]", b"null"]
    )  # fmt: skip


def reseal(folder: Path) -> None:
    """A manifest whose sums fit what lies beside it, so that what reads further is reached."""
    file = folder / "MANIFEST.json"
    if not all(path.is_file() for path in folder.iterdir()):  # a FIFO would be waited for
        return
    try:
        manifest = json.loads(file.read_text())
        for name in manifest["files"]:
            content = (folder / name).read_bytes()
            manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["seal"] = checkpoint.seal(manifest)
        file.write_text(json.dumps(manifest))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass


def change_file(rng: random.Random, path: Path) -> None:
    """Mutate one file of mien's in its own format."""
    if rng.random() < 0.03:
        path.unlink()
        rng.choice([lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(path.name)])()
        return
    content = path.read_bytes()
    if rng.random() < 0.15:
        path.write_bytes(spoiled_text(rng, content))
        return
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            header = json.loads((file.metadata() or {}).get("mien", "{}"))
        if rng.random() < 0.25 and tensors:  # its tensors
            name = rng.choice(sorted(tensors))
            tensor = tensors.pop(name)
            changed = [tensor.flatten()[:1], tensor[None], tensor.double(), tensor.long(), tensor * float("nan")]
            tensors |= {rng.choice([name, name, "x"]): rng.choice(changed).contiguous()}
        else:
            header = mutate(rng, header)
        save_file(tensors, path, {"mien": json.dumps(header)})
    elif path.suffix == ".jsonl":
        lines = content.decode().splitlines()
        for _ in range(rng.choice([1, 2, len(lines)])):
            row = rng.randrange(len(lines))
            lines[row] = json.dumps(mutate(rng, json.loads(lines[row]))) if lines[row][:1] == "{" else "5"
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix in (".csv", ".txt"):
        cells = content.decode().split(",")
        cells[rng.randrange(len(cells))] = str(rng.choice(VALUES)).encode("utf-8", "replace").decode()
        path.write_text(",".join(cells))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            document = mutate(rng, json.loads(archive.read("dataset.json")))
            archive.writestr(rng.choice(["dataset.json", "x/dataset.json"]), json.dumps(document))
    elif path.suffix == ".png":
        recipe = {"model": "x", "seeds": [0], "verb": "sample"}
        from PIL.PngImagePlugin import PngInfo

        from mien.report.grid import read_recipe

        text = PngInfo()
        text.add_text("mien", json.dumps(mutate(rng, read_recipe(path) or recipe)))
        Image.open(path).save(path, pnginfo=text)
    else:
        path.write_text(json.dumps(mutate(rng, json.loads(content))))


#: What is mutated, and the command lines that read it: RUN is the run of the file, FILE the file.
ON_RUN = [
    "doctor RUN", "doctor RUN --strict", "sample RUN --seeds 0-3", "compare RUN runs/00000-quick -o c", "cite RUN",
    "train --resume RUN", "evaluate RUN --samples 8 --metrics kid,memorisation --extractor own.py:features",
    "export RUN --to hub -o hub",
    "export RUN --to onnx -o o.onnx", "project RUN photos/001.png --steps 1", "edit RUN --direction component-1=1",
    "directions RUN --unsupervised 2",
    "train quick --from RUN --data plain.pack --images 16 --out new-run", "sample RUN --prior fitted --seeds 0-3",
    "walk RUN --seeds 0,1 --frames 3",
    "directions RUN --data faces.pack --images 16", "export RUN --to web -o page", "explore RUN --no-browser --port 0",
]  # fmt: skip
ON_PACK = ["data info faces.pack", "train cgan --data faces.pack --images 16 --batch 8 --out new-run",
"data prepare faces.pack new.pack --size 8",
           "data check faces.pack", "directions runs/00001-cgan --data faces.pack --images 16", "data prepare faces.pack new.zip",
           "evaluate runs/00001-cgan --data faces.pack --samples 8 --metrics kid --extractor own.py:features"]  # fmt: skip
ON_MODEL = [line.replace("RUN", "FILE") for line in ON_RUN if "resume" not in line and "compare" not in line]
ON_SOURCE = [
    "data check SOURCE",
    "data prepare SOURCE new.pack --size 16",
    "train --data SOURCE --side 16 --images 16 --batch 4 --out new-run",
]
TARGETS: list[tuple[str, list[str]]] = [
    *((f"runs/*/{name}", ON_RUN) for name in (
        "run.json", "run.json", "status.json", "data.json", "env.json", "health.json", "health.jsonl", "metrics.jsonl",
        "eval/during.jsonl",
        "checkpoints/*/MANIFEST.json", "checkpoints/*/state.json", "checkpoints/*/model.safetensors",
        "checkpoints/*/state.safetensors",
        "checkpoints/BEST", "encodings.json", "scores/*.json", "eval/*.json")),
    ("runs/*/extras/*.safetensors", ["edit runs/00000-quick --direction component-1=1", "doctor runs/00000-quick",
    "directions runs/00000-quick --unsupervised 2",
                                     "sample runs/00000-quick --seeds 0-3", "explore runs --no-browser --port 0",
                                     "export runs/00000-quick --to web -o page"]),
    ("faces.pack/pack.json", ON_PACK), ("faces.pack/index.csv", ON_PACK), ("model.safetensors", ON_MODEL),
    ("z.safetensors", ["edit runs/00000-quick --latent z.safetensors --direction component-1=1"]),
    ("config.json", ["import config.json -o imported"]), ("drawn.png", ["verify drawn.png --model runs/00000-quick",
    "verify drawn.png"]),
    ("photos.zip", [line.replace("SOURCE", "photos.zip") for line in ON_SOURCE]),
    ("lines/metadata.jsonl", [line.replace("SOURCE", "lines") for line in ON_SOURCE]),
    ("photos/labels.csv", [line.replace("SOURCE", "photos") for line in ON_SOURCE]),
    ("table.csv", [line.replace("SOURCE", "table.csv") for line in ON_SOURCE]),
    ("shards/*.json", ["sample runs/00000-quick --seeds 0-9 --format tar --shard-size 5 -o shards", "data check shards"]),
    ("control", []), ("owner", []),
]  # fmt: skip


def change(rng: random.Random, number: int) -> list[str]:
    """Mutate one file in the working directory, each kind in turn; the command line that reads it."""
    present = [(p, c) for p, c in TARGETS if p in ("control", "owner") or any(Path().glob(p))]
    pattern, lines = present[number % len(present)]
    if pattern in ("control", "owner"):
        document = (
            {"request": "save", "id": 1}
            if pattern == "control"
            else {"pid": 1, "host": os.uname().nodename, "since": "x"}
        )
        run = Path(rng.choice(MODELS[: len(RUNS)]))
        text = json.dumps(mutate(rng, document)).encode()
        (run / f"{pattern}.json").write_bytes(spoiled_text(rng, text) if rng.random() < 0.2 else text)
        return resume(run) if rng.random() < 0.7 else ["doctor", str(run)]
    path = rng.choice(sorted(Path().glob(pattern)))
    change_file(rng, path)
    if "checkpoints/" in pattern and path.suffix and rng.random() < 0.7:
        reseal(path.parent)
    words = rng.choice(lines).replace("FILE", str(path)).split(" ")
    run = Path(*path.parts[:2])
    if words[:2] == ["train", "--resume"]:
        return resume(run)
    return [str(run) if word == "RUN" else word for word in words]


def resume(run: Path) -> list[str]:
    """The command that goes on with a run of `build`."""
    preset = run.name.partition("-")[2]
    line = [
        "train",
        preset,
        *kills.cut_down(presets.find(preset)[0]),
        *TINY.split(),
        "--data",
        RUNS.get(preset, "plain.pack"),
    ]
    more = ["--conditional"] if preset == "flow" else []
    return [*line, *more, "--images", "80", "--resume", str(run)]


# Requests


class Query(NamedTuple):
    """One request."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


WORDS = {
    "at": ["42", "42,0.25,0.5", "42~7:0.3", "1"], "drag": ["a"], "label": ["Smiling:1"], "direction": ["component-1:2"],
    "truncation": ["0.7"], "layers": ["fine", "2-3"], "quick": ["0", "1"],
    "style": ["3:fine"], "size": ["16"], "first": ["0"], "count": ["4"], "columns": ["2"], "strength": ["0.5"],
    "frames": ["4"], "fps": ["12"],
    "loop": ["0", "1"], "format": ["webp", "gif"], "zoom": ["2"], "solver": ["euler:2"], "guidance": ["2"],
    "align": ["0"], "steps": ["2"],
    "request": ["save", "pause", "stop", "resume"], "minutes": ["-1", "0.1", "5"], "photographs": ["0", "1"],
    "from": ["", "faces", "runs/00000-quick"], "name": ["mine"],
}  # fmt: skip


def query(rng: random.Random, routes: Sequence[Any], ids: dict[str, list[str]], own: str, token: str) -> Query:
    """A request to one of the routes: half with values of the right kind."""
    route, valid = rng.choice(routes), rng.random() < 0.5
    path = route.path
    for name, kind in (("{id:str}", "model" if "/model/" in path else "run"), ("{seen:int}", "seen")):
        if name in path:
            known = ids[kind] if valid or rng.random() < 0.7 else HOSTILE
            word = rng.choice(known or ["x"])
            path = path.replace(name, quote(word, safe="", errors="surrogateescape") or "x")
    pairs: list[tuple[str, Any]] = []
    for name in route.parameters:
        if rng.random() < 0.4:
            words: list[Any] = WORDS[name] if valid or rng.random() < 0.4 else [*HOSTILE, *VALUES]
            pairs.append((name, rng.choice(words)))
    if not valid and rng.random() < 0.2:
        pairs.append((str(rng.choice(["x", "at", "size", ""])), rng.choice(HOSTILE)))
    method = route.method if valid or rng.random() < 0.9 else rng.choice(["GET", "POST", "PUT", "HEAD", "OPTIONS", "X"])
    headers = {"Origin": own} if valid or rng.random() < 0.9 else {}
    if route.needs_token and (valid or rng.random() < 0.8):
        headers["Authorization"] = f"Bearer {token}"
    body = None
    if method == "POST":
        body = rng.choice(
            [
                Path("photos/001.png").read_bytes(),
                Path("photos/000.jpg").read_bytes(),
                Path("junk.bin").read_bytes(),
                b"",
            ]
        )
        if not route.path.endswith(("/project", "/photographs")):
            body = (
                json.dumps(dict(pairs)).encode()
                if rng.random() < 0.8
                else spoiled_text(rng, json.dumps(dict(pairs)).encode())
            )
            pairs = []
    text = "&".join(f"{quote(str(k), errors='replace')}={quote(str(v), errors='replace')}" for k, v in pairs)
    return Query(method, f"{path}?{text}" if text else path, body, headers)
