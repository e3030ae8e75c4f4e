"""`mien import`: the original's networks become ours, and no file runs anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from mien import presets
from mien.cli.import_model import MODELS
from mien.errors import Untrusted
from mien.foreign import symbolic_pickle, weights
from mien.sampling.sampler import Sampler
from mien.storage.checkpoint import read_model
from tests.test_cli import PRINTED, call

# The original's networks, as its description gives them: in its order of layers, under its names.


def down(inputs: int, outputs: int, layers: int) -> list[nn.Module]:
    block: list[nn.Module] = []
    for _ in range(layers):
        block += [nn.Conv2d(inputs, inputs, 3, 1, 1), nn.ELU(True)]
    return [*block, nn.Conv2d(inputs, outputs, 1), nn.AvgPool2d(2, 2)]


def up(width: int, layers: int, transposed: bool) -> list[nn.Module]:
    block: list[nn.Module] = [nn.Conv2d(width, width, 1), nn.ELU(True)]
    for _ in range(layers):
        block += [nn.Conv2d(width, width, 3, 1, 1), nn.ELU(True)]
    if transposed:
        return [*block, nn.ConvTranspose2d(width, width, 4, 2, 1), nn.ELU(True)]
    return [*block, nn.UpsamplingNearest2d(scale_factor=2)]


class Encoder(nn.Module):
    def __init__(self, side: int, ndf: int, layers: int, hidden: int, exponential: bool) -> None:
        super().__init__()
        factor, blocks = 2, list[nn.Module]()
        self.conv1 = nn.Sequential(nn.Conv2d(3, ndf, 3, 1, 1), nn.ELU(True), nn.Sequential(*down(ndf, 2 * ndf, layers)))
        for _ in range((side // 8).bit_length() - 2):
            following = factor * 2 if exponential else factor + 1
            blocks += down(factor * ndf, following * ndf, layers)
            factor = following
        self.conv2 = nn.Sequential(*blocks)
        wide = factor * ndf
        self.conv3 = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 1, 1), nn.ELU(True), nn.Conv2d(wide, wide, 3, 1, 1), nn.ELU(True)
        )
        self.embed = nn.Linear(wide * 64, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.conv3(self.conv2(self.conv1(x))).flatten(1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, side: int, ngf: int, layers: int, hidden: int, transposed: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(hidden, ngf * 64)
        self.deconv1 = nn.Sequential(
            *[layer for _ in range((side // 8).bit_length() - 1) for layer in up(ngf, layers, transposed)]
        )
        smooth = [layer for _ in range(2) for layer in (nn.Conv2d(ngf, ngf, 3, 1, 1), nn.ELU(True))]
        self.deconv2 = nn.Sequential(*smooth, nn.Conv2d(ngf, 3, 3, 1, 1), nn.Tanh())
        self.ngf = ngf

    def forward(self, z: Tensor) -> Tensor:
        return self.deconv2(self.deconv1(self.embed(z).view(-1, self.ngf, 8, 8)))  # type: ignore[no-any-return]


class Generator(nn.Module):
    def __init__(
        self, side: int = 32, ngf: int = 4, layers: int = 2, hidden: int = 6, transposed: bool = False
    ) -> None:
        super().__init__()
        self.decoder = Decoder(side, ngf, layers, hidden, transposed)

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    def __init__(
        self, side: int, ndf: int, ngf: int, layers: int, hidden: int, exponential: bool, transposed: bool
    ) -> None:
        super().__init__()
        self.encoder = Encoder(side, ndf, layers, hidden, exponential)
        self.decoder = Decoder(side, ngf, layers, hidden, transposed)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]


def old_format(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def new_format(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator()


# Models


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_generator_draws_what_it_drew(here: Path, side: int, layers: int, transposed: bool) -> None:
    torch.manual_seed(0)
    theirs = Generator(side, 4, layers, 6, transposed)
    (here / "G.pth").write_bytes(old_format(theirs))
    said = call("import", "G.pth", "--json")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert answer["part"] == "the generator alone" and answer["faces"]["side"] == side
    assert answer["numbers"] == sum(p.numel() for p in theirs.parameters())
    ours = Sampler.load(answer["file"], precision="fp64")
    z = ours.latents(range(8)).double()
    assert torch.allclose(theirs.double()(z), ours.model.decode(z), atol=1e-12)
    assert call("sample", answer["file"], "--seeds", "0-3", "-o", "faces.png").code == 0


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_with_its_critic_it_encodes_and_reconstructs(
    here: Path, side: int, exponential: bool, transposed: bool
) -> None:
    torch.manual_seed(0)
    theirs = Generator(side, 4, 2, 6, transposed).double()
    critic = Discriminator(side, 3, 4, 2, 6, exponential, transposed).double()
    (here / "G.pth").write_bytes(new_format(theirs))
    (here / "D.pth").write_bytes(old_format(critic))
    said = call("import", "G.pth", "--critic", "D.pth", "-o", "both/")
    assert said.code == 0 and "the generator and the critic" in said.out, said.err
    ours = Sampler.load("both", precision="fp64")
    growth = ours.header["config"]["growth"]
    assert growth == ("exponential" if exponential and side > 16 else "linear")
    z, images = ours.latents(range(4)).double(), torch.rand(2, 3, side, side, dtype=torch.float64)
    assert torch.allclose(theirs.float().double()(z), ours.model.decode(z), atol=1e-12)
    assert torch.allclose(critic.float().double()(images), ours.model.reconstruct(images), atol=1e-12)  # type: ignore[operator]


@pytest.mark.parametrize(
    "form",
    [
        lambda g: old_format(g),
        lambda g: new_format(g),
        lambda g: old_format(g.state_dict()),
        lambda g: new_format(g.state_dict()),
        lambda g: new_format(dict(g.state_dict())),
        lambda g: new_format({"epoch": 3, "generator": g, "loss": torch.ones(3)}),
        lambda g: old_format({"args": ["--lr", 0.1], "G": g.state_dict(), "when": (1, None, 2.5, b"x", {4, 5})}),
        lambda g: new_format(nn.DataParallel(g)),
        lambda g: save_safetensors(g.state_dict()),
        lambda g: pickle_protocol(g, 4),
    ],
)
def test_every_form_of_the_same_weights_is_the_same_model(here: Path, generator: Generator, form: Any) -> None:
    (here / "plain.pth").write_bytes(new_format(generator))
    (here / "form.pth").write_bytes(form(generator))
    for name in ("plain", "form"):
        assert call("import", f"{name}.pth").code == 0
    (first, _), (second, _) = (read_model(here / f"{name}.safetensors") for name in ("plain", "form"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def pickle_protocol(thing: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer, pickle_protocol=protocol)
    return buffer.getvalue()


def test_half_precision_and_transposed_memory_are_read_as_they_mean(here: Path, generator: Generator) -> None:
    generator.half()
    with torch.no_grad():
        generator.decoder.embed.weight.set_(generator.decoder.embed.weight.t().contiguous().t())  # type: ignore[call-overload]
    (here / "G.pth").write_bytes(new_format(generator))
    assert call("import", "G.pth").code == 0
    tensors, header = read_model(here / "G.safetensors")
    assert torch.equal(tensors["generator.embed.weight"], generator.decoder.embed.weight.detach().float())
    assert header["config"]["kind"] == "ZhaoGeneratorConfig"


def test_the_same_import_gives_the_same_bytes_and_replaces_nothing_else(here: Path, generator: Generator) -> None:
    (here / "G.pth").write_bytes(old_format(generator))
    for _ in range(2):
        assert call("import", "G.pth", "-o", "model.safetensors").code == 0
    before = (here / "model.safetensors").read_bytes()
    (here / "H.pth").write_bytes(old_format(Generator()))
    said = call("import", "H.pth", "-o", "model.safetensors")
    assert said.code == 2 and PRINTED.fullmatch(said.err) and (here / "model.safetensors").read_bytes() == before
    assert str(here).encode() not in before and b"G.pth" not in before
    assert sorted(path.name for path in here.iterdir()) == ["G.pth", "H.pth", "model.safetensors"]


def test_what_is_no_model_is_described(here: Path, generator: Generator) -> None:
    critic = Discriminator(16, 3, 4, 2, 6, False, False)
    state = generator.state_dict()
    strange: dict[str, Any] = {
        "other": nn.Linear(3, 4),
        "critic": critic,
        "two": {"a": generator, "b": Generator()},
        "missing": {name: t for name, t in state.items() if "deconv2.4.bias" not in name},
        "more": {**state, "decoder.deconv1.99.weight": torch.ones(2)},
        "reshaped": {**state, "decoder.deconv1.2.weight": torch.ones(4, 5, 3, 3)},
        "flat": {**state, "decoder.embed.weight": torch.ones(5)},
        "whole numbers": {name: t.long() for name, t in state.items()},
        "nothing": {"a": 1},
        "empty": [],
        "narrow": {**state, "decoder.deconv2.4.weight": torch.ones(0, 4, 3, 3)},
    }
    for name, thing in strange.items():
        for form in (old_format, new_format):
            (here / "strange.pth").write_bytes(form(thing))
            said = call("import", "strange.pth")
            assert said.code == 9 and PRINTED.fullmatch(said.err), (name, said.err)
    (here / "other.pth").write_bytes(new_format(strange["other"]))
    said = call("import", "other.pth")
    assert "2 tensors of 16 numbers" in said.err and "weight [4, 3]" in said.err and "Linear" in said.err
    assert call("import", "other.pth", "--preset", "quick").code == 2
    assert call("import", "nowhere.pth").code == 3 and call("import", ".").code == 3
    assert not list(here.glob("*.safetensors"))


def test_a_model_of_ours_is_not_imported_again(here: Path, generator: Generator) -> None:
    (here / "G.pth").write_bytes(old_format(generator))
    call("import", "G.pth")
    said = call("import", "G.safetensors")
    assert said.code == 9 and "mien sample G.safetensors" in said.err


def test_a_critic_alone_or_of_another_generator_is_not_taken(here: Path, generator: Generator) -> None:
    (here / "G.pth").write_bytes(old_format(generator))
    (here / "D.pth").write_bytes(old_format(Discriminator(16, 3, 4, 2, 6, False, False)))  # of another side
    (here / "E.pth").write_bytes(HOSTILE["os.system, older format"])
    for line, code in (
        ("D.pth", 9),
        ("G.pth --critic D.pth", 9),
        ("G.pth --critic G.pth", 9),
        ("G.pth --critic E.pth", 9),
    ):
        said = call("import", *line.split())
        assert said.code == code and PRINTED.fullmatch(said.err), (line, said.err)
    (here / "copy.pth").write_bytes((here / "G.pth").read_bytes())  # as one project published both
    assert "copy.pth is a copy of G.pth" in call("import", "G.pth", "--critic", "copy.pth").err
    (here / "copy.pth").unlink()
    assert call("import", "G.pth", "--critic", "nowhere.pth").code == 3
    assert sorted(path.name for path in here.iterdir()) == ["D.pth", "E.pth", "G.pth"]


def test_numbers_that_are_not_finite_are_refused(here: Path, generator: Generator) -> None:
    state = generator.state_dict()
    state["decoder.embed.bias"][3] = torch.nan
    (here / "G.pth").write_bytes(new_format(state))
    said = call("import", "G.pth")
    assert said.code == 8 and "NaN or infinite" in said.err and not list(here.glob("*.safetensors"))


def test_names_in_a_file_cannot_speak_to_the_terminal(here: Path) -> None:
    (here / "G.pth").write_bytes(new_format({"\x1b[2Ja\nb": torch.ones(2), "\ud800": torch.ones(1)}))
    said = call("import", "G.pth")
    assert said.code == 9 and "\x1b" not in said.err and "?[2Ja?b [2]" in said.err
    said.err.encode()


def test_every_known_kind_is_a_preset() -> None:
    assert MODELS.keys() <= presets.PRESETS.keys()


# Hostile files: each tries to leave a mark, to fill the memory or never to end.


HEAD = [b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02M\xe9\x03."]
MACHINE = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)


def legacy(body: bytes, keys: bytes = b"\x80\x02].", storages: bytes = b"", machine: bytes = MACHINE) -> bytes:
    return b"".join([*HEAD, machine, body, keys, storages])


def zipped(body: bytes, *members: tuple[str, bytes], root: str = "archive", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", body)
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


TOUCH = text("touch canary")
WRITE = text("open('canary', 'w')")
STORE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"


def tensor(
    offset: bytes = b"K\x00", size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", store: bytes = STORE
) -> bytes:
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + store + offset + size + stride + rest + b"tR"


def holding(name: str, value: bytes) -> bytes:
    return b"\x80\x02}" + text(name) + value + b"s."


BIG = b"\x8a\x08" + struct.pack("<q", 2**62)
NEGATIVE = b"J" + struct.pack("<i", -1)

CALLS = {
    "os.system": b"cos\nsystem\n" + TOUCH + b"\x85R.",
    "posix.system by words": b"\x80\x04" + text("posix") + text("system") + b"\x93" + TOUCH + b"\x85R.",
    "eval": b"cbuiltins\neval\n" + WRITE + b"\x85R.",
    "exec": b"cbuiltins\nexec\n" + WRITE + b"\x85R.",
    "python 2's eval": b"c__builtin__\neval\n" + WRITE + b"\x85R.",
    "subprocess": b"csubprocess\nPopen\n](" + text("touch") + text("canary") + b"e\x85R.",
    "inst": b"(" + TOUCH + b"ios\nsystem\n.",
    "obj": b"(cos\nsystem\n" + TOUCH + b"o.",
    "newobj": b"\x80\x02cevil_module\nEvil\n" + TOUCH + b"\x85\x81.",
    "newobj with words": b"\x80\x04cevil_module\nEvil\n)}" + text("path") + TOUCH + b"s\x92.",
    "setstate": b"\x80\x02cevil_module\nEvil\n)\x81" + TOUCH + b"b.",
    "attributes of a class": b"\x80\x02cevil_module\nEvil\n}" + text("path") + TOUCH + b"sb.",
    "an import by name": b"cevil_module\nEvil\n.",
    "__import__": b"cbuiltins\n__import__\n" + text("evil_module") + b"\x85R.",
    "getattr": b"cbuiltins\ngetattr\n(cos\n__dict__\n" + text("system") + b"tR" + TOUCH + b"\x85R.",
    "reconstructor": b"ccopyreg\n_reconstructor\n(cevil_module\nEvil\ncbuiltins\nobject\nNtRN" + b"b.",
    "partial": b"cfunctools\npartial\n(cos\nsystem\n" + TOUCH + b"tR)R.",
    "a pickle in a pickle": b"cpickle\nloads\nC"
    + bytes([len(b"cos\nsystem\n" + TOUCH + b"\x85R.")])
    + b"cos\nsystem\n"
    + TOUCH
    + b"\x85R.\x85R.",
    "torch.load": b"ctorch\nload\n" + text("G.pth") + b"\x85R.",
    "jit": b"ctorch.jit\nload\n" + text("G.pth") + b"\x85R.",
    "items of what is called": b"cos\nsystem\n" + TOUCH + b"\x85R(K\x01K\x02e.",
    "a key that is called": b"}cos\nsystem\n" + TOUCH + b"\x85RK\x01s.",
    "environment": b"cos\nputenv\n(" + text("MIEN_CANARY") + text("1") + b"tR.",
    "a module's class and source": b"(" + text("module") + b"cevil_module\nEvil\n" + text("x") + WRITE + b"tQ)\x81}b.",
    "a class that is a call": b"cbuiltins\neval\n" + WRITE + b"\x85R)\x81}b.",
    "in a tensor": holding("a", b"ctorch._utils\n_rebuild_tensor_v2\ncos\nsystem\n" + TOUCH + b"\x85R\x85R"),
    "in a parameter": holding("a", b"ctorch._utils\n_rebuild_parameter\ncos\nsystem\n" + TOUCH + b"\x85R\x85R"),
    "in an ordered dict": holding("a", b"ccollections\nOrderedDict\ncos\nsystem\n" + TOUCH + b"\x85R\x85R"),
    "set storage of a class": b"ctorch\nFloatStorage\n" + text("canary") + b"\x85R.",
}
MACHINERY = {
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x01.",
    "extension 4": b"\x80\x02\x84\x01\x01\x00\x00.",
    "buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05\x97\x98.",
    "reference in text": b"Pcanary\n.",
    "reference to a call": b"cos\nsystem\n" + TOUCH + b"\x85RQ.",
    "memory index": b"N" + b"r\xff\xff\xff\xff.",
    "memory index in text": b"Np" + b"9" * 60 + b"\n.",
    "memory never set": b"h\x07.",
    "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b")" + b"\x85" * 100_000 + b".",
    "deep tuple as a key": b"})" + b"\x85" * 100_000 + b"Ns.",
    "deep calls": b"cos\nsystem\n" + b")R" * 100_000 + b".",
    "deep states": b"}" * 100_000 + b"b" * 99_999 + b".",
    "deep parameters": b"ctorch._utils\n_rebuild_parameter\n" * 30_000 + b"N" + b"\x85R" * 30_000 + b".",
    "a tuple doubled": b")" + b"2\x86" * 64 + b".",
    "a tuple doubled as a key": b"})" + b"2\x86" * 64 + b"Ns.",
    "a tuple doubled as a maker": b")" + b"2\x86" * 64 + b")R.",
    "a tuple doubled as a storage": holding(
        "a", tensor(store=b"(" + text("storage") + b")" + b"2\x86" * 64 + text("0") + b"NK\x04tQ")
    ),
    "a list doubled": b"]" + b"]q\x00(h\x00h\x00e" * 1 + b"".join(b"(22" + b"l" for _ in range(64)) + b".",
    "a dict doubled": b"\x80\x02}q\x00"
    + b"".join(b"}q%c" % (i + 1) + b"(" + b"K\x01h%cK\x02h%cu" % (i, i) for i in range(64))
    + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a dict in itself": b"}q\x00K\x01h\x00s.",
    "a state of itself": b"}q\x00h\x00b.",
    "long number": b"\x8b\xff\xff\xff\x7f.",
    "negative long number": b"\x8b\xff\xff\xff\xff.",
    "number in a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "key of many digits": b"}\x8b" + struct.pack("<i", 10_000) + b"\x7f" * 10_000 + b"Ns.",
    "bytes without end": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "bytes over all": b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"x.",
    "words without end": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "byte array without end": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.",
    "frame without end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N",
    "unknown instruction": b"\xff.",
    "unknown protocol": b"\x80\xffN.",
    "no end": b"\x80\x02]",
    "nothing": b".",
    "no mark": b"t.",
    "filling a number": b"K\x01K\x02a.",
    "half a pair": b"}(K\x01u.",
    "a million instructions": b"N0" * 600_000 + b"N.",
    "a name of a number": b"\x80\x04K\x01K\x02\x93.",
}
TENSORS = {
    "offset past the end": tensor(offset=b"K\x05"),
    "offset negative": tensor(offset=NEGATIVE),
    "offset enormous": tensor(offset=BIG),
    "size negative": tensor(size=NEGATIVE + b"\x85"),
    "size past the end": tensor(size=b"K\x05\x85"),
    "size enormous": tensor(size=BIG + b"\x85", stride=b"K\x00\x85"),
    "size overflowing": tensor(size=BIG + BIG + b"\x86", stride=b"K\x00K\x00\x86"),
    "size repeated for ever": tensor(size=b"J\x00\x00\x00\x40\x85", stride=b"K\x00\x85"),
    "size true": tensor(size=b"\x88\x85"),
    "size a word": tensor(size=text("4") + b"\x85"),
    "size a fraction": tensor(size=b"G@\x10\x00\x00\x00\x00\x00\x00\x85"),
    "stride negative": tensor(stride=NEGATIVE + b"\x85"),
    "stride overflowing": tensor(stride=BIG + b"\x85"),
    "strides too few": tensor(size=b"K\x02K\x02\x86"),
    "dimensions beyond number": tensor(size=b"(" + b"K\x01" * 70 + b"t", stride=b"(" + b"K\x01" * 70 + b"t"),
    "storage longer than its bytes": tensor(store=STORE.replace(b"K\x04tQ", b"K\x7ftQ")),
    "storage negative": tensor(store=STORE.replace(b"K\x04tQ", NEGATIVE + b"tQ")),
    "storage outside the archive": tensor(store=STORE.replace(text("0"), text("../../../etc/passwd"))),
    "storage that is not there": tensor(store=STORE.replace(text("0"), text("7"))),
    "storage of a function": tensor(store=STORE.replace(b"ctorch\nFloatStorage\n", b"cos\nsystem\n")),
    "storage of objects": tensor(store=STORE.replace(b"FloatStorage", b"PyObjectStorage")),
    "storage that is none": tensor(store=b"N"),
    "too few arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
}
ONE = struct.pack("<q", 4) + struct.pack("<4f", 1, 2, 3, 4)
KEYS = b"\x80\x02](" + text("0") + b"e."


def hostile() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, body in CALLS.items():
        files[f"{name}, older format"] = legacy(body)
        files[f"{name}, ZIP"] = zipped(body)
    for number, (name, body) in enumerate(MACHINERY.items()):  # read by the same lines in either format
        files[name] = zipped(body) if number % 2 else legacy(body)
    for name, value in TENSORS.items():
        files[f"{name}, older format"] = legacy(holding("a", value), KEYS, ONE)
        files[f"{name}, ZIP"] = zipped(holding("a", value), ("archive/data/0", ONE[8:]))
    good = holding("a", tensor())
    files |= {
        "nothing at all": b"",
        "one byte": b"\x80",
        "text": b"import os; os.system('touch canary')\n",
        "wrong magic": legacy(good, KEYS, ONE).replace(b"\x9cF", b"\x9cG"),
        "magic that is called": b"cos\nsystem\n" + TOUCH + b"\x85R." + legacy(good, KEYS, ONE),
        "a plain pickle": b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85R.",
        "unknown version": legacy(good, KEYS, ONE).replace(b"M\xe9\x03", b"M\xea\x03", 1),
        "big-endian": legacy(good, KEYS, ONE, pickle.dumps({"little_endian": False}, 2)),
        "machine that is called": legacy(good, KEYS, ONE, CALLS["os.system"]),
        "keys that are called": legacy(good, CALLS["os.system"], ONE),
        "keys twice": legacy(good, b"\x80\x02](" + text("0") + text("0") + b"e.", ONE + ONE),
        "keys unknown": legacy(good, b"\x80\x02](" + text("5") + b"e.", ONE),
        "storage of negative length": legacy(good, KEYS, struct.pack("<q", -4) + ONE[8:]),
        "storage of enormous length": legacy(good, KEYS, struct.pack("<q", 2**60) + ONE[8:]),
        "storage cut": legacy(good, KEYS, ONE[:-3]),
        "storage missing": legacy(good, KEYS),
        "bomb": zipped(b"N" * 50_000_000 + b".", method=zipfile.ZIP_DEFLATED),
        "bomb of a storage": zipped(good, ("archive/data/0", bytes(50_000_000)), method=zipfile.ZIP_DEFLATED),
        "climbing names": zipped(good, ("../../canary", b"x"), ("/tmp/canary", b"x"), root=".."),
        "no object": zipped(good, root="a/b"),
        "two objects": zipped(good, ("other/data.pkl", good)),
        "many members": zipped(good, *((f"archive/{n}", b"") for n in range(20_000))),
        "big-endian ZIP": zipped(good, ("archive/byteorder", b"big"), ("archive/data/0", ONE[8:])),
        "checksum": zipped(good, ("archive/data/0", ONE[8:])).replace(ONE[8:], bytes(16)),
        "ZIP cut": zipped(good, ("archive/data/0", ONE[8:]))[:-30],
        "ZIP of nothing": b"PK\x05\x06" + bytes(18),
        "ZIP by name alone": b"PK\x03\x04" + bytes(100),
        "encrypted": zipped(good).replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
        "safetensors of no length": struct.pack("<Q", 2**63) + b"{}",
        "safetensors of nothing": struct.pack("<Q", 2) + b"{}"[:1],
        "safetensors past its end": struct.pack("<Q", 62)
        + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}       ',
        "tar": b"storages\x00" + bytes(600),
    }  # fmt: skip
    return files


HOSTILE = hostile()
FORBIDDEN = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.putenv", "pickle.find_class"}
heard: list[str] = []
listening = False


def listen(event: str, arguments: tuple[object, ...]) -> None:
    if not listening:
        return
    said = f"{event} {arguments}" if event in ("import", "compile", "exec") else event
    if event in FORBIDDEN or "evil_module" in said or "canary" in said:  # the flags' parser compiles, too
        heard.append(said)


@pytest.fixture(scope="module")
def ears() -> Iterator[Callable[[bool], None]]:
    """Python's own record of what is called and imported, while it is wanted."""
    sys.addaudithook(listen)  # for the life of the process: there is no way to take one back

    def switch(on: bool) -> None:
        global listening
        listening = on

    yield switch
    switch(False)


def largest() -> int:
    """The most memory this process has used so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_does_nothing(
    here: Path, name: str, ears: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "evil_module.py").write_text(
        "open('canary', 'w')\nclass Evil:\n    def __init__(self, path=None): open('canary', 'w')\n"
        "    def __setstate__(self, state): open('canary', 'w')\n"
    )
    monkeypatch.syspath_prepend(here)
    (here / "G.pth").write_bytes(HOSTILE[name])
    call("import", "nowhere.pth")  # imports what the verb itself needs
    modules, environment, memory, started = set(sys.modules), dict(os.environ), largest(), time.process_time()
    heard.clear()
    ears(True)
    said = call("import", "G.pth", "-o", "out.safetensors")
    ears(False)
    assert said.code in (8, 9), said.err
    assert PRINTED.fullmatch(said.err) and said.out == "", said.err
    new = {module for module in set(sys.modules) - modules if not module.startswith("encodings.")}  # of names in a ZIP
    assert heard == [] and new == set() and dict(os.environ) == environment
    assert sorted(path.name for path in here.iterdir()) == ["G.pth", "evil_module.py"]
    assert time.process_time() - started < 20 and largest() - memory < 500e6


def test_the_mark_would_have_been_seen(here: Path, ears: Callable[[bool], None]) -> None:
    """The traps work: the real unpickler falls into them."""
    heard.clear()
    ears(True)
    pickle.loads(CALLS["os.system"])
    ears(False)
    assert (here / "canary").exists() and any("os.system" in line for line in heard)


def test_there_are_forty_and_more() -> None:
    assert len(HOSTILE) > 2 * 40 and len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_described_not_run(here: Path, ears: Callable[[bool], None]) -> None:
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), script)
    (here / "G.pth").write_bytes(script.getvalue())
    heard.clear()
    ears(True)
    said = call("import", "G.pth")
    ears(False)
    assert said.code == 9 and "weight [3, 2]" in said.err and heard == []


def test_torn_and_altered_files_never_crash(here: Path, generator: Generator) -> None:
    """Cut anywhere they are refused; with bytes changed they are refused, or are the model with other numbers."""
    rng = random.Random(0)
    for form in (old_format, new_format):
        whole = form(generator)
        for _ in range(25):
            (here / "cut.pth").write_bytes(whole[: rng.randrange(len(whole))])
            said = call("import", "cut.pth")
            assert said.code == 8 and PRINTED.fullmatch(said.err), said.err
        for number in range(50):
            altered = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                altered[rng.randrange(min(len(whole), 12_000))] = rng.randrange(256)
            (here / "altered.pth").write_bytes(altered)
            said = call("import", "altered.pth", "-o", f"{number}.safetensors")
            assert said.code in (0, 8, 9), said.err
            (here / f"{number}.safetensors").unlink(missing_ok=True)


def test_a_pickle_has_a_million_instructions_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert symbolic_pickle.INSTRUCTIONS == 1_000_000
    monkeypatch.setattr(symbolic_pickle, "INSTRUCTIONS", 5)
    with pytest.raises(symbolic_pickle.Unreadable, match="more than 5 instructions"):
        symbolic_pickle.read(io.BytesIO(b"N0N0N."))
    assert symbolic_pickle.read(io.BytesIO(b"N0NN.")) is None


def test_entries_keep_key_and_value_apart() -> None:
    found = symbolic_pickle.read(io.BytesIO(pickle.dumps({"a": 1, "b": 2, 3: "c"}, 2)))
    assert found.mapping() == {"a": 1, "b": 2, "3": "c"}


@pytest.mark.parametrize("kind", ["ComplexFloatStorage", "QInt8Storage", "UntypedStorage", "system"])
def test_storages_of_other_elements_are_refused(here: Path, kind: str) -> None:
    store = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + b"K\x04tQ"
    (here / "odd.pth").write_bytes(zipped(tensor(store=store) + b".", ("archive/data/0", bytes(16))))
    with pytest.raises(Untrusted):
        weights.load(here / "odd.pth")
    good = zipped(tensor() + b".", ("archive/data/0", bytes(16)))
    (here / "even.pth").write_bytes(good)
    assert [t.numel() for t in weights.load(here / "even.pth").tensors.values()] == [4]


def test_shared_tensors_cost_nothing(here: Path) -> None:
    """A file that shows one storage three thousand times is not copied three thousand times."""
    one = torch.zeros(1_000_000)
    (here / "G.pth").write_bytes(new_format([one.view(1000, 1000) for _ in range(3000)]))
    before = largest()
    assert len(weights.load(here / "G.pth").tensors) == 3000
    assert largest() - before < 300e6
