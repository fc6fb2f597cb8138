"""The command ``eventcore``: which exporters there are, and whether they deliver."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Final

from eventcore.cli.checking import check
from eventcore.cli.listing import plugins
from eventcore.cli.migrating import migrate
from eventcore.cli.output import Output
from eventcore.cli.projections import add_projections, projections
from eventcore.version import __version__

__all__ = ["main"]

_EPILOG: Final = """\
The configuration is the one that an application has in this directory and environment: EVENTCORE_... variables, then the file
(--config, else EVENTCORE_CONFIG, else ./eventcore.toml), then the defaults.

exit codes:
  0  all is well
  1  an exporter that is enabled has failed, or did not deliver; a store cannot be migrated
  2  the configuration has faults (each is listed), or the command line is wrong
"""
_PLUGINS: Final = """\
List every exporter that is installed or configured. Those that are enabled are imported and made, but not started; those that
are disabled or not enabled are not even imported.

states:
  loaded         imported, made and checked
  failed         enabled, but it cannot be imported or made, or does not fit the hook specification
  disabled       never imported
  not enabled    installed, but the configuration enables others
  not installed  one of eventcore's own that 'pip install' would bring

JSON (--json):
  {"version": 1, "files": [path], "exporters_off": bool, "faults": [{"where", "key", "problem"}],
   "exporters": [{"name", "plugin", "distribution", "version", "state", "reason", "kinds": [...], "install"}]}
  "distribution", "version" and "install" may be null.
"""
_CHECK: Final = """\
Validate the configuration, start every exporter that is enabled, send one test metric (eventcore.check) and one span
("eventcore check") through each, and say what arrived or why not. An exporter that is scraped is asked for its page; where
another process has its address already, that one's page has to show metrics of eventcore.

JSON (--json):
  {"version": 1, "ok": bool, "files": [path], "exporters_off": bool, "faults": [{"where", "key", "problem"}],
   "exporters": [{"name", "plugin", "ok", "state", "sent": [...], "url", "message"}]}
  "sent" holds "metric" and "span", as far as the exporter takes them; "url" may be null.
"""

_MIGRATE: Final = """\
Create the schema of the store that URL names, or bring it up to date. Several may do so at once. An application does the same
when it opens the store, unless it says open_store(..., migrate=False). For PostgreSQL the password may stand in the variable
PGPASSWORD, or in the password file, in place of the URL.

JSON (--json):
  {"version": 1, "ok": bool, "schema_version": int, "message": text}
  "schema_version" is null when it failed.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: those of the process) and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # What an exporter logs while it is looked at is in the answer already; without a handler Python would print it too.
    logging.getLogger("eventcore").addHandler(logging.NullHandler())
    try:
        with Output(as_json=options.json) as output:
            if options.command == "projections":
                return projections(output, options)
            if options.command == "plugins":
                return plugins(output, config=options.config)
            if options.command == "migrate":
                return migrate(output, url=options.url, timeout=options.timeout)
            return check(output, config=options.config, timeout=options.timeout)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; without this Python would complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eventcore",
        description="Look at the exporters of eventcore, and after its stores.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eventcore-core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary, description in (
        ("plugins", "list exporters: distribution, version, state, what they export", _PLUGINS),
        ("check", "send a test metric and a test span through each exporter", _CHECK),
        ("migrate", "create the schema of a store, or bring it up to date", _MIGRATE),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if name == "migrate":
            command.add_argument("url", metavar="URL", help="the store, as open_store takes it")
        else:
            command.add_argument("--config", type=Path, metavar="FILE", help="the configuration file to read")
        if name in ("check", "migrate"):
            command.add_argument(
                "--timeout",
                type=_seconds,
                default=10.0,
                metavar="SECONDS",
                help="how long to wait (default: 10)",
            )
    add_projections(commands)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, more than 0, got {text!r}")
    return seconds
