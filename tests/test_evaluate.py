"""`mien evaluate`: scores with protocols, refusals in three parts, shared work; with an extractor that needs no weights."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import mien
from mien import presets
from mien.cli.evaluate import evaluate
from mien.cli.result import Result
from mien.core.contracts import ImageSpec
from mien.core.families import Invertible
from mien.core.run import to_json
from mien.data.pack import Pack
from mien.errors import DataError, Mismatch, UsageError
from mien.metrics import features, lpips_metrics
from mien.metrics.evaluate import measure
from mien.metrics.features import PixelFeatures, cached_features, extract
from mien.metrics.images import CachedImages, FirstImages, FolderImages, PackImages, SampledImages, prefetch, to_pixels
from mien.metrics.inputs import MetricInputs
from mien.metrics.prdc import memorisation
from mien.metrics.scores import disagreements, in_thousands
from mien.sampling.options import DrawOptions
from mien.storage import checkpoint

from .conftest import blobs, tiny, write_pack
from .forked_ranks import forked
from .test_parallel import environment


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def eye(tmp_path: Path) -> str:
    file = tmp_path / "eye.py"
    file.write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    return f"{file}:pixels"


def write_model(path: Path, pack: Pack | None = None, side: int = 16) -> Path:
    """An untrained model."""
    run = tiny(presets.find("quick")[0])
    faces = ImageSpec(side=side)
    torch.manual_seed(0)
    model = run.model.build(faces)
    data = {"fingerprint": pack.fingerprint if pack else "", "count": len(pack) if pack else 0}
    header = {"format": 1, "preset": "quick", "config": to_json(run.model), "faces": to_json(faces), "data": data}
    path.write_bytes(checkpoint.pack_tensors(model.state_dict(), header))
    return path


def scored(*arguments: Any, **named: Any) -> Result:
    answer = evaluate(*arguments, **named)
    assert answer is not None  # only the first of several processes answers
    return answer


def write_folder(path: Path, images: np.ndarray[Any, Any]) -> Path:
    path.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:04d}.png")
    return path


def test_options_of_drawing_are_part_of_a_score(tmp_path: Path, blob_pack: Pack, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors", blob_pack)
    known = {"data": str(blob_pack.path), "extractor": eye, "out": tmp_path / "eval", "metrics": "fid"}
    plain, mean = (scored(model, options=options, **known) for options in (DrawOptions(), DrawOptions(truncation=0.0)))
    (before,), (after,) = plain.data["scores"], mean.data["scores"]
    assert after["name"] == f"{before['name']}_truncation_0.0" and after["value"] != before["value"]
    assert after["protocol"]["options"] == {"truncation": 0.0} and "options" not in before["protocol"]
    loaded = mien.load(model).with_options(DrawOptions(truncation=0.0))  # from Python, too
    again = mien.evaluate(loaded, data=blob_pack.path, metrics="fid", extractor=PixelFeatures())
    assert next(iter(again)).name == after["name"]
    with pytest.raises(UsageError, match="--truncation needs a model"):
        evaluate(real=tmp_path, fake=tmp_path, options=DrawOptions(truncation=0.5))
    with pytest.raises(UsageError, match="no labels to follow"):
        evaluate(model, options=DrawOptions(guidance=2.0), **known)


def test_a_model_is_scored_with_passports(tmp_path: Path, blob_pack: Pack, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors", blob_pack)
    answer = scored(model, data=str(blob_pack.path), extractor=eye, out=tmp_path / "eval")
    scores = {score["name"]: score for score in answer.data["scores"]}
    assert list(scores) == [
        f"{metric}96_train_pixels-32"
        for metric in (
            "fid",
            "kid",
            "precision",
            "recall",
            "density",
            "coverage",
            "memorisation",
            "memorisation_pixels",
        )
    ]
    for score in scores.values():
        assert set(score) == {"metric", "name", "value", "low", "high", "protocol"}
        assert score["low"] <= score["value"] <= score["high"]
        protocol = score["protocol"]
        assert (
            protocol["extractor"] == "pixels-32"
            and protocol["resizer"] == "bilinear"
            and protocol["precision"] == "fp32"
        )
        assert protocol["reference"] == {
            "fingerprint": f"{blob_pack.fingerprint}/train/96", "split": "train", "count": 96, "size": [16, 16],
        }  # fmt: skip
        assert protocol["samples"] == 96 and protocol["seeds"] == [0, 95] and len(protocol["model_sha256"]) == 64
        assert protocol["interval"]
    fid = scores["fid96_train_pixels-32"]
    assert fid["protocol"]["extrapolated"] < fid["value"]  # few samples: the bias is upwards, and it is said
    assert any("few" in warning for warning in answer.data["warnings"])
    lines = (tmp_path / "eval" / "fid.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [fid]
    for file in answer.data["files"]:
        assert Image.open(file).size[0] > 12 * 16
    again = scored(model, data=str(blob_pack.path), extractor=eye, out=tmp_path / "eval", metrics="fid")
    assert again.data["scores"] == [fid]  # the same seeds, the same bits
    assert len((tmp_path / "eval" / "fid.jsonl").read_text().splitlines()) == 2


def test_two_folders_are_scored(tmp_path: Path, eye: str) -> None:
    real = write_folder(tmp_path / "real", blobs(40, 20))
    fake = write_folder(tmp_path / "fake", blobs(30, 20, seed=1))
    answer = scored(real=real, fake=fake, extractor=eye, metrics="fid,kid")
    assert [score["name"] for score in answer.data["scores"]] == ["fid30_folder_pixels-32", "kid30_folder_pixels-32"]
    same = scored(real=real, fake=real, extractor=eye, metrics="fid", samples=40)
    assert same.data["scores"][0]["value"] == pytest.approx(0.0, abs=1e-6)
    assert not list(tmp_path.glob("*/eval"))


def test_memorisation_shows_the_copies(tmp_path: Path, eye: str) -> None:
    train, others = blobs(120, 16), blobs(60, 16, seed=3)
    fakes = others.copy()
    fakes[10:16] = train[50:56]
    inputs = MetricInputs(
        fake=FolderImages(write_folder(tmp_path / "fake", fakes)),
        reference=FolderImages(write_folder(tmp_path / "real", train)),
        extractor=PixelFeatures(),
    )
    score = measure(inputs, ["memorisation"])[0]
    assert score.value == pytest.approx(0.1 - 0.01, abs=0.04)
    pairs = inputs.pictures["memorisation_pairs"]
    assert len(pairs) == 24 and np.array_equal(pairs[:6], pairs[12:18])


def test_duplicates_and_identical_sets_are_named(tmp_path: Path) -> None:
    train = blobs(60, 16)
    train[-1] = train[7]
    folders = [FolderImages(write_folder(tmp_path / name, train)) for name in ("real", "fake")]
    inputs = MetricInputs(fake=folders[1], reference=folders[0], extractor=PixelFeatures())
    scores = {score.metric: score for score in measure(inputs, ["memorisation", "prdc"])}
    assert scores["memorisation"].value == pytest.approx(0.99) and scores["memorisation"].protocol["duplicates"] == 2
    said = "\n".join(inputs.warnings)
    assert "2 training images have a duplicate or a near-duplicate among them (0007.png, 0059.png)" in said
    assert "100% of the images of" in said and "prdc:" not in said
    many = FolderImages(write_folder(tmp_path / "many", np.repeat(blobs(12, 16), 8, 0)))
    inputs = MetricInputs(fake=FirstImages(many, 88), reference=many, extractor=PixelFeatures())
    measure(inputs, ["prdc", "memorisation"])
    said = "\n".join(inputs.warnings)
    assert "96 real images and 88 samples" in said and "precision is 1.0000 and recall 0.9167" in said
    assert "there is nothing to compare samples with" in said


def test_kid_of_two_images_is_refused(tmp_path: Path) -> None:
    real = FolderImages(write_folder(tmp_path / "real", blobs(8, 16)))
    for count in (2, 3):
        inputs = MetricInputs(fake=FirstImages(real, count), reference=real, extractor=PixelFeatures())
        if count == 2:
            with pytest.raises(DataError, match="at least 3 samples"):
                measure(inputs, ["kid"])
        else:
            assert "NaN" not in json.dumps([score.json() for score in measure(inputs, ["kid"])])


@pytest.mark.parametrize(
    "case, error, words",
    [
        ("empty", DataError, "holds no images"),
        ("one", DataError, "holds 1 image"),
        ("sizes", Mismatch, "more than one size"),
        ("other size", Mismatch, "makes 24x24"),
        ("damaged", DataError, "holds a file that is refused"),
        ("missing", DataError, "There is no"),
        ("few", DataError, "prdc needs more than 5"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, eye: str, case: str, error: type[Exception], words: str) -> None:
    real = write_folder(tmp_path / "real", blobs(12, 16))
    fake = tmp_path / "fake"
    write_folder(fake, blobs({"empty": 0, "one": 1, "few": 4}.get(case, 12), 24 if case == "other size" else 16))
    if case == "sizes":
        Image.fromarray(blobs(1, 24)[0]).save(fake / "0005.png")
    if case == "damaged":
        (fake / "0005.png").write_bytes((fake / "0005.png").read_bytes()[:60])
    if case == "missing":
        fake = tmp_path / "nowhere"
    with pytest.raises(error, match=words) as caught:
        evaluate(real=real, fake=fake, extractor=eye, metrics="prdc")
    assert all((caught.value.what, caught.value.why, caught.value.remedy))  # type: ignore[attr-defined]


class Overflowing:
    """A sampler whose faces from the 21st on are not made of numbers."""

    header: ClassVar = {"faces": {"side": 16}}
    model_hash = ""

    def sample(self, seeds: Sequence[int]) -> torch.Tensor:
        rows = torch.tensor(seeds, dtype=torch.float32).reshape(-1, 1, 1, 1)
        return torch.where(rows < 20, rows / 20, float("nan")).expand(-1, 1, 16, 16)


def test_a_generator_of_nan_is_refused(blob_pack: Pack) -> None:
    inputs = MetricInputs(
        fake=SampledImages(Overflowing(), 40), reference=PackImages(blob_pack), extractor=PixelFeatures()
    )
    with pytest.raises(DataError, match="face of seed 20 is not made of numbers"):
        measure(inputs, ["fid"])


def test_pixels_are_rounded_and_grey_has_three_channels() -> None:
    pixels = to_pixels(torch.tensor([-1.0, -0.999, 0.0, 1.0]).reshape(4, 1, 1, 1))
    assert pixels.shape == (4, 1, 1, 3) and pixels[:, 0, 0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3]


def test_a_model_for_another_size_is_refused(tmp_path: Path, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors")
    pack = write_pack(tmp_path / "large.pack", side=32)
    with pytest.raises(Mismatch, match="draws 16 px"):
        evaluate(model, data=str(pack.path), extractor=eye)


def test_other_data_is_judged_with_a_warning(tmp_path: Path, blob_pack: Pack, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors")
    answer = scored(model, data=str(blob_pack.path), extractor=eye, metrics="kid", samples=20)
    assert "other data" in answer.data["warnings"][0]


def test_wrong_words_are_refused(tmp_path: Path, blob_pack: Pack, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors")
    pack = str(blob_pack.path)
    for arguments, words in (
        ({"metrics": "fidd"}, "no metric `fidd`"),
        ({"metrics": " , "}, "nothing to measure"),
        ({"metrics": "reconstruction"}, "reconstructs nothing"),
        ({"fake": tmp_path}, "A model and folders"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate(model, **{"data": pack, "extractor": eye, **arguments})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate(extractor=eye)
    with pytest.raises(UsageError, match="has no training data recorded"):
        evaluate(model, extractor=eye)
    with pytest.raises(UsageError, match="is not an extractor"):
        evaluate(model, data=pack, extractor=eye.replace(":pixels", ":other"))
    real = write_folder(tmp_path / "real", blobs(8, 16))
    with pytest.raises(UsageError, match="ppl needs a model"):
        evaluate(real=real, fake=real, extractor=eye, metrics="ppl")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("lambda: (lambda images: images)", "whose name, hash, resizer, precision are texts"),
        ("lambda: Eye(lambda images: 1 / 0)", "ZeroDivisionError: division by zero"),
        ("lambda: Eye(lambda images: images.mean((1, 2, 3)))", r"returns the shape \[8\]"),
        ("lambda: Eye(lambda images: [['x']] * 8)", "could not convert"),
    ],
)
def test_a_faulty_extractor_is_not_mien_s_bug(tmp_path: Path, body: str, words: str) -> None:
    (tmp_path / "eye.py").write_text(
        "class Eye:\n    name = hash = resizer = precision = 'x'\n"
        "    def __init__(self, work): self.work = work\n    def __call__(self, images): return self.work(images)\n"
        f"features = {body}\n"
    )
    real = write_folder(tmp_path / "real", blobs(8, 16))
    fake = write_folder(tmp_path / "fake", blobs(8, 16, seed=1))
    with pytest.raises(UsageError, match=words):
        evaluate(real=real, fake=fake, extractor=f"{tmp_path / 'eye.py'}:features", metrics="kid")


class Counting(PixelFeatures):
    calls = 0

    def __call__(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        type(self).calls += 1
        return super().__call__(images)


def test_features_of_real_images_are_kept_and_checked(blob_pack: Pack, own_cache: Path) -> None:
    images, eye = PackImages(blob_pack), Counting()
    first = cached_features(images, eye)
    calls = Counting.calls
    assert np.array_equal(cached_features(images, eye), first) and Counting.calls == calls + 1 == 7, (
        "one call that checks"
    )
    (file,) = (own_cache / "features").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-100])  # damaged at rest: computed again
    assert np.array_equal(cached_features(images, eye), first) and Counting.calls == 2 * calls + 1
    eye.resizer = "another"
    cached_features(images, eye)
    assert Counting.calls == 3 * calls + 1
    assert len(list((own_cache / "features").glob("*.npy"))) == 2


@pytest.mark.parametrize("change", ["scale", "width"])
def test_an_extractor_that_was_edited_without_a_new_hash_is_noticed(
    change: str, blob_pack: Pack, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features of real images of the old code stood beside features of samples of the new one: a distance of a million."""

    class Edited(Counting):
        def __call__(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            found = super().__call__(images)
            return found / 255 if change == "scale" else found[:, :100]

    images = PackImages(blob_pack)
    cached_features(images, Counting())
    assert np.array_equal(cached_features(images, Edited()), extract(images, Edited()))
    assert "has changed since" in capsys.readouterr().err
    cached_features(images, Edited())
    assert not capsys.readouterr().err


def test_kept_features_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CACHE_BYTES", 3000)
    for index in range(5):
        file = tmp_path / f"{index}.npy"
        features.store(file, np.zeros((100, 2), np.float32))
        os.utime(file, (index, index))
    assert sorted(file.name for file in tmp_path.glob("*.npy")) == ["2.npy", "3.npy", "4.npy"]


def test_large_packs_are_read_evenly(blob_pack: Pack) -> None:
    images = PackImages(blob_pack, most=10)
    assert images.count == 10 and images.rows.tolist() == [0, 9, 19, 28, 38, 48, 57, 67, 76, 86]
    assert images.fingerprint != PackImages(blob_pack).fingerprint


def test_cached_and_first_images_are_the_images(blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is read once, also where a few of its rows are wanted later, and again where the cache is full."""
    images, read = PackImages(blob_pack), []
    first = FirstImages(images, 20)
    monkeypatch.setattr(first, "read", lambda rows: read.append(rows) or images.read(rows))
    cached = CachedImages(first)
    assert cached.count == 20
    for rows in (slice(0, 16), slice(16, 20), slice(0, 16), slice(3, 4)):
        assert np.array_equal(cached.read(rows), images.read(rows))
    assert read == [slice(0, 16), slice(16, 20)]
    monkeypatch.setattr("mien.metrics.images.CACHE_BYTES", 16 * 16 * 16 * 3)
    full = CachedImages(first)
    for rows in (slice(0, 16), slice(16, 20)) * 2:
        assert np.array_equal(full.read(rows), images.read(rows))
    assert read[2:] == [slice(0, 16), slice(16, 20), slice(16, 20)]


def test_work_ahead_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetch(lambda i=i: i * i for i in range(10))) == [i * i for i in range(10)]

    def fail() -> int:
        raise DataError("what", "why", "remedy")

    with pytest.raises(DataError):
        list(prefetch([lambda: 1, fail, lambda: 2]))


def test_two_processes_give_the_scores_of_one(tmp_path: Path, blob_pack: Pack, eye: str) -> None:
    model = write_model(tmp_path / "model.safetensors", blob_pack)
    words = ["evaluate", model, "--data", blob_pack.path, "--extractor", eye, "--samples", 50, "--json"]
    own = {**environment(), "MIEN_CACHE": str(tmp_path / "another")}
    line = forked("--module", "mien", *words)
    done = subprocess.run(line, env=own, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    alone = scored(model, data=str(blob_pack.path), extractor=eye, samples=50)
    for shared, own in zip(json.loads(line)["scores"], alone.data["scores"], strict=True):
        assert shared["protocol"] == own["protocol"]
        assert [shared[key] for key in ("value", "low", "high")] == pytest.approx(
            [own[key] for key in ("value", "low", "high")], rel=1e-9
        )


def test_all_processes_stop_together(tmp_path: Path, eye: str) -> None:
    """One damaged file is read by one process alone; the other must not wait for it."""
    real, fake = write_folder(tmp_path / "real", blobs(40, 16)), write_folder(tmp_path / "fake", blobs(40, 16))
    (fake / "0020.png").write_bytes(b"nothing")
    words = ["evaluate", "--real", real, "--fake", fake, "--extractor", eye, "--metrics", "kid"]
    line = forked("--module", "mien", *words)
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode != 0 and "0020.png" in done.stderr


def test_names_and_comparability() -> None:
    assert [in_thousands(count) for count in (500, 1000, 9000, 10_000, 12_345)] == ["500", "1k", "9k", "10k", "12345"]
    protocol = {"extractor": "a", "reference": {"count": 5}, "seeds": [0, 1]}
    assert disagreements(protocol, {**protocol, "seeds": [0, 9]}) == []
    assert disagreements(protocol, {**protocol, "resizer": "tf1", "reference": {"count": 6}}) == [
        "resizer",
        "reference",
    ]


def test_the_distance_of_identities_is_that_of_their_embeddings(
    blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the Fréchet distance as it is written down, with SciPy's matrix root; the embeddings are replaced by colours."""
    from scipy import linalg

    class Colours(PixelFeatures):
        def __init__(self, reference: Any) -> None:
            super().__init__()
            self.reference, self.name = reference, "colours"

        def __call__(self, images: Any) -> Any:
            return super().__call__(images)[:, 37::640]  # far fewer than there are images

    monkeypatch.setattr("mien.metrics.evaluate.IdentityFeatures", Colours)
    real, fake = FirstImages(PackImages(blob_pack), 40), Negative(PackImages(blob_pack), 40)
    (score,) = measure(MetricInputs(fake=fake, reference=real, extractor=PixelFeatures()), ["sface"])
    a, b = (extract(images, Colours(real)).astype(np.float64) for images in (real, fake))
    assert len(a) > 2 * a.shape[1] > 4
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(0) - b.mean(0)
    wanted = shift @ shift + np.trace(first + second - 2.0 * np.real(linalg.sqrtm(first @ second)))
    assert score.value == pytest.approx(wanted, rel=1e-5) and wanted > 0.01
    assert score.metric == "sface" and score.protocol["extractor"] == "colours"


class Negative(FirstImages):
    """Another crowd."""

    def read(self, rows: slice) -> np.ndarray[Any, Any]:
        return 255 - super().read(rows)


def test_a_constant_extractor_column_is_no_nan(blob_pack: Pack) -> None:
    """Features without spread, as of a constant generator: every score is a number."""
    constant = FirstRepeated(blob_pack)
    inputs = MetricInputs(fake=constant, reference=PackImages(blob_pack), extractor=PixelFeatures())
    scores = {score.metric: score for score in measure(inputs)}
    assert all(np.isfinite([score.value, score.low, score.high]).all() for score in scores.values())
    assert scores["recall"].value == 0.0 and scores["precision"].value == 1.0
    assert extract(constant, PixelFeatures()).std(0).max() < 1e-5


class FirstRepeated(PackImages):
    def read(self, rows: slice) -> np.ndarray[Any, Any]:
        return np.repeat(super().read(slice(0, 1)), len(range(*rows.indices(self.count))), 0)


def test_the_documented_extractor_takes_an_exported_network(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 32, 32), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    sizes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(network.eval(), (torch.rand(2, 3, 224, 224),), dynamic_shapes=sizes), tmp_path / "small.pt2"
    )
    monkeypatch.setenv("DINOV2", str(tmp_path / "small.pt2"))
    folder = write_folder(tmp_path / "faces", blobs(20, 32))
    file = Path(__file__).parent.parent / "docs" / "own_extractor.py"
    answer = scored(real=folder, fake=folder, extractor=f"{file}:dinov2", metrics="kid")
    (score,) = answer.data["scores"]
    assert score["name"] == "kid20_folder_small" and score["protocol"]["resizer"] == "bicubic 224, ImageNet range"


class Perceiving:
    """LPIPS's stand-in: an embedding whose squared distance is the mean squared difference."""

    name, hash, resizer, precision = "lpips-alex", "", "none", "fp32"

    def __init__(self, network: str, device: str) -> None: ...

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / images[0].numel() ** 0.5


@pytest.mark.parametrize("name", ["vae-torch-2015", "began-2017", "cppn-2016"])
def test_reconstruction_goes_through_the_decoder_of_encodings(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BEGAN's encodings have a decoder of their own, and a CPPN sees in grey."""
    monkeypatch.setattr(lpips_metrics, "PerceptualFeatures", Perceiving)
    pack = write_pack(tmp_path / "faces.pack", count=20, side=64)
    run = tiny(presets.PRESETS[name])
    channels = 1 if name == "cppn-2016" else 3
    faces = ImageSpec(side=64, channels=channels)
    torch.manual_seed(0)
    model = run.model.build(faces).eval()
    assert isinstance(model, Invertible)
    header = {"format": 1, "preset": name, "config": to_json(run.model), "faces": to_json(faces), "data": {}}
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint.pack_tensors(model.state_dict(), header))
    eye = PixelFeatures()
    scores = mien.evaluate(path, data=pack.path, metrics="reconstruction", samples=4, extractor=eye)
    real = torch.from_numpy(np.array(pack.images)).permute(0, 3, 1, 2) / 127.5 - 1.0
    with torch.no_grad():
        again = model.reconstruct(real if channels == 3 else real.mean(1, keepdim=True)).clamp(-1.0, 1.0)
    off = real - again
    assert [score.name for score in scores] == ["reconstruction_l1_20_train", "reconstruction_lpips20_train"]
    assert scores[0].value == pytest.approx(float(off.abs().mean()) / 2, rel=1e-4)
    assert scores[1].value == pytest.approx(float(off.square().mean()), rel=1e-4)
    assert scores[0].protocol["of"] == "train" and scores[1].protocol["extractor"] == "lpips-alex"


@pytest.mark.parametrize("holdout", [False, True])
def test_brighter_duplicates_do_not_hide_a_weak_copier(holdout: bool) -> None:
    """One in twenty of them set the bound, under which such copies are not: 0.02 was said instead of 0.99."""
    rng = np.random.default_rng(0)
    train, unseen, noise = (rng.standard_normal((500, 64)).astype(np.float32) for _ in range(3))
    copies = train + 0.7 * noise  # at two thirds of the distance of two images
    twins = train[:25] * np.float32(1.1) + np.float32(0.6)
    reference = (train, np.concatenate([unseen, twins])) if holdout else (np.concatenate([train, twins]), None)
    found = memorisation(*reference, copies)
    assert found.excess.value > 0.95 and len(found.duplicates) == (25 if holdout else 50)
    few = train[:, :3]  # of which many agree by chance
    assert len(memorisation(few, None, few).duplicates) < 100


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("kind", ["exact", "saved again", "brighter"])
def test_duplicates_do_not_hide_a_copier(kind: str, share: float) -> None:
    """A generator that gives its training images back, a little changed, is found whatever share of them is there twice.

    With one in twenty saved again, 0.24 were said instead of 0.98.
    """
    rng = np.random.default_rng(0)
    train = rng.standard_normal((500, 64)).astype(np.float32)

    def changed(rows: Any, by: float) -> Any:
        return rows + by * rng.standard_normal(rows.shape).astype(np.float32)

    twins = train[: round(share * len(train))]
    twins = {"exact": twins, "saved again": changed(twins, 0.1), "brighter": twins + np.float32(0.15)}[kind]
    found = memorisation(np.concatenate([train, twins]), None, changed(train[rng.permutation(500)[:200]], 0.2))
    assert found.excess.value == pytest.approx(0.99) and found.nearer > 0.999
    assert len(found.duplicates) == 2 * len(twins)
    honest = memorisation(np.concatenate([train, twins]), None, rng.standard_normal((500, 64)).astype(np.float32))
    assert abs(honest.excess.value) < 0.03
