"""``python -m tests.stack [--seconds 60] [--rate 20] [--scale 1]``: run the example stack without containers until Ctrl-C.

It starts every part that this machine has, names those that are missing, and prints the addresses. ``--scale 20`` makes all
times of the rules, and the interval of scrapes, 20 times shorter. Logs and data are in ``--directory``.

``python -m tests.stack fire [--only INCIDENT,INCIDENT] [--json] --scale 15`` injects faults, each into a new stack, waits for
their alerts, executes the runbook, and prints a matrix of incidents, alerts and seconds, and which panels moved. It ends with
code 1 if anything was not as expected.

``python -m tests.stack pictures --scale 15`` lets the stack run for ``--seconds``, and makes pictures of its dashboards, its
health page and the demo.

``python -m tests.stack schema`` checks the dashboards against Grafana's schema.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from examples.observability import rules
from tests.stack.firing import fire
from tests.stack.incidents import INCIDENTS
from tests.stack.native import ROOT, Stack, new_directory
from tests.stack.schema import check

# Seconds between scrapes, however short the other times are.
_SHORTEST: Final = 0.5


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py stack", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "fire", "pictures", "schema"), default="run", help="what to do")
    parser.add_argument("--only", default="", help=f"of fire, the faults with commas between: {', '.join(INCIDENTS)}")
    parser.add_argument("--json", action="store_true", help="of fire: one JSON object for each fault")
    parser.add_argument("--seconds", type=float, help="when to end; by default, at Ctrl-C")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second to the service")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times shorter the times of rules and scrapes are")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / ".nox" / "stack-run", help="for logs and data; its folder `run` is emptied"
    )
    arguments = parser.parse_args(words)
    if arguments.action == "schema":
        faults = check(ROOT / ".nox" / "parts" / "grafana-schema")
        print(faults or "the dashboards fit Grafana's schema")
        return int(bool(faults))
    # SIGTERM ends the run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = arguments.directory.resolve()

    def report(line: str) -> None:
        print(line, flush=True)

    def start(scale: float, report: Callable[[str], object]) -> Stack:
        run_in = new_directory(directory / "run")
        file = run_in / "rules.yml"
        file.write_text(rules.rules_file(scale))
        return Stack(run_in, file, max(_SHORTEST, rules.INTERVAL / scale), arguments.rate, report=report)

    names = [name for name in arguments.only.split(",") if name]
    if unknown := set(names) - INCIDENTS.keys():
        parser.error(f"no incident is called {', '.join(sorted(unknown))}; there are {', '.join(INCIDENTS)}")
    try:
        if arguments.action == "fire":
            quiet = partial(start, report=lambda _: None)
            return 0 if fire(quiet, arguments.scale, names, report, as_json=arguments.json) else 1
        stack = start(arguments.scale, report)
        if arguments.action == "pictures":
            make_pictures(stack, arguments.seconds or 60.0, directory / "pictures", report)
        else:
            run(stack, arguments.seconds, report)
    except KeyboardInterrupt:
        report("ended")
    return 0


def make_pictures(stack: Stack, seconds: float, into: Path, report: Callable[[str], None]) -> None:
    """Draw dashboards, page and demo into a folder, and say which panels have no data."""
    # It needs packages that the stack does not.
    from tests.stack.picturing import picture, picture_demo

    try:
        empty = picture(stack, seconds, into)
    finally:
        stack.close()
    (into / "demo.svg").write_text(asyncio.run(picture_demo(20.0)))
    report(f"pictures are in {into}; panels without data: {empty}")


def run(stack: Stack, seconds: float | None, report: Callable[[str], None]) -> None:
    """Print the addresses, and let the stack run for ``seconds``, or until Ctrl-C."""
    try:
        if "collector" in stack.missing:
            report("rotel has no page of metrics, as the Collector has: the alert CollectorDown fires")
        report("left out: Grafana runs in containers only (compose.yaml)")
        report(f"service       {stack.service}/health/  a page for people")
        for part in ("prometheus", "alertmanager", "jaeger"):
            if part in stack.processes:
                report(f"{part:13} {stack.url(part)}")
        report(f"logs and data {stack.directory}; Ctrl-C ends everything")
        threading.Event().wait(seconds)
    finally:
        stack.close()


if __name__ == "__main__":
    sys.exit(main())
