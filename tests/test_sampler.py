"""Drawing: a face depends on its seed alone; a file that is not a model is refused before anything is built from it."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien import presets
from mien.__main__ import main
from mien.cli.arguments import parse_seeds
from mien.core.contracts import JSON
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import to_json
from mien.data.pack import Pack
from mien.errors import DataError, MienError, Mismatch, Untrusted, UsageError
from mien.models.cppn import PIECE, Painter
from mien.nn.priors import MAX_SEED, positions
from mien.sampling.chunks import CHUNK
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny

RUN = tiny(presets.PRESETS["dcgan-2015"])
HEADER: JSON = {
    "format": 1,
    "preset": "dcgan-2015",
    "config": to_json(RUN.model),
    "faces": {"side": 16, "channels": 3, "label_dim": 0},
    "data": {"fingerprint": "f", "count": 3},
    "run_fingerprint": "r",
}


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = presets.build_model(HEADER, presets.KINDS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 1.0)
    return model.state_dict()


def write(path: Path, header: Mapping[str, Any] = HEADER, weights: Mapping[str, Tensor] | None = None) -> Path:
    path.write_bytes(checkpoint.pack_tensors(weights or tensors(), dict(header)))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def sampler(file: Path) -> Sampler:
    return Sampler.load(file, device="cpu")


# Seeds


def test_a_face_depends_on_its_seed_alone(sampler: Sampler) -> None:
    """To the bit: alone, in any order, at any place of a batch, at any size of it."""
    seeds = [42, 0, 7, MAX_SEED, *range(100, 100 + 2 * CHUNK)]
    together = sampler.sample(seeds)
    assert together.shape == (len(seeds), 3, 16, 16) and together.dtype == torch.float32
    assert together.abs().max() <= 1.0 and together.std() > 0.1
    rng = random.Random(0)
    for count in (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, len(seeds)):
        for _ in range(4):
            some = rng.sample(range(len(seeds)), count)
            assert torch.equal(sampler.sample([seeds[i] for i in some]), together[some])
    assert len({face.numpy().tobytes() for face in together}) == len(seeds)


@pytest.mark.parametrize("preset", ["cppn-2016", "cppn-residual-2016"])
def test_a_painter_paints_no_face_in_vain(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One face at a time, equal to the bit in any batch, at any size, a bounded number of pixels at once."""
    config = tiny(presets.PRESETS[preset]).model
    header = {**HEADER, "preset": preset, "config": to_json(config)}
    torch.manual_seed(0)
    weights = presets.build_model(header, presets.KINDS).state_dict()
    sampler = Sampler.load(write(tmp_path / "model.safetensors", header, weights), device="cpu")
    large = sampler.with_options(DrawOptions(size=150))
    painted: list[tuple[int, int]] = []
    paint = Painter.paint

    def counted(painter: Painter, x: Tensor) -> Tensor:
        painted.append((x.shape[0], x.shape[1]))
        return paint(painter, x)

    monkeypatch.setattr(Painter, "paint", counted)
    alone = large.sample([42])
    assert sum(rows * pixels for rows, pixels in painted) == 150 * 150
    assert all(rows * pixels <= PIECE for rows, pixels in painted) and len(painted) == 2
    for each, seeds in ((large, [7, 42, 3]), (sampler, [*range(CHUNK), 42])):
        together = each.sample(seeds)
        assert torch.equal(together[seeds.index(42)], alone[0] if each is large else sampler.sample([42])[0])
        assert len({face.numpy().tobytes() for face in together}) == len(seeds)
    assert torch.equal(large.preview(large.latents([42])), alone)


def test_drawing_leaves_the_random_state(sampler: Sampler) -> None:
    state = torch.get_rng_state()
    sampler.sample(range(3))
    list(sampler.walk([1, 2], 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_to_draw(sampler: Sampler) -> None:
    assert sampler.sample([]).shape == (0, 3, 16, 16)


def test_truncation_scales_the_latents(sampler: Sampler) -> None:
    z = sampler.latents([1, 2])
    assert torch.equal(sampler.with_options(DrawOptions(truncation=0.5)).decode(z), sampler.decode(z * 0.5))
    assert torch.equal(sampler.sample([1, 2], truncation=0.5), sampler.decode(z * 0.5))
    mean = sampler.sample([1, 2, 3], truncation=0.0)
    assert torch.equal(mean[0], mean[1]) and torch.equal(mean[0], mean[2])
    spread = [float(sampler.sample(range(16), truncation=t).std(0).mean()) for t in (0.2, 0.5, 1.0)]
    assert spread == sorted(spread)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="truncation"):
            sampler.sample([1], truncation=bad)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**80])
def test_impossible_seeds(sampler: Sampler, seed: int) -> None:
    with pytest.raises(UsageError, match="not a valid seed"):
        sampler.sample([seed])


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_other_precisions_draw_nearly_the_same(file: Path, sampler: Sampler, precision: Any) -> None:
    other = Sampler.load(file, device="cpu", precision=precision).sample(range(4))
    assert other.dtype == torch.float32
    assert (other - sampler.sample(range(4))).abs().mean() < (0.02 if precision == "bf16" else 1e-5)


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (["42"], [42]),
        (["0-3"], [0, 1, 2, 3]),
        (["3,42,7"], [3, 42, 7]),
        (["3", "42", "7-8"], [3, 42, 7, 8]),
        (["1,", ",2"], [1, 2]),
        (["5-5"], [5]),
        (["007"], [7]),
        ([str(MAX_SEED)], [MAX_SEED]),
        ([], []),
    ],
)
def test_parse_seeds(words: list[str], seeds: list[int]) -> None:
    assert parse_seeds(words) == seeds


@pytest.mark.parametrize(
    "word",
    ["x", "-1", "1-", "5-2", "1.5", "1e3", "²", "٣", "1--2", " 1", str(MAX_SEED + 1), f"0-{MAX_SEED}", "9" * 5000],
)
def test_words_that_are_no_seeds(word: str) -> None:
    with pytest.raises(UsageError):
        parse_seeds([word])


# Walks


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("frames", [5, 7, 20])
@pytest.mark.parametrize("stops", [[3, 42], [3, 42, 7], [3, 42, 7, 9, 1]])
def test_a_walk_meets_each_seed_exactly(sampler: Sampler, stops: list[int], frames: int, loop: bool) -> None:
    walked = list(sampler.walk(stops, frames, loop=loop))
    assert len(walked) == frames
    assert torch.equal(walked[0], sampler.sample(stops[:1])[0])
    at = [next(i for i, frame in enumerate(walked) if torch.equal(face, frame)) for face in sampler.sample(stops)]
    assert at == sorted(at) and len(set(at)) == len(stops)
    assert loop or at[-1] == frames - 1


def test_a_walk_is_even(sampler: Sampler) -> None:
    line = positions(3, 61, loop=False)
    steps = [b - a for a, b in pairwise(line)]
    assert line[0] == 0.0 and line[30] == 1.0 and line[-1] == 2.0 and max(steps) - min(steps) < 1e-9
    assert positions(3, 4, loop=True) == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(("stops", "frames"), [([3], 5), ([], 5), ([3, 4], 1), ([3, 4, 5], 2), ([3, 4], 10**9)])
def test_impossible_walks(sampler: Sampler, stops: list[int], frames: int) -> None:
    with pytest.raises(UsageError):
        list(sampler.walk(stops, frames))
    with pytest.raises(UsageError):
        list(sampler.walk(stops, frames, loop=True))


# Files that are not what they say


def altered(**changes: Any) -> JSON:
    return {**HEADER, **changes}


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "zip": b"PK\x03\x04" + bytes(64),
    "length of 2^63": b"\xff" * 8 + b"{}",
    "json": b'{"a": 1}',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_untrusted(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(FOREIGN[name])
    with pytest.raises(Untrusted):
        Sampler.load(tmp_path / "model.safetensors", device="cpu")
    assert main(["sample", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "x.png")]) == 8


def test_safetensors_of_another_program_are_untrusted(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(checkpoint.pack_tensors(tensors()))
    with pytest.raises(Untrusted, match="not a model file of mien"):
        Sampler.load(path)
    for header in ({}, {"config": 5}, {"config": {}}, [1, 2]):
        path.write_bytes(checkpoint.pack_tensors(tensors(), header))  # type: ignore[arg-type]
        with pytest.raises((Untrusted, Mismatch)):
            Sampler.load(path)


def test_every_cut_and_many_flips_are_found_or_harmless(tmp_path: Path, file: Path) -> None:
    """A model outside of its checkpoint has no manifest: a flipped weight is a weight, but nothing may crash or hang."""
    content, path, rng = file.read_bytes(), tmp_path / "model.safetensors", random.Random(0)
    for _ in range(60):
        path.write_bytes(content[: rng.randrange(len(content))])
        with pytest.raises(Untrusted):
            Sampler.load(path, device="cpu")
    length = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for _ in range(250):
        flipped = bytearray(content)
        flipped[rng.randrange(length)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            Sampler.load(path, device="cpu").sample([1])
        except MienError as error:
            assert error.exit_code in (2, 8, 9), error
            refused += 1
    assert refused > 150


def test_numbers_that_are_not_finite_are_untrusted(tmp_path: Path) -> None:
    weights = tensors()
    next(iter(weights.values())).view(-1)[0] = float("nan")
    with pytest.raises(Untrusted, match="NaN or infinity"):
        Sampler.load(write(tmp_path / "m.safetensors", HEADER, weights))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {**HEADER["config"], "kind": "Popen"}},
        {"config": {**HEADER["config"], "evil": 1}},
        {"config": {**HEADER["config"], "width": 8}},
        {"config": {**HEADER["config"], "width": "4"}},
        {"config": {**HEADER["config"], "width": None}},
        {"config": {**HEADER["config"], "width": -4}},
        {"config": {**HEADER["config"], "latent": 1.5}},
        {"config": {"kind": "TorchGANConfig"}},
        {"config": []},
        {"config": "x"},
        {"faces": {"side": 16, "pixels": 3}},
        {"faces": {"side": "16"}},
        {"faces": {"side": 32, "channels": 3, "label_dim": 0}},
        {"faces": None},
        {"faces": 5},
    ],
    ids=str,
)
def test_headers_that_do_not_fit(tmp_path: Path, changes: JSON) -> None:
    path = write(tmp_path / "m.safetensors", altered(**changes))
    with pytest.raises((Mismatch, Untrusted, UsageError)):
        Sampler.load(path, device="cpu")


def test_a_path_without_a_model(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError):
            Sampler.load(path)


def test_the_hash_names_the_file(file: Path, sampler: Sampler) -> None:
    assert sampler.model_hash == checkpoint.file_hash(file) and len(sampler.model_hash) == 64
    assert sampler.metadata(truncation=1.0) == {
        "model": sampler.model_hash, "preset": "dcgan-2015", "synthetic": True, "truncation": 1.0,
    }  # fmt: skip


def test_the_model_that_learns_draws_what_its_file_will(tmp_path: Path, blob_pack: Pack) -> None:
    plan = ResolvedRun(RUN, blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs")
    learner = plan.initial_state(World())
    (tmp_path / "m.safetensors").write_bytes(learner.snapshot(plan.header).model)
    drawn = Sampler(learner.inference_model.eval(), plan.header, plan.context, "").sample(range(3))
    assert torch.equal(Sampler.load(tmp_path / "m.safetensors", device="cpu").sample(range(3)), drawn)


# Labels


CONDITIONAL = '''
from dataclasses import dataclass
import torch
from torch import nn
from mien import Model, ModelConfig, Recipe, RecipeConfig, Run
from mien.nn.priors import Normal

class Tinted(Model):
    """Grey noise, tinted by its labels."""
    def __init__(self, faces):
        super().__init__()
        self.latent_shape, self.prior, self.label_dim = (3,), Normal(), faces.label_dim
        self.faces = faces
        self.tint = nn.Linear(faces.label_dim, faces.channels)

    def decode(self, z, labels=None):
        level = 0.1 * z[:, :, None, None] + self.tint(labels)[:, :, None, None]
        return level.expand(-1, -1, self.faces.side, self.faces.side).tanh()

@dataclass(frozen=True, kw_only=True)
class TintedConfig(ModelConfig):
    def build(self, faces):
        return Tinted(faces)

@dataclass(frozen=True, kw_only=True)
class NothingConfig(RecipeConfig):
    def build(self, model, faces):
        raise NotImplementedError

PRESETS = {"tinted": Run(preset="tinted", model=TintedConfig(), recipe=NothingConfig(), conditional=True, side=8)}
'''


@pytest.fixture
def tinted(tmp_path: Path) -> tuple[Path, Path]:
    """A model that is told two labels, and its code."""
    code = tmp_path / "tinted.py"
    code.write_text(CONDITIONAL)
    loaded = presets.load_code(code)
    header = {
        "format": 1, "preset": "tinted", "config": {"kind": "TintedConfig"},
        "faces": {"side": 8, "channels": 3, "label_dim": 2}, "code": loaded.header,
        "labels": ["Hat", "Smiling"], "label_rows": [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
        "data": {"fingerprint": "f", "count": 3},
    }  # fmt: skip
    weights = {"tint.weight": torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), "tint.bias": torch.full((3,), -1.0)}
    return write(tmp_path / "tinted.safetensors", header, weights), code


def test_labels_are_drawn_from_the_data_by_seed(tinted: tuple[Path, Path]) -> None:
    file, code = tinted
    sampler = Sampler.load(file, device="cpu", code=code)
    rows = sampler.labels(range(300))
    assert rows is not None and {tuple(row) for row in rows.tolist()} == {(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)}
    alone = sampler.labels([17])
    assert alone is not None and torch.equal(alone[0], rows[17])  # a seed's labels, too, are its own
    assert torch.equal(sampler.sample([17, 3])[1], sampler.sample([3])[0])


def test_a_label_that_is_asked_for_is_given(tinted: tuple[Path, Path]) -> None:
    file, code = tinted
    sampler = Sampler.load(file, device="cpu", code=code)
    without, with_hat = sampler.sample(range(9), {"Hat": 0.0}), sampler.sample(range(9), {"Hat": 1.0})
    assert (with_hat[:, 0].mean((1, 2)) > without[:, 0].mean((1, 2)) + 0.5).all()  # red for hats
    assert torch.equal(with_hat[:, 1], without[:, 1])  # and the smile stays what it was
    half = sampler.sample([0], torch.tensor([[0.5, 0.5]]))
    assert half[0, 0].mean() == pytest.approx(float(torch.tanh(0.1 * sampler.latents([0])[0, 0])), abs=1e-5)
    with pytest.raises(UsageError, match="Smiling"):
        sampler.sample([0], {"Smilling": 1.0})


def test_guidance_multiplies_what_labels_change(tinted: tuple[Path, Path]) -> None:
    file, code = tinted
    plain = Sampler.load(file, device="cpu", code=code)
    faces = plain.sample([0, 1], torch.tensor([[1.0, 0.5], [0.0, 0.5]])).atanh()
    nothing = plain.sample([0, 1], torch.full((2, 2), 0.5)).atanh()
    for scale in (0.0, 0.5, 1.0, 2.5):
        sampler = plain.with_options(DrawOptions(guidance=scale))
        found = sampler.sample([0, 1], torch.tensor([[1.0, 0.5], [0.0, 0.5]])).atanh()
        assert torch.allclose(found, nothing + scale * (faces - nothing), atol=1e-4), scale
        assert sampler.options.metadata == {"guidance": scale}


def test_a_model_has_a_guidance_of_its_own(tinted: tuple[Path, Path]) -> None:
    file, code = tinted
    sampler = Sampler.load(file, device="cpu", code=code)
    asked = {scale: sampler.with_options(DrawOptions(guidance=scale)).sample([3], {"Hat": 1.0}) for scale in (1.0, 2.0)}
    sampler.model.guidance = 2.0
    assert torch.equal(sampler.sample([3], {"Hat": 1.0}), asked[2.0])
    one = sampler.with_options(DrawOptions(guidance=1.0))  # what is asked for replaces it
    assert torch.equal(one.sample([3], {"Hat": 1.0}), asked[1.0])
    image, row = asked[2.0], torch.tensor([[1.0, 0.0]])
    found = sampler.invert(image, steps=200, restarts=2, labels=row)  # and latents are found under it
    assert (sampler.decode(found.latents, row) - image).abs().mean() < 0.02


def test_labels_on_the_command_line(
    tinted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mien.report.grid import read_recipe

    file, code = tinted
    line = ["sample", str(file), "--code", str(code), "--seeds", "0-3", "-o", str(tmp_path / "grid.png")]
    assert main([*line, "--label", "Hat=1", "--label", "Smiling=0.5"]) == 0
    assert read_recipe(tmp_path / "grid.png")["labels"] == {"Hat": 1.0, "Smiling": 0.5}
    assert main([*line, "--label", "Hatt=1"]) == 2 and "Did you mean Hat?" in capsys.readouterr().err
    for bad in ("Hat", "Hat=2", "Hat=-1", "Hat=x", "Hat=nan", "=1"):
        assert main([*line, f"--label={bad}"]) == 2, bad
    walk = ["walk", str(file), "--code", str(code), "--seeds", "0", "1", "--frames", "3", "--label", "Hat=1"]
    assert main([*walk, "-o", str(tmp_path / "walk.png")]) == 0


def test_a_model_without_labels_refuses_them(sampler: Sampler) -> None:
    assert sampler.labels([1]) is None
    with pytest.raises(UsageError, match="no labels"):
        sampler.sample([1], {"Hat": 1.0})


def test_a_header_that_promises_labels_and_has_none(tinted: tuple[Path, Path], tmp_path: Path) -> None:
    file, code = tinted
    weights, header = checkpoint.read_model(file)
    for rows in (None, [], [[1.0]], "x", [None], [["x", 1.0, None]]):
        broken = (
            {**header, "label_rows": rows}
            if rows is not None
            else {k: v for k, v in header.items() if k != "label_rows"}
        )
        path = write(tmp_path / "broken.safetensors", broken, weights)
        with pytest.raises(MienError) as caught:
            Sampler.load(path, device="cpu", code=code).sample([0])
        assert caught.value.exit_code in (8, 9)


def test_code_is_never_run_unless_it_is_named(tinted: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    file, code = tinted
    before = set(sys.modules)
    with pytest.raises(UsageError, match=r"tinted\.py") as caught:
        Sampler.load(file, device="cpu")
    assert "--code tinted.py" in caught.value.remedy and set(sys.modules) == before
    code.write_text(CONDITIONAL + "# changed\n")
    Sampler.load(file, device="cpu", code=code)
    assert "has changed since" in capsys.readouterr().err


def test_headers_are_json_without_numbers_that_are_not(tinted: tuple[Path, Path]) -> None:
    _, header = checkpoint.read_model(tinted[0])
    assert json.loads(json.dumps(header)) == header


@pytest.mark.parametrize("name", [name for name, run in presets.PRESETS.items() if "width" in to_json(run.model)])
def test_a_header_of_a_huge_model_takes_no_memory(tmp_path: Path, name: str) -> None:
    """A width of a million is hundreds of terabytes: it is compared with the file's tensors before there is any."""
    run = tiny(presets.PRESETS[name])
    faces = {"side": 16, "channels": 3, "label_dim": 0}
    header = {**HEADER, "config": to_json(run.model), "faces": faces}
    try:
        weights = presets.build_model(header, presets.KINDS).state_dict()
    except UsageError:  # this one cannot make 16 px
        header["faces"] = {**faces, "side": 64}
        weights = presets.build_model(header, presets.KINDS).state_dict()
    path = write(tmp_path / "model.safetensors", header, weights)
    assert Sampler.load(path, device="cpu").sample([1]).shape[0] == 1
    huge = {key: 10**6 for key in ("width", "max_width") if key in header["config"]}
    write(path, {**header, "config": {**header["config"], **huge}}, weights)
    with pytest.raises(Mismatch, match="does not fit its own description") as caught:
        Sampler.load(path, device="cpu")
    assert "by its header" in caught.value.why
