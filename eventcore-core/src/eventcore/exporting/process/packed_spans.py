"""Ended spans as tuples that another process can read: packed before they are frozen, and frozen there."""
# ruff: noqa: SLF001  # a span is packed from its own slots, and made again by filling them

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, cast, final

import msgspec
from msgspec import Meta

from eventcore.recording.attributes import INTEGERS, SpanDetails, SpanLimits
from eventcore.recording.spans import _LONGEST_NAME, Span, SpanRing, span_class
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import EVENTCORE, Scope, SpanData, SpanEvent, SpanKind, SpanLink, SpanStatus

PackedSpan: TypeAlias = tuple[Any, ...]
# As `_pack_details` would write the details of a span that has none.
_NO_DETAILS: Final[PackedSpan] = (False, (), (), "unset", "", 0, 0, 0)


def pack_span(span: Span) -> PackedSpan:
    """The fields of an ended span, of types that MessagePack has where the application gave such.

    Raises:
        Exception: a field is not of the type that it should have. ``pack_frozen`` can then pack it.
    """
    name, scope, details = span.name, span.scope, span._details
    if type(name) is not str or type(span.kind) is not str:
        raise TypeError("a span's name and kind are packed only if they are texts")
    return (
        name,
        span.kind,
        # MessagePack has no integers of 128 bits.
        span.trace_id.to_bytes(16, "big"),
        span.span_id,
        span.trace_flags,
        span.tracestate,
        span.parent_span_id,
        span.start_time_ns,
        span.end_time_ns,
        span._attributes,
        span.correlation_id,
        span.causation_id,
        None if scope is EVENTCORE else (scope.name, scope.version, scope.schema_url),
        None if details is None else _pack_details(details),
    )


def pack_frozen(data: SpanData) -> PackedSpan:
    """The same from the frozen value, which is plain whatever the application gave."""
    details = SpanDetails(
        parent_is_remote=data.parent_is_remote,
        events=list(data.events),
        links=data.links,
        status=data.status,
        description=data.status_description,
        dropped_attributes=data.dropped_attributes,
        dropped_events=data.dropped_events,
        dropped_links=data.dropped_links,
    )
    context = data.context
    return (
        data.name,
        data.kind,
        context.trace_id.to_bytes(16, "big"),
        context.span_id,
        context.trace_flags,
        context.tracestate,
        data.parent_span_id,
        data.start_time_ns,
        data.end_time_ns,
        dict(data.attributes),
        data.correlation_id,
        data.causation_id,
        msgspec.structs.astuple(data.scope),
        _pack_details(details),
    )


def _pack_details(details: SpanDetails) -> PackedSpan | None:
    events, links = details.events, details.links
    dropped = details.dropped_attributes or details.dropped_events or details.dropped_links
    linked = details.linked
    if not (events or links or linked or dropped or details.parent_is_remote) and details.status == "unset":
        return None
    return (
        details.parent_is_remote,
        [(event.name, event.time_ns, event.attributes, event.dropped_attributes) for event in events],
        [(*_pack_context(link.context), link.attributes, link.dropped_attributes) for link in links]
        + [
            (span.trace_id.to_bytes(16, "big"), span.span_id, span.trace_flags, span.tracestate, False, (), 0)
            for span in linked
        ],
        details.status,
        details.description,
        details.dropped_attributes,
        details.dropped_events,
        details.dropped_links,
    )


def _pack_context(context: TraceContext) -> PackedSpan:
    return (
        context.trace_id.to_bytes(16, "big"),
        context.span_id,
        context.trace_flags,
        context.tracestate,
        context.is_remote,
    )


@final
class SpanUnpacker:
    """Makes frozen values of packed spans, as ``Span.data`` makes them.

    msgspec checks the fields of a span while it decodes them: whether each has the type and the size that the frozen value may
    have. A span that passes is made of its decoded fields. Any other one, such as a span with a text that is to be cut, is
    made again as the store's process had it, and frozen by ``Span.data``.

    Args:
        limits: the most that one span keeps.
    """

    def __init__(self, limits: SpanLimits) -> None:
        self._limits = limits
        self._ring = SpanRing(limits=limits)
        self._classes: dict[Scope, type[Span]] = {}
        span: Any = _checked_types(limits)
        self._checked: msgspec.msgpack.Decoder[list[PackedSpan]] = msgspec.msgpack.Decoder(list[span])
        self._checked_one = msgspec.msgpack.Decoder(span)
        self._apart = msgspec.msgpack.Decoder(list[msgspec.Raw])
        self._unchecked = msgspec.msgpack.Decoder()

    def unpack(self, packed: bytes) -> list[SpanData]:
        """The frozen values of the spans of one text of MessagePack."""
        try:
            found = self._checked.decode(packed)
        except msgspec.ValidationError:
            # Some of them, mostly one, have another type or size.
            return [self._unpack_one(span) for span in self._apart.decode(packed)]
        return [self._made(span) for span in found]

    def _unpack_one(self, packed: msgspec.Raw) -> SpanData:
        try:
            return self._made(self._checked_one.decode(packed))
        except msgspec.ValidationError:
            return self._frozen(self._unchecked.decode(packed))

    def _made(self, fields: PackedSpan) -> SpanData:
        """The frozen value of fields that were checked."""
        name, kind, trace, span_id, flags, state, parent, start, end, attributes, correlation, causation, scope, details = (
            fields
        )
        context = TraceContext(int.from_bytes(trace, "big"), span_id, flags, state)
        items = tuple(attributes.items()) if attributes else ()
        if details is None and scope is None:
            # Most spans.
            return SpanData(name, kind, context, parent, start, end, items, correlation_id=correlation, causation_id=causation)
        remote, events, links, status, description, dropped, dropped_events, dropped_links = details or _NO_DETAILS
        # In the order of the fields: their names would take half as long again.
        return SpanData(
            name,
            kind,
            context,
            parent,
            start,
            end,
            items,
            tuple([SpanEvent(*event) for event in events]),
            tuple(
                [
                    SpanLink(TraceContext(int.from_bytes(trace, "big"), span_id, flags, state, is_remote), items, left_out)
                    for trace, span_id, flags, state, is_remote, items, left_out in links
                ]
            ),
            status,
            description,
            correlation,
            causation,
            dropped,
            dropped_events,
            dropped_links,
            EVENTCORE if scope is None else Scope(*scope),
            remote,
        )

    def _frozen(self, fields: PackedSpan) -> SpanData:
        """The frozen value of any fields."""
        scope = EVENTCORE if fields[12] is None else Scope(*fields[12])
        found = self._classes.get(scope)
        if found is None:
            found = self._classes[scope] = span_class(self._ring, scope)
        span = found()
        span.name, span.kind, trace_id, span.span_id, span.trace_flags, span.tracestate = fields[:6]
        span.trace_id = int.from_bytes(trace_id, "big")
        span.parent_span_id, span.start_time_ns, span.end_time_ns, span._attributes = fields[6:10]
        span.correlation_id, span.causation_id = fields[10:12]
        span._is_plain = None
        span._details = SpanDetails() if fields[13] is None else _unpack_details(*fields[13])
        return span.data()


def _checked_types(limits: SpanLimits) -> Any:
    """The type of a packed span whose frozen value has the same fields."""
    text: Any = Annotated[str, Meta(max_length=limits.text)]
    name: Any = Annotated[str, Meta(max_length=_LONGEST_NAME)]
    number: Any = Annotated[int, Meta(ge=INTEGERS[0], le=INTEGERS[-1])]
    attributes: Any = Annotated[dict[text, text | number | float | bool], Meta(max_length=limits.attributes)]
    # Attributes of events and links were frozen when they were given.
    pairs: Any = tuple[tuple[str, str | int | float | bool | tuple[str | int | float | bool, ...]], ...]
    event: Any = tuple[str, int, pairs, int]
    link: Any = tuple[bytes, int, int, str, bool, pairs, int]
    details: Any = tuple[bool, list[event], list[link], SpanStatus, str, int, int, int]
    scope: Any = tuple[str, str, str]
    ids = bytes, int, int, str, int
    fields = name, SpanKind, *ids, int, int, attributes | None, name | None, name | None, scope | None, details | None
    return tuple.__class_getitem__(fields)


def _unpack_details(
    parent_is_remote: bool,
    events: Any,
    links: Any,
    status: Any,
    description: str,
    dropped_attributes: int,
    dropped_events: int,
    dropped_links: int,
) -> SpanDetails:
    return SpanDetails(
        parent_is_remote=parent_is_remote,
        events=[SpanEvent(name, time_ns, _attributes(items), dropped) for name, time_ns, items, dropped in events],
        links=tuple(
            SpanLink(TraceContext(int.from_bytes(trace, "big"), *context), _attributes(items), dropped)
            for trace, *context, items, dropped in links
        ),
        status=status,
        description=description,
        dropped_attributes=dropped_attributes,
        dropped_events=dropped_events,
        dropped_links=dropped_links,
    )


def _attributes(pairs: Any) -> Any:
    """The attributes as they were frozen: MessagePack makes lists of tuples."""
    return tuple((name, tuple(value) if cast(object, type(value)) is list else value) for name, value in pairs)
