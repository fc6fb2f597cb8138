"""Tracers begin spans: they find the parent, set ids and times, and ask a sampler whether to record the trace.

Head sampling: whether a trace is recorded is decided once, where it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic, perf_counter_ns, time_ns
from typing import Any, Final, Literal, Protocol

from eventcore.ground import own_logger, text_of, type_name
from eventcore.recording.attributes import SpanLimits
from eventcore.recording.spans import Span, SpanRing, _current, span_class
from eventcore.recording.trace_context import AmbientContext, IdGenerator, TraceContext
from eventcore.recording.values import EVENTCORE, AttributeValue, Scope, SpanKind, SpanLink

_NO_LINKS: Final = ()
_NO_CONTEXT: Final = TraceContext(0, 0)
# As `eventcore.events` allows in the metadata of an event.
_MAX_ID: Final = 128
_LOW_64_BITS: Final = (1 << 64) - 1
_logger: Final = own_logger(__name__)


class Sampler(Protocol):
    """Decides which traces are recorded.

    Attributes:
        follows_parent: whether a span that has a parent is recorded exactly if the parent is.
        samples_all: whether it records every trace, so that it need not be asked.
        unsampled: how many traces were not sampled.
    """

    follows_parent: bool
    samples_all: bool
    unsampled: int

    def sample(self, trace_id: int) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        ...

    def decide(self, trace_id: int) -> bool:
        """Whether to record a span that has a parent, if ``follows_parent`` is false."""
        ...


class RateSampler:
    """Samples every new trace up to a rate, and at most one second's worth of traces at once.

    This is the generic cell rate algorithm: one number holds the time at which the allowance will be used up. It takes no lock;
    threads that race may sample one trace too many, which does no harm.

    Attributes:
        follows_parent, samples_all, unsampled: see ``Sampler``.

    Args:
        traces_per_second: 0 or more, or ``"all"``.
    """

    __slots__ = ("_interval", "_used_up_at", "follows_parent", "samples_all", "unsampled")

    def __init__(self, traces_per_second: float | Literal["all"]) -> None:
        self._interval = 0.0 if traces_per_second == "all" else 1 / traces_per_second if traces_per_second > 0 else -1.0
        self._used_up_at = 0.0
        self.follows_parent = True
        self.samples_all = not self._interval
        self.unsampled = 0

    def sample(self, trace_id: int = 0) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        interval = self._interval
        if not interval:
            return True
        now = monotonic()
        used_up_at = self._used_up_at
        if used_up_at < now:
            used_up_at = now
        if interval > 0 and used_up_at + interval <= now + max(1.0, interval):
            self._used_up_at = used_up_at + interval
            return True
        self.unsampled += 1
        return False

    def decide(self, trace_id: int) -> bool:
        """Never asked: the parent decides."""
        return True


class RatioSampler:
    """Samples a share of all traces, chosen by their ids, as OpenTelemetry's ``TraceIdRatioBased`` does.

    So processes with one ratio sample the same traces. A ratio of 1 records every trace, and 0 records none.

    Args:
        ratio: from 0 to 1.
        follows_parent: false decides for each span by its trace id, whatever its parent decided.
    """

    __slots__ = ("_bound", "follows_parent", "samples_all", "unsampled")

    def __init__(self, ratio: float, *, follows_parent: bool = True) -> None:
        self._bound = round(ratio * (_LOW_64_BITS + 1))
        self.follows_parent = follows_parent
        self.samples_all = ratio >= 1
        self.unsampled = 0

    def sample(self, trace_id: int) -> bool:
        """Whether to record the trace that begins now; if not, it is counted in ``unsampled``."""
        if sampled := self.decide(trace_id):
            return sampled
        self.unsampled += 1
        return False

    def decide(self, trace_id: int) -> bool:
        """Whether the trace belongs to the share."""
        return trace_id & _LOW_64_BITS < self._bound


class Tracer:
    """Begins spans: finds the parent, decides on sampling, sets ids and times.

    Args:
        sampler: decides for traces that begin here. A child follows the decision of its parent if the sampler says so.
        ids: where trace and span ids come from.
        limits: the most that one span keeps.
    """

    def __init__(self, sampler: Sampler, ids: IdGenerator, limits: SpanLimits | None = None) -> None:
        self.sampler = sampler
        self.ids = ids
        self.ring = SpanRing(limits=limits)
        # False while no exporter takes spans: spans then only carry the context.
        self.wanted = False
        self.ambient = ()
        self._follows_parent = sampler.follows_parent
        self._class = span_class(self.ring, EVENTCORE)
        self._classes = {EVENTCORE: self._class}
        # Spares a call for each trace.
        self._samples_all = sampler.samples_all
        self._warned = False

    @property
    def ambient(self) -> tuple[AmbientContext, ...]:
        """The other tracing systems, which are asked when a span begins. Replaced as a whole, so reading it needs no lock."""
        return self._others

    @ambient.setter
    def ambient(self, others: tuple[AmbientContext, ...]) -> None:
        # In this order: what finds `_only` needs nothing else.
        self._only: AmbientContext | None = others[0] if len(others) == 1 else None
        self._others = others

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
        links: Iterable[SpanLink | TraceContext] = _NO_LINKS,
        parent: TraceContext | Span | None = None,
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
            parent: a remote parent, for example from a ``traceparent`` header, or a span that was begun in another task. One
                that is neither, or names no span because an id is 0, counts as none.
            correlation_id: one id for everything that follows from one request; inherited when left out.
            causation_id: the id of the message that caused this operation; inherited when left out.
        """
        enclosing, ambient = _current.get(), self._ask(parent) if self._others else None
        log_fields = None if enclosing is None else enclosing.log_fields
        above: TraceContext | Span | None = None
        if parent is not None:
            above = self._checked(parent)
        if correlation_id is not None or causation_id is not None:
            correlation_id, causation_id = _id_text(correlation_id), _id_text(causation_id)
        if enclosing is not None:
            if correlation_id is None:
                correlation_id = enclosing.correlation_id
            if causation_id is None:
                causation_id = enclosing.causation_id
            if above is None:
                # An ambient context that appeared since the enclosing span began lies between the two.
                above = enclosing if ambient is None or ambient == enclosing._ambient else ambient
        elif above is None:
            above = ambient
        span = self._class()
        span.name, span.kind, span._ambient = name, kind, ambient
        span.correlation_id, span.causation_id, span.log_fields = correlation_id, causation_id, log_fields
        span.span_id = (bits := self.ids.bits)(64) or 1
        span._ring = span._attributes = span._is_plain = span._details = span._token = None
        span.end_time_ns = span.start_time_ns = span._counter = 0
        if above is not None:
            span.trace_id, span.parent_span_id, span.tracestate = above.trace_id, above.span_id, above.tracestate
            span.trace_flags = flags = above.trace_flags if self._follows_parent else self._decide(above)
            if above is not enclosing and above.is_remote:
                span._detailed().parent_is_remote = True
        else:
            span.trace_id = trace_id = bits(128) or 1
            span.parent_span_id, span.tracestate = 0, ""
            span.trace_flags = flags = 1 if self._samples_all or self.sampler.sample(trace_id) else 0
        if flags & 1 and self.wanted:
            span._ring, span.start_time_ns, span._counter = self.ring, time_ns(), perf_counter_ns()
            if attributes is not None:
                span.set_attributes(attributes)
            if links is not _NO_LINKS:
                span.add_links(links)
        return span

    def _ask(self, parent: Any) -> TraceContext | None:
        """The current span of the other tracing systems. Called only where there is one: most have none."""
        # Not `isinstance`, which asks the object itself for its `__class__`.
        if parent is not None and issubclass(type(parent), Span):
            # It was begun in another task: what was current there is around its children, and not what is current here.
            ambient: TraceContext | None = parent._ambient
            return ambient
        return only.current() if (only := self._only) is not None else _ask(self._others)

    def _decide(self, above: TraceContext | Span) -> int:
        """The flags of a child when the sampler does not follow the parent."""
        return above.trace_flags & ~1 | self.sampler.decide(above.trace_id)

    def scoped(self, scope: Scope, name: str, **options: Any) -> Span:
        """Begin a span of another scope; ``options`` as for ``span``."""
        span = self.span(name, **options)
        found = self._classes.get(scope)
        if found is None:
            found = self._classes.setdefault(scope, span_class(self.ring, scope))
        # The classes have the same slots. An argument of `span` would cost each span a hundredth of its time.
        span.__class__ = found
        return span

    def _checked(self, parent: object) -> TraceContext | Span | None:
        """What ``span`` was given as ``parent``, if it names a span."""
        if parent is None:
            return None
        # Not `isinstance`, which asks the object itself for its `__class__`.
        if issubclass(type(parent), (TraceContext, Span)):
            context: Any = parent
            return context if context.trace_id and context.span_id else None
        if not self._warned:
            self._warned = True
            _logger.warning(
                "a span was begun with a parent of type %s, which is ignored; expected a TraceContext", type_name(type(parent))
            )
        return None


def _ask(others: tuple[AmbientContext, ...]) -> TraceContext | None:
    """The current span of the first tracing system that has one."""
    for other in others:
        if (context := other.current()) is not None:
            return context
    return None


def _id_text(value: object) -> str | None:
    """A correlation or causation id as events can carry it, whatever was given; ``None`` for none and for an empty text."""
    if value is None:
        return None
    if type(value) is str and len(value) <= _MAX_ID and value.isascii() and value.isprintable():
        return value or None
    return "".join(each if each.isprintable() else "?" for each in text_of(value, _MAX_ID)) or None


def innermost(others: tuple[AmbientContext, ...] | None = None) -> Span | TraceContext | None:
    """The innermost of the current span of eventcore and those of other tracing systems, in this task or thread.

    Args:
        others: the other tracing systems; ``None``: those in which the telemetry of eventcore's span makes its spans current.
    """
    span = _current.get()
    if others is None:
        others = () if span is None else span._home.attached
    ambient = _ask(others) if others else None
    if span is None or not span.trace_id:
        return ambient
    if ambient is None or ambient == span._ambient:
        return span
    return span if (ambient.trace_id, ambient.span_id) == (span.trace_id, span.span_id) else ambient


class SilentTracer(Tracer):
    """Records no spans: each one has the identity of its parent, so a trace passes through unchanged."""

    def span(
        self,
        name: str,
        *,
        kind: SpanKind = "internal",
        parent: TraceContext | Span | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        **_: Any,
    ) -> Span:
        """A span with the identity of its parent; without a parent its context is not ``valid``.

        Attributes and links are ignored.
        """
        enclosing = _current.get()
        above = self._checked(parent) or enclosing or _NO_CONTEXT
        correlation_id, causation_id = _id_text(correlation_id), _id_text(causation_id)
        if enclosing is not None:
            correlation_id = correlation_id or enclosing.correlation_id
            causation_id = causation_id or enclosing.causation_id
        span = self._class()
        span.name, span.kind = name, kind
        span.trace_id, span.span_id = above.trace_id, above.span_id
        span.trace_flags, span.tracestate = above.trace_flags, above.tracestate
        span.correlation_id, span.causation_id = correlation_id, causation_id
        span.log_fields = None if enclosing is None else enclosing.log_fields
        span.parent_span_id = span.start_time_ns = span.end_time_ns = 0
        span._ring = span._attributes = span._is_plain = span._details = span._token = span._ambient = None
        return span
