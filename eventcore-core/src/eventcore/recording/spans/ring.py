"""The ring of ended spans, and the current span of a task or thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from eventcore.recording.attributes import SpanLimits
from eventcore.recording.trace_context import AmbientContext, TraceContext

if TYPE_CHECKING:
    from eventcore.recording.spans.span import Span

_RING_SIZE: Final = 65_536
_NO_SPAN: Final = TraceContext(0, 0)
_NO_OWN_IO: Final = nullcontext()

# Global, because PEP 567 wants context variables at module level: values of other ones may never be freed.
_current: Final[ContextVar[Span | None]] = ContextVar("eventcore_current_span", default=None)


class SpanRing:
    """Ended spans that wait to be distributed to the exporters, at most ``capacity``; further ones are dropped and counted.

    Attributes:
        limits: the most that one span keeps.
        attached: the tracing systems in which commands and handlers make their span current. The tuple is replaced as a whole,
            so that reading it needs no lock.
        only: the one of them when there is just one, and no other system is asked for its span; else ``None``.
        ignored: how many attributes, events and others came after the end of their span.
        is_shared: whether several exporters take the spans, so that the frozen value of each is made once for all of them.
    """

    __slots__ = (
        "attached",
        "capacity",
        "dropped",
        "ignored",
        "is_shared",
        "limits",
        "max_attributes",
        "max_text",
        "only",
        "spans",
    )

    def __init__(self, capacity: int = _RING_SIZE, limits: SpanLimits | None = None) -> None:
        self.capacity = capacity
        self.spans: deque[Span] = deque()
        self.dropped = 0
        self.ignored = 0
        self.is_shared = False
        self.limits = limits or SpanLimits()
        # One look-up instead of two where an attribute is set.
        self.max_attributes, self.max_text = self.limits.attributes, self.limits.text
        self.attached: tuple[AmbientContext, ...] = ()
        self.only: AmbientContext | None = None

    def own_io(self) -> AbstractContextManager[None]:
        """Around eventcore's own calls to a database that have no span: an instrumented driver need not trace them."""
        return _OwnIo(self.attached) if self.attached else _NO_OWN_IO

    def take_all(self) -> list[Span]:
        """Every span that has been appended, oldest first."""
        spans = self.spans
        return [spans.popleft() for _ in range(len(spans))]


@final
class _OwnIo:
    """See ``SpanRing.own_io``. Entered and left in the same task or thread."""

    __slots__ = ("_attached", "_tokens")

    def __init__(self, attached: Sequence[AmbientContext]) -> None:
        self._attached = attached

    def __enter__(self) -> None:
        current = _current.get()
        context = _NO_SPAN if current is None or not current.trace_id else current.context
        self._tokens = [
            (each, each.attach(context, True)) for each in self._attached if not each.may_be_unused or each.in_use()
        ]

    def __exit__(self, *_: object) -> None:
        for other, token in reversed(self._tokens):
            other.detach(token)
