"""From a typed function to a command: cyclopts parses its flags and prints its help; its errors become mien's three lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnknownOptionError

from mien.errors import UsageError

HELP_FLAGS = frozenset(("--help", "-h"))


def plain(value: Any) -> str:
    """A default as a user would type it, without Python's punctuation."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ",".join(map(plain, value)) or "none"
    return str(value)


def shown_default(value: Any) -> str | None:
    """The default in a help text; none for an absent value or a switch that is off."""
    absent = value is None or value is False or value == () or value == ""
    return None if absent else plain(value)


def app_of(function: Callable[..., Any], name: str) -> App:
    """The parser of the verb `name`."""
    app = App(
        name=f"mien {name}",
        help_format="markdown",
        version_flags=[],
        help_flags=sorted(HELP_FLAGS),
        result_action="return_value",
        print_error=False,
        suppress_keyboard_interrupt=False,  # Interrupted is one: it carries the message that the run was saved
        exit_on_error=False,
        help_on_error=False,
        default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=shown_default),
    )
    app["--help"].show = False  # `mien --help` names it once
    app.default(function)
    return app


def call(function: Callable[..., Any], arguments: Sequence[str], name: str) -> Any:
    """Call the `function` of the verb `name` with flags parsed from `arguments`. Raises UsageError for flags that do not fit."""
    app = app_of(function, name)
    if HELP_FLAGS & set(arguments):
        app.usage = usage(app, name)
        from rich.console import Console  # imported late: verbs without --help start faster

        app.console = Console(file=sys.stdout, soft_wrap=False)
    try:
        return app(list(arguments))
    except CycloptsError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(*explain(error, lines, f"mien {name}")) from error


def usage(app: App, name: str) -> str:
    """The usage line, with the names of positional arguments."""
    words = []
    for argument in app.assemble_argument_collection():
        if not argument.names[0].startswith(("-", "*")):
            several = "..." if argument.is_var_positional() else ""
            words.append(f"{argument.names[0]}{several}" if argument.required else f"[{argument.names[0]}{several}]")
    return " ".join(["Usage: mien", name, *words, "[FLAGS]"])


#: What stands in a place of a command line, where its name does not say it.
WHAT = {"MODEL": "A model is a run, a checkpoint, a file, hf://OWNER/NAME or a bundled one: `faces` or `drawn`."}


def explain(error: CycloptsError, lines: list[str], command: str) -> tuple[str, str, str]:
    """What, why and what to do, for one error of the parser."""
    message = " ".join(lines) or type(error).__name__
    help_hint = f"`{command} --help` lists the flags."
    if isinstance(error, UnknownOptionError | UnknownCommandError):
        said, _, hint = message.partition("Did you mean")
        remedy = f"Did you mean{hint} {help_hint}" if hint else help_hint
        return said.strip(), f"`{command}` has no such flag.", remedy
    if isinstance(error, MissingArgumentError):
        name = error.argument.name if error.argument is not None else "a value"
        if name.startswith("-"):
            return f"{name} needs a value.", "None follows it.", help_hint
        return f"`{command}` needs {name}.", WHAT.get(name, "It cannot run without it."), help_hint
    return message, "The value does not fit the flag's type.", help_hint
