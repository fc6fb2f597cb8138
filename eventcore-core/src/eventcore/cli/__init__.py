"""The command ``eventcore``: lists and checks exporters, and maintains stores.

Each command is one module. It has a function that adds the command's parser, and one that runs the command and returns the exit
code.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Final

from eventcore.cli.checking import add_check
from eventcore.cli.health import add_health
from eventcore.cli.listing import add_plugins
from eventcore.cli.migrating import add_migrate
from eventcore.cli.output import Output
from eventcore.cli.parsing import EPILOG, JSON, Parser, WrongCommandLine
from eventcore.cli.projections import add_projections
from eventcore.cli.scaffolding import add_new_exporter
from eventcore.version import __version__

__all__ = ["main"]

# Seconds that threads of plugins have to end after the command.
_LAST_THREADS: Final = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: those of the process) and return its exit code."""
    parser = Parser(
        prog="eventcore",
        description="List, check and begin exporters of eventcore, and maintain its stores.",
        epilog=f"{EPILOG}{JSON}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eventcore-core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_plugins, add_check, add_health, add_migrate, add_projections, add_new_exporter):
        add(commands)
    try:
        options = parser.parse_args(arguments)
    except WrongCommandLine as error:
        sys.stderr.write(error.usage)
        as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
        return Output(as_json=as_json).fail(2, error.message)
    # The command prints what an exporter logs as its result. Without a handler, Python would print the log records, too.
    logging.getLogger("eventcore").addHandler(logging.NullHandler())
    output = Output(as_json=options.json)
    before = set(threading.enumerate())
    try:
        # What plugins print goes to standard error: standard output has the answer only.
        with redirect_stdout(sys.stderr):
            code = int(options.run(output, options))
        _do_not_wait_for(set(threading.enumerate()) - before, code)
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it. Without this, Python would report an error when it flushes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _do_not_wait_for(threads: set[threading.Thread], code: int) -> None:
    """End the process soon, also when a plugin has started a thread that Python would wait for at its end."""

    def end() -> None:
        deadline = time.monotonic() + _LAST_THREADS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        os._exit(code)

    if any(not thread.daemon and thread.is_alive() for thread in threads):
        threading.Thread(target=end, name="eventcore-last-threads", daemon=True).start()
