"""A circuit breaker: while a server is known to be away, calls fail at once instead of each waiting for its timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Literal, TypeAlias, final

from eventcore.ground.backoff import backoff
from eventcore.ground.tasks import OwnedTask, cancel_and_wait, spawn

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]
"""``closed``: calls go through. ``open``: calls fail at once. ``half_open``: they do, too, and a probe is asking the server."""

# Seconds from opening to the first probe, and at most between two probes.
_FIRST_PROBE: Final = 0.1
_MAX_PAUSE: Final = 1.0


@final
class Breaker:
    """Opened by a call that found the server away, closed by a probe that the server answers. Belongs to one event loop.

    Args:
        probe: asks the server once, with a timeout of its own; raises when there is no answer.
        changed: called with each new state.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], changed: Callable[[BreakerState], None]) -> None:
        self._probe = probe
        self._changed = changed
        self._reason: str | None = None
        self._opened_at = 0.0
        self._answered_at = 0.0
        self._task: OwnedTask[None] | None = None

    def open_reason(self) -> str | None:
        """Why calls must fail at once; ``None`` while they go through."""
        if self._reason is None:
            return None
        return (
            f"{self._reason} (found {monotonic() - self._opened_at:.1f} s ago; calls fail at once until the server answers a "
            "probe, and there is one every second)"
        )

    @property
    def is_open(self) -> bool:
        """Whether calls must fail at once."""
        return self._reason is not None

    def answered(self) -> None:
        """Note that the server has answered a call."""
        self._answered_at = monotonic()

    def trip(self, reason: str, since: float) -> None:
        """Open, unless the server has answered any call after ``since`` (of ``time.monotonic``)."""
        if self._reason is not None or self._answered_at > since:
            return
        self._reason, self._opened_at = reason, monotonic()
        self._changed("open")
        self._task = spawn(self._probe_until_answered(), "eventcore-breaker")

    async def close(self) -> None:
        """End the probes."""
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
        self._reason = None

    async def _probe_until_answered(self) -> None:
        probes = 1
        while True:
            await asyncio.sleep(backoff(probes, _FIRST_PROBE, _MAX_PAUSE))
            self._changed("half_open")
            try:
                await self._probe()
            except Exception:  # noqa: BLE001  # whatever it is, the server has not answered
                self._changed("open")
                probes += 1
            else:
                break
        self._reason = None
        self._changed("closed")
