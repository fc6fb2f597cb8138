"""``eventcore projections``: shows the progress and the dead letters of projections, retries dead letters, and resets."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from eventcore.cli.output import Output
from eventcore.cli.parsing import add_command
from eventcore.errors import EventCoreError, InvalidStoreUrl, LeadershipLost
from eventcore.ground import absolute_path
from eventcore.projections import Projection, projection_key, unknown_name
from eventcore.store import EventStore, open_store
from eventcore.stores import SqliteBackend, backend_from_url
from eventcore.stores.values import DeadLetter

_EPILOG: Final = """\
STORE_URL is the URL that the application passes to open_store.

exit codes:
  0  done; dead-letters: there are none; retry: all were applied
  1  dead-letters: there are some; retry: some remain; reset: the projection is being run
  2  there is no such store or projection, it cannot be opened or imported, or the command line is wrong
"""
_MAX_DEAD_LETTERS: Final = 10_000


class UnusableStore(Exception):
    """The file, the projection or the import that the command line names does not exist or does not fit."""


def add_projections(commands: Any) -> None:
    """Add the command and its actions to the parsers of ``eventcore``."""
    command = commands.add_parser(
        "projections",
        help="list projections and their dead letters, retry dead letters, reset",
        description="Maintain the projections of a store.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="action")
    for name, run, summary in (
        ("list", _list, "list projections: position, lag, which process runs them"),
        ("dead-letters", _dead_letters, "list the events that a projection could not apply"),
        ("retry", _retry, "apply the dead letters of a projection once more"),
        ("reset", _reset, "let a projection begin again at the first event"),
    ):
        parser = add_command(actions, name, run, summary, _EPILOG)
        if name != "list":
            parser.add_argument("name", metavar="NAME", help="the projection: name, or name@version")
        parser.add_argument("url", metavar="STORE_URL", help="such as sqlite:///shop.db")
        if name == "retry":
            parser.add_argument("--import", dest="source", metavar="MODULE:NAME", required=True, help="the projection in code")


def _on_store(
    action: Callable[[EventStore, Output, argparse.Namespace], Awaitable[int]],
) -> Callable[[Output, argparse.Namespace], int]:
    """Make a command of ``action``: open the store for it, and answer what it cannot use with an error and exit code 2."""

    async def run_on_store(output: Output, options: argparse.Namespace) -> int:
        check_url(options.url)
        # The application's configuration is not read, and its exporters are not loaded.
        async with open_store(options.url, exporters="none", config={}, migrate=False) as store:
            names = [record.name for record in await store.projections()]
            if options.action != "list" and options.name not in names:
                raise UnusableStore(f"the store has no projection {options.name!r}; {unknown_name(options.name, names)}")
            return await action(store, output, options)

    @wraps(action)
    def run(output: Output, options: argparse.Namespace) -> int:
        try:
            return asyncio.run(run_on_store(output, options))
        except (UnusableStore, EventCoreError) as error:
            return output.fail(2, str(error))

    return run


def check_url(url: str) -> None:
    """Refuse a URL of a store that this process cannot have: opening it would make a new, empty one."""
    backend = backend_from_url(url)
    if backend.system == "memory":
        raise InvalidStoreUrl("a store in memory lives in the process of its application only")
    if isinstance(backend, SqliteBackend) and not Path(backend.path).exists():
        raise UnusableStore(f"there is no file {backend.path}")


@_on_store
async def _list(store: EventStore, output: Output, _: argparse.Namespace) -> int:
    """List every projection that was ever run on the store.

    JSON (--json):
      {"version": 1, "ok", "error", "head": int, "projections":
       [{"name", "position", "lag", "owner", "lease_left", "dead_letters"}]}
      "owner" is host:process:run, and "lease_left" is in seconds. When no process runs the projection, they are "" and 0.
    """
    records = await store.projections()
    head = await store.head_position()
    listed: list[dict[str, Any]] = [
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
    titles = ["projection", "position", "lag", "dead letters", "run by"]
    columns = ("name", "position", "lag", "dead_letters")
    rows = [[*(str(each[column]) for column in columns), each["owner"] or "nobody"] for each in listed]
    answer = {"head": head, "projections": listed}
    return output.answer(0, answer, lambda: output.table(titles, rows, "No projection was ever run on this store."))


@_on_store
async def _dead_letters(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    """List the events that a projection could not apply (its dead letters), in order of position.

    JSON (--json):
      {"version": 1, "ok", "error", "projection": text, "dead_letters":
       [{"position", "event_id", "error_type", "error", "attempts", "failed_at", "stream", "event_type"}]}
      "stream" and "event_type" are null if the store no longer holds the event.
    """
    letters = await store.dead_letters(options.name, limit=_MAX_DEAD_LETTERS)
    listed = [_as_json(letter) | await _event_of(store, letter) for letter in letters]
    answer = {"projection": options.name, "dead_letters": listed}
    print_text = partial(_print_letters, output, listed, f"{options.name} has no dead letters.")
    return output.answer(int(bool(letters)), answer, print_text)


@_on_store
async def _retry(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    """Apply every dead letter of a projection once more in this process, and delete those that succeed. The projection is
    imported from the working directory or the installed packages. MODULE:NAME names a class, which is called without
    arguments, or an instance.

    JSON (--json):
      {"version": 1, "ok", "error", "projection": text, "applied": [position],
       "remaining": [dead letter, as of dead-letters]}
    """
    projection = _imported(options.source)
    if (key := projection_key(projection)) != options.name:
        raise UnusableStore(f"{options.source} is the projection {key!r}, not {options.name!r}")
    retried = await store.retry_dead_letters(projection)
    remaining = [_as_json(letter) | await _event_of(store, letter) for letter in retried.remaining]

    def print_text() -> None:
        output.line(f"{len(retried.applied)} applied, {len(remaining)} remaining")
        _print_letters(output, remaining)

    applied = [letter.position for letter in retried.applied]
    answer = {"projection": options.name, "applied": applied, "remaining": remaining}
    return output.answer(int(bool(remaining)), answer, print_text)


@_on_store
async def _reset(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    """Delete the checkpoint and the dead letters of a projection, so that its next run begins at the first event. This does
    not change its read model: empty the read model, too.

    JSON (--json):
      {"version": 1, "ok", "error", "projection": text, "reset": true}
    """
    try:
        await store.reset_projection(options.name)
    except LeadershipLost as error:
        return output.fail(1, str(error))
    done = f"{options.name} begins again at the first event when it is run."
    return output.answer(0, {"projection": options.name, "reset": True}, lambda: output.line(done))


def _imported(source: str) -> Projection:
    module, colon, name = source.partition(":")
    if not module or not colon or not name:
        raise UnusableStore(f"--import {source!r}: expected MODULE:NAME, such as shop.projections:Balances")
    # As `python -m` does, so that an application that is not installed can be imported.
    sys.path.insert(0, absolute_path() or "")
    try:
        found = getattr(import_module(module), name)
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise UnusableStore(f"--import {source}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Projection):
        expected = "expected a class derived from eventcore.Projection"
        raise UnusableStore(f"--import {source}: {made!r:.80} is no projection; {expected}")
    return made


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    values = msgspec.structs.asdict(letter)
    del values["projection"]
    values["failed_at"] = _time(values.pop("failed_at_ns"))
    return values


async def _event_of(store: EventStore, letter: DeadLetter) -> dict[str, str | None]:
    """Where the event of a dead letter is to be found. Its class is not needed: this process need not know it."""
    async for event in store.read_all(after=letter.position - 1, limit=1, unknown="raw"):
        if event.event_id == letter.event_id:
            return {"stream": str(event.stream_id), "event_type": event.event_type}
    return {"stream": None, "event_type": None}


def _print_letters(output: Output, letters: Sequence[dict[str, Any]], if_empty: str = "") -> None:
    rows = [
        [
            *(str(letter["position"]), letter["stream"] or "gone", letter["event_type"] or "gone"),
            *(letter["failed_at"], str(letter["attempts"]), f"{letter['error_type']}: {letter['error']}"),
        ]
        for letter in letters
    ]
    output.table(["position", "stream", "event type", "failed at", "attempts", "error"], rows, if_empty)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds")
