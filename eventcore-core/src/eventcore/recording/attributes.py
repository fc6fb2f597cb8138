"""Attributes, texts and details of spans: whatever an application gives becomes a plain, bounded value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, cast, final

import msgspec
from msgspec import Meta

from eventcore.ground import cut, text_of, type_name
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.values import Attributes, AttributeValue, SpanData, SpanEvent, SpanLink, SpanStatus

# Fields of a span: so many bits, and what stands for any other value.
_INTEGER_FIELDS: Final = {
    "trace_id": (128, 1),
    "span_id": (64, 1),
    "trace_flags": (8, 1),
    "parent_span_id": (64, 0),
    "start_time_ns": (64, 0),
    "end_time_ns": (64, 0),
}
# Protocols and databases take integers of 64 bits.
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
INTEGERS: Final = range(_LEAST, _MOST + 1)
# The text of a larger container would take seconds to make.
_LARGEST_SHOWN: Final = 1000
_KINDS: Final = (str, bool, int, float)

SamplerName: TypeAlias = Literal[
    "",
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]
_Limit: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]

ChoiceT = TypeVar("ChoiceT")


class SpanLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``[telemetry.span_limits]``: the most that one span keeps. What is beyond a number is counted as dropped.

    Attributes:
        attributes, events, links: of one span.
        event_attributes: of one event in a span.
        link_attributes: of one link.
        text: characters of an attribute's value, and items of one that is a sequence.
    """

    attributes: _Limit = 128
    events: _Limit = 128
    links: _Limit = 128
    event_attributes: _Limit = 128
    link_attributes: _Limit = 128
    text: _Limit = 4096


_DEFAULT: Final = SpanLimits()


@final
class SpanDetails(msgspec.Struct, gc=False):
    """What few spans have while they run, and the frozen value: in an object that most spans do not make on the hot path.

    ``gc=False``: what it holds cannot refer to it.

    Attributes:
        linked: spans that are linked to, before ``links`` are made of them. They began before this one, whose links they are.
    """

    parent_is_remote: bool = False
    events: list[SpanEvent] = []
    links: tuple[SpanLink, ...] = ()
    linked: tuple[Any, ...] = ()
    status: SpanStatus = "unset"
    description: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    data: SpanData | None = None


# Of spans that have none. Never changed.
NO_DETAILS: Final = SpanDetails()


def freeze_attributes(attributes: Mapping[str, Any], limit: int = _DEFAULT.attributes, text: int = _DEFAULT.text) -> Attributes:
    """Attributes as an immutable value of at most ``limit`` items. Never raises."""
    return freeze_and_count(attributes, limit, text)[0]


def freeze_and_count(attributes: object, limit: int, text: int) -> tuple[Attributes, int]:
    """The same, with how many attributes were left out."""
    try:
        given: Any = attributes
        kind = cast(object, type(given))
        if kind is dict:
            # In one step: another thread may add to the dictionary meanwhile.
            items: list[Any] = list(given.items())
            # Mostly so: then the pairs of the dictionary's own list are the answer.
            if len(items) <= limit and _are_plain(items, text):
                return tuple(items), 0
        else:
            # Of a mapping that never ends, too, only so many are looked at.
            items = list(islice(given.items(), limit + 1))
        # Two names may have the same text, so that a later one replaces an earlier one.
        frozen: dict[str, AttributeValue] = {}
        for name, value in items[:limit]:
            if type(name) is str and name.isascii() and len(name) <= text:
                key = name
            else:
                # Of a member of an enumeration of texts, its value, as of one that is the value of an attribute.
                key = cut(name if issubclass(type(name), str) else text_of(name), text)
            # Most values are short texts: a call for each would take longer than all the rest.
            is_plain = type(value) is str and len(value) <= text and value.isascii()
            frozen[key] = value if is_plain else freeze(value, text)
    except BaseException:  # noqa: BLE001  # a foreign mapping must not fail the operation that the span measures
        return (), 1
    return tuple(frozen.items()), max(0, len(items) - limit)


def plain_copy(attributes: object, limit: int, text: int) -> dict[str, AttributeValue] | None:
    """A copy of a dictionary of at most ``limit`` attributes that need not be frozen; ``None`` of anything else."""
    if cast(object, type(attributes)) is not dict:
        return None
    copy = cast("dict[str, AttributeValue]", attributes).copy()
    return copy if 0 < len(copy) <= limit and _are_plain(copy.items(), text) else None


def _are_plain(items: Iterable[tuple[object, Any]], text: int) -> bool:
    """Whether all names are short texts, and all values short texts, numbers that fit, or booleans."""
    for name, value in items:
        if type(name) is not str or len(name) > text or not name.isascii():
            return False
        kind = cast(object, type(value))
        if kind is str:
            if len(value) > text or not value.isascii():
                return False
        elif kind is int:
            if not _LEAST <= value <= _MOST:
                return False
        elif kind is not float and kind is not bool:
            return False
    return True


def freeze(value: object, limit: int = _DEFAULT.text) -> AttributeValue:
    """One value: a text is cut, a sequence becomes a tuple of one kind, anything else becomes text. Never raises."""
    try:
        return _freeze(value, limit)
    except BaseException:  # noqa: BLE001  # of a class that pretends to be another one, for example
        return f"<{type_name(type(value))} that cannot be shown>"


def repair(span: object) -> None:
    """Replace what was assigned to a field of a span and is no integer of its size, or no text."""
    for name, (bits, instead) in _INTEGER_FIELDS.items():
        value = getattr(span, name)
        if type(value) is not int or not 0 <= value < 1 << bits:
            setattr(span, name, instead)
    for name in ("correlation_id", "causation_id"):
        if getattr(span, name) is not None:
            setattr(span, name, text_of(getattr(span, name)))
    setattr(span, "tracestate", "")  # noqa: B010  # any object with these fields


def choose(value: object, choices: Mapping[str, ChoiceT]) -> ChoiceT | None:
    """The choice that ``value`` names, in upper or lower case; ``None`` when it names none. Never raises."""
    return choices.get(text_of(value).lower())


def _freeze(value: Any, limit: int) -> AttributeValue:
    kind = cast(object, type(value))
    if kind is str:
        return cut(value, limit)
    if kind is bool or kind is float:
        return cast(AttributeValue, value)
    if kind is int:
        return value if value in INTEGERS else text_of(value, limit)
    if kind is tuple or kind is list:
        return _freeze_sequence(value[:limit], limit)
    # Subclasses may have changed every method, so the value is taken by those of the plain type.
    if isinstance(value, str):
        return cut(value, limit)
    if isinstance(value, int):
        return _freeze(int.__int__(value), limit)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (tuple, list)):
        return _freeze_sequence(list(islice(cast("list[Any]", value), limit)), limit)
    if isinstance(value, (bytes, bytearray)):
        return text_of(bytes(value[:limit]), limit)
    if isinstance(value, (dict, set, frozenset)) and (size := len(cast("set[Any]", value))) > _LARGEST_SHOWN:
        return f"<{type_name(type(cast(object, value)))} of {size} items>"
    return text_of(cast(object, value), limit)


def _freeze_sequence(items: Any, limit: int) -> AttributeValue:
    # A sequence inside a sequence becomes text, as OpenTelemetry's attributes have one level.
    frozen = [text_of(cast(object, item), limit) if isinstance(item, (tuple, list)) else _freeze(item, limit) for item in items]
    for kind in _KINDS:
        if all(type(item) is kind for item in frozen):
            return cast(AttributeValue, tuple(frozen))
    return tuple(text_of(item, limit) for item in frozen)


def plain_link(context: TraceContext, attributes: object, dropped: int, limits: SpanLimits) -> SpanLink:
    """A link whose attributes are plain and bounded; ``dropped`` of them are left out already."""
    if type(attributes) is tuple and not attributes:
        return SpanLink(context)
    try:
        items: object = dict(cast(Any, attributes))
    except BaseException:  # noqa: BLE001  # a link of attributes that are no pairs is still a link
        return SpanLink(context, (), dropped + 1)
    frozen, left_out = freeze_and_count(items, limits.link_attributes, limits.text)
    return SpanLink(context, frozen, dropped + left_out)
