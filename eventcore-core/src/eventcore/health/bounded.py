"""Runs one check with a time limit. While a run has not ended, no second one begins: a check that hangs is no load."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from time import monotonic
from typing import Any, Final, TypeAlias, final, get_args

from eventcore.ground import OwnedTask, cancel_and_wait, describe_error, in_background, shown, spawn
from eventcore.health.values import CheckResult, HealthStatus, clean, healthy, unhealthy

Results: TypeAlias = Mapping[str, CheckResult]
"""The results of one run, by the names of the checks."""

HealthCheck: TypeAlias = Callable[[], Awaitable[CheckResult | bool | None] | CheckResult | bool | None]
"""A check of an application. ``None`` and ``True`` mean healthy, ``False`` and any exception unhealthy."""

NO_ANSWER: Final = "no answer within"
"""How the reason of a run without an answer begins."""

# Seconds for a run that was cancelled at its time limit, before the store closes without it.
_END_TIMEOUT: Final = 1.0
_STATUSES: Final[tuple[HealthStatus, ...]] = get_args(HealthStatus)


@final
class BoundedCheck:
    """One check, which may give several results. Belongs to the event loop of the store.

    Args:
        name: what a run that fails as a whole is shown as.
        work: one run.
        timeout: seconds for one run.
        cancels: whether a run is cancelled at its limit. Calls to a store are not: they have limits of their own, and a
            cancelled call costs its connection.
        essential: whether the store is not ready while the check is unhealthy, whatever the settings say.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[Results]],
        timeout: float,
        *,
        cancels: bool,
        essential: bool = False,
    ) -> None:
        self.name: Final = name
        self.essential: Final = essential
        self._work = work
        self._timeout = timeout
        self._cancels = cancels
        self._running: OwnedTask[Results] | None = None
        self._begun = 0.0

    async def run(self, timeout: float) -> Results:
        """The results of a run, or a result that says why there are none. Takes at most ``timeout`` seconds."""
        task = self._running
        limit = min(timeout, self._timeout)
        if task is None or task.done():
            self._begun = monotonic()
            task = self._running = spawn(self._results(), f"eventcore-health-{self.name}")
        elif self._cancels:
            # It did not end when it was cancelled.
            return {self.name: _not_ended(self._begun)}
        await asyncio.wait([task], timeout=limit)
        if task.done() and not task.cancelled():
            self._running = None
            return task.result()
        if self._cancels:
            task.cancel()
        return {self.name: unhealthy(f"{NO_ANSWER} {monotonic() - self._begun:.1f} s")}

    async def close(self) -> None:
        """Cancel the run that has not ended."""
        if self._running is not None:
            await cancel_and_wait(self._running, _END_TIMEOUT)

    async def _results(self) -> Results:
        try:
            return {name: clean(result) for name, result in (await self._work()).items()}
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  # whatever an application's check raises, such as SystemExit, is its answer
            return {self.name: clean(unhealthy(describe_error(error)))}


def own_check(name: str, check: HealthCheck, timeout: float, *, essential: bool) -> BoundedCheck:
    """A check of an application. A plain function runs in a thread of its own, so that it may block."""
    return BoundedCheck(name, _Own(name, check).results, timeout, cancels=True, essential=essential)


@final
class _Own:
    """A check of an application, and the thread in which it runs if it is a plain function."""

    def __init__(self, name: str, check: HealthCheck) -> None:
        self._name = name
        self._check: Callable[[], Any] = check
        # A thread cannot be cancelled: it goes on when its result is no longer waited for.
        self._thread: Future[Any] | None = None
        self._begun = 0.0

    async def results(self) -> Results:
        result = await self._call()
        if result is None or result is True:
            result = healthy()
        elif result is False:
            result = unhealthy("the check returned False")
        elif not isinstance(result, CheckResult):
            result = unhealthy(f"the check returned {shown(result)}; expected None, a bool or a CheckResult")
        elif result.status not in _STATUSES:
            result = unhealthy(f"the check returned status={shown(result.status)}; expected one of {', '.join(_STATUSES)}")
        return {self._name: result}

    async def _call(self) -> Any:
        call = self._check
        if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004  # an object
            return await call()
        if self._thread is not None and not self._thread.done():
            return _not_ended(self._begun)
        self._begun = monotonic()
        self._thread = in_background(self._guarded, f"eventcore-health-{self._name}")
        try:
            result: Any = await asyncio.wrap_future(self._thread)
        except asyncio.CancelledError:
            self._thread.add_done_callback(_discard)
            raise
        # A function that returns an awaitable, such as a lambda around a coroutine function.
        return await result if inspect.isawaitable(result) else result

    def _guarded(self) -> Any:
        try:
            return self._check()
        except BaseException as error:  # noqa: BLE001  # in the event loop, SystemExit and StopIteration would do more than fail
            return unhealthy(describe_error(error))


def _discard(late: Future[Any]) -> None:
    """Close a coroutine that nobody waits for any more: Python warns of one that was never awaited."""
    result = None if late.exception() else late.result()
    if inspect.iscoroutine(result):
        result.close()


def _not_ended(begun: float) -> CheckResult:
    return unhealthy(f"a run that began {monotonic() - begun:.0f} s ago has not ended")
