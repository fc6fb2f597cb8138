"""What an exporter is given, and what it may answer."""

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

    The pipeline keeps the batch and tries again. Any other exception is retried too, but a backend that says when to come back
    is listened to, and an expected refusal is logged without a traceback.

    Args:
        after: seconds to wait, as the backend asked for; ``None`` leaves it to the pipeline's own backoff.
        reason: what the backend said, for the log and the report.

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
    """Returned by an export hook or by ``flush``: the backend refused ``count`` spans or points, and always will.

    They are counted as dropped and not sent again; the rest of the cycle counts as delivered.
    """

    count: int
    reason: str

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0:
            raise ValueError(f"Rejected.count is {self.count!r}: expected how many were refused, 0 or more")


@final
class Secret:
    """A text that never shows itself: use it as the annotation of a setting that holds a password or token.

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
        raise TypeError("a Secret is not pickled, so that it does not end up where it can be read")


class StoppingEvent(Protocol):
    """Says that shutdown has begun: cut waiting short, the timeouts that hooks get are the last ones."""

    def is_set(self) -> bool:
        """Whether shutdown has begun."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until shutdown begins, up to ``timeout`` seconds; true when it has."""
        ...


class ExporterContext:
    """What ``start`` hands to an exporter.

    Attributes:
        name: the exporter's name in configuration, in labels and in ``eventcore plugins``.
        resource: what produces the telemetry.
        settings: the plugin's own settings as they were given, secrets masked.
        logger: a logger of the exporter's own; what floods it is cut and counted.
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
        """Ask for a metrics cycle that has not yet begun; its future is done when ``flush`` has returned.

        Calls at the same time share one cycle. The future fails with the cycle's error, or with ``TimeoutError`` when the cycle
        has not ended ``timeout`` seconds from now. In ``async def`` code, ``await asyncio.wrap_future(...)`` it.

        Raises:
            RuntimeError: called inside a hook, which would wait for itself, or after shutdown.
        """
        return self._export_now(timeout)
