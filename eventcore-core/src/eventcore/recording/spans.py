"""Spans: begun and ended on the hot path with a handful of stores, frozen into ``SpanData`` off it."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Any, Final, TypeAlias, cast

from eventcore.recording.ids import IdGenerator
from eventcore.recording.sampling import RateSampler
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import Attributes, AttributeValue, SpanData, SpanEvent, SpanKind, SpanLink, SpanStatus

AmbientContext: TypeAlias = Callable[[], TraceContext | None]

_MAX_ITEMS: Final = 128
_MAX_TEXT: Final = 4096
_RING_SIZE: Final = 65_536

# The one thing that must be global: PEP 567 wants context variables at module level, or their values are never freed.
_current: Final[ContextVar[Span | None]] = ContextVar("eventcore_current_span", default=None)


class SpanRing:
    """Where ended spans wait to be distributed: bounded, and what does not fit is counted."""

    __slots__ = ("capacity", "dropped", "spans")

    def __init__(self, capacity: int = _RING_SIZE) -> None:
        self.capacity = capacity
        self.spans: deque[Span] = deque()
        self.dropped = 0

    def take_all(self) -> list[Span]:
        """Every span that has been appended, oldest first."""
        spans = self.spans
        return [spans.popleft() for _ in range(len(spans))]


class _Details:
    """What few spans have: kept apart, so that the others need not set it up."""

    __slots__ = ("description", "dropped", "events", "links", "status")

    def __init__(self) -> None:
        self.events: list[SpanEvent] = []
        self.links: tuple[SpanLink, ...] = ()
        self.status: SpanStatus = "unset"
        self.description = ""
        # attributes, events, links
        self.dropped = [0, 0, 0]


class Span:
    """One operation in a trace: a context manager whose block it measures. ``Telemetry.span`` makes them.

    An exception that leaves the block makes the status ``error``, is kept as an event, and goes on to the caller.

    Attributes:
        recording: false when the trace is not sampled, or nobody takes spans: then attributes and events are not kept, and
            need not be computed.
        correlation_id: given, or inherited from the enclosing span.
        causation_id: likewise.
    """

    # The tracer sets them all, without an __init__: a call costs more than these stores.
    __slots__ = (
        "_attributes",
        "_counter",
        "_data",
        "_details",
        "_token",
        "_tracer",
        "ambient",
        "causation_id",
        "correlation_id",
        "end_time_ns",
        "kind",
        "name",
        "parent_span_id",
        "recording",
        "span_id",
        "start_time_ns",
        "trace_flags",
        "trace_id",
        "tracestate",
    )

    _tracer: Tracer
    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    trace_flags: int
    tracestate: str
    parent_span_id: int
    recording: bool
    correlation_id: str | None
    causation_id: str | None
    ambient: TraceContext | None
    start_time_ns: int
    end_time_ns: int
    _counter: int
    _attributes: dict[str, AttributeValue] | None
    _details: _Details | None
    _data: SpanData | None
    _token: Token[Span | None] | None

    @property
    def context(self) -> TraceContext:
        """The span's identity, to hand to others."""
        return TraceContext(self.trace_id, self.span_id, self.trace_flags, self.tracestate)

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.recording:
            if error is not None:
                self.record_exception(error)
                self.set_status("error", f"{type(error).__name__}: {error}")
            self.end()
        elif self._token is not None:
            self._leave(self._token)

    def end(self) -> None:
        """End the span now; a second call changes nothing."""
        if self._token is not None:
            self._leave(self._token)
        if self.recording and not self.end_time_ns:
            self.end_time_ns = self.start_time_ns + perf_counter_ns() - self._counter
            ring = self._tracer.ring
            if len(ring.spans) < ring.capacity:
                ring.spans.append(self)
            else:
                ring.dropped += 1

    def _leave(self, token: Token[Span | None]) -> None:
        self._token = None
        try:
            _current.reset(token)
        except ValueError:
            # The block was left in another task than it was entered in (a generator closed elsewhere): that task's current span
            # is not ours to change.
            pass

    def set_attribute(self, name: str, value: AttributeValue) -> None:
        """Set one attribute; at most 128 are kept, the others counted."""
        if not self.recording:
            return
        attributes = self._attributes
        if attributes is None:
            self._attributes = {name: value}
        elif len(attributes) < _MAX_ITEMS or name in attributes:
            attributes[name] = value
        else:
            self._detailed().dropped[0] += 1

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        for name, value in attributes.items():
            self.set_attribute(name, value)

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Note that something happens now; at most 128 events are kept, the others counted."""
        if not self.recording:
            return
        details = self._detailed()
        if len(details.events) < _MAX_ITEMS:
            now = self.start_time_ns + perf_counter_ns() - self._counter
            details.events.append(SpanEvent(name[:_MAX_TEXT], now, freeze_attributes(attributes) if attributes else ()))
        else:
            details.dropped[1] += 1

    def add_links(self, links: Iterable[SpanLink | TraceContext]) -> None:
        """Link other spans that caused this one; at most 128 links are kept, the others counted."""
        if not self.recording:
            return
        details = self._detailed()
        known = (*details.links, *(link if isinstance(link, SpanLink) else SpanLink(link) for link in links))
        details.links = known[:_MAX_ITEMS]
        details.dropped[2] += len(known) - len(details.links)

    def record_exception(self, error: BaseException) -> None:
        """Note an exception as the event ``exception``, with the attributes of OpenTelemetry's semantic conventions."""
        if not self.recording:
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
        """Say whether the operation went well; the description is kept for ``error`` only."""
        if self.recording:
            details = self._detailed()
            details.status, details.description = status, description if status == "error" else ""

    def data(self) -> SpanData:
        """The frozen value of an ended span, made once and shared by all exporters."""
        if (data := self._data) is None:
            details = self._details or _Details()
            data = self._data = SpanData(
                name=self.name[:_MAX_TEXT],
                kind=self.kind,
                context=self.context,
                parent_span_id=self.parent_span_id,
                start_time_ns=self.start_time_ns,
                end_time_ns=self.end_time_ns,
                attributes=freeze_attributes(self._attributes) if self._attributes else (),
                events=tuple(details.events),
                links=details.links,
                status=details.status,
                status_description=details.description[:_MAX_TEXT],
                correlation_id=self.correlation_id,
                causation_id=self.causation_id,
                dropped_attributes=details.dropped[0],
                dropped_events=details.dropped[1],
                dropped_links=details.dropped[2],
            )
        return data

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
    except Exception:  # noqa: BLE001  # an attribute without a text form is no reason to fail what it describes
        return f"<{type(value).__name__} without a text form>"


class Tracer:
    """Begins spans: finds the parent, decides on sampling, gives ids and times.

    Args:
        sampler: decides for traces that begin here; a parent's decision is followed.
        ids: where trace and span ids come from.
    """

    def __init__(self, sampler: RateSampler, ids: IdGenerator) -> None:
        self.sampler = sampler
        self.ids = ids
        self.ring = SpanRing()
        # False while no exporter takes spans: they are begun for the sake of their context, and not kept.
        self.wanted = False
        # Asked where a span begins; a tuple, replaced as a whole, so that reading it needs no lock.
        self.ambient: tuple[AmbientContext, ...] = ()

    @staticmethod
    def current() -> Span | None:
        """The innermost span whose block this task is in."""
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

        Without ``parent`` it is the child of the span whose block encloses the call, or of the ambient trace of another tracing
        system that an exporter knows, whichever is nearer; else it begins a trace.

        Args:
            name: what is done, of few distinct values (``"ship order"``, not ``"ship order 17"``).
            kind: the role in the trace.
            attributes: known at the beginning; text, numbers, booleans and sequences of them.
            links: other spans that caused this one.
            parent: a remote parent, for example from a ``traceparent`` header.
            correlation_id: what all that follows from one request has in common; inherited when left out.
            causation_id: the id of the message that caused this one; inherited when left out.
        """
        span = Span()
        enclosing = _current.get()
        ambient = None
        for ask in self.ambient:
            if (ambient := ask()) is not None:
                break
        span.ambient = ambient
        above: TraceContext | Span | None = parent
        if enclosing is not None:
            if correlation_id is None:
                correlation_id = enclosing.correlation_id
            if causation_id is None:
                causation_id = enclosing.causation_id
            if above is None:
                # An ambient context that the enclosing span did not see when it began lies between the two.
                above = enclosing if ambient is None or ambient == enclosing.ambient else ambient
        elif above is None:
            above = ambient
        span._tracer = self
        span.name = name
        span.kind = kind
        span.correlation_id = correlation_id
        span.causation_id = causation_id
        bits = self.ids.bits
        span.span_id = bits(64) or 1
        if above is not None:
            span.trace_id = above.trace_id
            span.parent_span_id = above.span_id
            span.trace_flags = flags = above.trace_flags
            span.tracestate = above.tracestate
            sampled = flags & 1
        else:
            span.trace_id = bits(128) or 1
            span.parent_span_id = 0
            span.trace_flags = sampled = 1 if self.sampler.sample() else 0
            span.tracestate = ""
        span._attributes = span._details = span._data = span._token = None
        span.end_time_ns = 0
        if sampled and self.wanted:
            span.recording = True
            span.start_time_ns = time_ns()
            span._counter = perf_counter_ns()
            if attributes:
                span.set_attributes(attributes)
            if links:
                span.add_links(links)
        else:
            # Its times would be read by nobody.
            span.recording = False
            span.start_time_ns = span._counter = 0
        return span


class SilentTracer(Tracer):
    """Keeps no spans: a span stands for its parent, so that a trace passes through unchanged."""

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
        """A span with its parent's identity; its context is not ``valid`` when there is no parent."""
        span = Span()
        enclosing = _current.get()
        above: TraceContext | Span = parent or enclosing or NO_CONTEXT
        span._tracer = self
        span.name = name
        span.kind = kind
        span.correlation_id = correlation_id or (enclosing.correlation_id if enclosing else None)
        span.causation_id = causation_id or (enclosing.causation_id if enclosing else None)
        span.trace_id = above.trace_id
        span.span_id = above.span_id
        span.trace_flags = above.trace_flags
        span.tracestate = above.tracestate
        span.parent_span_id = span.end_time_ns = span.start_time_ns = span._counter = 0
        span.ambient = span._attributes = span._details = span._data = span._token = None
        span.recording = False
        return span


NO_CONTEXT: Final = TraceContext(0, 0)
