"""What several test files need: small drawn data, tiny presets, a clean place to run in."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mien import presets
from mien.__main__ import main
from mien.core.contracts import ModelConfig, NetworkConfig, RecipeConfig
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.data.pack import Entry, Pack, PackWriter
from mien.downloads import weights
from mien.errors import DataError
from mien.metrics import framing
from mien.report import observers, plots
from mien.sampling import sidecar
from mien.sampling.directions import Direction, Directions
from mien.sampling.sampler import Sampler
from mien.training import profile
from mien.training.resolve import ResolvedRun
from tests import warm_start

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

torch.set_num_threads(1)


def load_script(path: Path) -> ModuleType:
    """A Python file outside of any package, such as a benchmark, as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


def need_weights(*names: str) -> None:
    """Fetch weights files that are not here. Skips the test where their registry does not answer."""
    for name in names:
        try:
            weights.path(name)
        except DataError as error:
            pytest.skip(f"weights:{name} is not available: {error.why}")


def blobs(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Drawn data `[count, side, side, 3]`: an ellipse of a face on a ground, in random colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    radius = rng.uniform(0.25, 0.45, (count, 1, 1))
    face = (x**2 * rng.uniform(1, 2, (count, 1, 1)) + y**2 < radius**2)[..., None]
    ground, skin = rng.integers(0, 256, (2, count, 1, 1, 3))
    return np.where(face, skin, ground).astype(np.uint8)


def write_pack(path: Path, count: int = 96, side: int = 16, labels: tuple[str, ...] = (), seed: int = 0) -> Pack:
    """A pack of blobs."""
    rng = np.random.default_rng(seed + 1)
    with PackWriter(path, side, labels) as writer:
        rows = rng.integers(0, 2, (count, len(labels))).astype(np.float32) if labels else None
        writer.append(blobs(count, side, seed), rows, [Entry(f"{i:05d}.png") for i in range(count)])
        return writer.commit({})


@pytest.fixture(scope="session")
def blob_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """96 blobs at 16 px."""
    return write_pack(tmp_path_factory.mktemp("data") / "blobs.pack")


@pytest.fixture(scope="session", autouse=True)
def cheap_commands() -> Iterator[None]:
    """In this process: no curves by matplotlib, 2 seconds of each training; dry runs of 4 steps, not 8 seconds; eyes looked for
    in 6 faces of a model, not 24; and no waiting for the disk, 10 to 20 ms of each file that a run writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observers, "plot_run", lambda run_dir: [])
        patch.setattr(profile, "MAX_STEPS", 4)
        patch.setattr(framing, "SEEDS", range(6))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def warm_starts() -> Iterator[None]:
    """For the modules that start many processes of Python: each is a fork of one that has imported torch and mien."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", warm_start.Popen)
        yield


@pytest.fixture
def with_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests that look at the curves."""
    monkeypatch.setattr(observers, "plot_run", plots.plot_run)


def tiny(run: Run) -> Run:
    """A preset with every width cut down, for contract tests: the algorithm is the same."""

    def shrink(config: Any) -> Any:
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            return config
        changes: dict[str, Any] = {f.name: shrink(getattr(config, f.name)) for f in dataclasses.fields(config)}
        if isinstance(config, ModelConfig | NetworkConfig):
            small = {
                "width": 4,
                "max_width": 8,
                "latent": 8,
                "hidden": 16,
                "encoder_width": 4,
                "layers": 2,
                "full_res_width": 4,
            }
            small |= {"couplings": 2, "coupling_width": 8}
            changes |= {name: value for name, value in small.items() if name in changes}
        elif isinstance(config, RecipeConfig):  # what repeats on one batch, fewer times
            changes |= {name: 2 for name in ("vae_steps", "joint_steps", "critic_repeats") if name in changes}
        return dataclasses.replace(config, **changes)

    ema = run.ema and dataclasses.replace(run.ema, ramp=min(run.ema.ramp, 16))
    return dataclasses.replace(shrink(run), side=16, batch=8, images=64, minutes=None, ema=ema)


def write_model(preset: str, folder: Path, pack: Pack, deviation: float = 0.1, **changes: Any) -> Path:
    """A tiny model of a preset that has learned nothing but differs from face to face, as a file."""
    run = override(tiny(presets.PRESETS[preset]), changes)
    plan = ResolvedRun(run, pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs")
    learner = plan.initial_state(World())
    generator = torch.Generator().manual_seed(0)
    for parameter in learner.inference_model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * deviation)
    file = folder / "model.safetensors"
    file.write_bytes(learner.snapshot(plan.header).model)
    return file


def steer(model: Path) -> None:
    """Give a model two directions."""
    sampler = Sampler.load(model, device="cpu")
    generator = torch.Generator().manual_seed(1)
    found = Directions(
        tuple(
            Direction(name, torch.randn(sampler.model.latent_shape, generator=generator), "latent", {"found": "labels"})
            for name in ("Smiling", "Age")
        )
    )
    assert sampler.extras_folder is not None
    sidecar.write(
        sampler.extras_folder,
        "directions",
        "directions",
        sampler.model_hash,
        found.tensors(),
        "again",
        directions=found.descriptions(),
    )


@torch.no_grad()
def shuffled_weights(network: torch.nn.Module, deviation: float) -> None:
    """Fresh normal weights everywhere, also where a network starts at zero."""
    for parameter in network.parameters():
        parameter.normal_(0.0, deviation)


class Outcome(NamedTuple):
    """What a command of the command line returned and wrote."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def mien(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, in an empty folder: a process of its own spends 2.5 seconds on imports."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> Outcome:
        capsys.readouterr()
        outcome = Outcome(main([*map(str, arguments)]), *capsys.readouterr())
        assert "Traceback" not in outcome.stderr, outcome.stderr
        assert outcome.code == code, outcome
        return outcome

    return run


def write_signer(path: Path) -> Path:
    """A certificate for signing pictures, issued by a CA that nobody trusts, with its key, as one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    issuer_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, text),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests of mien"),
            ]
        )

    def issue(subject: str, owner: ec.EllipticCurvePrivateKey, ca: bool) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=name("A CA"),
            subject_name=name(subject),
            public_key=owner.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start,
            not_valid_after=start + datetime.timedelta(days=3650),
        )
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        builder = builder.add_extension(usage, True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(owner.public_key()), False)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + issue("A signer", key, False) + issue("A CA", issuer_key, True))
    return path
