"""The ambient OpenTelemetry span, so that what eventcore does inside a traced request becomes that request's child."""

from __future__ import annotations

from opentelemetry.trace import INVALID_SPAN, get_current_span

from eventcore.exporting import TraceContext


def current_trace_context() -> TraceContext | None:
    """The trace context of the OpenTelemetry span that is current in this task or thread, ``None`` where there is none."""
    span = get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    state = context.trace_state
    return TraceContext(context.trace_id, context.span_id, int(context.trace_flags), state.to_header() if state else "")
