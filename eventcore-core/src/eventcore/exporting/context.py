"""What an exporter gets from core, and what its hooks may return or raise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from math import isfinite
from typing import Any, Literal, Protocol, TypeAlias, final

import msgspec

from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import Resource

Signal: TypeAlias = Literal["metrics", "spans"]
"""What one cycle exports."""

Temporality: TypeAlias = Literal["cumulative", "delta", "lowmemory"]
"""What the points of counters and histograms count: everything since their series began, or what is new.

``"lowmemory"``: what is new, but everything where a callback gives the totals.
"""

HiddenKind: TypeAlias = Literal["collision", "invalid", "filtered"]
"""Why an exporter does not show an instrument: its name is in use, it does not fit, or the configuration leaves it out."""

ForkCallback: TypeAlias = Callable[[], object]


class RetryLater(Exception):
    """Raised by a hook: the backend cannot take this now, and nothing of the cycle was delivered.

    Any other exception is retried too. ``RetryLater`` says in addition when to come back, and that
    the refusal is no fault of the plugin: it is logged without a traceback.

    Args:
        after: seconds to wait before the next attempt, 0 or more; the pipeline waits for
            ``max_age`` at most. ``None``: wait for the pipeline's own backoff.
        reason: what the backend said, for the log and the report.
        outcome_unknown: whether the backend may have taken the data, for example because the call
            was cut before its answer came. Such data is sent at most once more, and then counted as
            ``unknown``.

    Raises:
        ValueError: ``after`` is negative or not finite.

    >>> raise RetryLater(after=2.5, reason="UNAVAILABLE: too many requests")
    Traceback (most recent call last):
    eventcore.exporting.context.RetryLater: UNAVAILABLE: too many requests (after 2.5 s)
    """

    def __init__(
        self, after: float | None = None, reason: str = "the backend asks for a retry", outcome_unknown: bool = False
    ) -> None:
        if after is not None and not (isfinite(after) and after >= 0):
            raise ValueError(f"after={after!r}: expected seconds, 0 or more, or None")
        super().__init__(f"{reason} (after {after:g} s)" if after is not None else reason)
        self.after = after
        self.reason = reason
        self.outcome_unknown = outcome_unknown


class GiveUp(Exception):
    """Raised by a hook: the backend will never take this, whatever is sent again. A wrong token and
    a protocol that the backend does not speak are examples.

    The spans or points of the cycle are counted as rejected, and are not sent again. The exporter
    is ``failing`` until a later cycle of the same signal succeeds; other signals go on. The next
    cycle of the signal, with new data, begins after ``max_backoff`` seconds.

    Args:
        reason: what the backend said, for the log and the report.
        unsupported: whether the backend does not take this signal at all, as one that is made for
            traces only. While it takes the other signal, the exporter is then not ``failing``, and a
            flush that delivers the other signal is true; one warning says which signal is not taken.

    >>> raise GiveUp("UNAUTHENTICATED: the token has expired")
    Traceback (most recent call last):
    eventcore.exporting.context.GiveUp: UNAUTHENTICATED: the token has expired
    """

    def __init__(self, reason: str, unsupported: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsupported = unsupported


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


class AmbientContext(Protocol):
    """Another tracing system's current span, as ``ambient_context`` may return it.

    All three run on the hot path, in the task or thread that begins a span or executes a command.
    Each must take about a microsecond and do no I/O. The current span must be kept in a context
    variable: a command's code also runs in other tasks, in a copy of the context to which
    ``attach`` has added it.
    """

    def current(self) -> TraceContext | None:
        """The span that is current in the other system, ``None`` when there is none."""
        ...

    def attach(self, context: TraceContext, own_io: bool) -> object:
        """Make ``context`` current in the other system, and return what ``detach`` needs to undo it.

        Args:
            context: the span of eventcore that is current from now on. Where ``own_io`` is true, it
                may name no span (``context.valid`` is false): the span that is current stays so.
            own_io: true around the store's own calls to its database. An instrumented driver need
                not trace these calls again.
        """
        ...

    def detach(self, token: Any) -> None:
        """Undo one ``attach``. Called in the same context; not called where an operation is
        abandoned in another one.
        """
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
        trial: whether ``eventcore check`` only tries the exporter out, beside a service that may
            run: join no other process, and change nothing that others see but the test values.
    """

    __slots__ = ("_export_now", "_on_fork", "_report_hidden", "logger", "name", "resource", "settings", "stopping", "trial")

    def __init__(
        self,
        *,
        name: str,
        resource: Resource,
        settings: Mapping[str, Any],
        logger: logging.Logger,
        stopping: StoppingEvent,
        export_now: Callable[[float], Future[None]],
        on_fork: Callable[[ForkCallback | None, ForkCallback | None], object] | None = None,
        report_hidden: Callable[[str, str, HiddenKind], object] | None = None,
        trial: bool = False,
    ) -> None:
        self.name = name
        self.resource = resource
        self.settings = settings
        self.logger = logger
        self.stopping = stopping
        self.trial = trial
        self._export_now = export_now
        self._on_fork = on_fork
        self._report_hidden = report_hidden

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

    def on_fork(self, *, before: ForkCallback | None = None, after_in_child: ForkCallback | None = None) -> None:
        """Say what must happen when the process forks. A later call adds to an earlier one.

        Args:
            before: called in the parent before the fork, between two hooks: close what cannot live
                through a fork, such as a gRPC channel, and open it again when it is next needed.
            after_in_child: called in the child before ``start``: close what the child inherited and
                must not use, such as a listening socket.
        """
        if self._on_fork is not None:
            self._on_fork(before, after_in_child)

    def report_hidden(self, instrument: str, reason: str, kind: HiddenKind = "invalid") -> None:
        """Say that an instrument cannot be shown, for example because its name means another one in this backend.

        It is logged once, shown with the exporter's state, and counted in the metric
        ``eventcore.exporters.instruments.hidden``.

        Args:
            instrument: its name.
            reason: why, and what an operator can do.
            kind: ``collision`` when another instrument has its name, ``filtered`` when the
                configuration leaves it out, else ``invalid``.
        """
        if self._report_hidden is not None:
            self._report_hidden(instrument, reason, kind)
