"""The methods of a store that concern its health: ``EventStore`` derives from the class here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from eventcore.errors import StoreDraining
from eventcore.ground.arguments import check_seconds
from eventcore.health.bounded import HealthCheck
from eventcore.health.monitor import HealthMonitor
from eventcore.health.values import Health

_DRAIN_TIMEOUT: Final = 30.0


def monitor_of(store: HasHealth) -> HealthMonitor:
    """What evaluates the health of a store."""
    return store._monitor  # noqa: SLF001  # one package, and no attribute for applications


class HasHealth:
    """A store that can be asked how it does, and told that its process is about to stop."""

    _monitor: HealthMonitor
    _refusing = False

    async def health(self, timeout: float = 2.0) -> Health:
        """How the store does: a status, whether it is live and ready, and the result of each check.

        It never raises because something is wrong, also before the store is opened and after it is closed. A result is kept for
        a second, so that many probes are no load.

        Args:
            timeout: the most seconds to take. If there is no new result by then, the last one is returned, if it is at most
                four seconds old; else checks that have not answered count as unhealthy.

        Raises:
            ValueError: ``timeout`` is not a number of seconds above 0.

        >>> import asyncio
        >>> from eventcore import open_store
        >>> async def main():
        ...     async with open_store("memory:", exporters="none") as store:
        ...         health = await store.health()
        ...         return health.status, health.ready, health.checks["store"].figures["head_position"]
        >>> asyncio.run(main())
        ('healthy', True, 0)
        """
        check_seconds("timeout", timeout)
        return await self._monitor.evaluate(timeout)

    def add_health_check(self, name: str, check: HealthCheck, *, timeout: float = 1.0, essential: bool = False) -> None:
        """Add a check of the application to the health of the store.

        Args:
            name: the name of the check, 1 to 100 printable characters; also the label ``check`` of the metric.
            check: a function without arguments, plain or ``async``. A plain one runs in a thread of its own. It returns
                ``None`` or ``True`` when all is well, ``False`` when not, or a ``CheckResult``; whatever it raises means
                unhealthy. Passwords in URLs and values of keys such as ``token`` are masked in its texts.
            timeout: seconds for one run, more than 0 and at most 60. A run that has not ended then is unhealthy. While it has
                not ended, no other run begins.
            essential: whether the store is not ready while this check is unhealthy.

        Raises:
            ValueError: an argument is out of its range, or the name is taken.

        >>> import asyncio
        >>> from eventcore import open_store
        >>> def payments():
        ...     raise ConnectionError("the payment service does not answer")
        >>> async def main():
        ...     async with open_store("memory:", exporters="none") as store:
        ...         store.add_health_check("payments", payments)
        ...         health = await store.health()
        ...         return health.status, health.ready, health.checks["payments"].reason
        >>> asyncio.run(main())
        ('degraded', True, 'ConnectionError: the payment service does not answer')
        """
        self._monitor.add(name, check, timeout, essential=essential)

    async def drain(self, timeout: float = _DRAIN_TIMEOUT, *, delay: float = 0.0) -> bool:
        """Prepare for the end of the process, as after SIGTERM: accept nothing new, and let what runs end.

        At once, the store is not ready any more. After ``delay``, new commands and projections raise ``StoreDraining``, running
        projections stop and give their leases back, and running commands end. Reading goes on until the store is closed. A
        store that drains does not become ready again. A second call waits, too.

        Args:
            timeout: seconds for what runs to end, ``delay`` not included; 0 or more.
            delay: seconds in which commands are still accepted. A load balancer needs some until it sends no more requests:
                at least the period of the readiness probe.

        Returns:
            Whether everything ended in time. What did not goes on, and ends when the store is closed.

        Raises:
            StoreClosed, WrongEventLoop: the store is not open.
            ValueError: an argument is out of its range.

        >>> import asyncio
        >>> from eventcore import open_store
        >>> async def main():
        ...     async with open_store("memory:", exporters="none") as store:
        ...         ended = await store.drain()
        ...         health = await store.health()
        ...         return ended, health.live, health.ready
        >>> asyncio.run(main())
        (True, True, False)
        """
        self._check_open()
        check_seconds("timeout", timeout, or_0=True)
        check_seconds("delay", delay, or_0=True)
        self._monitor.phase = "draining"
        await asyncio.sleep(delay)
        self._refusing = True
        deadline = monotonic() + timeout
        ends = [asyncio.ensure_future(end(max(0.0, deadline - monotonic()))) for end in self._ends()]
        try:
            return all(await asyncio.gather(*ends))
        finally:
            for end in ends:
                end.cancel()

    def _check_accepting(self) -> None:
        """Raise unless the store is open and takes new commands."""
        self._check_open()
        if self._refusing:
            raise StoreDraining(
                f"the store {self._monitor.name!r} is draining, since its process is about to stop: send the request to "
                "another process"
            )

    def _check_open(self) -> None:
        """Raise unless the store is open on the running event loop."""
        raise NotImplementedError

    def _ends(self) -> tuple[Callable[[float], Awaitable[bool]], ...]:
        """What runs: functions that wait at most so many seconds until it has ended, and return whether it has."""
        raise NotImplementedError
