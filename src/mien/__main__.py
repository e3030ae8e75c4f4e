"""The command line: a table of verbs. Nothing heavy is imported before the verb is known."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mien import __version__
from mien.errors import MienError, StorageError, UsageError, did_you_mean

if TYPE_CHECKING:
    from mien.cli.result import Result


class Verb(NamedTuple):
    """Where a verb's function lives (`module:function`), and its line in the help.

    The function of a verb with `typed_flags` takes the raw arguments and returns the function to run, because which flags
    exist depends on them (the knobs of the preset).
    """

    where: str
    help: str
    typed_flags: bool = False


VERBS: dict[str, Verb] = {
    "train": Verb("mien.cli.train:command", "teach a generator to draw faces", typed_flags=True),
    "sample": Verb("mien.cli.sample:sample", "draw faces: a grid or single files"),
    "walk": Verb("mien.cli.walk:walk", "move through faces: mp4, gif, webp or a strip"),
    "project": Verb("mien.cli.project:project", "show photographs beside what a model makes of them"),
    "directions": Verb("mien.cli.directions:directions", "find what to add to a face so that it smiles"),
    "edit": Verb("mien.cli.edit:edit", "move faces along named directions"),
    "evaluate": Verb("mien.cli.evaluate:evaluate", "judge a model, or one folder of images against another"),
    "compare": Verb("mien.cli.compare:compare", "runs on the same data side by side: a leaderboard"),
    "bench-off": Verb("mien.cli.benchmark:bench_off", "train presets for the same time here, and compare them"),
    "explore": Verb("mien.cli.explore:explore", "play with faces in a browser, and watch runs"),
    "export": Verb("mien.cli.export:export", "take a model elsewhere: ONNX, a page, the hub"),
    "data prepare": Verb("mien.cli.data:data_prepare", "turn photographs into a pack"),
    "data info": Verb("mien.cli.data:data_info", "say what a pack holds"),
    "data check": Verb("mien.cli.data:data_check", "look at photographs without writing a pack"),
    "data fetch": Verb("mien.cli.data_fetch:data_fetch", "download a data set or a weights file"),
    "import": Verb("mien.cli.import_model:import_", "turn the weights of another project into a model"),
    "presets": Verb("mien.cli.presets:presets", "list the presets, or show one"),
    "cite": Verb("mien.cli.cite:cite", "the papers behind a run or a preset"),
    "doctor": Verb("mien.cli.doctor:doctor", "look at this machine, or at a run"),
}


def overview() -> str:
    """The top-level help, from the verb table alone."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    return (
        f"mien {__version__}: train, judge, explore and serve generators of faces.\n\n"
        f"Usage: mien VERB [ARGUMENTS] [--json] [--debug]\n\n{verbs}\n\n"
        "  mien train                        the quick preset on built-in drawn faces\n"
        "  mien train --data photos/         the same on a folder of photographs\n"
        "  mien sample RUN -o grid.png       faces from a run\n\n"
        "`mien VERB --help` explains a verb. Results go to stdout, progress to stderr."
    )


def family_of(word: str) -> list[str]:
    """The verbs of two words that begin with `word`."""
    return [name for name in VERBS if name.startswith(f"{word} ")]


def find_verb(arguments: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that the arguments begin with, and the rest of them."""
    for length in (2, 1):
        name = " ".join(arguments[:length])
        if len(arguments) >= length and name in VERBS:
            return VERBS[name], list(arguments[length:])
    word = arguments[0]
    if family := family_of(word):
        raise UsageError(
            f"`mien {word}` needs a second word.",
            f"It was given {' '.join(arguments[1:]) or 'nothing'}.",
            f"Try: {', '.join(f'mien {name}' for name in family)}.",
        )
    raise UsageError(f"There is no verb `{word}`.", "mien's verbs are fixed.", did_you_mean(word, VERBS))


def run_verb(name: str, verb: Verb, arguments: list[str]) -> Result | None:
    """Parse the verb's flags from its function's signature and call it."""
    from mien.cli.flags import call  # cyclopts loads here, never for the top-level help

    module_name, function_name = verb.where.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module_name), function_name)
    if verb.typed_flags:
        function, arguments = function(arguments)
    answer: Result | None = call(function, arguments, name)
    return answer


def report(error: MienError, as_json: bool) -> int:
    """Print an error as three lines on stderr, or as JSON on stdout."""
    if as_json:
        fields = {"code": error.exit_code, "message": error.what, "why": error.why, "hint": error.remedy}
        print(json.dumps({"error": fields}))
    else:
        what, why, remedy = (" ".join(part.split()) for part in (error.what, error.why, error.remedy))
        print(f"mien: {what}\n  why: {why}\n  do:  {remedy}", file=sys.stderr)
    return error.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in given, "--debug" in given
    given = [word for word in given if word not in ("--json", "--debug")]
    try:
        if not given or given[0] in ("--help", "-h", "help"):
            print(overview())
            return 0
        if given[0] in ("--version", "-V"):
            print(__version__)
            return 0
        if given[1:2] in (["--help"], ["-h"]) and (family := family_of(given[0])):
            print("\n".join(f"mien {name:<16} {VERBS[name].help}" for name in family))
            return 0
        verb, rest = find_verb(given)
        answer = run_verb(" ".join(given[: len(given) - len(rest)]), verb, rest)
        if answer is None:
            return 0
        print(json.dumps(answer.data) if as_json else answer.text, flush=True)
        return answer.exit_code
    except MienError as error:
        if debug:
            raise
        return report(error, as_json)
    except BrokenPipeError:  # `mien presets | head`: the reader has gone, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mien: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if debug:
            raise
        where = f" at {error.filename}" if error.filename else ""
        return report(
            StorageError(
                f"The file system refused{where}.", str(error), "Free space or choose another place with --out or -o."
            ),
            as_json,
        )
    except Exception as error:
        if debug:
            raise
        bug = MienError(
            f"mien met a case it does not know: {type(error).__name__}.",
            str(error) or "no message",
            "This is a bug of mien's: run again with --debug and report what it shows.",
        )
        return report(bug, as_json)


if __name__ == "__main__":
    sys.exit(main())
