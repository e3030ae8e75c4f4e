"""The explorer's server: the right face for every question, and nothing for anybody else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")
pytest.importorskip("uvicorn")

from mien import presets
from mien.core.run import override
from mien.data.pack import Pack
from mien.errors import DataError, Preempted
from mien.report.grid import to_bytes
from mien.sampling.address import parse
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint, control
from mien.storage.run_directory import RunDirectory
from mien.training.experiment import train
from mien.web.queue import Kind
from mien.web.registry import RunEntry
from mien.web.responses import without_paths
from mien.web.run_events import CURVE_POINTS, curves
from mien.web.security import PHOTO_BYTES
from mien.web.serve import HEAD_SECONDS, bind
from mien.web.service import Service
from tests.conftest import blobs, steer, tiny, write_model, write_pack
from tests.web_client import TOKEN, Served, serving, short_run

CANARY = "canary-that-nobody-may-read-7f3a"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short real runs in a folder, one that encodes, a flow as a file, and a canary beside them."""
    root = tmp_path_factory.mktemp("place")
    write_pack(root / "blobs.pack", labels=("Hat",))
    (root / "secret.txt").write_text(CANARY)
    for number, name in enumerate(("quick", "vae")):
        short_run(name, root / "blobs.pack", root / "runs" / f"0000{number}-{name}")
    (root / "flow").mkdir()
    write_model("flow", root / "flow", Pack.open(root / "blobs.pack"), **{"conditional": True, "model.steps": 3})
    return root / "runs"


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[Served]:
    with serving([runs, runs.parent / "flow" / "model.safetensors"]) as found:
        yield found


@pytest.fixture(scope="module")
def ids(served: Served) -> dict[str, tuple[str, str]]:
    """Of each preset, the ids of its run and its newest model."""
    found = served.json("/api/models")["runs"]
    return {run["preset"]: (run["id"], run["checkpoints"][0]["model"]) for run in found}


@pytest.fixture(scope="module")
def model(ids: dict[str, tuple[str, str]]) -> str:
    return f"/api/model/{ids['quick'][1]}"


def pixels(png: bytes) -> Any:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def bare(content: bytes) -> Any:
    """The RGBA bytes of a preview, as RGB."""
    side = int((len(content) / 4) ** 0.5)
    return np.frombuffer(content, np.uint8).reshape(side, side, 4)[..., :3].astype(int)


# Faces


def test_a_seed_is_the_face_that_the_command_line_draws(served: Served, model: str, runs: Path) -> None:
    sampler = Sampler.load(runs / "00000-quick", device="cpu")
    status, png, headers = served.ask(f"{model}/image?at=42")
    assert status == 200 and headers["content-type"] == "image/png"
    assert (pixels(png) == to_bytes(sampler.sample([42]))[0].numpy()).all()
    with Image.open(io.BytesIO(png)) as image:
        recipe = json.loads(image.info["mien"])  # type: ignore[index]
        assert "Synthetic" in str(image.info["Disclaimer"])
    assert recipe["at"] == "42" and recipe["model"] == sampler.model_hash and recipe["synthetic"] is True
    twin = served.json(f"{model}/image.json?at=42")
    assert base64.b64decode(twin["base64"]) == png and twin["recipe"] == recipe


def test_truncation_and_addresses_reach_the_sampler(served: Served, model: str, runs: Path) -> None:
    from mien.sampling.address import parse

    sampler = Sampler.load(runs / "00000-quick", device="cpu")
    at = "42,0.25,0.5~7:0.3"
    _, png, _ = served.ask(f"{model}/image?at={at}&truncation=0.5")
    z, _ = sampler.latent_at(parse(at))
    assert (pixels(png) == to_bytes(sampler.with_options(DrawOptions(truncation=0.5)).decode(z))[0].numpy()).all()
    status, other = served.post(f"{model}/image", {"at": at, "truncation": 0.5})
    assert status == 200 and (pixels(other) == pixels(png)).all()


def test_a_preview_is_the_face_within_two_levels(served: Served, model: str) -> None:
    _, quick, headers = served.ask(f"{model}/preview?at=5,0.5,0.5&drag=abc")
    _, exact, _ = served.ask(f"{model}/image?at=5,0.5,0.5")
    assert np.abs(bare(quick) - pixels(exact)).max() <= 2
    assert headers["cache-control"] == "no-store", "nobody asks for the same preview twice"


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [1, 1]), (0.05, [1, 4])])
def test_a_light_preview_leaves_the_other_cores_to_the_page(seconds: float, expected: list[int]) -> None:
    counts = []

    class Network:
        def with_options(self, _: object) -> Any:
            return self

        def preview(self, z: Any, labels: object) -> Any:
            counts.append(torch.get_num_threads())
            end = time.thread_time() + seconds
            while time.thread_time() < end:
                pass
            return z

        model, sampler = None, lambda self, _: self

    service = Service(Network())  # type: ignore[arg-type]
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        for _ in expected:
            service.draw(Kind("a", exact=False), torch.zeros(1, 2), None)
        assert counts == expected and torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_a_slow_flow_is_dragged_by_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pictures a second need a tenth of a second each; thumbnails keep their steps, which their recipe names."""
    clock = iter(0.09 * n for n in range(100))
    monkeypatch.setattr("mien.web.service.time.thread_time", lambda: next(clock))

    class Network:
        def with_options(self, _: object) -> Any:
            return self

        def preview(self, z: Any, labels: object) -> Any:
            return z

        sampler = lambda self, _: self  # noqa: E731

    service = Service(Network())  # type: ignore[arg-type]
    steps = []
    for solver in ("multistep:4", "multistep:4", "multistep:3", "multistep:4", "multistep:2", None):
        service.draw(Kind("a", DrawOptions(solver=solver), exact=False), torch.zeros(1, 2), None)
        steps.append(service.steps["a"])
    assert steps == [3, 3, 2, 2, 2, 2]
    service.draw(Kind("b", DrawOptions(solver="multistep:4"), exact=False), torch.zeros(2, 2), None)
    assert "b" not in service.steps, ".045 s for each of two are quick enough"


def test_an_answer_is_sent_at_once() -> None:
    """Its body, sent after its head, is not held until the client has confirmed the head, which may take 40 ms."""

    async def accepted() -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            done.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = bind("127.0.0.1", 0)
        async with await asyncio.start_server(take, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await asyncio.wait_for(done, 10)

    assert asyncio.run(accepted())


def test_a_flow_is_dragged_by_a_few_steps_and_exact_at_rest(served: Served) -> None:
    flow = next(iter(served.json("/api/models")["models"]))["id"]

    def exact(solver: str) -> Any:
        return pixels(served.ask(f"/api/model/{flow}/image?at=5&solver={solver}")[1]).astype(int)

    def quick(solver: str) -> Any:
        return bare(served.ask(f"/api/model/{flow}/preview?at=5&solver={solver}&drag=a")[1])

    for solver in ("multistep:12", "heun:8", "rk4:2", "adaptive:1e-3"):
        dragged = quick(solver)
        assert np.abs(dragged - exact("multistep:4")).max() <= 2 < np.abs(dragged - exact(solver)).max(), solver
    for solver in ("euler:3", "midpoint:2"):
        assert np.abs(quick(solver) - exact(solver)).max() <= 2, "that is few already"


def test_thumbnails_of_a_flow_are_drawn_in_few_steps_and_say_so(served: Served, model: str) -> None:
    """Seventeen pictures of the pad took three seconds of a flow's whole solution, and the next face waited for them."""
    flow, counts = f"/api/model/{served.json('/api/models')['models'][0]['id']}", []
    queue = served.explorer.service.queue
    draw = queue.draw
    queue.draw = lambda kind, z, labels: counts.append(len(z)) or draw(kind, z, labels)  # type: ignore[func-returns-value]
    try:
        for question in ("sheet{}?first=4&count=6&columns=3", "children{}?at=5&first=100", "image{}?at=5"):
            many = f"{flow}/{question}&solver=heun:8"
            counts.clear()
            quick = served.json(f"{many.format('.json')}&quick=1")
            assert quick["recipe"]["solver"] == "multistep:4" and max(counts) <= 2, (
                "the next face waits for two at most"
            )
            drawn, few = pixels(base64.b64decode(quick["base64"])).astype(int), many.replace("heun:8", "multistep:4")
            assert np.abs(drawn - pixels(served.ask(few.format(""))[1])).max() <= 2, question
            exact = served.json(many.format(".json"))
            assert exact["recipe"]["solver"] == "heun:8", "without being asked nothing is quick"
            assert np.abs(drawn - pixels(base64.b64decode(exact["base64"]))).max() > 2, question
    finally:
        queue.draw = draw
    for question in ("sheet?first=4&count=6", "image?at=5"):
        assert (served.ask(f"{model}/{question}&quick=1")[1]) == served.ask(f"{model}/{question}")[1], (
            "a GAN's are as ever"
        )
    assert served.ask(f"{model}/image?at=5&quick=2")[0] == 400


def test_what_a_page_that_has_gone_asked_for_is_not_drawn(served: Served) -> None:
    """A reload waited for all that the page before had asked for, and for the face that was being drawn for it."""
    flow = f"/api/model/{served.json('/api/models')['models'][0]['id']}"
    queue, begun, goes_on = served.explorer.service.queue, threading.Event(), threading.Event()
    check = queue.check

    def slow_step() -> None:
        begun.set()
        assert goes_on.wait(30)
        check()

    drawn, queue.check = queue.drawn, slow_step  # type: ignore[method-assign]
    try:
        clients = []
        for question in ("image?at=77&solver=euler:64", "sheet?first=900", "image?at=78&solver=euler:2"):
            clients.append(socket.create_connection(("127.0.0.1", served.port)))
            head = f"GET {flow}/{question} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n"
            clients[-1].sendall(head.encode())
            assert begun.wait(30)
        wait_for(lambda: queue.rows > 1)
        for client in clients:
            client.close()
        wait_for(lambda: queue.rows == 0 and all(question.answer.done() for question in queue.drawing))
        goes_on.set()
        assert served.ask(f"{flow}/preview?at=5&drag=a")[0] == 200
        assert queue.drawn - drawn == 1, "the preview, and nothing else"
    finally:
        goes_on.set()
        queue.check = check  # type: ignore[method-assign]


def test_directions_are_found_and_named(runs: Path, tmp_path: Path) -> None:
    place = shutil.copytree(runs / "00000-quick", tmp_path / "00000-quick")
    with serving([place]) as served:
        model = f"/api/model/{served.json('/api/models')['runs'][0]['checkpoints'][0]['model']}"
        assert served.post(f"{model}/find-directions", {"count": 3})[0] == 401
        assert served.post(f"{model}/directions", {"name": "Smile", "direction": []})[0] == 401
        status, events = served.post(f"{model}/find-directions", {"count": 3}, token=True)
        assert (
            status == 200
            and b"event: step" in events
            and events.rstrip().endswith(b'{"names": ["component-1", "component-2", "component-3"]}')
        )
        amounts = {"component-1": 2.0, "component-3": -1.0}
        body = {"name": "Smile: wide", "direction": [f"{name}:{value}" for name, value in amounts.items()]}
        assert served.post(f"{model}/directions", body, token=True)[0] == 202
        told = served.json(model)
        assert [one["name"] for one in told["directions"]] == [*(f"component-{n}" for n in (1, 2, 3)), "Smile: wide"]
        assert told["directions"][3]["note"] == "Named in the explorer: +2 component-1, -1 component-3"
        directions = Sampler.load(place, device="cpu").directions
        vector, drawn = directions["Smile: wide"].vector, Sampler.load(place, device="cpu").latents(range(1024))
        parts = 2 * directions["component-1"].vector - directions["component-3"].vector
        assert float(torch.nn.functional.cosine_similarity(vector, parts, dim=0)) == pytest.approx(1, abs=1e-5)
        assert float((drawn @ (vector / vector.norm())).std()) == pytest.approx(float(vector.norm()), rel=1e-4)
        far = served.ask(f"{model}/image?at=5&direction=Smile:%20wide:3")[1]
        assert (pixels(far) != pixels(served.ask(f"{model}/image?at=5")[1])).any()
        for name, direction in (
            ("Smile: wide", ["component-1:1"]), ("", ["component-1:1"]), (" x", ["component-1:1"]), ("x" * 41, ["component-1:1"]),
            ("__proto__", ["component-1:1"]), ("a\nb", ["component-1:1"]), ("still", []), ("still", ["component-1:0"]),
            ("other", ["nobody:1"]),
        ):  # fmt: skip
            status, answer = served.post(f"{model}/directions", {"name": name, "direction": direction}, token=True)
            assert status == 400 and answer["error"]["hint"], (name, direction)
        assert len(served.json(model)["directions"]) == 4


def test_curves_have_ranges_and_scores_have_intervals(tmp_path: Path) -> None:
    run = RunEntry("a", tmp_path, ())
    lines = [
        {"seen": n, "loss": float(n % 3), **({"odd": 1.0} if n % 2 else {})} for n in range(1, 2 * CURVE_POINTS + 1)
    ]
    run.home.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "eval").mkdir()
    scores = [{"metric": "fid", "value": 30.0 - n, "low": 29.0 - n, "high": 31.5 - n, "seen": 10 * n} for n in (2, 1)]
    (tmp_path / "eval" / "fid.jsonl").write_text("".join(json.dumps(score) + "\n" for score in scores))
    found = curves(run)
    assert found["seen"] == list(range(2, 2 * CURVE_POINTS + 1, 2))
    assert found["curves"]["loss"][:3] == [1.5, 0.5, 1.0] and found["ranges"]["loss"][:3] == [
        (1.0, 2.0),
        (0.0, 1.0),
        (0.0, 2.0),
    ]
    assert found["curves"]["odd"][0] == 1.0 and found["ranges"]["odd"][0] == (1.0, 1.0)
    (fid,) = found["scores"]
    assert (fid["name"], fid["seen"], fid["values"]) == ("FID", [10, 20], [29.0, 28.0])
    assert fid["ranges"] == [(28.0, 30.5), (27.0, 29.5)] and "lower is better" in fid["meaning"]


def test_directions_act_in_some_layers(runs: Path, tmp_path: Path) -> None:
    place = shutil.copytree(runs / "00000-quick", tmp_path / "00000-quick")
    steer(place)
    sampler = Sampler.load(place, device="cpu")
    with serving([place]) as served:
        found = served.json("/api/models")["runs"][0]["checkpoints"][0]["model"]
        ask = f"/api/model/{found}/image"
        kinds = {"": {}, "direction=Smiling:3": {"directions": {"Smiling": 3.0}}}
        kinds["direction=Smiling:3&layers=2"] = kinds["direction=Smiling:3"] | {"layers": "2"}
        with ThreadPoolExecutor(3) as pool:  # together, so that they may meet in one chunk
            drawn = [pixels(answer[1]) for answer in pool.map(lambda query: served.ask(f"{ask}?at=5&{query}"), kinds)]
        for image, (query, changes) in zip(drawn, kinds.items(), strict=True):
            z, rows = sampler.latent_at(parse("5"), **changes)
            assert (image == to_bytes(sampler.decode(z, rows))[0].numpy()).all(), query
        recipe = served.json(f"{ask}.json?at=5&direction=Smiling:3&layers=2")["recipe"]
        assert recipe["layers"] == "2" and recipe["directions"] == {"Smiling": 3.0}
        for wrong in ("layers=9", "layers=rough&direction=Smiling:3"):
            assert served.ask(f"{ask}?at=5&{wrong}")[0] == 400, wrong


def test_sheets_and_children(served: Served, model: str) -> None:
    _, sheet, _ = served.ask(f"{model}/sheet?first=40&count=5&columns=3")
    assert pixels(sheet).shape == (32, 48, 3)
    _, face, _ = served.ask(f"{model}/image?at=43")
    assert (pixels(sheet)[16:32, :16] == pixels(face)).all()
    _, named, _ = served.ask(f"{model}/sheet?at=43&at=7&columns=2")
    assert (pixels(named)[:, :16] == pixels(face)).all()
    litter = served.json(f"{model}/children.json?at=3&first=100&strength=0.25")
    assert litter["recipe"]["at"] == [f"3~{100 + n}:0.25" for n in range(9)]
    _, child, _ = served.ask(f"{model}/image?at=3~104:0.25")
    assert (pixels(base64.b64decode(litter["base64"]))[16:32, 16:32] == pixels(child)).all()


def test_the_path_from_noise_to_a_face(served: Served, model: str) -> None:
    flow = f"/api/model/{served.json('/api/models')['models'][0]['id']}"
    able = served.json(flow)["flow"]
    assert able == {"method": "multistep", "steps": 3, "tolerance": 1e-4}
    asked = "at=7,0.5,0&label=Hat:1&solver=euler:4&guidance=2"
    status, sheet, _ = served.ask(f"{flow}/path?{asked}&columns=3")
    twin = served.json(f"{flow}/path.json?{asked}&columns=3")
    assert status == 200 and base64.b64decode(twin["base64"]) == sheet
    assert twin["recipe"]["stages"] == 5 and twin["recipe"]["solver"] == "euler:4" and twin["recipe"]["guidance"] == 2
    assert pixels(sheet).shape == (32, 48, 3)
    status, face, _ = served.ask(f"{flow}/image?{asked}")
    assert status == 200 and (pixels(sheet)[16:32, 16:32] == pixels(face)).all(), "the last is the face itself"
    stages = [pixels(sheet)[16 * (n // 3) :, 16 * (n % 3) :][:16, :16].astype(int) for n in range(5)]
    assert all(np.abs(a - b).max() > 0 for a, b in itertools.pairwise(stages))
    _, plain, _ = served.ask(f"{flow}/image?at=7,0.5,0&label=Hat:1")
    assert (pixels(plain) != pixels(face)).any()
    for wrong in ("solver=euler:65", "solver=adaptive:1e-6", "solver=x", "guidance=-1", "guidance=nan", "guidance=99"):
        assert served.ask(f"{flow}/path?at=1&{wrong}")[0] == 400, wrong
    assert served.ask(f"{flow}/path?at=1&solver=adaptive:1e-2")[0] == 200
    for path in ("path?at=1", "image?at=1&solver=euler:2", "image?at=1&guidance=2"):
        assert served.ask(f"{model}/{path}")[0] == 400, path
    assert served.json(model)["flow"] is None


@pytest.mark.parametrize("kind", ["webp", "gif", "mp4"])
def test_a_walk_is_a_film(served: Served, model: str, kind: str) -> None:
    if kind == "mp4":
        pytest.importorskip("av")
    status, film, headers = served.ask(f"{model}/walk?at=3&at=7&frames=6&format={kind}&zoom=2")
    assert status == 200 and headers["content-type"].endswith(kind)
    if kind != "mp4":
        with Image.open(io.BytesIO(film)) as image:
            assert image.size == (32, 32) and getattr(image, "n_frames", 1) > 1


def test_a_model_says_what_it_can(served: Served, ids: dict[str, tuple[str, str]]) -> None:
    quick, vae = (served.json(f"/api/model/{ids[name][1]}") for name in ("quick", "vae"))
    assert quick["encodes"] is False and vae["encodes"] is True and not quick["scalable"]
    assert quick["side"] == 16 and quick["prior"] == "normal" and quick["neighbours"] is True


def test_neighbours_know_a_copy(served: Served, ids: dict[str, tuple[str, str]], runs: Path, model: str) -> None:
    near = served.json(f"{model}/neighbours?at=3")
    assert len(near["neighbours"]) == 6 and near["compared"] == 96
    distances = [entry["distance"] for entry in near["neighbours"]]
    assert distances == sorted(distances)
    run = served.explorer.service.registry.run(ids["quick"][0])
    pack = Pack.open(runs.parent / "blobs.pack")
    from mien.web.neighbours import Neighbours, tensor

    copy = Neighbours().of(run, tensor(pack.images[5:6])[0])
    assert copy["memorised"] is True and copy["neighbours"][0]["distance"] == 0


@pytest.mark.parametrize(
    "query",
    [
        "at=x", "at=-1", "at=9007199254740992", "at=", "at=42&at=43", "at=@AAAA", "at=1~2", "at=(((((((((((1", "nothing=1",
        "truncation=nan", "truncation=inf", "truncation=1e9", "truncation=x", "size=64", "size=-1", "size=1", "label=Hat:1",
        "label=:", "direction=Smile:1", "direction=x", "at=" + "1~2:0.5" * 600,
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_three_parts(served: Served, model: str, query: str) -> None:
    status, body, _ = served.ask(f"{model}/image?{query}")
    assert status == 400, body
    error = json.loads(body)["error"]
    assert error.keys() == {"code", "message", "why", "hint"} and all(error.values())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b'{"at": {}}', b'{"at": true}', b'{"at": [[1]]}', b"[" * 100_000, b'{"x": 1}']
)
def test_a_body_that_does_not_fit_is_refused(served: Served, model: str, body: bytes) -> None:
    status, _, _ = served.ask(f"{model}/image", "POST", body, {"Origin": served.own})
    assert status == 400


# Photographs


def photograph(kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(blobs(1, 48, seed=5)[0]).save(buffer, format=kind, **more)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photograph_is_encoded_and_forgotten(
    served: Served, ids: dict[str, tuple[str, str]], runs: Path, kind: str
) -> None:
    before = sorted(str(path) for path in runs.parent.rglob("*"))
    path = f"/api/model/{ids['vae'][1]}"
    status, body, _ = served.ask(f"{path}/project", "POST", photograph(kind), {"Origin": served.own})
    found = json.loads(body)
    assert status == 200 and 0 < found["error"] < 1 and found["at"].startswith("@")
    _, png, _ = served.ask(f"{path}/image?at={found['at']}")
    assert (pixels(png) == pixels(base64.b64decode(found["image"].split(",")[1]))).all()
    assert sorted(str(path) for path in runs.parent.rglob("*")) == before, "something was stored"


def test_a_photograph_is_levelled_by_its_face(served: Served, ids: dict[str, tuple[str, str]], runs: Path) -> None:
    from matplotlib.cbook import get_sample_data

    from mien.data.photo import can_align, frame

    if not can_align():
        pytest.skip("SKIPPED LEVELLING: the extra `faces` or its weights are not here")
    with get_sample_data("grace_hopper.jpg") as file:  # type: ignore[no-untyped-call]
        content = file.read()
    path = f"/api/model/{ids['vae'][1]}"
    assert served.json(path)["levels"] is True
    _, body, _ = served.ask(f"{path}/project?align=1", "POST", content, {"Origin": served.own})
    found = json.loads(body)
    assert found["cut"] == "levelled"
    expected = frame("", content, 16, {}).pixels
    assert (pixels(base64.b64decode(found["original"].split(",")[1])) == expected).all()
    _, body, _ = served.ask(f"{path}/project", "POST", content, {"Origin": served.own})
    plain = json.loads(body)
    assert plain["cut"] == "whole" and plain["original"] != found["original"]
    _, body, _ = served.ask(f"{path}/project?align=1", "POST", photograph("JPEG"), {"Origin": served.own})
    assert json.loads(body)["cut"] == "no face"
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, format="PNG")
    assert served.ask(f"{path}/project?align=1", "POST", bomb.getvalue(), {"Origin": served.own})[0] == 422
    assert served.ask(f"{path}/project?align=1", "POST", content[:5000], {"Origin": served.own})[0] == 422


def test_without_the_aligner_the_middle_is_used_and_that_is_said(
    served: Served, ids: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))  # no weights there
    for name in ("MIEN_WEIGHTS_YUNET", "MIEN_WEIGHTS_FACE_MESH"):
        monkeypatch.delenv(name, raising=False)
    path = f"/api/model/{ids['vae'][1]}/project"
    _, body, _ = served.ask(f"{path}?align=1", "POST", photograph(), {"Origin": served.own})
    aligned = json.loads(body)
    assert aligned["cut"] == "no aligner" and not list(tmp_path.iterdir()), "nothing is downloaded"


def test_a_descent_tells_its_steps(served: Served, model: str) -> None:
    status, body, headers = served.ask(f"{model}/project?steps=12", "POST", photograph(), {"Origin": served.own})
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = re.findall(r"event: (\w+)\ndata: (.*)\n", body.decode())
    assert events[-1][0] == "found" and events[0][0] == "step"
    found = json.loads(events[-1][1])
    assert found["error"] <= json.loads(events[0][1])["error"] and found["cut"] == "whole"


def test_a_model_without_an_encoder_says_so(served: Served, model: str) -> None:
    status, body, _ = served.ask(f"{model}/project", "POST", photograph(), {"Origin": served.own})
    assert status == 400 and b"no encoder" in body


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"GIF89a", 400),
        (b"<svg onload=alert(1)>", 400),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, 422),
        (b"\xff\xd8\xff" + b"\0" * 1000, 422),
        (b"RIFF\0\0\0\0WEBPVP8 ", 422),
        (photograph()[: len(photograph()) // 2], 422),
        (photograph("JPEG")[: len(photograph("JPEG")) // 2], 422),
    ],
)
def test_what_is_no_photograph_is_refused(
    served: Served, ids: dict[str, tuple[str, str]], content: bytes, status: int
) -> None:
    found, body, _ = served.ask(f"/api/model/{ids['vae'][1]}/project", "POST", content, {"Origin": served.own})
    assert found == status, body


def test_bombs_do_not_go_off(served: Served, ids: dict[str, tuple[str, str]]) -> None:
    large = io.BytesIO()
    Image.new("1", (9000, 9000)).save(large, format="PNG")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 50_000_000, zip=True)
    texts = io.BytesIO()
    Image.new("L", (32, 32)).save(texts, format="PNG", pnginfo=notes)
    small = io.BytesIO()
    Image.new("L", (4, 4)).save(small, format="PNG")
    for bomb in (large, texts, small):
        started = time.monotonic()
        status, _, _ = served.ask(
            f"/api/model/{ids['vae'][1]}/project", "POST", bomb.getvalue(), {"Origin": served.own}
        )
        assert status in (200, 422) and time.monotonic() - started < 30
    assert served.ask("/")[0] == 200


# Who may ask


HOSTS = (
    *("127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"),
    *("evil.example:{port}", "127.0.0.1", "0.0.0.0:{port}", ""),
)
ORIGINS = (
    *(None, "http://127.0.0.1:{port}", "http://localhost:{port}"),
    *("null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1"),
)


@pytest.mark.parametrize("token", [False, True])
def test_the_matrix_of_host_and_origin(served: Served, model: str, token: bool) -> None:
    """Another name is 421, another page 403, and what changes something needs an origin or the token."""
    wrong = []
    for host, origin, method in itertools.product(HOSTS, ORIGINS, ("GET", "POST")):
        headers = {"Host": host.format(port=served.port)}
        if origin is not None:
            headers["Origin"] = origin.format(port=served.port)
        if token:
            headers["Authorization"] = f"Bearer {TOKEN}"
        status, _, found = served.ask(f"{model}/image", method, b'{"at": "1"}' if method == "POST" else None, headers)
        known_host = HOSTS.index(host) < 4
        known_origin = origin is None or ORIGINS.index(origin) in (1, 2)
        if not known_host:
            expected = {421, 400} if not host else {421}
        elif not known_origin or (method == "POST" and origin is None and not token):
            expected = {403}
        else:
            expected = {200}
        if status not in expected or "access-control-allow-origin" in found:
            wrong.append((host, origin, method, status))
    assert not wrong


def test_a_browser_that_says_cross_site_is_believed(served: Served) -> None:
    assert served.ask("/api/models", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert served.ask("/api/models", headers={"Sec-Fetch-Site": "same-site"})[0] == 403
    assert served.ask("/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200, "a link may lead to the page"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(served: Served, model: str, method: str) -> None:
    assert served.ask(f"{model}/image", method, headers={"Origin": served.own})[0] == 405


def test_every_answer_is_dressed(served: Served, model: str) -> None:
    for path in ("/", "/main.js", "/api/models", f"{model}/image", "/nothing", "/api/model/x"):
        _, _, headers = served.ask(path)
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_controls_need_the_token(served: Served, ids: dict[str, tuple[str, str]]) -> None:
    for path in (f"/api/run/{ids['quick'][0]}/control", "/api/train", "/api/train/ready", "/api/photographs"):
        assert served.post(path, {"request": "stop"})[0] == 401
        for given in ("Bearer wrong", "Bearer ", "Bearer", "", f"Basic {TOKEN}", f"bearer {TOKEN}", f"Bearer {TOKEN}x"):
            assert served.post(path, {"request": "stop"}, Authorization=given)[0] == 401, given
    status, body = served.post(f"/api/run/{ids['quick'][0]}/control", {"request": "stop"}, token=True)
    assert status == 404 and "not running" in body["error"]["message"]
    assert served.post(f"/api/run/{ids['quick'][0]}/control", {"request": "dance"}, token=True)[0] == 400
    assert served.json("/api/models")["trusted"] is False


def test_photographs_to_train_on_are_numbered_files_of_the_cache(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    trusted = {"Origin": served.own, "Authorization": f"Bearer {TOKEN}"}
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "PNG")
    for content, status in ((b"GIF89a", 404), (b"", 404), (b"#!/bin/sh", 404), (picture.getvalue(), 202)):
        assert served.ask("/api/photographs", "POST", content, trusted)[0] == status, content[:9]
    assert served.ask("/api/photographs?name=../x", "POST", picture.getvalue(), trusted)[0] == 400
    large = {**trusted, "Content-Length": str(PHOTO_BYTES + 1)}
    assert served.ask("/api/photographs", "POST", None, large)[0] == 413
    (file,) = tmp_path.rglob("*.*")
    assert file.name == "00000.png" and file.parent.name == "photographs", "which names the run that learns from it"
    assert file.parent.parent.parent == tmp_path / "photographs"
    assert file.read_bytes() == picture.getvalue() and file.parent.stat().st_mode & 0o077 == 0


def test_a_run_that_fails_is_reported_in_one_line(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    training = served.explorer.runs.training
    monkeypatch.setattr(training, "child", None)
    training._spawn(["train", "no-such-preset", f"--data={Path.cwd() / 'nowhere'}"])
    assert training.child is not None and training.child.wait(120) != 0
    started = served.json("/api/models")["started"]
    assert (
        started["alive"] is False and "no-such-preset" in started["error"] and str(Path.cwd()) not in started["error"]
    )


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/srv/home/me/runs/7/model.safetensors is cut.", "model.safetensors is cut."),
        ("runs/00007-quick/checkpoints/0000000016/model.safetensors is cut.", "model.safetensors is cut."),
        ("`~/My Runs/7/x.png`", "`~/My x.png`"),
        (r"C:\Users\me\model.safetensors is cut.", "model.safetensors is cut."),
        ("Open the page at /. It takes image/png, and/or a number: 3/4.", None),
        ("Read https://example.org/a/b/c first.", None),
    ],
)
def test_no_answer_has_a_path(text: str, clean: str | None) -> None:
    assert without_paths(text) == (text if clean is None else clean)


def test_off_loopback_even_looking_needs_the_token(runs: Path) -> None:
    with serving([runs], host="192.0.2.7") as found:
        assert found.ask("/api/models")[0] == 401 and found.ask("/")[0] == 200
        assert found.ask("/api/models", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert found.ask("/", headers={"Host": f"192.0.2.7:{found.port}"})[0] == 200


# Paths


def payloads() -> list[str]:
    """500 ways of asking for a file that is not one's own."""
    rng = random.Random(0)
    targets = ("secret.txt", "etc/passwd", "run.json", "model.safetensors", "index.html", "..", "windows/win.ini")
    ups = (
        "../",
        "..\\",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%2f",
        "..%5c",
        "%252e%252e%252f",
        "....//",
        "..;/",
        "%c0%ae%c0%ae/",
        ".%00./",
    )
    roots = ("", "/", "//", "\\", "C:\\", "file:///", "~/", "./", "%00", "\x7f")
    found = []
    while len(found) < 500:
        up = rng.choice(ups)
        end = rng.choice(("", "%00.png", "/", ".json", "?x", "#x"))
        found.append(rng.choice(roots) + up * rng.randint(0, 8) + rng.choice(targets) + end)
    return found


def test_500_payloads_over_every_route_read_nothing(
    served: Served, ids: dict[str, tuple[str, str]], runs: Path
) -> None:
    run, model = ids["quick"]
    one = f"/api/model/{model}"
    routes = [
        *("/{}", "/api/{}", "/api/model/{}", "/api/model/{}/image", "/api/run/{}", "/api/run/{}/events"),
        *(f"{one}/{{}}", f"{one}/image?at={{}}", f"{one}/image?label={{}}:1", f"{one}/walk?at=1&at=2&format={{}}"),
        *(f"/api/run/{run}/samples/{{}}", f"/api/run/{run}/{{}}"),
    ]
    secrets = [CANARY, "root:x:0", str(runs), '"fingerprint"', "format_version"]
    wrong = []
    for number, payload in enumerate(payloads()):
        safe = quote(payload, safe="/%\\.;:?#~=&")
        path = routes[number % len(routes)].format(safe.replace("#", "%23").replace(" ", "%20"))
        status, body, _ = served.ask(path)
        text = body.decode("latin-1")
        page = path.split("?")[0].strip("/").endswith("index.html") or path in ("/", "/?x")
        if any(secret in text for secret in secrets) or not (400 <= status < 500 or (status == 200 and page)):
            wrong.append((path, status, text[:80]))
    assert not wrong, wrong[:5]


# Too much


def test_a_body_past_the_limit_is_cut_off_at_once(served: Served, model: str) -> None:
    announced = {"Origin": served.own, "Content-Length": str(2 << 30)}
    assert served.ask(f"{model}/project", "POST", b"\xff\xd8\xff", announced)[0] == 413
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        lines = [f"POST {model}/project HTTP/1.1", f"Host: 127.0.0.1:{served.port}", f"Origin: {served.own}"]
        client.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        sent, block = 0, b"10000\r\n" + b"\0" * 65536 + b"\r\n"
        try:
            while sent < 4 * PHOTO_BYTES:
                client.sendall(block)
                sent += 65536
        except OSError:
            pass
        assert sent < 2 * PHOTO_BYTES + (8 << 20), "it went on reading"
    assert served.ask("/")[0] == 200


def test_long_heads_and_addresses_are_refused(served: Served, model: str) -> None:
    assert served.ask(f"{model}/image?at={'1' * 20_000}")[0] == 414
    status, _, _ = served.ask("/", headers={"X-Long": "x" * 100_000})
    assert status in (400, 431)


def test_a_head_that_drips_is_not_waited_for(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        started = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\n")
        client.settimeout(0.5)
        while time.monotonic() - started < 4 * HEAD_SECONDS:
            try:
                client.sendall(b"X")
                if client.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - started < 3 * HEAD_SECONDS


def flood(served: Served, model: str, requests: int, at_once: int) -> dict[int, int]:
    """Many questions at once; every face that comes back is compared with its own."""
    expected = {
        seed: hashlib.sha256(pixels(served.ask(f"{model}/image?at={seed},0.5,0&truncation=0.9")[1]).tobytes()).digest()
        for seed in range(16)
    }
    counts: dict[int, int] = {}
    served.explorer.service.cache.answers.clear()
    served.explorer.service.cache.bytes = 0
    lock = threading.Lock()

    def one(number: int) -> None:
        seed = number % 16
        way = f"image?at={seed}" if number % 3 else f"preview?drag={number}&at={seed}"
        status, body, headers = served.ask(f"{model}/{way},0.5,0&truncation=0.9")
        if status == 200 and number % 3:
            assert hashlib.sha256(pixels(body).tobytes()).digest() == expected[seed], f"a wrong face for {seed}"
        if status == 503:
            assert headers["retry-after"]
        with lock:
            counts[status] = counts.get(status, 0) + 1

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(requests)))
    return counts


def test_200_questions_at_once_get_their_own_faces(served: Served, model: str) -> None:
    counts = flood(served, model, requests=200, at_once=64)
    assert counts.keys() <= {200, 503} and counts[200] >= 100, counts


def test_who_takes_no_answer_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.web.serve.ANSWER_SECONDS", 0.5)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", served.port))
    client.settimeout(1)
    size = len(served.ask("/style.css")[1])
    request, sent = f"GET /style.css HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode(), 0
    with suppress(OSError):  # more answers than all buffers hold, and none is taken
        for _ in range(3000):
            client.sendall(request)
            sent += 1
    time.sleep(2)
    taken = 0
    with suppress(OSError):
        while piece := client.recv(1 << 20):
            taken += len(piece)
    client.close()
    assert taken < sent * size / 2, "it waited"
    assert served.ask("/")[0] == 200


@contextmanager
def explored(runs: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """`mien explore` as a process of its own: its port, and the process."""
    words = [sys.executable, "-m", "mien", "explore", str(runs), "--no-browser", "--port", "0"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert child.stdout is not None
        yield int(re.findall(r":(\d+)/", child.stdout.readline())[0]), child
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


async def asked_at(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), content
    finally:
        writer.close()


@pytest.mark.slow
def test_500_connections_for_30_seconds(runs: Path) -> None:
    """No wrong face, only 200 or 503, bounded memory, and well again at once; the server is a process of its own."""
    psutil = pytest.importorskip("psutil")
    from mien.sampling.address import parse

    sampler = Sampler.load(runs / "00000-quick", device="cpu")
    places = [f"{seed},0.5,0" for seed in range(4000)]  # so many that most of them are drawn, not remembered
    z = torch.cat([sampler.latent_at(parse(place))[0] for place in places])
    expected = [hashlib.sha256(face.tobytes()).digest() for face in to_bytes(sampler.decode(z)).numpy()]
    counts: Counter[int] = Counter()
    wrong: list[str] = []
    with explored(runs) as (port, child):
        process = psutil.Process(child.pid)
        path = f"/api/model/{sampler.model_hash[:16]}/image?at="
        assert asyncio.run(asked_at(port, f"{path}1"))[0] == 200
        before = most = process.memory_info().rss

        async def load() -> None:
            nonlocal most
            until, rng = time.monotonic() + 30, random.Random(0)

            async def one() -> None:
                while time.monotonic() < until:
                    number = rng.randrange(len(places))
                    status, content = await asked_at(port, path + places[number])
                    counts[status] += 1
                    if status == 200 and hashlib.sha256(pixels(content).tobytes()).digest() != expected[number]:
                        wrong.append(places[number])

            tasks = [asyncio.create_task(one()) for _ in range(500)]
            while not all(task.done() for task in tasks):
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.5)
            await asyncio.gather(*tasks)

        asyncio.run(load())
        ended = time.monotonic()
        while asyncio.run(asked_at(port, f"{path}77,0.5,0"))[0] != 200:
            assert time.monotonic() - ended < 5, "it does not recover"
        recovered = time.monotonic() - ended
        grown = (most - before) / 1e6
    print(f"{dict(counts)}, {grown:.0f} MB more at most, well again after {recovered:.2f} s")
    assert not wrong and counts.keys() <= {200, 503} and counts[200] > 500, (wrong[:5], counts)
    assert grown < 300 and recovered < 5


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_ends_the_server_at_once_with_streams_open(runs: Path, count: int) -> None:
    with explored(runs) as (port, child):
        found = json.loads(asyncio.run(asked_at(port, "/api/models"))[1])
        run = found["runs"][0]["id"]
        streams = []
        for _ in range(5):
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            client.sendall(f"GET /api/run/{run}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            streams.append(client)
        started = time.monotonic()
        for _ in range(count):
            child.terminate()
        assert child.wait(20) == 0 and time.monotonic() - started < 10
        for client in streams:
            client.close()


def test_nothing_is_asked_of_any_network(served: Served, model: str) -> None:
    """Whatever a parameter says, no connection leaves: there is no parameter that is an address of another machine."""
    asked: list[object] = []

    def hear(event: str, given: tuple[object, ...]) -> None:
        if event == "socket.connect" and listening and given[1] != ("127.0.0.1", served.port):
            asked.append(given[1])
        if event == "socket.getaddrinfo" and listening and given[0] not in ("127.0.0.1", b"127.0.0.1"):
            asked.append(given[0])

    listening = True
    sys.addaudithook(hear)
    for value in ("http://192.0.2.1/x", "//192.0.2.1", "file:///etc/passwd", "\\\\192.0.2.1\\share", "hf://a/b"):
        given = quote(value, safe="")
        for query in ("at", "label", "direction", "solver", "format", "drag"):
            for route in ("image", "preview", "sheet", "walk", "path", "neighbours"):
                served.ask(f"{model}/{route}?{query}={given}")
        served.ask(f"/api/model/{given}")
        served.ask(f"/api/run/{given}/events")
        served.ask(f"{model}/project", "POST", value.encode(), {"Origin": served.own})
    listening = False
    assert not asked


def test_a_full_queue_says_when_to_come_again(served: Served, model: str) -> None:
    queue = served.explorer.service.queue
    room, queue.room = queue.room, 0
    try:
        status, body, headers = served.ask(f"{model}/image?at=123456")
    finally:
        queue.room = room
    assert status == 503 and headers["retry-after"] == "1" and json.loads(body)["error"]["message"]


# Runs


def test_a_run_tells_where_it_stands(served: Served, ids: dict[str, tuple[str, str]]) -> None:
    told = served.json(f"/api/run/{ids['quick'][0]}")
    assert told["state"] == "done" and told["seen"] >= 48 and told["alive"] is False
    assert told["curves"]["seen"] == sorted(told["curves"]["seen"]) and told["curves"]["curves"]
    assert len(told["samples"]) >= 2
    _, png, _ = served.ask(f"/api/run/{ids['quick'][0]}/samples/{told['samples'][-1]}")
    assert pixels(png).shape[0] > 16
    assert served.ask(f"/api/run/{ids['quick'][0]}/samples/7")[0] == 404
    assert told["curves"]["meanings"]["critic_loss"].startswith("How wrong")
    status, film, headers = served.ask(f"/api/run/{ids['quick'][0]}/film")
    assert status == 200 and headers["content-type"] in ("video/mp4", "image/webp") and len(film) > 500
    vae = served.json(f"/api/run/{ids['vae'][0]}")
    assert served.ask(f"/api/run/{ids['vae'][0]}/reconstructions/{vae['reconstructions'][-1]}")[0] == 200


def test_scores_stand_beside_their_checkpoint(served: Served, ids: dict[str, tuple[str, str]], runs: Path) -> None:
    folder = runs / "00000-quick" / "eval"
    folder.mkdir()
    line = {"seen": 48, "metric": "fid", "name": "fid5k_train", "value": 52.7239, "low": 51.79, "high": 53.66}
    (folder / "fid.jsonl").write_text(
        json.dumps(line) + "\nnot json\n" + json.dumps({"seen": 48, "metric": "x"}) + "\n"
    )
    newest, older, *_ = served.json(f"/api/run/{ids['quick'][0]}")["checkpoints"]
    assert [(score["name"], score["value"]) for score in newest["scores"]] == [("FID", "52.7")]
    assert "lower is better" in newest["scores"][0]["meaning"] and "51.79 to 53.66" in newest["scores"][0]["meaning"]
    assert older["scores"] == []


def test_events_come_as_things_change(served: Served, ids: dict[str, tuple[str, str]], runs: Path) -> None:
    home = RunDirectory(runs / "00000-quick")
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(
            f"GET /api/run/{ids['quick'][0]}/events HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode()
        )
        text = ""
        while "event: state" not in text:
            text += client.recv(65536).decode()
        home.update_status(reason="for the test")
        try:
            while "for the test" not in text:
                text += client.recv(65536).decode()
        finally:
            home.update_status(reason="")
    assert text.count("event: state") >= 2


def test_the_description_names_every_route(served: Served, model: str) -> None:
    described = served.json("/api/description")
    assert described["openapi"].startswith("3.1") and "/api/model/{id}/image" in described["paths"]
    for route in served.explorer.table():
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        assert route.method.lower() in described["paths"][path]


def test_hostile_names_stay_text(tmp_path: Path, runs: Path) -> None:
    import shutil

    place = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(runs / "00000-quick", place)
    with serving([place]) as found:
        _, body, headers = found.ask("/api/models")
        assert headers["content-type"] == "application/json" and json.loads(body)["runs"][0]["name"] == place.name


# A run that is asked


@pytest.mark.slow
def test_photographs_go_on_from_the_bundled_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real run in a process of its own, from the photographs' bytes to a checkpoint whose parent is named."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with serving([]) as served:
        assert served.json("/api/models")["parents"] == ["faces"]
        assert served.post("/api/train", {"minutes": 0.1, "from": "../faces"}, token=True)[0] == 400
        for image in blobs(40, 80, seed=3):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            headers = {"Origin": served.own, "Authorization": f"Bearer {TOKEN}"}
            assert served.ask("/api/photographs", "POST", content.getvalue(), headers)[0] == 202
        begin = {"minutes": 0.1, "photographs": "1", "from": "faces"}
        assert served.post("/api/train", begin, token=True)[0] == 202
        child = served.explorer.runs.training.child
        assert child is not None and child.wait(400) == 0, served.json("/api/models")["started"]
        (run,) = (tmp_path / "runs").iterdir()
        assert run.name.startswith("00000-gan-photographs")
        described = json.loads((run / "run.json").read_text())
        parent = Sampler.load("faces", device="cpu").model_hash
        assert described["preset"] == "gan" and parent in json.dumps(described), described
        assert Sampler.load(run, device="cpu").sample([1]).shape == (1, 3, 64, 64)


def test_a_run_saves_pauses_resumes_and_stops(tmp_path: Path, blob_pack: Pack) -> None:
    home = RunDirectory(tmp_path / "run")
    run = override(tiny(presets.PRESETS["quick"]), {"images": 10_000_000, "device": "cpu"})
    ended: list[Exception] = []

    def go() -> None:
        try:
            train(run, data=blob_pack.path, out=home.path)
        except Exception as error:
            ended.append(error)

    def until(condition: Any) -> None:
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < 60 and not ended, (home.status, ended)
            time.sleep(0.05)

    thread = threading.Thread(target=go)
    thread.start()
    until(lambda: control.owner(home) is not None and home.metrics.exists())
    control.send(home, "save")
    until(lambda: list(home.checkpoints.glob("0*")))
    control.send(home, "pause")
    until(lambda: home.status["state"] == "paused")
    time.sleep(0.6)
    seen = home.status["seen"]
    time.sleep(0.6)
    assert home.status["seen"] == seen
    control.send(home, "resume")
    until(lambda: home.status["state"] == "running")
    control.send(home, "stop")
    thread.join(60)
    assert not thread.is_alive() and home.status["state"] == "preempted" and home.status["seen"] >= seen
    assert control.owner(home) is None


def scripted(monkeypatch: pytest.MonkeyPatch, *requests: str) -> None:
    """A control file that contains one request after the other, each as soon as the last is handled."""
    waiting = list(requests)
    monkeypatch.setattr(control, "POLL", 0.0)
    monkeypatch.setattr(control.Control, "request", lambda self: waiting.pop(0) if waiting else "")


def last_checkpoint(home: RunDirectory) -> dict[str, bytes]:
    """Each file of a run's newest checkpoint."""
    newest = checkpoint.all_of(home.checkpoints)[0]
    return {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "MANIFEST.json"}


def test_whole_steps_by_hand_change_nothing_and_those_of_one_player_are_recorded(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = override(tiny(presets.PRESETS["quick"]), {"images": 80, "device": "cpu"})
    homes = {name: RunDirectory(tmp_path / name) for name in ("plain", "stepped", "steered", "resumed")}
    train(run, data=blob_pack.path, out=homes["plain"].path)
    scripted(monkeypatch, "", "pause", "step", "step", "step", "resume", "", "step", "resume")
    train(run, data=blob_pack.path, out=homes["stepped"].path)
    assert last_checkpoint(homes["stepped"]) == last_checkpoint(homes["plain"]), (
        "each was the step that would have come"
    )
    assert homes["stepped"].status["steered"] == 0 and control.players(homes["stepped"]) == ["critic", "generator"]

    scripted(monkeypatch, "", "pause", "step-critic", "step-generator", "resume")
    train(run, data=blob_pack.path, out=homes["steered"].path)
    scripted(monkeypatch, "", "pause", "step-critic", "step-generator", "stop")
    with pytest.raises(Preempted):
        train(run, data=blob_pack.path, out=homes["resumed"].path)
    assert homes["resumed"].status["seen"] == 32 and homes["resumed"].status["steered"] == 2, "no step after the stop"
    train(run, data=blob_pack.path, out=homes["resumed"].path, resume="must")
    steered = last_checkpoint(homes["steered"])
    assert last_checkpoint(homes["resumed"]) == steered != last_checkpoint(homes["plain"])
    assert json.loads(steered["state.json"])["steered"] == [[16, "critic"], [24, "generator"]]
    assert Sampler.load(homes["steered"].path, device="cpu").header["steered"] == 2
    assert "made by hand: 2; no command" in (homes["steered"].path / "MODEL_CARD.md").read_text()
    assert "one step by hand, of the critic alone" in (homes["steered"].path / "log.txt").read_text()


def test_a_run_of_one_player_makes_whole_steps_alone(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = override(tiny(presets.PRESETS["vae"]), {"images": 40, "device": "cpu"})
    home = RunDirectory(tmp_path / "run")
    scripted(monkeypatch, "pause", "step-critic", "step", "resume")
    train(run, data=blob_pack.path, out=home.path)
    assert control.players(home) == [] and home.status["steered"] == 0
    monkeypatch.setattr(control, "owner", lambda home: {"pid": 1})
    with pytest.raises(DataError, match="no critic"):
        control.send(home, "step-critic")
    control.send(home, "step")
