"""The command line of the example: ``python examples/flights --seconds 20``."""

import argparse
import asyncio
import io
import logging
import math
import sys
from pathlib import Path

from rich.console import Console

if __package__ != "examples.flights":
    # Started by its path. The imports below need the root of the repository on sys.path.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from eventcore.errors import ConfigurationError, InvalidStoreUrl, StoreError
from examples.flights.data import DataMissing
from examples.flights.run import Options, run

OK, DISAGREE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    """Run the replay and print the summary; returns the exit code."""
    parser = _parser()
    given = parser.parse_args()
    options = Options(
        seconds=None if given.all else given.seconds,
        rate=given.rate,
        store=given.store,
        metrics_port=given.metrics_port,
        collector=given.collector,
        with_collector=not given.no_collector,
    )
    # With --json, standard output carries the summary only.
    console = Console(stderr=given.json)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        summary = asyncio.run(run(options, console))
    except InvalidStoreUrl as error:
        parser.error(f"--store: {error}")
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return USAGE
    except (DataMissing, StoreError) as error:
        print(error, file=sys.stderr)
        return DISAGREE
    except KeyboardInterrupt:
        print("interrupted: there is no summary", file=sys.stderr)
        return INTERRUPTED
    if given.json:
        print(summary.to_json())
    else:
        summary.print(console)
    if summary.interrupted:
        return INTERRUPTED
    return OK if summary.agreed else DISAGREE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flights",
        description=(
            "Replays the flights that left New York in 2013 through an event store, and checks that what was stored, measured "
            "and exported agrees."
        ),
        epilog="Exit code: 0 when all checks pass, 1 when one fails, 2 for wrong arguments or configuration, 130 after Ctrl-C.",
    )
    parser.add_argument("--seconds", type=_positive, default=20.0, help="how long to replay (default: 20)")
    parser.add_argument("--rate", type=_positive, help="commands per second (default: as fast as possible)")
    parser.add_argument("--all", action="store_true", help="replay the whole year, however long it takes")
    parser.add_argument(
        "--store", metavar="URL", help="where to store events (default: an SQLite file that is removed afterwards)"
    )
    parser.add_argument("--metrics-port", type=_port, metavar="PORT", help="port of /metrics (default: a free one)")
    parser.add_argument(
        "--collector",
        type=Path,
        metavar="PROGRAM",
        help="path of rotel-agent (default: $EVENTCORE_ROTEL, else from the package rotel)",
    )
    parser.add_argument("--no-collector", action="store_true", help="start no collector and load no exporter for it")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and everything else to stderr")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port: 1 to 65535")
    return port


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
