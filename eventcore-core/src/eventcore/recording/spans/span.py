"""Spans: what is done on the hot path takes a few stores; exporters' threads freeze an ended span into ``SpanData``.

An application may give anything as a name, an id, an attribute or an exception. Whatever it is, nothing here raises, and the
frozen value holds plain and bounded values only, so that one span never costs the others of its batch.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Token
from itertools import islice
from time import perf_counter_ns
from types import TracebackType
from typing import Any, ClassVar, Final, TypeAlias, cast, get_args

from eventcore.ground import cut, describe_error, is_success, text_of, traceback_of, type_name, without_values
from eventcore.recording.attributes import (
    NO_DETAILS,
    SpanDetails,
    SpanLimits,
    choose,
    freeze,
    freeze_and_count,
    plain_copy,
    plain_link,
    repair,
)
from eventcore.recording.spans.ring import SpanRing, _current
from eventcore.recording.trace_context import AmbientContext, TraceContext
from eventcore.recording.values import (
    EVENTCORE,
    AttributeValue,
    Scope,
    SpanData,
    SpanEvent,
    SpanKind,
    SpanLink,
    SpanStatus,
)

_LONGEST_NAME: Final = 4096
_SHORT: Final = 1024
# Of an iterable that never ends, so many items are looked at.
_MAX_GIVEN: Final = 10_000
_KINDS: Final[Mapping[str, SpanKind]] = {kind: kind for kind in get_args(SpanKind)}
_STATUSES: Final[Mapping[str, SpanStatus]] = {status: status for status in get_args(SpanStatus)}

# What undoes that a span is current: when other tracing systems take part, also their tokens. A plain tuple is made fastest.
_Reset: TypeAlias = "Token[Span | None]"
_Connected: TypeAlias = "tuple[_Reset, AmbientContext, object] | tuple[_Reset, Sequence[tuple[AmbientContext, object]]]"
Entered: TypeAlias = "_Reset | _Connected"


class Span:
    """One operation in a trace: a context manager whose block it measures. ``Telemetry.span`` makes them.

    An exception that leaves the block sets the status ``error``, is recorded as an event, and propagates to the caller.
    ``GeneratorExit``, ``CancelledError`` and ``SystemExit`` with code 0 or ``None`` are no errors. What is set after the end is
    ignored and counted.

    Attributes:
        correlation_id, causation_id: given, or inherited from the enclosing span.
        log_fields: what log records say of the operation, such as its store; inherited from the enclosing span.
        scope: the part of the program that made it.
    """

    # The tracer sets every one of them: calling an `__init__` would cost more than the stores.
    __slots__ = (
        "_ambient",
        "_attributes",
        "_counter",
        "_details",
        "_is_plain",
        "_ring",
        "_token",
        "causation_id",
        "correlation_id",
        "end_time_ns",
        "kind",
        "log_fields",
        "name",
        "parent_span_id",
        "span_id",
        "start_time_ns",
        "trace_flags",
        "trace_id",
        "tracestate",
    )

    # Each tracer has a subclass for each scope (see `span_class`), so that a span need not store these.
    scope: ClassVar[Scope] = EVENTCORE
    is_remote: ClassVar = False
    _home: ClassVar[SpanRing] = SpanRing()

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    trace_flags: int
    tracestate: str
    parent_span_id: int
    correlation_id: str | None
    causation_id: str | None
    log_fields: Mapping[str, str] | None
    end_time_ns: int
    # Time of day and `perf_counter_ns` at the beginning. The end is computed from them, so that setting the clock does not
    # change a duration. Both are 0 in a span that is not recorded. Two slots and not a tuple, which is one more object for the
    # garbage collector and makes a span a tenth slower.
    start_time_ns: int
    _counter: int
    # The span of another tracing system that was current when this one began.
    _ambient: TraceContext | None
    # Where the span goes when it ends; `None` when it is not recorded, and after the end.
    _ring: SpanRing | None
    _attributes: dict[str, AttributeValue] | None
    # Whether the attributes need no check when they are frozen.
    _is_plain: bool | None
    _details: SpanDetails | None
    _token: Entered | None

    @property
    def recording(self) -> bool:
        """False when the trace is not sampled, when no exporter takes spans, and after the end.

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
            self._fail(error)
        if (token := self._token) is not None:
            self._token = None
            if isinstance(token, tuple):
                _disconnect(token)
            else:
                try:
                    _current.reset(token)
                except ValueError:
                    # The block is left in another context than it was entered in: a generator was closed by another task, for
                    # example. The current span of that task must stay as it is.
                    pass
        elif _current.get() is self:
            # The span was entered twice, and the outer block, whose token is lost, ends.
            _current.set(None)
        ring = self._ring
        if ring is not None:
            self.end_time_ns = self.start_time_ns + perf_counter_ns() - self._counter
            # From here on, nothing changes the span any more.
            self._ring = None
            spans = ring.spans
            if len(spans) < ring.capacity:
                spans.append(self)
            else:
                ring.dropped += 1

    def end(self) -> None:
        """End the span now; a second call changes nothing."""
        self.__exit__(None, None, None)

    def connect(self, own_io: bool = False) -> None:
        """Make this span, whose block has just been entered, current also in other tracing systems, until the block ends.

        Args:
            own_io: whether the block is eventcore's own call to a database, which an instrumented driver need not trace again.
        """
        if (home := self._home).attached and self.trace_id and type(token := self._token) is Token:
            if (other := home.only) is None:
                self._token = self._attach(token, own_io)
            # Here and not in a function: each command does so. A system that has named its current span is in use.
            elif self._ambient is not None or not other.may_be_unused or other.in_use():
                own = TraceContext(self.trace_id, self.span_id, self.trace_flags, self.tracestate)
                self._token = token, other, other.attach(own, own_io)

    def enter(self) -> Entered:
        """Make this span current, also in other tracing systems, without beginning or ending it; ``leave`` undoes it.

        For code that runs for an operation in a task or thread that serves many of them. Both calls must be made in the same
        context, with nothing but this code between them.
        """
        token = _current.set(self)
        return self._attach(token, False) if self._home.attached and self.trace_id else token

    def _attach(self, token: _Reset, own_io: bool) -> Entered:
        """Make the span, which is current since ``token``, current in the other tracing systems that are in use."""
        used = [other for other in self._home.attached if not other.may_be_unused or other.in_use()]
        if not used:
            return token
        own = TraceContext(self.trace_id, self.span_id, self.trace_flags, self.tracestate)
        return token, [(other, other.attach(own, own_io)) for other in used]

    @staticmethod
    def leave(entered: Entered) -> None:
        """Make the span current again that was current before ``enter``."""
        if isinstance(entered, tuple):
            _disconnect(entered)
        else:
            _current.reset(entered)

    def set_attribute(self, name: str, value: AttributeValue) -> None:
        """Set one attribute; at most 128 are kept, and further ones are counted.

        Values are text, numbers, booleans and sequences of them. Anything else is kept as its text, cut at 4,096 characters.
        """
        if (ring := self._ring) is None:
            self._ignore()
            return
        # Now and not at the end: until then, a value may change, or hold much memory. Written out: most need no call.
        given: Any = value
        kind: Any = type(value)
        if not (
            -0x8000000000000000 <= given <= 0x7FFFFFFFFFFFFFFF
            if kind is int
            else (len(given) <= 1024 if kind is str else kind is float or kind is bool)
        ):
            value = freeze(value, ring.max_text)
        try:
            if (attributes := self._attributes) is None:
                self._attributes = {name: value}
            elif len(attributes) < ring.max_attributes or name in attributes:
                attributes[name] = value
                self._is_plain = None
            else:
                self._detailed().dropped_attributes += 1
        except BaseException:  # noqa: BLE001  # a name that is no text, and cannot be hashed
            self.set_attribute(text_of(name), value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes."""
        if self._attributes is None and (ring := self._ring) is not None:
            self._attributes = plain_copy(attributes, ring.max_attributes, ring.max_text)
            if self._attributes is not None:
                return
        try:
            for name, value in islice(attributes.items(), _MAX_GIVEN):
                self.set_attribute(name, value)
        except BaseException:  # noqa: BLE001  # what is no mapping must not fail the operation that the span measures
            if self._ring is not None:
                self._detailed().dropped_attributes += 1

    def take_attributes(self, attributes: dict[str, AttributeValue]) -> None:
        """Set the attributes of a dictionary that the caller gives away: it is not copied, and checked when it is frozen."""
        if self._attributes is None and self._ring is not None:
            self._attributes = attributes
        else:
            self.set_attributes(attributes)

    def take_plain(self, attributes: dict[str, AttributeValue]) -> None:
        """Like ``take_attributes``, without a check: these are texts in ASCII of up to 1,024 characters, and numbers that
        fit.
        """
        if self._attributes is None and (ring := self._ring) is not None:
            self._attributes = attributes
            self._is_plain = ring.max_text >= _SHORT and len(attributes) <= ring.max_attributes
        else:
            self.set_attributes(attributes)

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Record an event that happens now; at most 128 are kept, and further ones are counted."""
        if (ring := self._ring) is None:
            self._ignore()
            return
        details, limits = self._detailed(), ring.limits
        if len(details.events) < limits.events:
            frozen, dropped = freeze_and_count({} if attributes is None else attributes, limits.event_attributes, limits.text)
            now = self.start_time_ns + perf_counter_ns() - self._counter
            details.events.append(SpanEvent(text_of(name, _LONGEST_NAME), now, frozen, dropped))
        else:
            details.dropped_events += 1

    def add_links(self, links: Iterable[SpanLink | TraceContext]) -> None:
        """Link other spans that caused this one; at most 128 links are kept.

        Further ones are counted, and so is what is no link, or names no span because an id is 0.
        """
        if (ring := self._ring) is None:
            self._ignore()
            return
        if type(links) is list and not links:
            return
        details = self._detailed()
        kept = list(_links(details))
        try:
            for given in islice(cast(Iterable[object], links), _MAX_GIVEN):
                link = _checked_link(given, ring.limits) if len(kept) < ring.limits.links else None
                if link is not None:
                    kept.append(link)
                else:
                    details.dropped_links += 1
        except BaseException:  # noqa: BLE001  # a foreign iterable must not fail the operation that the span measures
            details.dropped_links += 1
        details.links, details.linked = tuple(kept), ()

    def take_links(self, spans: list[Span]) -> None:
        """Set the first links of a span: to spans of this process, which need no check, and are read when it is frozen."""
        if self._details is not None or len(spans) > self._home.limits.links:
            self.add_links([span.context for span in spans])
        elif self._ring is not None:
            details = self._detailed()
            details.linked = tuple(spans)

    def record_exception(self, error: BaseException) -> None:
        """Record an exception as the event ``exception``, with the attributes of OpenTelemetry's semantic conventions."""
        if self._ring is None:
            self._ignore()
            return
        self.add_event(
            "exception",
            {
                "exception.type": type_name(type(error), qualified=True),
                "exception.message": text_of(error),
                "exception.stacktrace": traceback_of(error),
            },
        )

    def set_status(self, status: SpanStatus, description: str = "") -> None:
        """Set whether the operation succeeded; the description is kept for ``error`` only.

        A status that is unknown changes nothing.
        """
        if self._ring is None:
            self._ignore()
        elif (chosen := choose(status, _STATUSES)) is not None:
            details = self._detailed()
            details.status = chosen
            details.description = text_of(description, _LONGEST_NAME) if chosen == "error" else ""

    def data(self) -> SpanData:
        """The frozen value of an ended span; never raises. Kept for several exporters only: garbage collections visit it."""
        details = self._details or NO_DETAILS
        if (data := details.data) is None:
            try:
                data = self._frozen(details, TraceContext(self.trace_id, self.span_id, self.trace_flags, self.tracestate))
            except BaseException:  # noqa: BLE001  # an attribute of this object was set from outside
                data = self._repaired(details)
            if self._home.is_shared:
                details = self._detailed()
                details.data = data
        return data

    def _frozen(self, details: SpanDetails, context: TraceContext) -> SpanData:
        limits, name, kind = self._home.limits, self.name, self.kind
        given = self._attributes
        if self._is_plain:
            attributes, dropped = tuple(cast("dict[str, AttributeValue]", given).items()), 0
        else:
            attributes, dropped = freeze_and_count(given, limits.attributes, limits.text) if given else ((), 0)
        if type(name) is not str or len(name) > _LONGEST_NAME or not name.isascii():
            name = text_of(name, _LONGEST_NAME)
        if type(kind) is not str or kind not in _KINDS:
            kind = choose(kind, _KINDS) or "internal"
        # In the order of the fields: their names would take half as long again.
        return SpanData(
            name,
            kind,
            context,
            self.parent_span_id,
            self.start_time_ns,
            self.end_time_ns,
            attributes,
            tuple(details.events),
            _links(details) if details.linked else details.links,
            details.status,
            details.description,
            None if self.correlation_id is None else cut(self.correlation_id, _LONGEST_NAME),
            None if self.causation_id is None else cut(self.causation_id, _LONGEST_NAME),
            details.dropped_attributes + dropped,
            details.dropped_events,
            details.dropped_links,
            self.scope,
            details.parent_is_remote,
        )

    def _repaired(self, details: SpanDetails) -> SpanData:
        """The value of a span to which something else than a text or a number was assigned."""
        repair(self)
        return self._frozen(details, self.context)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, (GeneratorExit, CancelledError)) or (isinstance(error, SystemExit) and is_success(error)):
            return
        # Commands and projections work on events, and what an exception says may repeat one.
        shown = error if self.log_fields is None else without_values(error)
        self.record_exception(shown)
        self.set_status("error", describe_error(shown))

    def _ignore(self) -> None:
        # Only a recorded span has an end; attributes of a span that is not recorded are no mistake.
        if self.end_time_ns:
            self._home.ignored += 1

    def _detailed(self) -> SpanDetails:
        if self._details is None:
            self._details = SpanDetails()
        return self._details


def span_class(ring: SpanRing, scope: Scope) -> type[Span]:
    """The class of the spans of one tracer and scope."""
    return type(
        "Span", (Span,), {"__slots__": (), "__module__": __name__, "__doc__": Span.__doc__, "_home": ring, "scope": scope}
    )


def _disconnect(connected: _Connected) -> None:
    try:
        _current.reset(connected[0])
    except ValueError:
        # The block is left in another context than it was entered in, as in `Span.__exit__`: nothing is attached here.
        return
    if len(connected) == 3:  # one other system takes part
        connected[1].detach(connected[2])
        return
    for other, token in reversed(connected[1]):
        other.detach(token)


def _links(details: SpanDetails) -> tuple[SpanLink, ...]:
    """The links of a span. A span that is linked to may have been changed since: then it has no context, and no link."""
    linked = details.linked
    try:
        return details.links + tuple(
            [SpanLink(TraceContext(span.trace_id, span.span_id, span.trace_flags, span.tracestate)) for span in linked]
        )
    except Exception:  # noqa: BLE001  # an attribute of a span was set from outside
        links = list(details.links)
        for span in linked:
            with suppress(Exception):
                links.append(SpanLink(span.context))
        return tuple(links)


def _checked_link(given: object, limits: SpanLimits) -> SpanLink | None:
    """The link with plain values; ``None`` when it is none, or its context names no span."""
    context, attributes, dropped = given, cast(object, ()), 0
    if type(given) is SpanLink:
        context, attributes, dropped = given.context, given.attributes, given.dropped_attributes
    # Not `isinstance`, which asks the object itself for its `__class__`.
    if issubclass(type(context), Span):
        context = cast(Span, context).context
    return plain_link(context, attributes, dropped, limits) if type(context) is TraceContext and context.valid else None
