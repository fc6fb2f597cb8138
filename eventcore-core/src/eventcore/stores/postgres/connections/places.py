"""How many connections to the server a store may have, and the calls that wait until there is room for one more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import final

from eventcore.errors import StoreUnavailable
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.sampling import CANCELLED_WAIT, BackendCounters


@final
class Places:
    """The places for connections, never more than the store's limit. Belongs to one event loop.

    Args:
        settings: the settings of the store.
        counters: the counters of the backend; those of its connections and of waits for them are kept here.
        make_room: called when all places are taken, to end a free connection if there is one.
    """

    def __init__(self, settings: PostgresSettings, counters: BackendCounters, make_room: Callable[[], None]) -> None:
        self._settings = settings
        self._counters = counters
        self._make_room = make_room
        self._free = asyncio.Semaphore(settings.limit)
        self._waiting = 0
        self._is_closed = False

    def open(self) -> None:
        """Count anew, on the running event loop."""
        self._free = asyncio.Semaphore(self._settings.limit)
        self._waiting = 0
        self._is_closed = False
        counters = self._counters
        counters.connections_used, counters.connections_idle = 0, 0
        counters.connections_limit, counters.connection_timeouts = self._settings.limit, 0

    def close(self) -> None:
        """Count no longer: what is given back from now on belongs to a store that is closed."""
        self._is_closed = True

    @property
    def is_short(self) -> bool:
        """Whether a call waits until it may open a connection."""
        return self._waiting > 0

    async def take(self, deadline: float) -> None:
        """Wait until one more connection may be opened, at most until ``deadline`` (of ``time.monotonic``).

        Raises:
            StoreUnavailable: all connections were in use until then.
        """
        if self._free.locked():
            self._make_room()
            self._waiting += 1
            begun = monotonic()
            try:
                with self.noted_wait(begun):
                    async with asyncio.timeout(max(0.0, deadline - monotonic())):
                        await self._free.acquire()
            except TimeoutError as error:
                self.count_timeout()
                raise StoreUnavailable(
                    f"all {self._settings.limit} connections to PostgreSQL at {self._settings.address} were in use until the "
                    "timeout, or not yet ended by the server; raise pool in the store URL, or look for held locks"
                ) from error
            except asyncio.CancelledError:
                self.count_cancelled(begun)
                raise
            finally:
                self._waiting -= 1
        else:
            await self._free.acquire()
        self._counters.connections_used = (self._counters.connections_used or 0) + 1

    def give_back(self) -> None:
        """Give back the place of a connection that the server no longer has."""
        if self._is_closed:
            return
        self._counters.connections_used = (self._counters.connections_used or 0) - 1
        self._free.release()

    @contextmanager
    def noted_wait(self, begun: float) -> Generator[None]:
        """Note, for as long as the block runs, that a call waits for a connection."""
        waits, key = self._counters.connection_waits, object()
        waits[key] = begun
        try:
            yield
        finally:
            del waits[key]

    def count_timeout(self) -> None:
        """Count a wait for a connection that ended without one."""
        self._counters.connection_timeouts = (self._counters.connection_timeouts or 0) + 1

    def count_cancelled(self, begun: float) -> None:
        """Count a wait that was cancelled, unless it was short."""
        if monotonic() - begun >= CANCELLED_WAIT:
            self.count_timeout()
