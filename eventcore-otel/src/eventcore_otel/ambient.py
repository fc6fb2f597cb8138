"""Connects eventcore's spans and OpenTelemetry's, in both directions."""

from __future__ import annotations

from contextvars import Token
from typing import Any, Final, final

from opentelemetry import context as otel_context
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
_SUPPRESSED: Final = {_SUPPRESS: True, "suppress_instrumentation": True}
# Through the runtime: `opentelemetry.context.detach` logs a traceback where a task is left by another one.
_RUNTIME: Final[Any] = otel_context._RUNTIME_CONTEXT  # noqa: SLF001  # as above


@final
class OpenTelemetryContext:
    """The current span of OpenTelemetry, in this task or thread."""

    def current(self) -> TraceContext | None:
        """The trace context of the current OpenTelemetry span; ``None`` when there is no such span."""
        span = get_current_span()
        if span is INVALID_SPAN:
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

    def attach(self, context: TraceContext, own_io: bool) -> Token[Context]:
        """Make a span of eventcore the current one, so that spans of instrumented libraries become its children.

        Within the store's own calls an instrumented driver creates no spans: the store has its own.
        """
        state = TraceState.from_header([context.tracestate]) if context.tracestate else None
        span = NonRecordingSpan(
            SpanContext(context.trace_id, context.span_id, context.is_remote, TraceFlags(context.trace_flags), state)
        )
        # One copy of the context for both keys: `set_value` copies it for each.
        around = Context({**otel_context.get_current(), **_SUPPRESSED}) if own_io else None
        token: Token[Context] = _RUNTIME.attach(set_span_in_context(span, around))
        return token

    def detach(self, token: Token[Context]) -> None:
        """Undo an ``attach``; nothing where the code is left in another task than it was entered in."""
        try:  # `suppress` takes longer than the detaching
            _RUNTIME.detach(token)
        except ValueError:
            pass
