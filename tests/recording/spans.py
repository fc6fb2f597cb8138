"""What tests of spans share."""

from __future__ import annotations

from collections.abc import Callable

from eventcore.recording import SpanData, TraceContext, Tracer


class Other:
    """Another tracing system, with the current context that ``asked`` gives."""

    may_be_unused = True

    def __init__(self, asked: Callable[[], TraceContext | None] = lambda: None) -> None:
        self.current = asked
        self.attached: list[tuple[TraceContext, bool]] = []

        self.used = True

    def in_use(self) -> bool:
        return self.used

    def attach(self, context: TraceContext, own_io: bool) -> int:
        self.attached.append((context, own_io))
        return len(self.attached)

    def detach(self, token: int) -> None:
        assert len(self.attached) == token
        self.attached.pop()


def ended(tracer: Tracer) -> list[SpanData]:
    return [span.data() for span in tracer.ring.take_all()]
