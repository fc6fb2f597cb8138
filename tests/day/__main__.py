"""A day of a collector's troubles in two minutes: ``python -m tests.day [--seconds 120] [--seed 7]``.

At the end, for each process that was not killed, recorded = exported + dropped + unknown, the collector has every exported span
and none that is said to be dropped, and no span arrived more than twice. Prints a line for each process; ends with code 1 if
anything deviates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from tests.day.collector import STATES, Collector
from tests.day.ledger import Row, compare, table

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = 3
# Seconds after the day in which every process must have ended.
_LIMIT: Final = 60.0


class Day(msgspec.Struct):
    """What came of a day.

    Attributes:
        rows: the processes.
        problems: what does not add up of all processes together.
        calls: how many calls came in each state of the collector.
    """

    rows: list[Row]
    problems: list[str]
    calls: dict[str, int]

    @property
    def deviates(self) -> bool:
        return bool(self.problems) or any(row.deviations for row in self.rows)


def weather(seconds: float, chance: random.Random) -> Iterator[tuple[str, float]]:
    """The states of a day, each with its seconds: all of them in every half minute, in an order of chance."""
    rounds = max(1, round(seconds / 30))
    for _ in range(rounds):
        for state in chance.sample(STATES, len(STATES)):
            yield state, chance.uniform(0.5, 1.5) * seconds / rounds / len(STATES)


def run(seconds: float, seed: int, directory: Path) -> Day:
    """Live through a day.

    Args:
        seconds: how long it takes.
        seed: of what happens, to the collector and to the children.
        directory: where the journal and the errors of the processes are written.
    """
    chance = random.Random(seed)
    collector = Collector(seed)
    collector.start()
    journal = directory / "journal.jsonl"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))}
    command = [sys.executable, "-m", "tests.day.service", collector.endpoint, str(journal), str(seconds)]
    problems: list[str] = []
    with (directory / "errors.log").open("wb") as errors:
        first = seed * SERVICES
        services = [
            # Each in a process group of its own, which its children are in.
            subprocess.Popen([*command, str(first + number)], cwd=ROOT, env=inherited, stderr=errors, start_new_session=True)
            for number in range(SERVICES)
        ]
        try:
            for state, length in weather(seconds, chance):
                collector.live_through(state, length)
            deadline = time.monotonic() + _LIMIT
            for service in services:
                code = service.wait(max(deadline - time.monotonic(), 0.1))
                problems += [f"a service ended with code {code}"] if code else []
        except subprocess.TimeoutExpired as error:
            problems.append(f"a service had not ended {_LIMIT:g} s after the day: {error}")
        finally:
            for service in services:
                # Also children that hang: each of them is a process without an account.
                with suppress(ProcessLookupError):
                    os.killpg(service.pid, signal.SIGKILL)
                service.wait()
    collector.finish()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    rows, found = compare(lines, collector.taken, collector.totals)
    return Day(rows, problems + found, dict(collector.answers_in))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.day", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    arguments = parser.parse_args()
    # SIGTERM ends the day as Ctrl-C does, so that it ends the processes that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="eventcore-day-"))
    day = run(arguments.seconds, arguments.seed, directory)
    print(table(day.rows))
    ended = [row.end["said"] for row in day.rows if row.end]
    print(
        f"{len(day.rows)} processes, {sum(row.fate == 'killed' for row in day.rows)} killed; of the others: "
        f"{sum(said['recorded'] for said in ended)} spans recorded, {sum(said['exported'] for said in ended)} exported, "
        f"{sum(sum(said['dropped'].values()) for said in ended)} dropped, {sum(said['unknown'] for said in ended)} unknown; "
        f"calls: {', '.join(f'{count} {state}' for state, count in sorted(day.calls.items()))}"
    )
    for problem in day.problems:
        print(f"DEVIATION: {problem}")
    if day.deviates:
        print(f"journal and errors: {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    return 1 if day.deviates else 0


if __name__ == "__main__":
    sys.exit(main())
