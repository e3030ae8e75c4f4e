"""The command line: a table of verbs. Nothing heavy is imported before the verb is known."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mien import __version__
from mien.cli.terminal import Stopped, lasting_messages, stops
from mien.errors import Interrupted, MienError, Preempted, UsageError, did_you_mean

if TYPE_CHECKING:
    from mien.cli.result import Result


class Verb(NamedTuple):
    """The function of a verb as `module:function`, and its line in the help.

    With `dynamic_flags`, the function takes the raw arguments and returns the function to run: which flags exist depends on them
    (the fields of the preset).
    """

    target: str
    help: str
    dynamic_flags: bool = False


VERBS: dict[str, Verb] = {
    "train": Verb("mien.cli.train:command", "train a generator of faces", dynamic_flags=True),
    "sample": Verb("mien.cli.sample:sample", "draw faces: a grid, or single files"),
    "walk": Verb("mien.cli.walk:walk", "interpolate between faces: mp4, gif, webp or a strip"),
    "project": Verb("mien.cli.project:project", "find the latents of photographs, and show their reconstructions"),
    "directions": Verb("mien.cli.directions:directions", "find directions in latent space, such as a smile"),
    "edit": Verb("mien.cli.edit:edit", "move faces along named directions"),
    "evaluate": Verb("mien.cli.evaluate:evaluate", "score a model, or one folder of images against another"),
    "compare": Verb("mien.cli.compare:compare", "compare runs on the same data: a leaderboard"),
    "benchmark": Verb("mien.cli.benchmark:benchmark", "train presets for the same time, and compare them"),
    "explore": Verb("mien.cli.explore:explore", "explore faces and watch runs in a browser"),
    "export": Verb("mien.cli.export:export", "write a model as ONNX, a web page or a Hub folder"),
    "verify": Verb("mien.cli.verify:verify", "show what a picture says of its origin, and draw it again"),
    "data prepare": Verb(
        "mien.cli.data:data_prepare", "prepare photographs as a pack, the data set that training reads"
    ),
    "data info": Verb("mien.cli.data:data_info", "show what a pack contains"),
    "data check": Verb("mien.cli.data:data_check", "check photographs without writing a pack"),
    "data fetch": Verb("mien.cli.data_fetch:data_fetch", "download a data set or a weights file"),
    "import": Verb("mien.cli.import_model:import_", "convert the weights of another project into a model"),
    "presets": Verb("mien.cli.presets:presets", "list presets, show one, or compare two"),
    "cite": Verb("mien.cli.cite:cite", "print the papers of a run or a preset as BibTeX"),
    "doctor": Verb("mien.cli.doctor:doctor", "check this machine, or a run"),
}


def overview() -> str:
    """The top-level help, from the verb table alone."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    return (
        f"mien {__version__}: train, evaluate, explore and serve generators of faces.\n\n"
        f"Usage: mien VERB [ARGUMENTS] [--json] [--debug]\n\n{verbs}\n\n"
        "  mien train                        train the preset `quick` on built-in drawn faces\n"
        "  mien train --data photos/         train it on a folder of photographs\n"
        "  mien sample RUN -o grid.png       draw faces with the model of a run\n\n"
        "`mien VERB --help` explains a verb. Results go to stdout, progress to stderr. --json prints the result as JSON;\n"
        "--debug shows the traceback of an error."
    )


def subverbs(word: str) -> list[str]:
    """The verbs of two words that begin with `word`."""
    return [name for name in VERBS if name.startswith(f"{word} ")]


def find_verb(arguments: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that the arguments begin with, and the rest of them."""
    for length in (2, 1):
        name = " ".join(arguments[:length])
        if len(arguments) >= length and name in VERBS:
            return VERBS[name], list(arguments[length:])
    word = arguments[0]
    if family := subverbs(word):
        raise UsageError(
            f"`mien {word}` needs a second word.",
            f"`{' '.join(arguments[1:])}` is none of them." if arguments[1:] else "Nothing follows it.",
            f"Try: {', '.join(f'mien {name}' for name in family)}.",
        )
    raise UsageError(f"There is no verb `{word}`.", "`mien --help` lists the verbs.", did_you_mean(word, VERBS))


def run_verb(name: str, verb: Verb, arguments: list[str]) -> Result | None:
    """Parse the verb's flags from its function's signature and call it."""
    from mien.cli.flags import call  # cyclopts loads here, never for the top-level help

    module_name, function_name = verb.target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module_name), function_name)
    if verb.dynamic_flags:
        function, arguments = function(arguments)
    result: Result | None = call(function, arguments, name)
    return result


def harmless(text: str) -> str:
    """Text that stdout can show, without the signs that a terminal obeys or that turn its order, which a name may hold.

    Letters that its encoding does not have become escapes, as on stderr.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def report(error: MienError | Interrupted, as_json: bool) -> int:
    """Print an error as three lines on stderr, or as JSON on stdout."""
    if as_json:
        fields = {"code": error.exit_code, "message": error.what, "why": error.why, "hint": error.remedy}
        print(json.dumps({"error": fields}))
    else:
        what, why, remedy = (harmless(" ".join(part.split())) for part in (error.what, error.why, error.remedy))
        print(f"mien: {what}\n  why: {why}\n  do:  {remedy}", file=sys.stderr)
    return error.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    with lasting_messages(), stops():
        return command(arguments)


def command(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, whatever ends it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in words, "--debug" in words
    words = [word for word in words if word not in ("--json", "--debug")]
    try:
        if not words or words[0] in ("--help", "-h", "help"):
            print(overview())
            return 0
        if words[0] in ("--version", "-V"):
            print(__version__)
            return 0
        if words[1:2] in (["--help"], ["-h"]) and (family := subverbs(words[0])):
            print("\n".join(f"mien {name:<16} {VERBS[name].help}" for name in family))
            return 0
        verb, rest = find_verb(words)
        result = run_verb(" ".join(words[: len(words) - len(rest)]), verb, rest)
        if result is None:
            return 0
        print(result.json() if as_json else harmless(result.text), flush=True)
        return result.exit_code
    except (MienError, Interrupted) as error:
        if debug:
            raise
        return report(error, as_json)
    except BrokenPipeError:  # `mien presets | head`: the reader has closed the pipe, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mien: interrupted", file=sys.stderr)
        return Interrupted.exit_code
    except Stopped:
        print("mien: stopped by a signal", file=sys.stderr)
        return Preempted.exit_code
    except Exception as error:
        if debug:
            raise
        from mien.cli.file_errors import fault_of

        bug = fault_of(error) or MienError(
            f"mien has failed unexpectedly: {type(error).__name__}.",
            str(error) or "no message",
            "This is a bug in mien: run again with --debug and report the traceback.",
        )
        return report(bug, as_json)


if __name__ == "__main__":
    sys.exit(main())
