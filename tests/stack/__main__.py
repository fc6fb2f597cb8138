"""``python -m tests.stack [--seconds 60] [--rate 20] [--scale 1]``: run the example stack without containers until Ctrl-C.

It starts every part that this machine has, names those that are missing, and prints the addresses. ``--scale 20`` makes all
times of the rules, and the interval of scrapes, 20 times shorter. Logs and data are in ``.nox/stack``.

``python -m tests.stack fire [INCIDENT ...] --scale 15`` injects faults, each into a new stack, waits for their alerts, executes
the runbook, and prints incidents, alerts and seconds. It ends with code 1 if anything was not as expected.

``python -m tests.stack schema`` checks the dashboards against Grafana's schema.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable

from examples.observability import rules
from tests.stack.incidents import fire
from tests.stack.native import ROOT, Stack, new_directory
from tests.stack.schema import check


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.py stack", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "fire", "schema"), default="run", help="what to do")
    parser.add_argument("incidents", nargs="*", help="of fire: the faults; by default all")
    parser.add_argument("--seconds", type=float, help="when to end; by default, at Ctrl-C")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second to the service")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times shorter the times of rules and scrapes are")
    arguments = parser.parse_args()
    if arguments.action == "schema":
        faults = check(ROOT / ".nox" / "parts" / "grafana-schema")
        print(faults or "the dashboards fit Grafana's schema")
        return int(bool(faults))
    # SIGTERM ends the run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = new_directory(ROOT / ".nox" / "stack")
    file = directory / "rules.yml"
    file.write_text(rules.rules_file(arguments.scale))

    def report(line: str) -> None:
        print(line, flush=True)

    def start() -> Stack:
        return Stack(new_directory(directory / "run"), file, rules.INTERVAL / arguments.scale, arguments.rate, report)

    try:
        if arguments.action == "fire":
            return 0 if fire(start, arguments.scale, arguments.incidents, report) else 1
        run(start(), arguments.seconds, report)
    except KeyboardInterrupt:
        report("ended")
    return 0


def run(stack: Stack, seconds: float | None, report: Callable[[str], None]) -> None:
    """Print the addresses, and let the stack run for ``seconds``, or until Ctrl-C."""
    try:
        report("left out: Grafana runs in containers only (compose.yaml)")
        report(f"service       {stack.service}/health/  a page for people")
        for part in ("prometheus", "alertmanager", "jaeger"):
            if part in stack.processes:
                report(f"{part:13} {stack.url(part)}")
        report(f"logs and data {stack.directory.relative_to(ROOT)}; Ctrl-C ends everything")
        threading.Event().wait(seconds)
    finally:
        stack.close()


if __name__ == "__main__":
    sys.exit(main())
