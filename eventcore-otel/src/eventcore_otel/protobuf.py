"""The wire format of protobuf (https://protobuf.dev/programming-guides/encoding/), as far as OTLP needs it."""

from __future__ import annotations

from struct import Struct
from typing import Final

from eventcore.exporting import AttributeValue

_DOUBLE: Final = Struct("<d")
_INT64: Final = range(-(2**63), 2**63)
_LARGEST_UINT32: Final = 2**32 - 1
_LARGEST_UINT64: Final = 2**64 - 1


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


VARINTS: Final = tuple(map(_varint, range(4096)))
"""The numbers that nearly all lengths are, for loops where a call of ``varint`` would take longer than the rest."""


def varint(number: int) -> bytes:
    """A number of 0 or more."""
    return VARINTS[number] if number < len(VARINTS) else _varint(number)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field of variable length: a text, bytes or a message."""
    return b"".join((tag, varint(len(content)), content))


def text(value: str) -> bytes:
    """A text in UTF-8. A lone surrogate, which UTF-8 does not have, is written as an escape, so that two texts stay apart."""
    return value.encode("utf-8", "backslashreplace")


def text_field(tag: bytes, value: str) -> bytes:
    """A field that holds a text; nothing when it is empty."""
    return delimited(tag, text(value)) if value else b""


def count_field(tag: bytes, value: int) -> bytes:
    """A field of type ``uint32``; nothing when it is 0. The largest such number stands for all above it."""
    return tag + varint(min(value, _LARGEST_UINT32)) if value > 0 else b""


def timestamp(nanoseconds: int) -> int:
    """The nearest time that fits into 64 bits without a sign."""
    return min(max(0, nanoseconds), _LARGEST_UINT64)


def key_field(name: str) -> bytes:
    """The field of a ``KeyValue`` that holds the name of an attribute."""
    return delimited(b"\x0a", text(name))


def key_value(tag: bytes, name: str, value: AttributeValue) -> bytes:
    """A field that holds a ``KeyValue``: one attribute."""
    return with_value(tag, key_field(name), value)


def with_value(tag: bytes, key: bytes, value: AttributeValue) -> bytes:
    """The same, of the field that ``key_field`` has made."""
    return delimited(tag, key + delimited(b"\x12", _any_value(value)))


def with_text(tag: bytes, key: bytes, value: str) -> bytes:
    """The same for a text. Written out, because texts that are new each time are the largest part of what a span costs."""
    content = value.encode("utf-8", "backslashreplace")
    size, around = len(content), len(key)
    if size + around <= 123:  # then each of the three lengths is one byte
        return b"".join((tag, VARINTS[around + size + 4], key, b"\x12", VARINTS[size + 2], b"\x0a", VARINTS[size], content))
    return delimited(tag, key + delimited(b"\x12", delimited(b"\x0a", content)))


def _any_value(value: AttributeValue) -> bytes:
    if isinstance(value, str):
        return delimited(b"\x0a", text(value))
    if isinstance(value, bool):  # before the test for int: bool is a subclass of int
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        # Negative numbers are written as their two's complement of 64 bits. A larger number becomes a text.
        return b"\x18" + _varint(value & _LARGEST_UINT64) if value in _INT64 else delimited(b"\x0a", text(str(value)))
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    return delimited(b"\x2a", b"".join([delimited(b"\x0a", _any_value(item)) for item in value]))
