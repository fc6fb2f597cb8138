"""What a cycle holds until ``flush``: encoded parts, and which spans an earlier attempt of the same batch has settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from eventcore.exporting import Rejected, SpanData

# Collectors refuse messages above 4 MiB by default. A quarter of it keeps every copy that is made of a request under 1 ms, in
# which no other thread runs (3.5 MiB: over 2 ms), and still holds a full batch of spans of ordinary size.
MAX_REQUEST: Final = 1024 * 1024

SpanKey: TypeAlias = tuple[int, int]
Deliver: TypeAlias = Callable[[bytes, int], Rejected | None]


@dataclass(slots=True)
class Part:
    """Some encoded items: a complete request, that is also a part of a longer one when concatenated with others."""

    encoded: bytes
    count: int
    spans: Sequence[SpanKey] = ()


@dataclass(slots=True)
class Outbox:
    """Collects the parts of one signal's cycle and sends them in requests of bounded size.

    A cycle may need several requests. When a later one fails after an earlier one was answered, the whole batch of spans comes
    again: what was answered is remembered and left out then, so that nothing is sent twice and the answers still count.
    Metrics are totals: sending them again changes nothing.
    """

    _first: object = None
    _parts: list[Part] = field(default_factory=list[Part])
    _settled: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _settled_now: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _refused: list[Rejected] = field(default_factory=list[Rejected])

    def begin(self, first: object) -> None:
        """Note what comes first in a chunk.

        A cycle may end without a flush, when its time is used up. That shows when its first span or series comes again.
        """
        if self._parts and first == self._first:
            self.clear()
        if not self._parts:
            self._first = first

    def hold(self, part: Part) -> None:
        """Keep a part until ``deliver``."""
        self._parts.append(part)

    def unsettled(self, spans: Sequence[SpanData]) -> Sequence[SpanData]:
        """The spans that the backend has not answered for in an earlier attempt."""
        if not self._settled:
            return spans
        rest: list[SpanData] = []
        for span in spans:
            if (key := key_of(span)) in self._settled:
                self._settled_now[key] = None
            else:
                rest.append(span)
        return rest

    def clear(self) -> None:
        """Forget the parts: their cycle has ended without a flush."""
        self._parts = []
        self._settled_now = {}

    def deliver(self, send: Deliver) -> Rejected | None:
        """Send everything; returns what was refused.

        Args:
            send: sends one request with a number of items in it; what it raises ends the cycle and is raised.
        """
        if not self._parts and not self._settled_now:
            return None
        parts, self._parts = self._parts, []
        settled, self._settled_now = self._settled_now, {}
        refused = list(self._refused) if settled else []
        try:
            for request in _requests(parts):
                answer = send(b"".join([part.encoded for part in request]), sum(part.count for part in request))
                if answer is not None:
                    refused.append(answer)
                settled.update((key, None) for part in request for key in part.spans)
        except Exception:
            self._settled, self._refused = settled, refused
            raise
        self._settled, self._refused = {}, []
        if not refused:
            return None
        return Rejected(sum(answer.count for answer in refused), "; ".join(dict.fromkeys(answer.reason for answer in refused)))


def key_of(span: SpanData) -> SpanKey:
    """What tells a span from all others."""
    return span.context.trace_id, span.context.span_id


def _requests(parts: Iterable[Part]) -> Iterator[list[Part]]:
    request: list[Part] = []
    size = 0
    for part in parts:
        if request and size + len(part.encoded) > MAX_REQUEST:
            yield request
            request, size = [], 0
        request.append(part)
        size += len(part.encoded)
    if request:
        yield request
