"""What an exporter gets from core, and what its hooks may return or raise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from math import isfinite
from typing import Any, Protocol, final

import msgspec

from eventcore.recording.values import Resource


class RetryLater(Exception):
    """Raised by a hook: the backend cannot take this now, and nothing of the cycle was delivered.

    Any other exception is retried too. ``RetryLater`` says in addition when to come back, and that
    the refusal is no fault of the plugin: it is logged without a traceback.

    Args:
        after: seconds to wait before the next attempt, 0 or more; the pipeline waits for
            ``max_backoff`` at most. ``None``: wait for the pipeline's own backoff.
        reason: what the backend said, for the log and the report.

    Raises:
        ValueError: ``after`` is negative or not finite.

    >>> raise RetryLater(after=2.5, reason="UNAVAILABLE: too many requests")
    Traceback (most recent call last):
    eventcore.exporting.context.RetryLater: UNAVAILABLE: too many requests (after 2.5 s)
    """

    def __init__(self, after: float | None = None, reason: str = "the backend asks for a retry") -> None:
        if after is not None and not (isfinite(after) and after >= 0):
            raise ValueError(f"after={after!r}: expected seconds, 0 or more, or None")
        super().__init__(f"{reason} (after {after:g} s)" if after is not None else reason)
        self.after = after
        self.reason = reason


@final
class Rejected(msgspec.Struct, frozen=True):
    """Returned by an export hook or by ``flush``: the backend refused part of the data, and would
    refuse it again.

    Refused spans and points are counted as dropped and are not sent again. Everything else in the
    cycle counts as delivered.

    >>> Rejected(2, "older than 1 h")
    Rejected(count=2, reason='older than 1 h')

    Attributes:
        count: how many spans or points were refused, 0 or more.
        reason: what the backend said, for the log and the report.
    """

    count: int
    reason: str

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0:
            raise ValueError(f"Rejected.count is {self.count!r}: expected the number of refused items, 0 or more")


@final
class Secret:
    """A password or token as a setting: annotate the parameter of the plugin with it. It is shown
    as ``***`` everywhere.

    >>> token = Secret("s3cr3t")
    >>> token, f"{token}"
    (Secret('***'), '***')
    >>> token.reveal()
    's3cr3t'
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a secret is a str, not {type(text).__name__}")
        self.__text = text

    def reveal(self) -> str:
        """The text itself."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__text == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Secret cannot be pickled: the text would be readable in the result")


class StoppingEvent(Protocol):
    """Set when shutdown begins. Hooks should then return soon; one last cycle of each signal follows, then ``shutdown``."""

    def is_set(self) -> bool:
        """Whether shutdown has begun."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds until shutdown begins; true when it has."""
        ...


class ExporterContext:
    """What ``start`` hands to an exporter; it may keep it. All of it may be used from any thread.

    Attributes:
        name: the exporter's name, as in configuration, in labels and in ``eventcore plugins``.
        resource: what produces the telemetry: service name, instance id and further attributes.
        settings: the plugin's settings as they were given, with secrets masked.
        logger: the logger ``eventcore.exporters.NAME``. At most 20 records pass in 10 seconds;
            further ones are counted.
        stopping: set when shutdown begins, also while a hook runs.
    """

    __slots__ = ("_export_now", "logger", "name", "resource", "settings", "stopping")

    def __init__(
        self,
        *,
        name: str,
        resource: Resource,
        settings: Mapping[str, Any],
        logger: logging.Logger,
        stopping: StoppingEvent,
        export_now: Callable[[float], Future[None]],
    ) -> None:
        self.name = name
        self.resource = resource
        self.settings = settings
        self.logger = logger
        self.stopping = stopping
        self._export_now = export_now

    def export_now(self, timeout: float = 10.0) -> Future[None]:
        """Ask for a metrics cycle that has not yet begun. The future is done when its ``flush`` has
        returned.

        Calls that wait at the same time share one cycle. In ``async def`` code, use ``await
        asyncio.wrap_future(...)``.

        The future fails with ``RuntimeError`` when the cycle failed, and with ``TimeoutError`` when
        it could not begin within ``timeout``. Once the cycle has begun, the future waits for its
        end: limit also how long you wait for the future.

        Args:
            timeout: seconds that the cycle may take, counted from now.

        Raises:
            RuntimeError: called inside a hook, which would wait for itself; by an exporter without
                hooks for metrics; or after shutdown has begun.
        """
        return self._export_now(timeout)
