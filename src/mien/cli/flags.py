"""From a typed function to a command: cyclopts parses, and its complaints become mien's three lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnknownOptionError

from mien.errors import UsageError

HELP_FLAGS = frozenset(("--help", "-h"))


def call(function: Callable[..., Any], arguments: Sequence[str], name: str) -> Any:
    """Call the `function` of the verb `name` with flags parsed from `arguments`. Raises UsageError for flags that do not fit."""
    app = App(
        name=f"mien {name}",
        help_format="markdown",
        version_flags=[],
        help_flags=sorted(HELP_FLAGS),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        help_on_error=False,
    )
    if HELP_FLAGS & set(arguments):
        from rich.console import Console  # not for the verb itself, which starts sooner without

        app.console = Console(file=sys.stdout, soft_wrap=False)
    app.default(function)
    try:
        return app(list(arguments))
    except CycloptsError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(*explain(error, lines, f"mien {name}")) from error


def explain(error: CycloptsError, lines: list[str], command: str) -> tuple[str, str, str]:
    """What, why and what to do, for one complaint of the parser."""
    message = " ".join(lines) or type(error).__name__
    help_hint = f"`{command} --help` lists what it takes."
    if isinstance(error, UnknownOptionError | UnknownCommandError):
        said, _, hint = message.partition("Did you mean")
        remedy = f"Did you mean{hint} {help_hint}" if hint else help_hint
        return said.strip(), f"`{command}` has no such flag.", remedy
    if isinstance(error, MissingArgumentError):
        return message, f"`{command}` cannot run without it.", help_hint
    return message, "The value does not fit the flag's type.", help_hint
