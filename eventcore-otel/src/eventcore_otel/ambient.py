"""Connects eventcore's spans and OpenTelemetry's, in both directions."""

from __future__ import annotations

from contextvars import Token
from typing import Any, Final, final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from eventcore.exporting import TraceContext

_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001  # the key that instrumentations look up has no public name
SUPPRESSED: Final = {_SUPPRESS: True, "suppress_instrumentation": True}
"""The entries of a context in which instrumented libraries create no spans."""
# Holds the context around the store's own call. What runs for the application inside of it is traced again.
_AROUND: Final = otel_context.create_key("eventcore-own-io")
# Through the runtime: `opentelemetry.context.detach` logs a traceback where a task is left by another one.
_RUNTIME: Final[Any] = otel_context._RUNTIME_CONTEXT  # noqa: SLF001  # as above


@final
class OpenTelemetryContext:
    """The current span of OpenTelemetry, in this task or thread.

    Args:
        always: whether to make eventcore's spans current also where OpenTelemetry is not in use: no
            provider is set for the whole process, and no span or baggage is current.
        trace_own_io: whether an instrumented driver traces the store's own calls, which have spans of
            eventcore.
    """

    __slots__ = ("_always", "_last", "_trace_own_io")

    def __init__(self, *, always: bool = False, trace_own_io: bool = False) -> None:
        self._always = always
        self._trace_own_io = trace_own_io
        # The last span that was attached: a command's span is attached at each phase. One assignment replaces both values.
        self._last: tuple[TraceContext | None, NonRecordingSpan] = None, NonRecordingSpan(INVALID_SPAN.get_span_context())

    def current(self) -> TraceContext | None:
        """The trace context of the current OpenTelemetry span; ``None`` when there is no such span."""
        if not _RUNTIME.get_current() or (span := get_current_span()) is INVALID_SPAN:
            return None
        context = span.get_span_context()
        if not context.is_valid:
            return None
        state = context.trace_state
        return TraceContext(
            context.trace_id,
            context.span_id,
            int(context.trace_flags),
            state.to_header() if state else "",
            is_remote=context.is_remote,
        )

    def in_use(self) -> bool:
        """Whether eventcore's spans are made current, here and now."""
        # `get_tracer_provider` would load a provider that a variable names.
        return trace._TRACER_PROVIDER is not None or self._always or bool(_RUNTIME.get_current())  # noqa: SLF001  # as the comment says

    def attach(self, context: TraceContext, own_io: bool) -> Token[Context]:
        """Make a span of eventcore the current one, so that spans of instrumented libraries become its children.

        Within the store's own calls an instrumented driver creates no spans: the store has its own.
        """
        current: Context = _RUNTIME.get_current()
        if own_io and not self._trace_own_io:
            around = Context({**current, **SUPPRESSED, _AROUND: current})
        else:
            found = current.get(_AROUND)
            around = found if isinstance(found, Context) else current
        if context.span_id:
            last, span = self._last
            if last is not context:
                state = TraceState.from_header([context.tracestate]) if context.tracestate else None
                flags = TraceFlags(context.trace_flags)
                span = NonRecordingSpan(SpanContext(context.trace_id, context.span_id, context.is_remote, flags, state))
                self._last = context, span
            around = set_span_in_context(span, around)
        token: Token[Context] = _RUNTIME.attach(around)
        return token

    def detach(self, token: Token[Context]) -> None:
        """Undo an ``attach``; nothing where the code is left in another task than it was entered in."""
        try:  # `suppress` takes longer than the detaching
            _RUNTIME.detach(token)
        except ValueError:
            pass
