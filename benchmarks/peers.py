"""Commands per second on one PostgreSQL server: eventcore, the eventsourcing library, and plain SQL with pgbench."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import Final

from benchmarks.by_hand import ByHandContender
from benchmarks.contenders import STREAMS, Contender, Streams, Turn
from benchmarks.eventcore_contender import EventcoreContender
from benchmarks.library_contender import LibraryContender
from benchmarks.measuring import Effort, Series, in_turns
from benchmarks.observing import OBSERVED, observers
from benchmarks.postgres_server import measured_server
from benchmarks.results import Row, Table, Target

__all__ = ["peers"]

# The targets: how many times as fast as the library, and as pgbench with one transaction.
_TO_LIBRARY: Final[dict[Streams, float]] = {1: 20, 2: 10}
_TO_HAND: Final = 1.5
_LATENCY_TO_HAND: Final = 1.5
_WORD: Final[dict[Streams, str]] = {1: "one-stream", 2: "two-stream"}

_Key = tuple[str, int]


def peers(effort: Effort) -> tuple[Table, ...]:
    """Commands on one stream, and on two, at several concurrencies."""
    rounds, seconds, warm_up = (2, 1.0, 0.5) if effort.quick else (5, 3.0, 1.0)
    with measured_server() as server, observers() as watching:
        eventcore = EventcoreContender(server, watching, warm_up)
        # For an example event: the other contenders write events of the same size.
        eventcore.turn(1, 1, 0.1)
        contenders: list[Contender] = [
            eventcore,
            LibraryContender(server, warm_up, tuned=False),
            LibraryContender(server, warm_up, tuned=True),
            ByHandContender(server, True, eventcore.example(1)),
            ByHandContender(server, False, eventcore.example(1)),
        ]
        return tuple(
            _compared(contenders, streams, rounds, seconds, warm_up=not effort.quick, about=server.about) for streams in STREAMS
        )


def _compared(
    contenders: Sequence[Contender], streams: Streams, rounds: int, seconds: float, *, warm_up: bool, about: str
) -> Table:
    turns: dict[_Key, list[Turn]] = {
        (contender.name, concurrency): [] for contender in contenders for concurrency in contender.concurrency
    }
    by_name = {contender.name: contender for contender in contenders}

    def run(key: _Key) -> float:
        name, concurrency = key
        turns[key].append(by_name[name].turn(streams, concurrency, seconds))
        return turns[key][-1].rate

    measured = in_turns({_label(key): partial(run, key) for key in turns}, rounds, warm_up=warm_up)
    series = {key: measured[_label(key)] for key in turns}
    kept = {key: of_key[-rounds:] for key, of_key in turns.items()}
    best = {name: _best(series, name) for name in by_name}
    targets: dict[_Key, list[Target]] = {key: [] for key in turns}
    for name, bound in (("eventsourcing", _TO_LIBRARY[streams]), ("pgbench", _TO_HAND)):
        ratio = series[best["eventcore"]].ratio(series[best[name]])
        targets[best[name]].append(Target("eventcore's best to its best", ratio, bound, at_most=False))
    pairs = zip(kept["eventcore", 1], kept["pgbench", 1], strict=True)
    latency = median(mine.p50 / theirs.p50 for mine, theirs in pairs)
    targets["eventcore", 1].append(Target("latency (p50) to pgbench's", latency, _LATENCY_TO_HAND))
    return Table(
        f"PostgreSQL: {_WORD[streams]} commands per second, side by side",
        ("commands/s", "eventcore's best to it", "p50", "p99", "client CPU", "server CPU"),
        tuple(_row(key, series[key], series[best["eventcore"]].ratio(series[key]), kept[key], targets[key]) for key in turns),
        notes=(
            about,
            "Each command reads its streams and adds an event to each; a stream gets ten events. Each sender has its own "
            "streams and executes one command at a time. Medians of the rounds; ratios are within a round. After every turn, "
            "the database must hold exactly the events of the acknowledged commands.",
            f"eventcore: asyncio, one process, telemetry on. {OBSERVED}",
            f"eventsourcing {version('eventsourcing')}: get and save of aggregates in threads, psycopg {version('psycopg')} "
            "with its C part, the default pool. tuned: with database functions and the aggregate cache, which are off by "
            "default.",
            "pgbench: prepared statements; BEGIN, select the events of the streams, insert the next versions in one statement "
            "under a unique index, COMMIT; rows of the same size as eventcore's, in the same indexes. no BEGIN: the select "
            "is outside the transaction, which saves two round trips.",
            "CPU: processor time for one command, of all threads of the client and of all processes of the server.",
        ),
    )


def _best(series: dict[_Key, Series], name: str) -> _Key:
    return max((key for key in series if key[0] == name), key=lambda key: series[key].median)


def _label(key: _Key) -> str:
    name, concurrency = key
    return f"{name}, {concurrency}"


def _row(key: _Key, series: Series, ratio: float, turns: Sequence[Turn], targets: Sequence[Target]) -> Row:
    p50, p99 = median(turn.p50 for turn in turns), median(turn.p99 for turn in turns)
    client, server = median(turn.client_cpu for turn in turns), median(turn.server_cpu for turn in turns)
    return Row(
        _label(key),
        (
            f"{series.median:,.0f} ± {series.spread:.0%}",
            f"{ratio:.2f}",
            f"{p50 * 1e3:.2f} ms",
            f"{p99 * 1e3:.2f} ms",
            f"{client * 1e6:.0f} µs",
            f"{server * 1e6:.0f} µs",
        ),
        {"commands/s": series.median, "ratio": ratio, "p50": p50, "p99": p99, "client CPU": client, "server CPU": server},
        tuple(targets),
    )
