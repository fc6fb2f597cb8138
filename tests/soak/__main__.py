"""``python -m tests.soak --seconds 120 [--seed N] [--json]``: run every scenario and print its counts and violations."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.soak.proof import Findings
from tests.soak.scenarios import SCENARIOS, USUAL
from tests.soak.staging import Load


async def run(names: Sequence[str], seconds: float, seed: int, directory: Path) -> dict[str, Findings]:
    """Run these scenarios one after another and return the findings of each."""
    shares = {name: share for name, (_, share) in SCENARIOS.items() if name in names}
    found: dict[str, Findings] = {}
    for name, share in shares.items():
        where = directory / name
        where.mkdir()
        scenario, _ = SCENARIOS[name]
        found[name] = await scenario(where, Load(seconds * share / sum(shares.values()), seed))
    return found


def show(found: dict[str, Findings], console: Console) -> None:
    """Print a table of the counts, and every violation."""
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None)
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    for what in sorted({what for findings in found.values() for what in findings.counts}):
        counts = [findings.counts.get(what) for findings in found.values()]
        table.add_row(what, *("" if count is None else f"{count:,}" for count in counts))
    console.print(table)
    for name, findings in found.items():
        for violation in findings.violations:
            console.print(f"{name}: {violation}", markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """Run as the arguments say; return the exit code, 0 if everything holds and 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of work and faults, for all scenarios together")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 30), help="of all random choices (default: a new seed)"
    )
    parser.add_argument("--only", choices=SCENARIOS, nargs="+", default=list(USUAL), help="other scenarios than the usual ones")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    arguments = parser.parse_args()
    # SIGTERM ends the run as Ctrl-C does, so that it stops the processes and servers it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="eventcore-soak-"))
    complete = False
    try:
        found = asyncio.run(run(arguments.only, arguments.seconds, arguments.seed, directory))
        complete = not any(findings.violations for findings in found.values())
        if arguments.json:
            parts = {name: {"counts": findings.counts, "violations": findings.violations} for name, findings in found.items()}
            print(json.dumps({"seed": arguments.seed, "holds": complete, **parts}))
        else:
            show(found, Console())
            print(f"seed {arguments.seed}: {'everything holds' if complete else 'NOT everything holds'}")
    finally:
        if complete:
            shutil.rmtree(directory)
        else:
            print(f"seed {arguments.seed}: the logs are in {directory}", file=sys.stderr)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
