"""The identity of a span across processes, as in W3C Trace Context (https://www.w3.org/TR/trace-context/), and its ids."""

from __future__ import annotations

import os
import random
import re
from typing import Any, Final, Protocol, final

import msgspec

from eventcore.errors import InvalidInput
from eventcore.ground import around_fork, shown

_SAMPLED: Final = 0x01
# A future version may append fields after another dash; version ff is invalid, and version 00 has exactly four fields.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
# Section 3.3.1.5 of the standard: vendors must propagate at least 512 characters.
_MAX_TRACESTATE: Final = 512
_PRINTABLE: Final = re.compile(r"[\t\x20-\x7e]*")
_FLAGS: Final = tuple(f"{flags:02x}" for flags in range(256))


def traceparent_of(trace_id: int, span_id: int, trace_flags: int) -> str:
    """The text of the header, in version 00."""
    # Going through bytes takes a third of the time of formatting such large integers.
    return f"00-{trace_id.to_bytes(16, 'big').hex()}-{span_id.to_bytes(8, 'big').hex()}-{_FLAGS[trace_flags]}"


@final
class TraceContext(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Trace id (128 bits), span id (64 bits), flags and ``tracestate`` of one span.

    Attributes:
        trace_id: 128 bits, not 0 for a valid context.
        span_id: 64 bits, not 0 for a valid context.
        trace_flags: 8 bits; bit 0 says that the trace is sampled.
        tracestate: dropped when it is over 512 characters long or not printable ASCII.
        is_remote: whether the span belongs to another process: the headers of a request or a message named it. Two contexts
            that differ only in this are equal, because they name the same span.

    Raises:
        InvalidInput: an id or the flags are out of range, or ``tracestate`` is no ``str``.

    >>> context = TraceContext.from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    >>> context.sampled, hex(context.span_id), context.is_remote
    (True, '0xf067aa0ba902b7', True)
    >>> context.traceparent
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    """

    trace_id: int
    span_id: int
    trace_flags: int = 0
    tracestate: str = ""
    is_remote: bool = False

    def __post_init__(self) -> None:
        # Exact types: what is accepted here is encoded later, by exporters that trust these values.
        if not (
            type(self.trace_id) is type(self.span_id) is type(self.trace_flags) is int
            and 0 <= self.trace_id < 1 << 128
            and 0 <= self.span_id < 1 << 64
            and 0 <= self.trace_flags < 256
        ):
            raise InvalidInput(
                f"trace_id={shown(self.trace_id)}, span_id={shown(self.span_id)}, trace_flags={shown(self.trace_flags)}; "
                "expected ints of 128, 64 and 8 bits"
            )
        if self.tracestate and not _fits_header(self.tracestate):
            if not isinstance(self.tracestate, str):
                raise InvalidInput(f"tracestate={shown(self.tracestate)}; expected a str")
            # As the standard asks: the ids still count.
            msgspec.structs.force_setattr(self, "tracestate", "")

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        if type(other) is not TraceContext:
            return NotImplemented
        return (
            self.span_id == other.span_id
            and self.trace_id == other.trace_id
            and self.trace_flags == other.trace_flags
            and self.tracestate == other.tracestate
        )

    def __hash__(self) -> int:
        return hash((self.trace_id, self.span_id))

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded where it began."""
        return bool(self.trace_flags & _SAMPLED)

    @property
    def valid(self) -> bool:
        """Whether this names a span: ids of 0 are reserved for "none"."""
        return self.trace_id != 0 and self.span_id != 0

    @property
    def traceparent(self) -> str:
        """The header's text, in version 00."""
        return traceparent_of(self.trace_id, self.span_id, self.trace_flags)

    @classmethod
    def from_traceparent(cls, traceparent: str, tracestate: str = "") -> TraceContext | None:
        """Read the two headers; ``None`` when ``traceparent`` is malformed, as the standard asks.

        A ``tracestate`` that is over 512 characters long or not printable is dropped; ``traceparent`` still counts.
        """
        is_text = isinstance(traceparent, str) and len(traceparent) <= 1024
        match = _TRACEPARENT.fullmatch(traceparent) if is_text else None
        if match is None or (match[1] == "00" and match[5]):
            return None
        trace_id, span_id = int(match[2], 16), int(match[3], 16)
        if not trace_id or not span_id:
            return None
        if not _fits_header(tracestate):
            tracestate = ""
        return cls(trace_id, span_id, int(match[4], 16), tracestate, is_remote=True)


def _fits_header(tracestate: object) -> bool:
    return type(tracestate) is str and len(tracestate) <= _MAX_TRACESTATE and _PRINTABLE.fullmatch(tracestate) is not None


class IdGenerator:
    """Random ids from a Mersenne Twister that the operating system seeds, once more in each forked child.

    ``random.Random`` is enough: ids must be unique, not secret.

    Attributes:
        bits: called with a number of bits, it returns an integer of that many random bits.
    """

    __slots__ = ("__weakref__", "bits")

    def __init__(self) -> None:
        self._seed()
        around_fork(self, after_in_child=IdGenerator._seed)

    def _seed(self) -> None:
        self.bits = random.Random(os.urandom(64)).getrandbits

    def hex32(self) -> str:
        """128 bits as 32 lower-case hexadecimal digits."""
        return self.bits(128).to_bytes(16, "big").hex()


class AmbientContext(Protocol):
    """The current span of another tracing system. None of its methods raises, and each takes about a microsecond.

    ``current`` is asked when a span begins. ``attach`` and ``detach`` surround the code that runs for a span of eventcore
    in a task or thread whose current span is another one (see ``Span.enter``).

    Attributes:
        may_be_unused: whether ``in_use`` must be asked before ``attach``.
    """

    may_be_unused: bool

    def current(self) -> TraceContext | None:
        """The span that is current there."""
        ...

    def in_use(self) -> bool:
        """Whether ``attach`` would do anything, here and now."""
        ...

    def attach(self, context: TraceContext, own_io: bool) -> object:
        """Make ``context`` current there; ``own_io`` is true around eventcore's own calls to a database.

        With ``own_io``, a context whose ids are 0 names no span: the one that is current there stays.
        """
        ...

    def detach(self, token: Any) -> None:
        """Undo one ``attach``, in the same context."""
        ...
