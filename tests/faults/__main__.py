"""The matrix of faults: every hook of an exporter × everything that it may do wrong, ``def`` and ``async def``.

``python -m tests.faults [--share 0.1 --seed 7] [--only TEXT] [--jobs 6]`` runs each case in a process of its own, and prints
what became of the commands, the two healthy siblings, the deadlines, the reports and the end of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.faults.case import AMBIENT, HOOKS, MAKING
from tests.faults.misbehaviours import IN_A_LOOP, MISBEHAVIOURS

ROOT: Final = Path(__file__).parents[2]
# Seconds from the last line of a case to the end of its process.
_EXIT: Final = 2.0
_LIMIT: Final = 60.0
# A case whose hooks log more than this floods the application.
_LOG_BYTES: Final = 200_000
COLUMNS: Final = (
    "commands failed",
    "siblings' loss",
    "deadlines missed",
    "false reports",
    "late exits",
    "log floods",
    "broken",
)


class Case(msgspec.Struct, frozen=True, order=True):
    """One cell of the matrix."""

    hook: str
    what: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.hook}: {self.what}"


class Result(msgspec.Struct, frozen=True):
    """What came of a case: the faults of eventcore by column, and the details."""

    case: Case
    faults: dict[str, int]
    details: str


def all_cases() -> list[Case]:
    """Every case that makes sense: only coroutines misuse an event loop; a plugin is made by plain code."""
    cases = [
        Case(hook, what, kind)
        for hook in HOOKS
        for what in MISBEHAVIOURS
        for kind in ("def", "async")
        if kind == "async" or what not in IN_A_LOOP
    ]
    cases += [Case(hook, what, "def") for hook in AMBIENT for what in MISBEHAVIOURS if what not in IN_A_LOOP | _HOLDS_COMMANDS]
    cases += [Case(hook, what, "def") for hook in MAKING for what in MISBEHAVIOURS if what not in IN_A_LOOP | _NEEDS_TELEMETRY]
    return cases


# An ambient callable is called in the application's task: what it does there, it does to the application.
_HOLDS_COMMANDS: Final = {
    *("hangs", "blocks its thread", "ignores its cancellation", "spins", "is slow"),
    *("flushes", "shuts the telemetry down", "exports now", "collects", "records", "leaves a span open"),
}
_NEEDS_TELEMETRY: Final = {
    *("flushes", "shuts the telemetry down", "exports now", "records", "collects", "registers an exporter"),
    "leaves a span open",
}


def some(cases: Sequence[Case], share: float, seed: int) -> list[Case]:
    """A share of the cases, chosen by a seed."""
    chosen = random.Random(seed).sample(list(cases), max(1, round(len(cases) * share)))
    return sorted(chosen)


async def run_case(case: Case) -> Result:
    """Run a case in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "tests.faults.case", case.hook, case.what, case.kind),
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "EVENTCORE_"))},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    try:
        async with asyncio.timeout(_LIMIT):
            line = await process.stdout.readline()
            ended = time.monotonic()
            await process.wait()
    except TimeoutError:
        process.kill()
        return Result(case, {"broken": 1}, f"no end within {_LIMIT:g} s: {(await errors).decode()[-600:]}")
    took = time.monotonic() - ended
    if not line or process.returncode:
        return Result(case, {"broken": 1}, f"exit code {process.returncode}: {(await errors).decode()[-1200:]}")
    return Result(case, _faults(json.loads(line), took), f"{line.decode().strip()}, exit after {took:.2f} s")


def _faults(found: dict[str, Any], exit_took: float) -> dict[str, int]:
    faults = {
        "commands failed": found["commands_failed"] + (found["slowest_command"] > 1),
        "siblings' loss": found["siblings_loss"] + found["siblings_not_delivered"],
        "deadlines missed": found["deadlines_missed"],
        "false reports": len(found["false_reports"]) + (not found["account"]),
        "late exits": int(exit_took > _EXIT),
        "log floods": int(found["log_bytes"] > _LOG_BYTES),
    }
    return {name: count for name, count in faults.items() if count}


async def run_all(cases: Iterable[Case], jobs: int, say: Any = None) -> list[Result]:
    """Run cases, several at a time: most of them wait for their deadlines."""
    turns = asyncio.Semaphore(jobs)
    results: list[Result] = []

    async def one(case: Case) -> None:
        async with turns:
            results.append(await run_case(case))
            if say is not None:
                say(len(results))

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(one(case))
    # Once more, one after the other: a deadline may be missed because the machine is busy, a fault comes again.
    results = [await run_case(result.case) if result.faults else result for result in results]
    return sorted(results, key=lambda result: result.case)


def table(results: Sequence[Result]) -> str:
    """A row for each hook and kind, with the number of faults in each column."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        counts = rows.setdefault((result.case.hook, result.case.kind), Counter())
        counts.update({"cases": 1, **result.faults})
    order = [*MAKING, *HOOKS, *AMBIENT]
    lines = [f"{'hook':20}{'':7}{'cases':>6}" + "".join(f"{name:>18}" for name in COLUMNS)]
    for hook, kind in sorted(rows, key=lambda row: (order.index(row[0]), row[1] != "def")):
        counts = rows[hook, kind]
        lines.append(f"{hook:20}{kind:7}{counts['cases']:>6}" + "".join(f"{counts[name]:>18}" for name in COLUMNS))
    total = sum(rows.values(), Counter())
    lines.append(f"{'all':27}{total['cases']:>6}" + "".join(f"{total[name]:>18}" for name in COLUMNS))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="which part of the cases to run, chosen by --seed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--only", default="", help="only the cases whose name contains this text")
    parser.add_argument("--jobs", type=int, default=6, help="how many cases run at a time")
    arguments = parser.parse_args()
    cases = [case for case in all_cases() if arguments.only in str(case)]
    if arguments.share < 1:
        cases = some(cases, arguments.share, arguments.seed)
    print(f"{len(cases)} cases" + (f", seed {arguments.seed}" if arguments.share < 1 else ""), flush=True)

    def say(done: int) -> None:
        if done % 50 == 0:
            print(f"  {done} of {len(cases)}", file=sys.stderr, flush=True)

    results = asyncio.run(run_all(cases, arguments.jobs, say))
    print(table(results))
    failed = [result for result in results if result.faults]
    for result in failed:
        print(f"\n{result.case}: {', '.join(f'{name} {count}' for name, count in result.faults.items())}\n  {result.details}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
