"""``eventcore projections``: how far each projection of a store has come, and the events that it has put aside."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from eventcore.cli.output import Output
from eventcore.errors import EventCoreError, InvalidStoreUrl, LeadershipLost
from eventcore.projections import Projection, projection_key
from eventcore.store import EventStore, open_store
from eventcore.stores import SqliteBackend, backend_from_url
from eventcore.stores.base import DeadLetter

_Action: TypeAlias = "Callable[[EventStore, Output, argparse.Namespace], Awaitable[int]]"

_EPILOG: Final = """\
STORE_URL is what the application gives to open_store.

exit codes:
  0  done; dead-letters: there are none; retry: all were applied
  1  dead-letters: there are some; retry: some remain; reset: the projection is being run
  2  there is no such store or projection, it cannot be opened or imported, or the command line is wrong
"""
_DESCRIPTIONS: Final = {
    "list": """\
List every projection that was ever run on the store.

JSON (--json):
  {"version": 1, "head": int, "projections": [{"name", "position", "lag", "owner", "lease_left", "dead_letters"}]}
  "owner" is empty and "lease_left" 0 when nobody runs it; an owner is host:process:run.
""",
    "dead-letters": """\
List the events that a projection could not apply and has put aside, in order of position.

JSON (--json):
  {"version": 1, "projection": str, "dead_letters":
   [{"position", "event_id", "error_type", "error", "attempts", "failed_at"}]}
""",
    "retry": """\
Apply every dead letter of a projection once more, here and now, and forget those that succeed. The projection's class is
imported from the working directory or the installed packages; it is made without arguments, unless what is named is an
instance.

JSON (--json):
  {"version": 1, "projection": str, "applied": [position], "remaining": [dead letter, as of dead-letters]}
""",
    "reset": """\
Forget checkpoint and dead letters of a projection, so that it begins again at the first event when it is run. What it has
written stays: empty its read model, too.

JSON (--json):
  {"version": 1, "projection": str, "reset": bool, "error": str or null}
""",
}
_SUMMARIES: Final = {
    "list": "list projections: position, lag, who runs them",
    "dead-letters": "list the events that a projection has put aside",
    "retry": "apply dead letters once more",
    "reset": "let a projection begin again",
}
_MOST: Final = 10_000


class _Unusable(Exception):
    """What was asked for is not there."""


def add_projections(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    command = commands.add_parser(
        "projections",
        help="list projections and their dead letters, retry those, begin again",
        description="Look after the projections of a store.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="action")
    for action, summary in _SUMMARIES.items():
        parser = actions.add_parser(
            action,
            help=summary,
            description=_DESCRIPTIONS[action],
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if action != "list":
            parser.add_argument("name", metavar="NAME", help="the projection: name, or name@version")
        parser.add_argument("url", metavar="STORE_URL", help="such as sqlite:///shop.db")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        if action == "retry":
            parser.add_argument(
                "--import", dest="place", metavar="MODULE:NAME", required=True, help="where the projection is defined"
            )


def projections(output: Output, options: argparse.Namespace) -> int:
    """Do what was asked, and return the exit code."""
    try:
        return asyncio.run(_run(output, options))
    except (_Unusable, EventCoreError) as error:
        if output.as_json:
            output.object({"version": 1, "error": str(error)})
        else:
            sys.stderr.write(f"eventcore: {error}\n")
        return 2


async def _run(output: Output, options: argparse.Namespace) -> int:
    _check_url(options.url)
    actions: dict[str, _Action] = {"list": _list, "dead-letters": _dead_letters, "retry": _retry, "reset": _reset}
    # Neither the application's configuration nor its exporters have a part in this.
    async with open_store(options.url, exporters="none", config={}, migrate=False) as store:
        if options.action != "list" and not any(record.name == options.name for record in await store.projections()):
            known = ", ".join(record.name for record in await store.projections()) or "none"
            raise _Unusable(f"the store has no projection {options.name!r}; known are: {known}")
        return await actions[options.action](store, output, options)


def _check_url(url: str) -> None:
    backend = backend_from_url(url)
    if backend.system == "memory":
        raise InvalidStoreUrl("a store in memory lives in the process of its application only")
    if isinstance(backend, SqliteBackend) and not Path(backend.path).exists():
        raise _Unusable(f"there is no file {backend.path}")


async def _list(store: EventStore, output: Output, _: argparse.Namespace) -> int:
    records = await store.projections()
    head = await store.head_position()
    if output.as_json:
        listed = [
            {
                "name": record.name,
                "position": record.checkpoint.position,
                "lag": max(0, head - record.checkpoint.position),
                "owner": record.owner,
                "lease_left": round(record.lease_left, 3),
                "dead_letters": record.dead_letters,
            }
            for record in records
        ]
        output.object({"version": 1, "head": head, "projections": listed})
        return 0
    if not records:
        output.line("No projection was ever run on this store.")
    output.table(
        ["projection", "position", "lag", "dead letters", "run by"],
        [
            [
                record.name,
                str(record.checkpoint.position),
                str(max(0, head - record.checkpoint.position)),
                str(record.dead_letters),
                record.owner or "nobody",
            ]
            for record in records
        ],
    )
    return 0


async def _dead_letters(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    letters = await store.dead_letters(options.name, limit=_MOST)
    if output.as_json:
        output.object({"version": 1, "projection": options.name, "dead_letters": [_as_json(letter) for letter in letters]})
    else:
        if not letters:
            output.line(f"{options.name} has no dead letters.")
        _print_letters(output, letters)
    return int(bool(letters))


async def _retry(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    projection = _imported(options.place)
    if (key := projection_key(projection)) != options.name:
        raise _Unusable(f"{options.place} is the projection {key!r}, not {options.name!r}")
    retried = await store.retry_dead_letters(projection)
    if output.as_json:
        output.object(
            {
                "version": 1,
                "projection": options.name,
                "applied": [letter.position for letter in retried.applied],
                "remaining": [_as_json(letter) for letter in retried.remaining],
            }
        )
    else:
        output.line(f"{len(retried.applied)} applied, {len(retried.remaining)} remaining")
        _print_letters(output, retried.remaining)
    return int(bool(retried.remaining))


async def _reset(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    problem: str | None = None
    try:
        await store.reset_projection(options.name)
    except LeadershipLost as error:
        problem = str(error)
    if output.as_json:
        output.object({"version": 1, "projection": options.name, "reset": problem is None, "error": problem})
    elif problem is None:
        output.line(f"{options.name} begins again at the first event when it is run.")
    else:
        sys.stderr.write(f"eventcore: {problem}\n")
    return int(problem is not None)


def _imported(place: str) -> Projection:
    module, colon, name = place.partition(":")
    if not module or not colon or not name:
        raise _Unusable(f"--import {place!r}: expected MODULE:NAME, such as shop.projections:Balances")
    # As python -m does it, so that an application that is not installed is found, too.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise _Unusable(f"--import {place}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Projection):
        raise _Unusable(f"--import {place}: {made!r:.80} is no projection; expected a class derived from eventcore.Projection")
    return made


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    values = msgspec.structs.asdict(letter)
    del values["projection"]
    values["failed_at"] = _time(values.pop("failed_at_ns"))
    return values


def _print_letters(output: Output, letters: Sequence[DeadLetter]) -> None:
    output.table(
        ["position", "failed at", "attempts", "error"],
        [
            [str(letter.position), _time(letter.failed_at_ns), str(letter.attempts), f"{letter.error_type}: {letter.error}"]
            for letter in letters
        ],
    )


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds")
