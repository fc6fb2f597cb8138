"""Keeps the encoded chunks of a cycle until ``flush``, and which spans the backend has answered for in earlier attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from eventcore.exporting import GiveUp, Rejected, SpanData

# Collectors refuse messages above 4 MiB by default. gRPC copies a request several times, and each copy holds the GIL: at 1 MiB
# for less than 1 ms, at 3.5 MiB for more than 2 ms. A full batch of spans of usual size fits into 1 MiB.
MAX_REQUEST: Final = 1024 * 1024

SpanKey: TypeAlias = tuple[int, int]
SendRequest: TypeAlias = Callable[[bytes, int], Rejected | None]


@dataclass(slots=True)
class Part:
    """An encoded chunk.

    Attributes:
        encoded: a complete OTLP request. Concatenated with others it is one larger request.
        count: the number of its spans or data points.
        spans: the keys of its spans; empty for metrics.
    """

    encoded: bytes
    count: int
    spans: Sequence[SpanKey] = ()


@dataclass(slots=True)
class Outbox:
    """Collects the encoded chunks of one signal's cycle and sends them in requests of bounded size.

    A cycle may need several requests. When one fails after an earlier one was answered, the
    pipeline passes the whole batch of spans again. The outbox remembers the spans that were
    answered for and leaves them out of the next attempt, so that no span is sent twice and
    rejections of the earlier attempt are still reported. Metrics are cumulative: sending them again
    is harmless, and their parts have no span keys.

    Only the pipeline's worker thread uses an outbox, one hook at a time.
    """

    _parts: list[Part] = field(default_factory=list[Part])
    # Spans of this batch that were answered for in an earlier attempt, and those of them that were passed again since.
    _answered: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _answered_again: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _rejected: list[Rejected] = field(default_factory=list[Rejected])

    def add(self, part: Part) -> None:
        """Keep a part until ``send_all``."""
        self._parts.append(part)

    def without_answered(self, spans: Sequence[SpanData]) -> Sequence[SpanData]:
        """The spans of a chunk that the backend has not answered for in an earlier attempt."""
        if not self._answered:
            return spans
        unanswered: list[SpanData] = []
        for span in spans:
            if (key := key_of(span)) in self._answered:
                self._answered_again[key] = None
            else:
                unanswered.append(span)
        return unanswered

    def clear(self) -> None:
        """Drop the parts of a cycle that has ended without ``flush``."""
        self._parts = []
        self._answered_again = {}

    def send_all(self, send: SendRequest) -> Rejected | None:
        """Send all parts.

        Args:
            send: sends one request with a number of items. Any exception that it raises ends this
                attempt and is raised.

        Returns:
            What the backend rejected in this and in earlier attempts of the batch; ``None`` if it
            accepted everything.
        """
        if not self._parts and not self._answered_again:
            return None
        parts, self._parts = self._parts, []
        answered, self._answered_again = self._answered_again, {}
        # Without a span in common, the answers that are remembered belong to an older batch.
        rejected = list(self._rejected) if answered else []
        requests, sent = list(_requests(parts)), 0
        try:
            for request in requests:
                answer = send(b"".join([part.encoded for part in request]), sum(part.count for part in request))
                if answer is not None:
                    rejected.append(answer)
                answered.update((key, None) for part in request for key in part.spans)
                sent += 1
        except GiveUp as error:
            if not sent and not answered:
                raise
            # What was answered before stays answered: only the other spans or points are refused.
            rejected.append(Rejected(sum(part.count for request in requests[sent:] for part in request), error.reason))
        except Exception:
            self._answered, self._rejected = answered, rejected
            raise
        self._answered, self._rejected = {}, []
        if not rejected:
            return None
        return Rejected(
            sum(answer.count for answer in rejected), "; ".join(dict.fromkeys(answer.reason for answer in rejected))
        )


def key_of(span: SpanData) -> SpanKey:
    """Trace id and span id, which identify a span."""
    return span.context.trace_id, span.context.span_id


def _requests(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts in order, grouped into requests of at most ``MAX_REQUEST`` bytes; a larger part is a request by itself."""
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
