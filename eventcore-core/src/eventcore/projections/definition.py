"""Checks what a projection class declares, so that a mistake is reported before the projection runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, final, get_args

import msgspec

from eventcore.errors import InvalidInput, InvalidPattern, InvalidProjection
from eventcore.events import Unknown
from eventcore.events.classes import class_name, stored_types
from eventcore.ground import did_you_mean, in_words
from eventcore.projections.projection import OnError, Projection
from eventcore.stores import EventFilter, StreamPattern

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,127}")
_KEY: Final = re.compile(r"[a-z][a-z0-9_.-]{0,127}(@[1-9][0-9]{0,8})?")
_MAX_BATCH: Final = 10_000
_METHODS: Final = ("handle", "handle_batch")
# Whether a handler with a transaction must be `async def`, by the kind of store. In memory both are allowed.
_TRANSACTION_IS_ASYNC: Final[Mapping[str, bool]] = {"sqlite": False, "postgresql": True}


@final
class Definition(msgspec.Struct, frozen=True):
    """A projection that has been checked for one kind of store.

    Attributes:
        key: the name of its checkpoint, its lease and its label ``projection``: ``name`` or ``name@version``.
        filter: the events that it is given.
        on_error: its policy.
        unknown: what it wants of events whose type no class has.
        batch_size: the largest number of events between two checkpoints.
        call: the handler, bound to the projection.
        batched: whether ``call`` takes a list of events instead of one.
        transactional: whether ``call`` takes a transaction as its second argument.
        fenced: whether ``call`` takes the token of the lease as its second argument.
        asynchronous: whether ``call`` is an ``async def``.
    """

    key: str
    filter: EventFilter
    on_error: OnError
    unknown: Unknown
    batch_size: int
    call: Callable[..., Any]
    batched: bool
    transactional: bool
    fenced: bool
    asynchronous: bool

    @classmethod
    def of(cls, projection: Projection, system: str) -> Definition:
        """Check ``projection`` for a store whose ``db.system.name`` is ``system``.

        Raises:
            InvalidProjection: a declaration cannot work; the message says which one, and what was expected.
        """
        if isinstance(projection, type) or not isinstance(projection, Projection):
            raise InvalidProjection(f"{projection!r:.80} is no projection; pass an instance of a class derived from Projection")
        where = _class_name(projection)
        key = projection_key(projection)
        if not isinstance(projection.on_error, OnError):
            raise InvalidProjection(f"{where}: on_error is {projection.on_error!r:.80}; expected an OnError(...)")
        if projection.unknown not in get_args(Unknown):
            raise InvalidProjection(f'{where}: unknown is {projection.unknown!r:.80}; expected "error" or "raw"')
        size = projection.batch_size
        if type(size) is not int or not 1 <= size <= _MAX_BATCH:
            raise InvalidProjection(f"{where}: batch_size is {size!r:.80}; expected an int from 1 to {_MAX_BATCH}")
        method = _method(projection, where)
        call = getattr(projection, method)
        second = _second_parameter(call, method, where)
        transactional = second == "transaction"
        asynchronous = inspect.iscoroutinefunction(call)
        if transactional and asynchronous is not (needed := _TRANSACTION_IS_ASYNC.get(system, asynchronous)):
            raise InvalidProjection(
                f"{where}: {method} takes a transaction, which {system} gives to {'async def' if needed else 'def'} "
                f"methods only; declare it so, or leave the transaction out"
            )
        event_filter = EventFilter(_pattern(projection, where), _event_types(projection, where))
        batched = method == "handle_batch"
        fenced, unknown = second == "fence", projection.unknown
        return cls(key, event_filter, projection.on_error, unknown, size, call, batched, transactional, fenced, asynchronous)


def projection_key(projection: Projection | type[Projection] | str) -> str:
    """The name under which the store keeps the checkpoint of a projection: ``name``, from version 2 on ``name@version``.

    Raises:
        InvalidProjection: the name or the version is not allowed.
    """
    if isinstance(projection, str):
        if not _KEY.fullmatch(projection):
            raise InvalidProjection(f"{projection!r:.160} is no name of a projection; expected name, or name@version")
        return projection
    if not (issubclass(projection, Projection) if isinstance(projection, type) else isinstance(projection, Projection)):
        raise InvalidProjection(
            f"{projection!r:.80} is no projection; expected the name of a projection, or an instance of a class derived from "
            "Projection"
        )
    name, version = getattr(projection, "name", None), projection.version
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidProjection(
            f"{_class_name(projection)}: name is {name!r:.160}; expected 1 to 128 characters of a-z, 0-9, '_', '.' and '-', "
            "a letter first"
        )
    if type(version) is not int or not 1 <= version < 10**9:
        raise InvalidProjection(f"{_class_name(projection)}: version is {version!r:.80}; expected an int from 1")
    return name if version == 1 else f"{name}@{version}"


def declared_keys() -> set[str]:
    """The keys of all projections whose class in this process declares a name, whether they have run or not."""
    keys: set[str] = set()
    classes = Projection.__subclasses__()
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        with suppress(InvalidProjection):
            keys.add(projection_key(cls))
    return keys


def unknown_name(key: str, known: Iterable[str]) -> str:
    """The end of a message about a name that no projection has: the names that are known, and the nearest of them."""
    names = sorted(known)
    return f"known are: {in_words(names)}{did_you_mean(key, names)}"


def _class_name(projection: Projection | type[Projection]) -> str:
    return class_name(projection if isinstance(projection, type) else type(projection))


def _pattern(projection: Projection, where: str) -> StreamPattern | None:
    if projection.pattern is None:
        return None
    try:
        return StreamPattern.parse(projection.pattern)
    except InvalidPattern as error:
        raise InvalidProjection(f"{where}: {error}") from error


def _event_types(projection: Projection, where: str) -> tuple[str, ...] | None:
    if (kinds := projection.event_types) is None:
        return None
    try:
        names = stored_types(kinds, unknown=projection.unknown)
    except InvalidInput as error:
        raise InvalidProjection(f"{where}: {error}") from error
    if not names:
        raise InvalidProjection(f"{where}: event_types is empty, so nothing would ever be applied; leave it out for every type")
    return names


def _method(projection: Projection, where: str) -> str:
    declared = [method for method in _METHODS if callable(getattr(projection, method, None))]
    if len(declared) != 1:
        what = "both handle and handle_batch" if declared else "no handle and no handle_batch"
        raise InvalidProjection(f"{where} has {what}; expected one of them")
    return declared[0]


def filter_text(wanted: EventFilter) -> str:
    """A filter as it is stored with the checkpoint."""
    pattern = None if wanted.pattern is None else wanted.pattern.text
    types = None if wanted.event_types is None else sorted(set(wanted.event_types))
    return msgspec.json.encode(_StoredFilter(pattern, types)).decode()


def check_filter(key: str, wanted: EventFilter, stored: str) -> None:
    """Check that a filter selects no events which the stored one has left out: they would be missing below the checkpoint.

    Raises:
        InvalidProjection: it may select more.
    """
    before = msgspec.json.decode(stored, type=_StoredFilter)
    now = msgspec.json.decode(filter_text(wanted), type=_StoredFilter)
    narrower_pattern = before.pattern in (None, now.pattern)
    narrower_types = before.types is None or (now.types is not None and set(now.types) <= set(before.types))
    if not (narrower_pattern and narrower_types):
        raise InvalidProjection(
            f"projection {key!r} has run with pattern={before.pattern!r:.80} and event_types={before.types!r:.400}, and would "
            f"now get more: pattern={now.pattern!r:.80}, event_types={now.types!r:.400}. Events that were left out before its "
            "checkpoint would never be applied: give the class a new version, or reset the projection and empty its tables"
        )


class _StoredFilter(msgspec.Struct):
    pattern: str | None
    types: list[str] | None


def _second_parameter(call: Callable[..., Any], method: str, where: str) -> str:
    """The name of the second parameter of a handler; empty if it has none."""
    argument = "events" if method == "handle_batch" else "event"
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise InvalidProjection(f"{where}: {method} yields, so that calling it does nothing; apply the {argument} in its body")
    parameters = list(inspect.signature(call).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if (
        len(parameters) not in (1, 2)
        or any(parameter.kind not in by_position for parameter in parameters)
        or [parameter.name for parameter in parameters[1:]] not in ([], ["transaction"], ["fence"])
    ):
        names = ", ".join(str(parameter) for parameter in parameters)
        raise InvalidProjection(
            f"{where}: {method} takes ({names}); expected ({argument}), ({argument}, transaction) or ({argument}, fence)"
        )
    return parameters[1].name if len(parameters) == 2 else ""
