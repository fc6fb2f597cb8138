"""Connects eventcore's spans and OpenTelemetry's, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any, Final, final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace import propagation as otel_propagation
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from eventcore.exporting import TraceContext

_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001  # the key that instrumentations look up has no public name
SUPPRESSED: Final = {_SUPPRESS: True, "suppress_instrumentation": True}
"""The entries of a context in which instrumented libraries create no spans."""
# Holds the context around the store's own call. What runs for the application inside of it is traced again.
_AROUND: Final = otel_context.create_key("eventcore-own-io")
# `get_current_span` and `set_span_in_context` take three times as long as the look-up and the copy in them.
_SPAN: Final = otel_propagation._SPAN_KEY  # noqa: SLF001  # as above
# Past `Context.__setitem__`, which refuses every change: here it is of a copy that nothing else has yet.

_put: Final = dict[str, object].__setitem__
_new: Final = object.__new__
_FLAGS: Final = tuple(TraceFlags(flags) for flags in range(256))
# Through the runtime: `opentelemetry.context.detach` logs a traceback where a task is left by another one.
_RUNTIME: Final[Any] = otel_context._RUNTIME_CONTEXT  # noqa: SLF001  # as above
# Where it is the usual one, through its variable: the calls of the runtime take as long again.
_VARIABLE: Final = _RUNTIME._current_context if type(_RUNTIME) is ContextVarsRuntimeContext else None  # noqa: SLF001  # as above
_get: Final[Callable[[], Context]] = _RUNTIME.get_current if _VARIABLE is None else _VARIABLE.get
_set: Final[Callable[[Context], Token[Context]]] = _RUNTIME.attach if _VARIABLE is None else _VARIABLE.set
_reset: Final[Callable[[Token[Context]], None]] = _RUNTIME.detach if _VARIABLE is None else _VARIABLE.reset


@final
class CurrentSpan(NonRecordingSpan):
    """A span of eventcore as OpenTelemetry sees it. Its ``SpanContext`` is made when something asks for it: most never do."""

    of: TraceContext

    def get_span_context(self) -> SpanContext:
        context = self.of
        state = TraceState.from_header([context.tracestate]) if context.tracestate else None
        return SpanContext(context.trace_id, context.span_id, context.is_remote, _FLAGS[context.trace_flags], state)

    def __repr__(self) -> str:
        return f"CurrentSpan({self.of!r})"


@final
class OpenTelemetryContext:
    """The current span of OpenTelemetry, in this task or thread.

    Args:
        always: whether to make eventcore's spans current also where OpenTelemetry is not in use: no
            provider is set for the whole process, and no span or baggage is current.
        trace_own_io: whether an instrumented driver traces the store's own calls, which have spans of
            eventcore.
    """

    __slots__ = ("_always", "_trace_own_io")

    def __init__(self, *, always: bool = False, trace_own_io: bool = False) -> None:
        self._always = always
        self._trace_own_io = trace_own_io

    def current(self) -> TraceContext | None:
        """The trace context of the current OpenTelemetry span; ``None`` when there is no such span."""
        span: Any = _get().get(_SPAN)
        if span is None:
            return None
        if type(span) is CurrentSpan:
            own: TraceContext = span.of
            return own
        try:
            trace_id, span_id, is_remote, flags, state, is_valid = span.get_span_context()
        except (AttributeError, TypeError, ValueError):
            # An object that is no span. To ask `isinstance` takes longer than all of this, because the class is abstract.
            return None
        if not is_valid:
            return None
        header = "" if state is DEFAULT_TRACE_STATE else state.to_header()
        # `flags & 0xFF` is a plain integer; OpenTelemetry's are of a class of its own.
        return TraceContext(trace_id, span_id, flags & 0xFF, header, is_remote)

    def in_use(self) -> bool:
        """Whether eventcore's spans are made current, here and now."""
        # `get_tracer_provider` would load a provider that a variable names.
        return trace._TRACER_PROVIDER is not None or self._always or bool(_get())  # noqa: SLF001  # as the comment says

    def attach(self, context: TraceContext, own_io: bool) -> Token[Context]:
        """Make a span of eventcore the current one, so that spans of instrumented libraries become its children.

        Within the store's own calls an instrumented driver creates no spans: the store has its own.
        """
        current = _get()
        if own_io and not self._trace_own_io:
            around = Context(current)
            for key, value in SUPPRESSED.items():
                _put(around, key, value)
            _put(around, _AROUND, current)
        else:
            found: Any = current.get(_AROUND)
            around = Context(current if found is None else found)
        if context.span_id:
            # Past `__init__`, which would be a call for each span.
            span: Any = _new(CurrentSpan)
            span.of = context
            _put(around, _SPAN, span)
        return _set(around)

    def detach(self, token: Token[Context]) -> None:
        """Undo an ``attach``; nothing where the code is left in another task than it was entered in."""
        try:  # `suppress` takes longer than the detaching
            _reset(token)
        except ValueError:
            pass
