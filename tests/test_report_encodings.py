"""What a run shows of a model that encodes: reconstructions, the kl_per_dimension of each dimension, the balance of a BEGAN."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.core.contracts import ImageSpec, Progress
from mien.data.pack import Pack
from mien.models.vae import VAEModelConfig
from mien.report.grid import GAP
from mien.report.page import write_report
from mien.report.reconstructions import Reconstructed, Reconstructions, kl_per_dimension, reconstruct
from mien.report.run_reader import read_record, sample_grids
from mien.sampling.sampler import Sampler
from mien.training.experiment import train
from tests.report_example import write_run
from tests.test_latent import faces, write_model


def progress(seen: int, show: bool = True) -> Progress:
    return Progress(seen, 6400, 1.0, 100.0, {}, show=show)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Sampler:
    return Sampler.load(write_model("vae", tmp_path_factory.mktemp("model"), blob_pack), device="cpu")


def test_information_is_the_divergence_of_each_dimension(vae: Sampler) -> None:
    images = faces(40)
    plain = VAEModelConfig(latent=8, width=4, max_width=8).build(ImageSpec(side=16))
    posterior = plain.posterior(images)
    q = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    exact = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(plain.kl_per_dimension(images).mean(0), exact, rtol=1e-4, atol=1e-5)
    found = kl_per_dimension(vae, images, None)
    assert found is not None and torch.allclose(found, vae.model.kl_per_dimension(images).mean(0), rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_only_models_that_encode_are_looked_at(tmp_path: Path, blob_pack: Pack, vae: Sampler) -> None:
    seen = reconstruct(vae, faces(20), None)
    assert seen is not None and torch.equal(seen.images, vae.reconstruct(faces(20)[:16])) and seen.kl is not None
    for preset, expected in (("began-zhao", True), ("quick", False), ("flow", False)):
        (tmp_path / preset).mkdir()
        other = reconstruct(Sampler.load(write_model(preset, tmp_path / preset, blob_pack)), faces(3), None)
        assert (other is not None) is expected
        assert other is None or other.kl is None


def test_reconstructions_stand_below_their_faces(tmp_path: Path, vae: Sampler) -> None:
    run = write_run(tmp_path / "run", lines=5, grids=0, scores=False, health=False)
    images = faces(16)
    observer = Reconstructions(
        run, images, lambda _: Reconstructed(-images, torch.tensor([0.5, 0.0])), {"preset": "vae"}
    )
    for seen, show in ((640, True), (960, False), (1280, True), (900, True)):  # the last after a rollback
        observer.after_step(progress(seen, show), vae.model)
    observer.close("done")
    assert [seen for seen, _ in sample_grids(run, "reconstructions")] == [640, 900]
    with Image.open(run / "reconstructions" / "0000000900.png") as image:
        sheet = np.asarray(image).astype(int)
        assert "no real person" not in image.info["Disclaimer"]
    assert sheet.shape == (4 * (16 + GAP) + GAP, 8 * (16 + GAP) + GAP, 3)
    real, made = sheet[GAP : GAP + 16, GAP : GAP + 16], sheet[2 * GAP + 16 : 2 * GAP + 32, GAP : GAP + 16]
    assert (abs(real + made - 255) <= 1).all()
    assert json.loads((run / "encodings.json").read_text()) == {"seen": 900, "kl": [0.5, 0.0]}


def test_nothing_is_written_for_a_model_without_an_encoder(tmp_path: Path, vae: Sampler) -> None:
    run = write_run(tmp_path / "run", lines=5, grids=0, scores=False, health=False)
    Reconstructions(run, faces(16), lambda _: None, {}).after_step(progress(640), vae.model)
    assert not (run / "reconstructions").exists() and not (run / "encodings.json").exists()


def test_the_report_shows_them(tmp_path: Path, vae: Sampler) -> None:
    run = write_run(tmp_path / "run", lines=5, grids=1, scores=False, health=False)
    plain = write_report(run).read_text()
    assert not any(title in plain for title in ("Reconstructions", "What the latents carry", "The balance"))
    carried = torch.tensor([2.0, 0.5, 0.001])
    Reconstructions(run, faces(16), lambda _: Reconstructed(faces(16), carried), {}).after_step(
        progress(640), vae.model
    )
    with (run / "metrics.jsonl").open("a") as file:
        for number in range(20):
            line = {
                "seen": 10**6 + number,
                "seconds": 9.0,
                "images_per_second": 5.0,
                "k": 0.01 * number,
                "convergence": 1 / (number + 1),
            }
            file.write(json.dumps(line) + "\n")
    page = write_report(run).read_text()
    assert "2 of 3 dimensions carry more than 0.01 nats" in page and page.count("<rect") >= 4
    assert "k_t = <strong>0.19</strong>, inside its range" in page and "data:image/webp" in page
    assert read_record(run).encodings["kl"] == [2.0, 0.5, 0.001]


@pytest.mark.parametrize(
    "told", ["[]", "{}", '{"kl": 3}', '{"kl": []}', '{"kl": ["<wrong>"]}', '{"kl": [NaN]}', "x", '{"kl": [0, 0]}']
)
def test_a_torn_file_does_not_stop_the_report(tmp_path: Path, told: str) -> None:
    run = write_run(tmp_path / "run", lines=5, grids=0, scores=False, health=False)
    (run / "encodings.json").write_text(told)
    page = write_report(run).read_text()
    assert "<wrong>" not in page and ("What the latents carry" in page) == (told == '{"kl": [0, 0]}')


def test_a_training_leaves_them(tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    knobs = {"model.width": 4, "model.max_width": 8, "model.latent": 8}
    changes = {"images": 64, "batch": 16, "sample_every": 32, **knobs}
    run = train("vae", data=blob_pack.path, out=tmp_path / "run", **changes).path  # type: ignore[arg-type]
    assert [seen for seen, _ in sample_grids(run, "reconstructions")][-1] == 64
    kl = json.loads((run / "encodings.json").read_text())["kl"]
    assert len(kl) == 8 and all(math.isfinite(value) and value >= 0 for value in kl)
    assert "Reconstructions" in (run / "report.html").read_text()
