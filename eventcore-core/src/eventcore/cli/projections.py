"""``eventcore projections``: shows the progress and the dead letters of projections, retries dead letters, and resets."""

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
from eventcore.cli.parsing import add_command
from eventcore.errors import EventCoreError, InvalidStoreUrl, LeadershipLost
from eventcore.projections import Projection, projection_key
from eventcore.store import EventStore, open_store
from eventcore.stores import SqliteBackend, backend_from_url
from eventcore.stores.base import DeadLetter

_Action: TypeAlias = Callable[[EventStore, Output, argparse.Namespace], Awaitable[int]]

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
  "owner" is host:process:run; it is empty, and "lease_left" is 0, when no process runs the projection.
""",
    "dead-letters": """\
List the events that a projection could not apply (its dead letters), in order of position.

JSON (--json):
  {"version": 1, "projection": str, "dead_letters":
   [{"position", "event_id", "error_type", "error", "attempts", "failed_at"}]}
""",
    "retry": """\
Apply every dead letter of a projection once more in this process, and delete those that succeed. The projection is imported
from the working directory or the installed packages. MODULE:NAME names a class, which is called without arguments, or an
instance.

JSON (--json):
  {"version": 1, "projection": str, "applied": [position], "remaining": [dead letter, as of dead-letters]}
""",
    "reset": """\
Delete the checkpoint and the dead letters of a projection, so that its next run begins at the first event. Its read model is
not changed: empty it, too.

JSON (--json):
  {"version": 1, "projection": str, "reset": bool, "error": str or null}
""",
}
_SUMMARIES: Final = {
    "list": "list projections: position, lag, which process runs them",
    "dead-letters": "list the events that a projection could not apply",
    "retry": "apply dead letters once more",
    "reset": "let a projection begin again",
}
_MAX_DEAD_LETTERS: Final = 10_000


class _UnusableError(Exception):
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
    for action, summary in _SUMMARIES.items():
        parser = add_command(actions, action, _projections, summary=summary, description=_DESCRIPTIONS[action], epilog=_EPILOG)
        if action != "list":
            parser.add_argument("name", metavar="NAME", help="the projection: name, or name@version")
        parser.add_argument("url", metavar="STORE_URL", help="such as sqlite:///shop.db")
        if action == "retry":
            parser.add_argument("--import", dest="source", metavar="MODULE:NAME", required=True, help="the projection in code")


def _projections(output: Output, options: argparse.Namespace) -> int:
    try:
        return asyncio.run(_run(output, options))
    except (_UnusableError, EventCoreError) as error:
        text = str(error)
    output.answer({"version": 1, "error": text}, lambda: _print_error(text))
    return 2


async def _run(output: Output, options: argparse.Namespace) -> int:
    _check_url(options.url)
    actions: dict[str, _Action] = {"list": _list, "dead-letters": _dead_letters, "retry": _retry, "reset": _reset}
    # The application's configuration is not read, and its exporters are not loaded.
    async with open_store(options.url, exporters="none", config={}, migrate=False) as store:
        names = [record.name for record in await store.projections()]
        if options.action != "list" and options.name not in names:
            raise _UnusableError(f"the store has no projection {options.name!r}; known are: {', '.join(names) or 'none'}")
        return await actions[options.action](store, output, options)


def _check_url(url: str) -> None:
    backend = backend_from_url(url)
    if backend.system == "memory":
        raise InvalidStoreUrl("a store in memory lives in the process of its application only")
    if isinstance(backend, SqliteBackend) and not Path(backend.path).exists():
        raise _UnusableError(f"there is no file {backend.path}")


async def _list(store: EventStore, output: Output, _: argparse.Namespace) -> int:
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

    def print_text() -> None:
        if not listed:
            output.line("No projection was ever run on this store.")
        columns = ("name", "position", "lag", "dead_letters")
        rows = [[*(str(each[column]) for column in columns), each["owner"] or "nobody"] for each in listed]
        output.table(["projection", "position", "lag", "dead letters", "run by"], rows)

    output.answer({"version": 1, "head": head, "projections": listed}, print_text)
    return 0


async def _dead_letters(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    letters = await store.dead_letters(options.name, limit=_MAX_DEAD_LETTERS)

    def print_text() -> None:
        if not letters:
            output.line(f"{options.name} has no dead letters.")
        _print_letters(output, letters)

    answer = {"version": 1, "projection": options.name, "dead_letters": [_as_json(letter) for letter in letters]}
    output.answer(answer, print_text)
    return int(bool(letters))


async def _retry(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    projection = _imported(options.source)
    if (key := projection_key(projection)) != options.name:
        raise _UnusableError(f"{options.source} is the projection {key!r}, not {options.name!r}")
    retried = await store.retry_dead_letters(projection)

    def print_text() -> None:
        output.line(f"{len(retried.applied)} applied, {len(retried.remaining)} remaining")
        _print_letters(output, retried.remaining)

    applied = [letter.position for letter in retried.applied]
    remaining = [_as_json(letter) for letter in retried.remaining]
    output.answer({"version": 1, "projection": options.name, "applied": applied, "remaining": remaining}, print_text)
    return int(bool(remaining))


async def _reset(store: EventStore, output: Output, options: argparse.Namespace) -> int:
    problem: str | None = None
    try:
        await store.reset_projection(options.name)
    except LeadershipLost as error:
        problem = str(error)

    def print_text() -> None:
        if problem is not None:
            _print_error(problem)
        else:
            output.line(f"{options.name} begins again at the first event when it is run.")

    answer = {"version": 1, "projection": options.name, "reset": problem is None, "error": problem}
    output.answer(answer, print_text)
    return int(problem is not None)


def _imported(source: str) -> Projection:
    module, colon, name = source.partition(":")
    if not module or not colon or not name:
        raise _UnusableError(f"--import {source!r}: expected MODULE:NAME, such as shop.projections:Balances")
    # As `python -m` does, so that an application that is not installed can be imported.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise _UnusableError(f"--import {source}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Projection):
        expected = "expected a class derived from eventcore.Projection"
        raise _UnusableError(f"--import {source}: {made!r:.80} is no projection; {expected}")
    return made


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    values = msgspec.structs.asdict(letter)
    del values["projection"]
    values["failed_at"] = _time(values.pop("failed_at_ns"))
    return values


def _print_letters(output: Output, letters: Sequence[DeadLetter]) -> None:
    rows = [
        [str(letter.position), _time(letter.failed_at_ns), str(letter.attempts), f"{letter.error_type}: {letter.error}"]
        for letter in letters
    ]
    output.table(["position", "failed at", "attempts", "error"], rows)


def _print_error(text: str) -> None:
    sys.stderr.write(f"eventcore: {text}\n")


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds")
