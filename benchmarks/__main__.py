"""``python -m benchmarks [PART …] [--quick] [--json]``; ``--help`` lists the parts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module

from benchmarks.machine import caveat, machine
from benchmarks.measuring import Effort, announce
from benchmarks.results import Table

# Each module is imported when its part runs: a part runs also where packages of other parts are missing.
_PARTS = {
    "record": ("benchmarks.record_path", "record_path"),
    "exporters": ("benchmarks.exporter_count", "exporter_count"),
    "ambient": ("benchmarks.ambient_cost", "ambient_cost"),
    "encoding": ("benchmarks.otlp_encoding", "otlp_encoding"),
    "store": ("benchmarks.store_throughput", "store_throughput"),
    "lag": ("benchmarks.export_lag", "export_lag"),
    "peers": ("benchmarks.peers", "peers"),
    "postgres": ("benchmarks.postgres_throughput", "postgres_throughput"),
    "unseen": ("benchmarks.unseen_streams", "unseen_streams"),
    "budget": ("benchmarks.budget", "budget"),
    "readers": ("benchmarks.readers", "readers"),
    "conditions": ("benchmarks.conditions", "conditions"),
    "traces": ("benchmarks.every_trace", "every_trace"),
    "years": ("benchmarks.years", "years"),
    "demo": ("benchmarks.years", "demo"),
    "pages": ("benchmarks.pages", "pages"),
    "volume": ("benchmarks.volume", "volume"),
}
# The other parts need a PostgreSQL server.
_DEFAULT = ("record", "exporters", "ambient", "encoding", "store", "lag", "pages")


def main() -> None:
    """Run the parts named on the command line, and print the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures what eventcore costs, compared with others, and whether the targets are reached.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"which to run: {', '.join(_PARTS)} (default: {', '.join(_DEFAULT)})"
    )
    parser.add_argument("--quick", action="store_true", help="short rounds, for development: the figures are rough")
    parser.add_argument("--events", type=int, help="events that the part volume loads (default: 20000000, with --quick 500000)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(_PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: expected some of {', '.join(_PARTS)}")
    rounds, seconds = (5, 0.02) if arguments.quick else (11, 0.1)
    effort = Effort(rounds, seconds, arguments.quick, arguments.events)
    before = machine()
    tables: list[Table] = []
    parts = arguments.parts or _DEFAULT
    for number, part in enumerate(parts, 1):
        announce(f"{part} (part {number} of {len(parts)})")
        module, function = _PARTS[part]
        measure: Callable[[Effort], Table | Iterable[Table]] = getattr(import_module(module), function)
        measured = measure(effort)
        for table in (measured,) if isinstance(measured, Table) else measured:
            tables.append(table)
            if not arguments.json:
                _print(table.text() + "\n\n")
    after = machine()
    if arguments.json:
        plain = {"machine": before, "load_after": after["load_1_min"], "tables": [table.plain() for table in tables]}
        _print(json.dumps(plain, indent=2) + "\n")
        return
    missed = [
        f"  {row.name}: {target}" for table in tables for row in table.rows for target in row.targets if not target.reached
    ]
    _print("\n".join([*(["Missed:", *missed] if missed else ["Every target reached."]), "", caveat(before, after), ""]))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
