"""Command lines, mutated files and requests that mien must answer: `python benchmarks/fuzz.py --count 5000`.

Half of the command lines are valid by kind, from the real flag tables; each runs in a fork of this process, with copies of small
runs, packs, models and photographs, and a part of them as processes of their own. A finding is: exit code 1 or one that no
error has, a traceback, a signal, an answer 500, more than LIMIT seconds, more than MEMORY, or a write outside of the sandbox.
Every case is a function of its part, the seed and its number; the line beside a finding repeats it. Needs Linux.

    python benchmarks/fuzz.py --part commands --seed 3 --only 1234      # one case, with all that it says

The sandbox has no network and no downloaded weights: what needs them ends with its error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import importlib
import io
import json
import os
import pkgutil
import random
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import torch
from benchmarks import fuzz_cases, fuzz_special
from PIL import Image

import mien
from mien import presets
from mien.__main__ import main as mien_main
from mien.core.run import config_fields
from mien.sampling import bundled

LIMIT = 20.0  # seconds of processor time, or asleep: those of the clock mean little while other work holds the cores
MEMORY = 3 << 30  # bytes of one process and its children
CODES = {0, 2, 3, 4, 5, 6, 7, 8, 9, 75, 130}
PARTS = ("commands", "files", "special", "requests")
ROUND = 60  # requests to one server, each route first
WRITES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.utime",
)


class Outcome(NamedTuple):
    """What became of one case."""

    words: str
    code: int
    findings: list[str]
    output: str
    seconds: float


def preload() -> None:
    """Import all that a case may import, once for all forks."""
    for module in pkgutil.walk_packages(mien.__path__, "mien."):
        if not module.name.endswith(("__main__", "_worker")):
            importlib.import_module(module.name)
    for name in ("torch._dynamo", "uvicorn", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        importlib.import_module(name)
    Image.init()  # Pillow's readers
    for preset in fuzz_cases.RUNS:  # their comments are read from the source once
        list(config_fields(presets.PRESETS[preset]))


class Sandbox:
    """A folder with the fixtures, and one for each case."""

    def __init__(self, root: Path) -> None:
        self.root, self.fixtures = root.resolve(), root.resolve() / "fixtures"
        self.violations = self.root / "violations"
        for name in ("fixtures", "home", "cache", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        inside = {
            "HOME": "home",
            "MIEN_CACHE": "cache",
            "TMPDIR": "tmp",
            "TORCHINDUCTOR_CACHE_DIR": "tmp",
            "XDG_CACHE_HOME": "cache",
            "XDG_CONFIG_HOME": "home",
        }
        os.environ.update({name: str(self.root / folder) for name, folder in inside.items()})
        source = str(Path(mien.__file__).parents[1])
        os.environ.update(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=source, NO_COLOR="1", COLUMNS="100", BROWSER="true")
        os.environ.update(
            dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "PIP_INDEX_URL"), "http://127.0.0.1:9")
        )
        tempfile.tempdir = None
        preload()  # torch looks where temporary files lie once
        if not (self.root / "built").exists():
            self.run(lambda: fuzz_cases.build(self.fixtures) or 0, self.root / "build.txt", 600)
            if not (self.fixtures / "deep.json").exists():
                raise SystemExit((self.root / "build.txt").read_text())
            self.run(self.build_special, self.root / "build.txt", 600)
            if not (self.fixtures / "special").exists():
                raise SystemExit((self.root / "build.txt").read_text())
            (self.root / "built").touch()
        self.copied: dict[str, tuple[int, ...]] = {}  # what lies in `work`
        self.known = {path.name for path in self.root.iterdir()} | {"work", "violations", "case.txt"}

    def build_special(self) -> int:
        os.chdir(self.fixtures)
        fuzz_special.build()
        return 0

    def watch(self) -> None:
        """Write down every write outside of the sandbox, and refuse the network: for the rest of this process."""
        inside = (str(self.root), "/dev/", f"/proc/{os.getpid()}/")
        log = os.open(self.violations, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def hook(event: str, values: tuple[Any, ...]) -> None:
            if event == "open":
                path, mode, flags = values
                writes = (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (
                    os.O_WRONLY | os.O_RDWR | os.O_CREAT
                )
                if not writes or isinstance(path, int):
                    return
                paths = [path]
            elif event in WRITES:
                paths = [value for value in values[:2] if isinstance(value, str | bytes)]
            elif event == "socket.connect":
                address = values[1]
                if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
                    raise OSError(101, "Network is unreachable")
                return
            else:
                return
            for path in paths:
                real = os.path.realpath(os.fsdecode(path))
                if not real.startswith(inside):
                    os.write(log, f"{event} {real}\n".encode("utf-8", "surrogateescape"))

        sys.addaudithook(hook)

    def run(self, work: Callable[[], int], output: Path, limit: float = LIMIT) -> tuple[int, list[str], float]:
        """Run `work` in a fork. Returns its exit code, findings of this machinery, and seconds of processor time."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.setsid()
                for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
                    file = os.open(
                        os.devnull if not descriptor else output,
                        flags | (os.O_CREAT | os.O_APPEND if descriptor else 0),
                    )
                    os.dup2(file, descriptor)
                code = work()
                sys.stdout.flush()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 70
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stderr.flush()
                os._exit(code)
        return self.wait(pid, limit)

    def wait(self, pid: int, limit: float) -> tuple[int, list[str], float]:
        """Wait for a process; past the limits it is asked to end, and then killed with its children."""
        findings: list[str] = []
        began, asked, pause, polls = time.monotonic(), 0.0, 0.005, 0
        awake, worked = began, 0.0
        while True:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                break
            time.sleep(pause)
            pause, polls = min(pause * 1.3, 0.2), polls + 1
            now = time.monotonic()
            if polls % 4 == 0 and not asked:
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(pid)
                    tree = [process, *process.children(recursive=True)]
                    used = sum(part.cpu_times().user + part.cpu_times().system for part in tree)
                    if sum(part.memory_info().rss for part in tree) > MEMORY:
                        findings.append(f"memory over {MEMORY >> 20} MiB")
                    # the status is that of the first thread alone, which waits where another one works
                    if used > worked + 0.05 or any(part.status() == psutil.STATUS_RUNNING for part in tree):
                        awake, worked = now, used
                    if findings or used > limit or now - awake > limit or now - began > 30 * limit:
                        findings = findings or ["hang"]
                        os.kill(pid, signal.SIGTERM)
                        asked = now
            if asked and now - asked > max(limit, LIMIT):
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        if findings == ["hang"] and code in (0, 75, 130):
            findings = []  # work that was asked for, and that ends when it is told to
        return code, findings, usage.ru_utime + usage.ru_stime

    def fresh(self) -> None:
        """Copies of the fixtures in `work`, as they were, and go there. Only what a case changed is copied again."""
        os.chdir(self.root)
        work = self.root / "work"
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir()
        if not self.copied:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(self.fixtures, work)
            os.mkfifo(work / "fifo")
        else:
            self.restore(work)
        self.copied = {name: seal(file) for name, file in entries(work)}
        os.chdir(work)
        self.violations.unlink(missing_ok=True)
        (self.root / "case.txt").unlink(missing_ok=True)

    def restore(self, work: Path) -> None:
        """Undo what the last case did in `work`."""
        for name, file in list(entries(work)):
            if name in self.copied and self.copied[name] == seal(file):
                continue
            if stat.S_ISDIR(file.st_mode):
                if name in self.copied and stat.S_ISDIR(self.copied[name][0]):
                    (work / name).chmod(stat.S_IMODE(self.copied[name][0]))  # its entries are looked at one by one
                else:
                    shutil.rmtree(work / name, ignore_errors=True)
            else:
                (work / name).unlink(missing_ok=True)
        for name, (mode, *_) in self.copied.items():  # folders come before what they hold
            if os.path.lexists(work / name):
                continue
            if stat.S_ISFIFO(mode):
                os.mkfifo(work / name)
            elif stat.S_ISDIR(mode):
                (work / name).mkdir()
            else:
                shutil.copy2(self.fixtures / name, work / name)

    def outside(self) -> list[str]:
        """Writes outside of the sandbox since `fresh`."""
        os.chdir(self.root)
        lines = self.violations.read_text(errors="replace").splitlines() if self.violations.exists() else []
        return [f"writes outside: {line}" for line in dict.fromkeys(lines)] + [
            f"writes outside: {name}" for name in {path.name for path in self.root.iterdir()} - self.known
        ]

    def case(self, part: str, seed: int, number: int, debug: bool = False) -> Outcome:
        """Run one command line, on mutated files in the part `files`."""
        rng = random.Random(f"{part} {seed} {number}")
        self.fresh()
        replaced = ""
        if part == "special":
            words, file, kind = fuzz_special.change(seed, number, fuzz_cases.resume)
            replaced = f"{kind} for {file}"
        else:
            words = fuzz_cases.command(rng) if part == "commands" else fuzz_cases.change(rng, number)
        words = [word.replace("\0", "") for word in words]  # which no command line can hold
        apart = rng.random() < 0.02 and not debug
        words += ["--debug"] if debug else []

        def work() -> int:
            if apart:
                os.execv(sys.executable, [sys.executable, "-m", "mien", *(os.fsencode(w) for w in words)])
            self.watch()
            if part == "special":
                os.environ["MIEN_CACHE"] = str(self.root / "work" / "cache")
                fuzz_special.obey()
            return mien_main(words)

        output = self.root / "case.txt"
        patience = {"explore": LIMIT / 5, "export": 3 * LIMIT}  # a flow's graph holds each of its evaluations
        code, findings, seconds = self.run(work, output, patience.get(words[0], LIMIT))
        text = output.read_text(errors="replace") if output.exists() else ""
        if words[0] == "explore" and code == -signal.SIGTERM:
            code, findings = 0, []  # the signal came before or after its handler
        findings += self.outside()
        if code not in CODES and not findings:
            findings.append(f"exit code {code}")
        if "Traceback" in text and not debug:
            findings.append("traceback")
        if replaced and code and not findings:
            paths = [file, file.parent, *(Path(word) for word in words[1:] if word[:1] != "-")]
            if not any(path.name and path.name in text for path in paths):
                findings.append("names not what is wrong")
        return Outcome(
            f"{replaced}: {shlex.join(words)}" if replaced else shlex.join(words), code, findings, text, seconds
        )

    def requests(self, seed: int, number: int, debug: bool = False) -> list[Outcome]:
        """One server with a round of requests; in every second round some files of its runs are mutated, or one is no file."""
        self.fresh()
        rng = random.Random(f"requests {seed} {number}")
        places, between, replaced = [Path("runs"), Path("model.safetensors")], None, ""
        if number % 4 == 3:
            file, kind = fuzz_special.of_a_run(rng)
            replaced, places = f"{kind} for {file}: ", [Path(fuzz_special.RUN)]
            if rng.random() < 0.5:
                between = functools.partial(fuzz_special.replace, file, kind)  # while the server has the run
            else:
                fuzz_special.replace(file, kind)
        elif number % 2:
            runs = [(pattern, lines) for pattern, lines in fuzz_cases.TARGETS if pattern.startswith("runs/")]
            for pattern, _ in rng.sample(runs, 4):
                if paths := sorted(Path().glob(pattern)):
                    with contextlib.suppress(OSError, ValueError):
                        fuzz_cases.change_file(rng, rng.choice(paths))

        def work() -> int:
            self.watch()
            fuzz_special.obey()
            ask(rng, ROUND, places, between)
            return 0

        output = self.root / "case.txt"
        code, findings, seconds = self.run(work, output, 6 * LIMIT)
        text = output.read_text(errors="replace") if output.exists() else ""
        answers = [json.loads(line[1:]) for line in text.split("\n") if line.startswith("\x1e")]
        findings += self.outside()
        if code or findings or "Traceback" in text:
            last = answers[-1][0] if answers else "start"
            answers.append(
                [
                    f"{last} (exit code {code})",
                    code,
                    [*findings, *(["traceback"] if "Traceback" in text else [])] or [f"exit code {code}"],
                    text[-3000:],
                ]
            )
        return [
            Outcome(f"{replaced}{words}", status, found, body, seconds / max(len(answers), 1))
            for words, status, found, body in answers
        ]


def entries(folder: Path, inside: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a folder, each folder before what it holds; links are not followed."""
    try:
        found = list(os.scandir(folder / inside))
    except OSError:
        return
    for entry in found:
        name, file = f"{inside}{entry.name}", entry.stat(follow_symlinks=False)
        yield name, file
        if stat.S_ISDIR(file.st_mode):
            yield from entries(folder, f"{name}/")


def seal(file: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was touched; of a folder its mode, for a name in it may come and go."""
    if stat.S_ISDIR(file.st_mode):
        return (file.st_mode,)
    return (file.st_mode, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)


def check_command(arguments: list[str]) -> None:
    """Refuse a command of the server that no page may start."""
    known = {name.partition("=")[0] for name in arguments if name.startswith("--")}
    unknown = known - {flag.name for flag in fuzz_cases.flags("train", arguments[1])}
    paths = [word.partition("=")[2] for word in arguments if word.startswith(("--data=", "--from=", "--resume="))]
    outside = [p for p in paths if not Path(p).resolve().is_relative_to(Path.cwd().parent)]
    outside = [p for p in outside if Path(p).parent != bundled.FOLDER]
    if arguments[:1] != ["train"] or arguments[1] not in presets.PRESETS or unknown or outside:
        raise AssertionError(f"this was about to be started: {shlex.join(arguments)}")


class CommandPipe(io.BytesIO):
    """The stdin of a process that waits for its command."""

    def write(self, line: Any) -> int:
        check_command(json.loads(bytes(line)))
        return len(line)


class Child:
    """Stands for a training that the server starts: it checks the command and runs nothing."""

    def __init__(self, words: list[str], **_: Any) -> None:
        if "mien" in words:
            check_command(words[words.index("mien") + 1 :])
        self.stdin = CommandPipe()
        self.code: int | None = None

    def poll(self) -> int | None:
        """It goes on when it is first looked at, and has ended the next time."""
        code, self.code = self.code, 0
        return code

    def kill(self) -> None:
        self.code = -9

    def communicate(self) -> tuple[None, None]:
        return None, None


def ask(rng: random.Random, count: int, places: list[Path], between: Callable[[], None] | None) -> None:
    """Serve runs of the working directory and ask; each answer is a line that begins with a record separator.

    `between` is called when the server knows them and nobody has asked.
    """
    import asyncio

    from mien.web import training
    from mien.web.registry import Registry
    from mien.web.serve import bind, build

    training.subprocess = types.SimpleNamespace(DEVNULL=None, PIPE=None, Popen=Child)  # type: ignore[assignment]
    token, registry = "token", Registry(places, device="cpu")
    registry.refresh()
    listener = bind("127.0.0.1", 0)
    port, kept = listener.getsockname()[1], []

    async def serve() -> None:
        server, explorer = build(listener, registry, "127.0.0.1", token)
        kept.append(explorer)
        await server.serve(sockets=[listener])

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    while not kept:
        time.sleep(0.01)
    if between is not None:
        between()
    routes = kept[0].table()
    seen = ["16", "32", "48"]
    ids = {"model": [*registry.models], "run": [*registry.runs], "seen": seen}
    for number in range(count):
        some = routes if number >= len(routes) else [routes[number]]  # each route once, then any
        asked = fuzz_cases.query(rng, some, ids, f"http://127.0.0.1:{port}", token)
        events = asked.path.partition("?")[0].endswith("/events")  # a stream without an end
        findings: list[str] = []
        status, body = 0, b""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0 if events else 3 * LIMIT)
        try:
            connection.putrequest(asked.method, asked.path)
            for name, text in asked.headers.items():
                connection.putheader(name, text)
            if asked.body is not None:
                connection.putheader("Content-Length", str(len(asked.body)))
            connection.endheaders(asked.body)
            response = connection.getresponse()
            status = response.status
            body = response.read(4096) if events else response.read()
        except TimeoutError:
            findings += [] if events else ["hang"]
        except (OSError, http.client.HTTPException, ValueError) as error:
            findings += (
                [] if isinstance(error, ValueError | http.client.InvalidURL) else [f"{type(error).__name__}: {error}"]
            )
        finally:
            connection.close()
        if status >= 500 and status != 503:
            findings.append(f"answer {status}")
        words = f"{asked.method} {asked.path[:300]} {(asked.body or b'')[:200]!r}"
        print("\x1e" + json.dumps([words, status, findings, body[:600].decode("latin1")]), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; repeat for more")
    parser.add_argument("--count", type=int, default=100, help="cases of each part")
    for part in PARTS[1:]:
        parser.add_argument(f"--count-{part}", type=int, help=f"cases of {part} instead")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, with all that it says")
    parser.add_argument("--box", type=Path, help="folder of the sandbox, kept; by default a temporary one")
    parser.add_argument("--few", action="store_true", help="fixtures of two runs instead of five")
    chosen = parser.parse_args()
    if chosen.few:
        fuzz_cases.few()
    counts = {part: getattr(chosen, f"count_{part}", None) or chosen.count for part in PARTS}
    torch.set_num_threads(1)
    box = chosen.box or Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        return fuzz(Sandbox(box), chosen.part or PARTS, chosen.seed, chosen.first, counts, chosen.only)
    finally:
        os.chdir("/")
        if chosen.box is None:
            shutil.rmtree(box, ignore_errors=True)


def fuzz(box: Sandbox, parts: Any, seed: int, first: int, counts: dict[str, int], only: int | None = None) -> int:
    """Run cases, print the findings and a summary; 1 if anything was found."""
    found = 0
    for part in parts:
        codes: Counter[int] = Counter()
        began, step = time.monotonic(), ROUND if part == "requests" else 1
        for number in [only] if only is not None else range(first, first + -(-counts[part] // step)):
            debug = only is not None
            outcomes = (
                box.requests(seed, number, debug) if part == "requests" else [box.case(part, seed, number, debug)]
            )
            if sys.stderr.isatty() or number % 20 == 0:
                print(f"\r{part} {number}", end="\n" if number % 20 == 0 else "", file=sys.stderr)
            for outcome in outcomes:
                codes[outcome.code] += 1
                if outcome.findings or debug:
                    found += bool(outcome.findings)
                    print(f"{part} {number}: {'; '.join(outcome.findings)}: {outcome.words[:600]}")
                    print("    " + outcome.output[-6000 if debug else -700 :].strip().replace("\n", "\n    "))
                    print(f"    python benchmarks/fuzz.py --part {part} --seed {seed} --only {number}", flush=True)
        table = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
        print(
            f"{part}: {sum(codes.values())} cases, {time.monotonic() - began:.0f} s, by exit code or status: {table}",
            flush=True,
        )
    print(f"{found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
