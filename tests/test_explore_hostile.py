"""The explorer against what attackers and crowds do: runs that carry commands, limits passed by many at once, odd bodies."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")
pytest.importorskip("uvicorn")

from mien.__main__ import main
from mien.data.pack import Pack
from mien.errors import MienError
from mien.storage.run_directory import RunDirectory
from mien.web import neighbours, routes_runs
from mien.web.limits import Full, Limit, Shared
from mien.web.registry import Registry, RunEntry
from mien.web.training import Training, resume_command
from tests.conftest import write_pack
from tests.test_explore import photograph
from tests.web_client import Served, serving, short_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack and one short run, in `runs`."""
    root = tmp_path_factory.mktemp("hostile")
    write_pack(root / "blobs.pack")
    short_run("quick", root / "blobs.pack", root / "runs" / "00000-quick")
    return root


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    with serving([place / "runs"]) as found:
        yield found


@pytest.fixture(scope="module")
def ids(served: Served) -> tuple[str, str]:
    """The ids of the run and of its newest model."""
    (run,) = served.json("/api/models")["runs"]
    return run["id"], run["checkpoints"][0]["model"]


# A run's directory is data

EVIL = "/tmp/evil.py:tiny"


def changed(**fields: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Other values in run.json, by dotted name with `__` for a dot."""

    def change(run: dict[str, Any], data: dict[str, Any]) -> None:
        for name, value in fields.items():
            inner = run
            *parts, last = name.split("__")
            for part in parts:
                inner = inner[part]
            inner[last] = value

    return change


def with_data(**fields: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda run, data: data.update(fields)


#: What a hostile run says, and whether it is resumed none the less, without a word of it.
VARIANTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], None], bool]] = {
    "command with code": (changed(command=f"train {EVIL}"), True),
    "command with a flag": (changed(command="train quick --code /tmp/evil.py"), True),
    "command of another verb": (changed(command="export --to evil"), True),
    "command with an extractor": (changed(command="train quick --evaluate-extractor /tmp/evil.py:f"), True),
    "preparation commands": (changed(prepare=["sh /tmp/evil.sh"]), True),
    "code of a header": (changed(code={"file": "/tmp/evil.py", "sha256": "0" * 64}), True),
    "preset is an absolute file": (changed(preset=EVIL), False),
    "preset is a relative file": (changed(preset="evil.py:tiny"), False),
    "preset climbs": (changed(preset="../../evil.py:tiny"), False),
    "preset is a flag": (changed(preset="--code=/tmp/evil.py"), False),
    "preset is a list": (changed(preset=["quick", "evil"]), False),
    "preset is empty": (changed(preset=""), False),
    "extractor beside": (changed(evaluate_extractor="evil.py:f"), False),
    "extractor": (changed(evaluate_extractor="/tmp/evil.py:f"), False),
    "metrics with a flag": (changed(evaluate_metrics="fid --code /tmp/evil.py"), False),
    "metrics are a file": (changed(evaluate_metrics="/tmp/evil.py"), False),
    "score is a flag": (changed(keep_best="--data=/tmp/evil"), False),
    "device is a flag": (changed(device="--code=/tmp/evil.py"), False),
    "threads are text": (changed(threads="1 --code /tmp/evil.py"), False),
    "a rate is text": (changed(recipe__lr="evil"), False),
    "a rate is an object": (changed(recipe__lr={"kind": "evil"}), False),
    "a model of another kind": (changed(model__kind="evil"), False),
    "a critic of another kind": (changed(recipe__critic__kind="os.system"), False),
    "data is code": (with_data(name=EVIL, fingerprint="0"), False),
    "data is a flag": (with_data(name="--code=/tmp/evil.py", fingerprint="0"), False),
    "data is elsewhere": (with_data(name="hf://evil/evil", fingerprint="0"), False),
    "data is a path, with a known fingerprint": (with_data(name="/tmp/evil.pack"), True),
    "it extends another": (changed(extends=EVIL, base=EVIL, includes=[EVIL]), True),
    "it is from a file": (changed(**{"from": EVIL, "resume": "/tmp/evil", "out": "/tmp/evil"}), True),
    "code is text": (changed(code=EVIL), True),
    "an environment": (changed(env={"LD_PRELOAD": "/tmp/evil.so", "PYTHONPATH": "/tmp/evil"}), True),
    "preset is an object": (changed(preset={"kind": "evil", "file": EVIL}), False),
    "preset with a sign that is not seen": (changed(preset="quick\u200b evil"), False),
    "preset in wide letters": (changed(preset="\uff51\uff55\uff49\uff43\uff4b"), False),
    "preset after a zero": (changed(preset="quick\0/tmp/evil.py:tiny"), False),
    "device is a list": (changed(device=["cpu", "--code=/tmp/evil.py"]), False),
    "metrics are a list": (changed(evaluate_metrics=["fid", "/tmp/evil.py"]), False),
    "metrics of other letters": (changed(evaluate_metrics="f\u0456d,evil"), False),
    "batch in other digits": (changed(batch="\u0661\u0666 evil"), False),
    "seed is a list": (changed(seed=[0, "--code=/tmp/evil.py"]), False),
    "tracker is a file": (changed(track="/tmp/evil.py"), False),
    "no recipe": (lambda run, data: run.pop("recipe"), False),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_of_a_runs_directory_is_executed(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change, resumed = VARIANTS[name]
    source, home = RunDirectory(place / "runs" / "00000-quick"), RunDirectory(tmp_path / "run")
    home.path.mkdir()
    run, data = (json.loads((source.path / file).read_text()) for file in ("run.json", "data.json"))
    change(run, data)
    home.write_json("run.json", run)
    home.write_json("data.json", data)
    home.write_json("env.json", {"PYTHONPATH": "/tmp/evil", "PYTHONSTARTUP": EVIL})
    home.update_status(state="stopped")
    monkeypatch.chdir(place)
    commands: list[list[str]] = []
    monkeypatch.setattr(
        "mien.web.training.subprocess.Popen", lambda words, **more: commands.append([*words, str(more)])
    )
    try:
        Training(Registry([home.path])).resume(RunEntry("id", home.path, ()))
    except MienError as error:
        assert not resumed, error
        assert not commands
    else:
        assert resumed
        (words,) = commands
        assert not any("evil" in word or ".py:" in word for word in words), words
        assert words[1:4] == ["-P", "-m", "mien"] and "'env'" not in words[-1]
        assert words[-2] == f"--resume={home.path}" and f"--data={place / 'blobs.pack'}" in words


def test_code_of_ones_own_is_the_servers(tmp_path: Path, place: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from dataclasses import replace\nfrom mien.presets import PRESETS as P\n"
        "PRESETS = {'mine': replace(P['quick'], preset='mine')}\n"
    )
    home = RunDirectory(tmp_path / "run")
    home.path.mkdir()
    described = json.loads((place / "runs" / "00000-quick" / "run.json").read_text())
    home.write_json("run.json", {**described, "preset": "mine"})
    home.write_json("data.json", {"name": "drawn"})
    run = RunEntry("id", home.path, ())
    assert resume_command(run, Registry([home.path], code))[1] == f"{code}:mine"
    with pytest.raises(MienError, match="no code is taken from a run"):
        resume_command(run, Registry([home.path]))


def test_a_module_in_the_working_directory_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    training = Training(Registry([]))
    training._spawn(["presets"])
    assert training.child is not None
    training.child.wait(120)
    assert not (tmp_path / "executed").exists()


def test_the_process_that_waits_runs_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all who ask, without a module of the working directory; where it has died, another one begins."""
    (tmp_path / "torch.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    training = Training(Registry([]))
    for dies in (False, True):
        training.get_ready()
        assert training._ready is not None
        process = training._ready[0]
        training.get_ready()
        assert training._ready[0] is process
        if dies:
            process.kill()
            process.communicate()
        training._begin(["train", "no-such-preset"])
        assert training.child is not None and (training.child is process) is not dies
        assert training.child.wait(120) == 2
        started = training.started()
        assert started is not None and "no-such-preset" in started["error"]
    training.get_ready()
    training.close()
    assert training._ready is None and not (tmp_path / "executed").exists()


def test_the_built_command_resumes_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that are built are the run's own: `mien train` recognises it."""
    monkeypatch.chdir(place)
    home = place / "runs" / "00000-quick"
    words = resume_command(RunEntry("id", home, ()), Registry([home]))
    assert main(words) == 0


# Limits that many pass at once


def test_a_limit_is_taken_before() -> None:
    limit = Limit(2)
    first, second = limit.take(), limit.take()
    with pytest.raises(Full):
        limit.take()
    first()
    first()
    assert limit.taken == 1
    second()
    with limit.held(2), pytest.raises(Full):
        limit.take()
    assert limit.taken == 0


def test_one_computation_for_many_waiters() -> None:
    async def main() -> None:
        shared, count = Shared[int](), 0

        async def compute() -> int:
            nonlocal count
            count += 1
            await asyncio.sleep(0.05)
            return 7

        waiters = [asyncio.create_task(shared.of("key", compute)) for _ in range(24)]
        await asyncio.sleep(0)
        waiters[0].cancel()  # the one that began it leaves
        assert [await waiter for waiter in waiters[1:]] == [7] * 23
        assert count == 1 and not shared.running

    asyncio.run(main())


def test_120_event_streams_at_once_do_not_pass_the_limit(served: Served, ids: tuple[str, str]) -> None:
    clients = []
    request = f"GET /api/run/{ids[0]}/events HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
    for _ in range(120):
        client = socket.create_connection(("127.0.0.1", served.port), timeout=30)
        client.sendall(request)
        clients.append(client)
    answers = Counter(client.recv(15) for client in clients)
    for client in clients:
        client.close()
    assert answers[b"HTTP/1.1 200 OK"] == routes_runs.STREAMS and len(answers) == 2, answers
    streams, started = served.explorer.runs.streams, time.monotonic()
    while streams.taken and time.monotonic() - started < 10:
        time.sleep(0.05)
    assert streams.taken == 0


def test_descents_at_once_do_not_pass_the_limit(served: Served, ids: tuple[str, str]) -> None:
    running: list[int] = []

    def one(_: int) -> int:
        path = f"/api/model/{ids[1]}/project?steps=60"
        status, _, _ = served.ask(path, "POST", photograph(), {"Origin": served.own})
        running.append(sum(thread.name == "descent" for thread in threading.enumerate()))
        return status

    with ThreadPoolExecutor(12) as pool:
        counts = Counter(pool.map(one, range(12)))
    assert counts.keys() == {200, 503} and max(running) <= 1, (counts, running)
    started = time.monotonic()
    while served.explorer.photo.descents.taken and time.monotonic() - started < 10:
        time.sleep(0.05)
    assert served.explorer.photo.descents.taken == 0


def test_24_first_questions_for_neighbours_read_the_pack_once(
    served: Served, ids: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count, look = 0, neighbours.index_pack

    def counted(pack: Pack) -> Any:
        nonlocal count
        count += 1
        time.sleep(0.3)
        return look(pack)

    monkeypatch.setattr(neighbours, "index_pack", counted)
    served.explorer.photo.neighbours.known.clear()
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda n: served.ask(f"/api/model/{ids[1]}/neighbours?at={n % 3}")[0], range(24)))
    assert found == [200] * 24 and count == 1


def test_pixels_of_an_answer_are_bounded(served: Served, ids: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.web.service.MAX_PIXELS", 16 * 16 * 10)
    assert served.ask(f"/api/model/{ids[1]}/sheet?count=10&first=900")[0] == 200
    assert served.ask(f"/api/model/{ids[1]}/sheet?count=11&first=900")[0] == 400


# Odd requests


def test_half_a_surrogate_is_refused_on_every_route(served: Served, ids: tuple[str, str]) -> None:
    wrong = []
    for route in served.explorer.table():
        path = re.sub(r"\{seen:int\}", "1", route.path).replace(
            "{id:str}", ids[0] if route.path.startswith("/api/run") else ids[1]
        )
        if path.endswith(("/events", "/film")):
            continue
        headers = {"Origin": served.own, "Authorization": "Bearer the-token-of-the-test"}
        for name in (*route.parameters, "\ud800"):
            if route.method == "POST":
                for value in ("\ud800", ["\udfff"], "x:\ud800"):
                    status, _, _ = served.ask(path, "POST", json.dumps({name: value}).encode(), headers)
                    wrong += [] if 400 <= status < 500 else [(path, name, status)]
            if name != "\ud800":
                status, _, _ = served.ask(f"{path}?{name}=%ED%A0%80", headers=headers)
                wrong += [] if 200 <= status < 500 else [(path, name, status)]
    assert not wrong
    for half in ("\ud800", "\udc80"):
        status, error = served.post(f"/api/model/{ids[1]}/image", {"label": f"{half}:1"})
        assert status == 400 and "surrogate" in error["error"]["why"]


def test_a_name_on_the_disk_that_is_no_utf8_can_be_said(tmp_path: Path, place: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / folder).mkdir()
    except OSError:
        pytest.skip("SKIPPED NAMES: this file system takes UTF-8 alone")
    home = RunDirectory(tmp_path / folder)
    home.write_json("run.json", {"preset": "\ud800", "side": 16})
    (home.path / "status.json").write_text('{"reason": "\\udc80", "seen": "x"}')
    with serving([home.path]) as found:
        (run,) = found.json("/api/models")["runs"]
        assert found.json(f"/api/run/{run['id']}")["seen"] == 0


@pytest.mark.parametrize("value", ["NaN", "1e999"])
def test_a_number_that_is_none_in_a_runs_files_is_no_fault_of_the_server(value: str, tmp_path: Path) -> None:
    """It was the answer 500: of the list of all models, too."""
    (tmp_path / "run.json").write_text(f'{{"preset": "quick", "side": {value}, "minutes": {value}}}')
    (tmp_path / "status.json").write_text(f'{{"reason": {value}, "seen": {value}}}')
    (tmp_path / "health.json").write_text(f'{{"verdicts": [{{"value": {value}}}]}}')
    with serving([tmp_path]) as found:
        (run,) = found.json("/api/models")["runs"]
        assert found.json(f"/api/run/{run['id']}")["health"] == [{"value": None}]


@pytest.mark.parametrize("path", ["/api/nothing", "/nothing", "/api/models", "/api/model/x/project"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_nobody_reads_is_not_swallowed(served: Served, path: str, chunked: bool) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", f"Origin: {served.own}"]
        lines += ["Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 << 20}"]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        block = b"10000\r\n" + b"\0" * 65536 + b"\r\n" if chunked else b"\0" * 65536
        sent = 0
        try:
            while sent < 100 << 20:
                client.sendall(block)
                sent += 65536
        except OSError:
            pass
    assert sent < 24 << 20, "it went on reading"


def test_a_descent_of_one_step_has_an_answer(served: Served, ids: tuple[str, str]) -> None:
    for steps in (1, 2, 3):
        path = f"/api/model/{ids[1]}/project?steps={steps}"
        status, body, _ = served.ask(path, "POST", photograph(), {"Origin": served.own})
        assert status == 200 and b"event: found" in body, body[-300:]


def test_a_descent_that_fails_says_so(served: Served, ids: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("mien.web.project.result_of", fail)
    status, body, _ = served.ask(f"/api/model/{ids[1]}/project?steps=2", "POST", photograph(), {"Origin": served.own})
    assert status == 200 and b"event: failed" in body and b"IndexError" in body


def test_a_file_that_is_no_model_starts_no_server(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setattr("mien.web.serve.serve", lambda *words, **more: started.append(words))
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk" * 1000)
        for others in ([], [str(place / "runs")]):
            assert main(["explore", str(tmp_path / name), *others, "--no-browser"]) == 8
            said = capsys.readouterr()
            assert name in said.err and "#token" not in said.out and not started, said
    assert (
        main(["explore", str(place / "runs"), "--no-browser"]) == 0 and len(started) == 1
    )  # what would have been started


def test_unknown_names_are_asked_of_the_disk_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = served.explorer.service.registry
    count, look = 0, registry._read_disk

    def counted() -> None:
        nonlocal count
        count += 1
        time.sleep(0.2)
        look()

    monkeypatch.setattr(registry, "_read_disk", counted)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: served.ask(f"/api/model/{quote(f'x{n}')}")[0], range(16)))
    assert found == [404] * 16 and count <= 16


def test_a_grid_that_is_a_link_is_not_shown(served: Served, place: Path, ids: tuple[str, str]) -> None:
    """A downloaded run could show any file of the machine to whoever looks at the explorer."""
    (place / "secret").write_text("secret")
    for name in ("0000000999", "0000000998"):
        (place / "runs/00000-quick/samples" / f"{name}.png").symlink_to(place / "secret")
    try:
        for seen in (999, 998):
            assert served.ask(f"/api/run/{ids[0]}/samples/{seen}")[0] == 404
        assert not {998, 999} & set(served.json(f"/api/run/{ids[0]}")["samples"])
    finally:
        for name in ("0000000999", "0000000998"):
            (place / "runs/00000-quick/samples" / f"{name}.png").unlink()
