"""Reads the current OpenTelemetry span, so that eventcore's spans inside a traced request become children of that request."""

from __future__ import annotations

from opentelemetry.trace import INVALID_SPAN, get_current_span

from eventcore.exporting import TraceContext


def current_trace_context() -> TraceContext | None:
    """The trace context of this task's or thread's current OpenTelemetry span; ``None`` when there is no such span."""
    span = get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    state = context.trace_state
    return TraceContext(context.trace_id, context.span_id, int(context.trace_flags), state.to_header() if state else "")
