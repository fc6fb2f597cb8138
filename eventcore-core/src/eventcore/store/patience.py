"""Opening a store whose server may not be up yet, as when all containers of a system start at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from eventcore.errors import StoreUnavailable
from eventcore.ground import backoff, own_logger
from eventcore.health.monitor import HealthMonitor

_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 1.0
_logger: Final = own_logger("eventcore.store")


async def open_patiently(open_once: Callable[[], Awaitable[None]], timeout: float, monitor: HealthMonitor) -> None:
    """Open a backend; while its server is not up, try again for ``timeout`` seconds.

    Only ``StoreUnavailable`` is waited for: it says that the same request may succeed later. Every other error is raised at
    once. The last attempt is cut off at the end of the time, so that a server which accepts connections and never answers
    does not make this longer.
    """
    monitor.phase = "opening"
    deadline = monotonic() + timeout
    attempt = 0
    failure: StoreUnavailable | None = None
    while True:
        attempt += 1
        # Without `open_timeout`, the one attempt has the timeout of the URL.
        limit = asyncio.timeout(max(0.05, deadline - monotonic()) if timeout else None)
        try:
            async with limit:
                return await open_once()
        except StoreUnavailable as error:
            failure = error
        except TimeoutError:
            if not limit.expired():
                raise
            # What an earlier attempt found out says more than the end of the last one.
            earlier = "" if failure is None else f"{failure}; the last attempt found that "
            failure = StoreUnavailable(f"{earlier}the server gave no answer until the end of open_timeout ({timeout:g} s)")
        monitor.problem = str(failure)
        pause = backoff(attempt, _FIRST_PAUSE, _MAX_PAUSE)
        if monotonic() + pause >= deadline:
            raise failure
        if attempt == 1:
            _logger.warning("the store %r is not there yet; trying again for %g s: %s", monitor.name, timeout, failure)
        await asyncio.sleep(pause)
