"""Keeps the encoded items of a cycle until ``flush``, and which spans the backend has answered for in earlier attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from eventcore.exporting import GiveUp, Rejected, Scope, SpanData
from eventcore_otel.encoding import Group
from eventcore_otel.protobuf import delimited, text_field

# Collectors refuse messages above 4 MiB by default. gRPC copies a request several times, and each copy holds the GIL: at 1 MiB
# for less than 1 ms, at 3.5 MiB for more than 2 ms. A full batch of spans of usual size fits into 1 MiB.
MAX_REQUEST: Final = 1024 * 1024
# Tags and lengths of the messages around the items of a part.
_ENVELOPE: Final = 64

SpanKey: TypeAlias = tuple[int, int]
SendRequest: TypeAlias = Callable[[bytes, int], Rejected | None]


@dataclass(slots=True)
class Part:
    """Encoded items that belong together, and go into one request.

    Attributes:
        group: where they belong in a request.
        items: encoded spans or points.
        size: the most bytes that they add to a request.
        count: the number of spans or points.
        spans: the keys of the spans; empty for metrics.
    """

    group: Group
    items: bytes
    size: int
    count: int
    spans: Sequence[SpanKey] = ()


@dataclass(slots=True)
class Outbox:
    """Collects the encoded items of one signal's cycle and sends them in requests of bounded size.

    A cycle may need several requests. When one fails after an earlier one was answered, the
    pipeline passes the whole batch of spans again. The outbox remembers the spans that were
    answered for and leaves them out of the next attempt, so that no span is sent twice and
    rejections of the earlier attempt are still reported. Metrics are cumulative, or the pipeline
    brings the same differences again: their parts have no span keys.

    Only the pipeline's worker thread uses an outbox, one hook at a time.

    Args:
        resource: the encoded resource, which each request has once.
    """

    resource: bytes = b""
    _parts: list[Part] = field(default_factory=list[Part])
    # Spans of this batch that were answered for in an earlier attempt, and those of them that were passed again since.
    _answered: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _answered_again: dict[SpanKey, None] = field(default_factory=dict[SpanKey, None])
    _rejected: list[Rejected] = field(default_factory=list[Rejected])

    def add(self, group: Group, items: Sequence[bytes], spans: Sequence[SpanKey] = ()) -> None:
        """Keep items until ``send_all``, as parts that each fit into a request; an item that does not is a part by itself."""
        envelope = len(_scope(group.scope)) + len(group.metric) + _ENVELOPE
        most = MAX_REQUEST - len(self.resource) - _ENVELOPE - envelope
        begin = size = 0
        for end, item in enumerate(items):
            if size and size + len(item) > most:
                self._add(group, items[begin:end], size + envelope, spans[begin:end])
                begin, size = end, 0
            size += len(item)
        if items:
            self._add(group, items[begin:], size + envelope, spans[begin:])

    def _add(self, group: Group, items: Sequence[bytes], size: int, spans: Sequence[SpanKey]) -> None:
        self._parts.append(Part(group, b"".join(items), size, len(items), spans))

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
        requests, sent = list(self._requests(parts)), 0
        try:
            for request in requests:
                answer = send(self._encode(request), sum(part.count for part in request))
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
        return sum_of(rejected)

    def _requests(self, parts: Sequence[Part]) -> Iterator[list[Part]]:
        """The parts in order, grouped into requests of at most ``MAX_REQUEST`` bytes; a larger part is a request by itself."""
        request: list[Part] = []
        around = len(self.resource) + _ENVELOPE
        size = around
        for part in parts:
            if request and size + part.size > MAX_REQUEST:
                yield request
                request, size = [], around
            request.append(part)
            size += part.size
        if request:
            yield request

    def _encode(self, parts: Sequence[Part]) -> bytes:
        """One request: the resource once, each scope once, each instrument once."""
        scopes: dict[Scope, dict[Group, list[bytes]]] = {}
        for part in parts:
            scopes.setdefault(part.group.scope, {}).setdefault(part.group, []).append(part.items)
        content = [self.resource]
        for scope, groups in scopes.items():
            fields = [_scope(scope), *(group.enclose(b"".join(items)) for group, items in groups.items())]
            content.append(delimited(b"\x12", b"".join(fields)))
        return delimited(b"\x0a", b"".join(content))


def key_of(span: SpanData) -> SpanKey:
    """Trace id and span id, which identify a span."""
    return span.context.trace_id, span.context.span_id


def sum_of(rejected: Sequence[Rejected]) -> Rejected | None:
    """Several refusals as one; ``None`` when there is none."""
    if not rejected:
        return None
    return Rejected(sum(answer.count for answer in rejected), "; ".join(dict.fromkeys(answer.reason for answer in rejected)))


def _scope(scope: Scope) -> bytes:
    """The fields of a ``ScopeSpans`` or ``ScopeMetrics`` message that name its scope."""
    named = text_field(b"\x0a", scope.name) + text_field(b"\x12", scope.version)
    return delimited(b"\x0a", named) + text_field(b"\x1a", scope.schema_url)
