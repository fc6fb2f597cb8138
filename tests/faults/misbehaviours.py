"""What an exporter may do wrong, by name. Each is a function that a hook calls; it gets the case's context.

A hook that is ``async def`` awaits what the function returns, if that can be awaited.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NoReturn

import msgspec

from eventcore.exporting import GiveUp, Rejected, RetryLater

_LONG: Final = 3600.0


class Surroundings(msgspec.Struct):
    """What a misbehaviour can reach: the arguments of the hook, and the telemetry that calls it."""

    telemetry: Any
    context: Any = None
    arguments: dict[str, Any] = {}


Misbehaviour = Callable[[Surroundings], Any]


class WithoutText(Exception):
    """Neither its text nor its representation can be taken."""

    def __str__(self) -> str:
        raise ValueError("no text")

    def __repr__(self) -> str:
        raise ValueError("no representation")


class WithBadCause(Exception):
    """Its cause cannot be read."""

    @property
    def __cause__(self) -> BaseException | None:
        raise ValueError("no cause")

    @__cause__.setter
    def __cause__(self, value: object) -> None:
        raise ValueError("no cause")


class OwnBase(BaseException):
    """Derived from neither ``Exception`` nor anything that asyncio knows."""


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *_: object) -> NoReturn:
        raise OwnBase("hostile")

    __str__ = __repr__ = __eq__ = __bool__ = __hash__ = __len__ = __iter__ = __getattr__ = _refuse
    __await__ = __call__ = _refuse


def raising(make: Callable[[], BaseException]) -> Misbehaviour:
    def misbehave(_: Surroundings) -> NoReturn:
        raise make()

    return misbehave


def returning(make: Callable[[], Any]) -> Misbehaviour:
    return lambda _: make()


def _hang(_: Surroundings) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return threading.Event().wait(_LONG)
    return asyncio.sleep(_LONG)


def _hang_for_good(_: Surroundings) -> Any:
    """Blocks the thread, also in an ``async def``."""
    threading.Event().wait(_LONG)


def _ignore_cancellation(_: Surroundings) -> Any:
    async def ignore() -> None:
        while True:
            try:
                await asyncio.sleep(_LONG)
            except asyncio.CancelledError:
                continue

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return threading.Event().wait(_LONG)
    return ignore()


def _spin(_: Surroundings) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pass


def _slow(_: Surroundings) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return time.sleep(0.2)
    return asyncio.sleep(0.2)


def _stop_loop(_: Surroundings) -> None:
    asyncio.get_running_loop().stop()


def _close_loop(_: Surroundings) -> None:
    asyncio.get_running_loop().close()


def _cancel_everything(_: Surroundings) -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def _exit_in_a_task(_: Surroundings) -> None:
    async def leave() -> None:
        sys.exit(3)

    asyncio.get_running_loop().create_task(leave())


def _exit_in_a_thread(_: Surroundings) -> None:
    threading.Thread(target=sys.exit, args=(3,), daemon=True).start()


def _flood_the_log(here: Surroundings) -> None:
    logger = here.context.logger if here.context is not None else logging.getLogger("eventcore.exporters.faulty")
    for _ in range(2000):
        logger.error("flood %s", "x" * 100)


def _log_the_unprintable(here: Surroundings) -> None:
    logger = here.context.logger if here.context is not None else logging.getLogger("eventcore.exporters.faulty")
    logger.error("%s %d", Hostile(), "no number")
    logger.error("x" * (20 << 20))


def _flush_inside(here: Surroundings) -> None:
    here.telemetry.flush_blocking(0.3)


def _shut_down_inside(here: Surroundings) -> None:
    here.telemetry.shutdown_blocking(0.3)


def _export_now_inside(here: Surroundings) -> None:
    if here.context is not None:
        here.context.export_now(0.3).result(0.3)


def _record_inside(here: Surroundings) -> None:
    for _ in range(10):
        here.telemetry.counter("inside").add(1)
        with here.telemetry.span("inside"):
            pass


def _collect_inside(here: Surroundings) -> None:
    here.telemetry.collect(0.3)


def _register_inside(here: Surroundings) -> None:
    class Another:
        pass

    here.telemetry.register_exporter(Another(), name="another")


def _leak_context(here: Surroundings) -> None:
    here.telemetry.span("never left").__enter__()


def _change_the_arguments(here: Surroundings) -> None:
    for value in here.arguments.values():
        for name in ("clear", "pop", "sort", "reverse"):
            try:
                getattr(value, name)()
            except Exception:  # noqa: BLE001  # what cannot be changed is what is wanted
                continue
        for item in value if isinstance(value, (list, tuple)) else ():
            try:
                item.name = "changed"
            except Exception:  # noqa: BLE001  # as above
                continue


def _recurse(here: Surroundings) -> Any:
    return _recurse(here)


def _fork(_: Surroundings) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _generate(_: Surroundings) -> Iterator[int]:
    yield 1


def _coroutine(_: Surroundings) -> Awaitable[None]:
    async def nothing() -> None:
        pass

    return nothing()


MISBEHAVIOURS: Final[dict[str, Misbehaviour]] = {
    "raises Exception": raising(lambda: RuntimeError("fault")),
    "raises without text": raising(WithoutText),
    "raises with a bad cause": raising(WithBadCause),
    "raises 20 MB of text": raising(lambda: RuntimeError("x" * (20 << 20))),
    "raises OSError": raising(lambda: ConnectionRefusedError(111, "refused")),
    "raises TimeoutError": raising(TimeoutError),
    "raises MemoryError": raising(MemoryError),
    "raises StopIteration": raising(StopIteration),
    "raises StopAsyncIteration": raising(StopAsyncIteration),
    "raises CancelledError": raising(asyncio.CancelledError),
    "raises SystemExit": raising(lambda: SystemExit(3)),
    "raises SystemExit(0)": raising(lambda: SystemExit(0)),
    "raises KeyboardInterrupt": raising(KeyboardInterrupt),
    "raises GeneratorExit": raising(GeneratorExit),
    "raises its own BaseException": raising(lambda: OwnBase("fault")),
    "raises an ExceptionGroup": raising(lambda: BaseExceptionGroup("group", [OwnBase("a"), WithoutText()])),
    "raises RetryLater": raising(lambda: RetryLater(0.0, "later")),
    "raises RetryLater for a year": raising(lambda: RetryLater(3e7, "next year")),
    "raises RetryLater, outcome unknown": raising(lambda: RetryLater(0.0, "no answer", outcome_unknown=True)),
    "raises GiveUp": raising(lambda: GiveUp("never")),
    "raises GiveUp without text": raising(lambda: GiveUp(Hostile())),  # type: ignore[arg-type]  # what is wrong
    "recurses": _recurse,
    "returns a number": returning(lambda: 7),
    "returns a text": returning(lambda: "ok"),
    "returns False": returning(lambda: False),
    "returns a hostile object": returning(Hostile),
    "returns a class": returning(lambda: Rejected),
    "returns a generator": _generate,
    "returns a coroutine": _coroutine,
    "returns Rejected of everything": returning(lambda: Rejected(10**9, "all")),
    "returns Rejected with a bad reason": returning(lambda: Rejected(10**9, Hostile())),  # type: ignore[arg-type]  # what is wrong
    "returns an exception": returning(lambda: RuntimeError("returned")),
    "hangs": _hang,
    "blocks its thread": _hang_for_good,
    "ignores its cancellation": _ignore_cancellation,
    "spins": _spin,
    "is slow": _slow,
    "stops its event loop": _stop_loop,
    "closes its event loop": _close_loop,
    "cancels every task": _cancel_everything,
    "exits in a task": _exit_in_a_task,
    "exits in a thread": _exit_in_a_thread,
    "floods the log": _flood_the_log,
    "logs what has no text": _log_the_unprintable,
    "flushes": _flush_inside,
    "shuts the telemetry down": _shut_down_inside,
    "exports now": _export_now_inside,
    "records": _record_inside,
    "collects": _collect_inside,
    "registers an exporter": _register_inside,
    "leaves a span open": _leak_context,
    "changes its arguments": _change_the_arguments,
    "forks": _fork,
}
"""Everything that is tried in every hook."""

IN_A_LOOP: Final = {"stops its event loop", "closes its event loop", "cancels every task", "exits in a task"}
"""What only an ``async def`` can do."""
