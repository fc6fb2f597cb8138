"""Spans: beginning and ending one takes a few stores on the hot path; exporters' threads freeze it into ``SpanData``."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Any, Final, TypeAlias, cast, final

import msgspec

from eventcore.recording.ids import IdGenerator
from eventcore.recording.sampling import RateSampler
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import Attributes, AttributeValue, SpanData, SpanEvent, SpanKind, SpanLink, SpanStatus

AmbientContext: TypeAlias = Callable[[], TraceContext | None]

_MAX_ITEMS: Final = 128
_MAX_TEXT: Final = 4096
_RING_SIZE: Final = 65_536

_NO_CONTEXT: Final = TraceContext(0, 0)
# Global, because PEP 567 wants context variables at module level: values of other ones may never be freed.
_current: Final[ContextVar[Span | None]] = ContextVar("eventcore_current_span", default=None)


class SpanRing:
    """Ended spans that wait to be distributed to the exporters, at most ``capacity``; further ones are dropped and counted."""

    __slots__ = ("capacity", "dropped", "spans")

    def __init__(self, capacity: int = _RING_SIZE) -> None:
        self.capacity = capacity
        self.spans: deque[Span] = deque()
        self.dropped = 0

    def take_all(self) -> list[Span]:
        """Every span that has been appended, oldest first."""
        spans = self.spans
        return [spans.popleft() for _ in range(len(spans))]


@final
class _Details(msgspec.Struct):
    """What few spans have while they run, and the frozen value: in an object that most spans do not make on the hot path."""

    ambient: TraceContext | None = None
    events: list[SpanEvent] = []
    links: tuple[SpanLink, ...] = ()
    status: SpanStatus = "unset"
    description: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    data: SpanData | None = None


class Span:
    """One operation in a trace: a context manager whose block it measures. ``Telemetry.span`` makes them.

    An exception that leaves the block sets the status ``error``, is recorded as an event, and propagates to the caller.

    Attributes:
        correlation_id, causation_id: given, or inherited from the enclosing span.
    """

    # The tracer sets every one of them: calling an `__init__` would cost more than the stores.
    __slots__ = (
        "_attributes",
        "_counter",
        "_details",
        "_ring",
        "_token",
        "causation_id",
        "correlation_id",
        "end_time_ns",
        "kind",
        "name",
        "parent_span_id",
        "span_id",
        "start_time_ns",
        "trace_flags",
        "trace_id",
        "tracestate",
    )

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    trace_flags: int
    tracestate: str
    parent_span_id: int
    correlation_id: str | None
    causation_id: str | None
    end_time_ns: int
    # Time of day and `perf_counter_ns` at the beginning. The end is computed from them, so that setting the clock does not
    # change a duration. Both are 0 in a span that is not recorded. Two slots and not a tuple, which is one more object for the
    # garbage collector and makes a span a tenth slower.
    start_time_ns: int
    _counter: int
    # Where the span goes when it ends; `None` when it is not recorded.
    _ring: SpanRing | None
    _attributes: dict[str, AttributeValue] | None
    _details: _Details | None
    _token: Token[Span | None] | None

    @property
    def recording(self) -> bool:
        """False when the trace is not sampled, or no exporter takes spans.

        Attributes and events are then ignored, so the caller need not compute them.
        """
        return self._ring is not None

    @property
    def context(self) -> TraceContext:
        """The identity of the span, for example to make it the parent of a span in another process."""
        return TraceContext(self.trace_id, self.span_id, self.trace_flags, self.tracestate)

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._ring is not None:
            self.record_exception(error)
            self.set_status("error", f"{type(error).__name__}: {error}")
        self.end()

    def end(self) -> None:
        """End the span now; a second call changes nothing."""
        if (token := self._token) is not None:
            self._token = None
            try:
                _current.reset(token)
            except ValueError:
                # The block is left in another context than it was entered in: a generator was closed by another task, for
                # example. The current span of that task must stay as it is.
                pass
        ring = self._ring
        if ring is not None and not self.end_time_ns:
            # Not `_now()`: the call would take longer than the computation.
            self.end_time_ns = self.start_time_ns + perf_counter_ns() - self._counter
            spans = ring.spans
            if len(spans) < ring.capacity:
                spans.append(self)
            else:
                ring.dropped += 1

    def set_attribute(self, name: str, value: AttributeValue) -> None:
        """Set one attribute; at most 128 are kept, and further ones are counted."""
        if self._ring is None:
            return
        attributes = self._attributes
        if attributes is None:
            self._attributes = {name: value}
        elif len(attributes) < _MAX_ITEMS or name in attributes:
            attributes[name] = value
        else:
            self._detailed().dropped_attributes += 1

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        for name, value in attributes.items():
            self.set_attribute(name, value)

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Record an event that happens now; at most 128 are kept, and further ones are counted."""
        if self._ring is None:
            return
        details = self._detailed()
        if len(details.events) < _MAX_ITEMS:
            details.events.append(SpanEvent(name[:_MAX_TEXT], self._now(), freeze_attributes(attributes or {})))
        else:
            details.dropped_events += 1

    def add_links(self, links: Iterable[SpanLink | TraceContext]) -> None:
        """Link other spans that caused this one; at most 128 links are kept, and further ones are counted."""
        if self._ring is None:
            return
        details = self._detailed()
        links_given = (*details.links, *(link if isinstance(link, SpanLink) else SpanLink(link) for link in links))
        details.links = links_given[:_MAX_ITEMS]
        details.dropped_links += len(links_given) - len(details.links)

    def record_exception(self, error: BaseException) -> None:
        """Record an exception as the event ``exception``, with the attributes of OpenTelemetry's semantic conventions."""
        if self._ring is None:
            return
        kind = type(error)
        self.add_event(
            "exception",
            {
                "exception.type": kind.__qualname__
                if kind.__module__ == "builtins"
                else f"{kind.__module__}.{kind.__qualname__}",
                "exception.message": str(error),
                "exception.stacktrace": "".join(traceback.format_exception(error, limit=-16)),
            },
        )

    def set_status(self, status: SpanStatus, description: str = "") -> None:
        """Set whether the operation succeeded; the description is kept for ``error`` only."""
        if self._ring is not None:
            details = self._detailed()
            details.status, details.description = status, description if status == "error" else ""

    def data(self) -> SpanData:
        """The frozen value of an ended span: made once, then shared by all exporters."""
        details = self._detailed()
        if (data := details.data) is None:
            data = details.data = SpanData(
                name=self.name[:_MAX_TEXT],
                kind=self.kind,
                context=self.context,
                parent_span_id=self.parent_span_id,
                start_time_ns=self.start_time_ns,
                end_time_ns=self.end_time_ns,
                attributes=freeze_attributes(self._attributes or {}),
                events=tuple(details.events),
                links=details.links,
                status=details.status,
                status_description=details.description[:_MAX_TEXT],
                correlation_id=self.correlation_id,
                causation_id=self.causation_id,
                dropped_attributes=details.dropped_attributes,
                dropped_events=details.dropped_events,
                dropped_links=details.dropped_links,
            )
        return data

    def _now(self) -> int:
        return self.start_time_ns + perf_counter_ns() - self._counter

    def _ambient(self) -> TraceContext | None:
        return None if self._details is None else self._details.ambient

    def _detailed(self) -> _Details:
        if self._details is None:
            self._details = _Details()
        return self._details


def freeze_attributes(attributes: Mapping[str, Any]) -> Attributes:
    """Attributes as an immutable value: texts cut at 4,096 characters, sequences as tuples, anything else as text."""
    return tuple([(name, _freeze(value)) for name, value in attributes.items()])


def _freeze(value: Any) -> AttributeValue:
    if isinstance(value, str):
        return str(value) if len(value) <= _MAX_TEXT else value[:_MAX_TEXT]
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        kept = cast(Sequence[Any], value)[:_MAX_ITEMS]
        for kind in (str, bool, int, float):
            if all(isinstance(item, kind) for item in kept):
                return tuple(_freeze(item) for item in kept)  # type: ignore[return-value]  # all of one kind
        return tuple(str(item)[:_MAX_TEXT] for item in kept)
    try:
        return str(value)[:_MAX_TEXT]
    except Exception:  # noqa: BLE001  # a bad attribute must not fail the operation that the span measures
        return f"<{type(value).__name__} without a text form>"


class Tracer:
    """Begins spans: finds the parent, decides on sampling, sets ids and times.

    Args:
        sampler: decides for traces that begin here; a child follows the decision of its parent.
        ids: where trace and span ids come from.
    """

    def __init__(self, sampler: RateSampler, ids: IdGenerator) -> None:
        self.sampler = sampler
        self.ids = ids
        self.ring = SpanRing()
        # False while no exporter takes spans: spans then only carry the context.
        self.wanted = False
        # Called when a span begins. The tuple is replaced as a whole, so reading it needs no lock.
        self.ambient: tuple[AmbientContext, ...] = ()

    @staticmethod
    def current() -> Span | None:
        """The innermost span whose block encloses the call, in this task."""
        return _current.get()

    def span(
        self,
        name: str,
        *,
        kind: SpanKind = "internal",
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Iterable[SpanLink | TraceContext] = (),
        parent: TraceContext | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Span:
        """Begin a span; use it as a context manager, or call its ``end``.

        Without ``parent`` the span becomes the child of the span whose block encloses the call, or of the current span of
        another tracing system that an exporter knows, whichever is nearer. If there is neither, it begins a trace.

        Args:
            name: the operation; few distinct values (``"ship order"``, not ``"ship order 17"``).
            kind: the role in the trace.
            attributes: those known at the beginning: text, numbers, booleans and sequences of them.
            links: other spans that caused this one.
            parent: a remote parent, for example from a ``traceparent`` header.
            correlation_id: one id for everything that follows from one request; inherited when left out.
            causation_id: the id of the message that caused this operation; inherited when left out.
        """
        enclosing = _current.get()
        ambient = None
        for ask in self.ambient:
            if (ambient := ask()) is not None:
                break
        above: TraceContext | Span | None = parent
        if enclosing is not None:
            if correlation_id is None:
                correlation_id = enclosing.correlation_id
            if causation_id is None:
                causation_id = enclosing.causation_id
            if above is None:
                # An ambient context that appeared since the enclosing span began lies between the two.
                above = enclosing if ambient is None or ambient == enclosing._ambient() else ambient
        elif above is None:
            above = ambient
        span = Span()
        span.name, span.kind = name, kind
        span.correlation_id, span.causation_id = correlation_id, causation_id
        bits = self.ids.bits
        span.span_id = bits(64) or 1
        if above is not None:
            span.trace_id, span.parent_span_id, span.tracestate = above.trace_id, above.span_id, above.tracestate
            span.trace_flags = flags = above.trace_flags
        else:
            span.trace_id, span.parent_span_id, span.tracestate = bits(128) or 1, 0, ""
            span.trace_flags = flags = 1 if self.sampler.sample() else 0
        span._ring = span._attributes = span._details = span._token = None
        span.end_time_ns = span.start_time_ns = span._counter = 0
        if flags & 1 and self.wanted:
            span._ring, span.start_time_ns, span._counter = self.ring, time_ns(), perf_counter_ns()
            if attributes:
                span.set_attributes(attributes)
            if links:
                span.add_links(links)
        if ambient is not None:
            span._detailed().ambient = ambient
        return span


class SilentTracer(Tracer):
    """Records no spans: each one has the identity of its parent, so a trace passes through unchanged."""

    def span(
        self,
        name: str,
        *,
        kind: SpanKind = "internal",
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Iterable[SpanLink | TraceContext] = (),
        parent: TraceContext | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Span:
        """A span with the identity of its parent; without a parent its context is not ``valid``."""
        enclosing = _current.get()
        above: TraceContext | Span = parent or enclosing or _NO_CONTEXT
        if enclosing is not None:
            correlation_id = correlation_id or enclosing.correlation_id
            causation_id = causation_id or enclosing.causation_id
        span = Span()
        span.name, span.kind = name, kind
        span.trace_id, span.span_id = above.trace_id, above.span_id
        span.trace_flags, span.tracestate = above.trace_flags, above.tracestate
        span.correlation_id, span.causation_id = correlation_id, causation_id
        span.parent_span_id = span.end_time_ns = 0
        span._ring = span._attributes = span._details = span._token = None
        return span
