"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from inspect import getdoc
from math import isfinite
from pathlib import Path
from typing import Any, Final, NoReturn

from eventcore.cli.output import Output

EPILOG: Final = """\
The commands read the configuration as an application in this directory and environment does: EVENTCORE_... variables first,
then the file (--config, else EVENTCORE_CONFIG, else ./eventcore.toml), then the standard variables of OpenTelemetry
(OTEL_SERVICE_NAME and its like), then the defaults.

exit codes:
  0  all is well
  1  an exporter that is enabled has failed, or did not deliver; a store cannot be migrated
  2  the configuration has faults (each is listed), the command line is wrong, or a package is missing
"""
JSON: Final = """
json:
  With --json, standard output has one object, which begins with "version", "ok" (whether the exit code is 0) and "error".
  "error" is null; or the command could not do what it was asked for, and "error" says why. There is nothing else then:
  {"version": 1, "ok": false, "error": text}. Faults of the configuration are listed behind it, in "faults".
"""


class WrongCommandLine(Exception):
    """The arguments of the process fit no command.

    Attributes:
        usage: what was expected.
        message: what is wrong.
    """

    def __init__(self, usage: str, message: str) -> None:
        super().__init__(message)
        self.usage = usage
        self.message = message


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to ``main`` to print what is wrong: as text or as JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise ``WrongCommandLine``."""
        raise WrongCommandLine(self.format_usage(), message)


def add_command(
    commands: Any, name: str, run: Callable[[Output, argparse.Namespace], int], summary: str, epilog: str = EPILOG
) -> Parser:
    """Add the parser of a command.

    Args:
        commands: the parsers to add to, as ``add_subparsers`` returns them.
        name: the command.
        run: runs the command with the parsed options and returns the exit code. Its docstring is the help text of the
            command: what it does, and its JSON output.
        summary: one line for the list of commands.
        epilog: the end of the help text: the exit codes.
    """
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=getdoc(run),
        epilog=f"{epilog}{JSON}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--config``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file to read")


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--timeout``, in seconds."""
    parser.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="how long to wait (default: 10)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, more than 0, got {text!r}")
    return seconds
