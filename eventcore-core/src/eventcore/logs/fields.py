"""The fields of the running operation, for standard ``logging`` and for structlog."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final

from eventcore.recording import Recorder, Tracer, innermost

# What `logging` sets itself.
_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
# What a format string may name must be in each record.
_ALWAYS: Final = {"trace_id": "", "span_id": "", "trace_flags": ""}


def current_fields(telemetry: Recorder | None = None) -> dict[str, str]:
    """The fields of the innermost span of this task or thread; none where no span is current."""
    span = Tracer.current()
    context = innermost() if telemetry is None else telemetry.current_context()
    fields: dict[str, str] = {}
    if context is not None:
        fields["trace_id"] = f"{context.trace_id:032x}"
        fields["span_id"] = f"{context.span_id:016x}"
        fields["trace_flags"] = f"{context.trace_flags:02x}"
    if span is None:
        return fields
    if span.correlation_id is not None:
        fields["eventcore.correlation_id"] = span.correlation_id
    if span.causation_id is not None:
        fields["eventcore.causation_id"] = span.causation_id
    if span.log_fields is not None:
        fields.update(span.log_fields)
    return fields


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record that ``logging`` does not set itself; empty ones are left out."""
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD and not is_empty(value)}


def is_empty(value: Any) -> bool:
    """Whether a field says nothing. Values are not compared: what ``==`` of some types returns is no bool, or raises."""
    return value is None or (type(value) is str and not value)


class TraceContextFilter(logging.Filter):
    """Adds the fields of the running operation to each record. Add it to handlers: a logger's filter sees only its own records.

    A record always has ``trace_id``, ``span_id`` and ``trace_flags``, empty where no span is current, so that a format string
    may name them. The other fields are there when they are known. Fields that a record has already (by ``extra=``) stay.

    Args:
        telemetry: where spans of another tracing system, such as OpenTelemetry's SDK, count too: the telemetry (a store's is
            ``store.telemetry``) with the exporter that connects it. Without it, they count inside spans of eventcore only.

    >>> import logging, sys
    >>> from eventcore import Telemetry
    >>> handler = logging.StreamHandler(sys.stdout)
    >>> handler.addFilter(TraceContextFilter())
    >>> handler.setFormatter(logging.Formatter("%(message)s trace_id=%(trace_id)s"))
    >>> logger = logging.Logger("shop")
    >>> logger.addHandler(handler)
    >>> logger.info("no span here")
    no span here trace_id=
    >>> with Telemetry(exporters="none", config={}).span("ship order"):
    ...     logger.info("shipped")
    shipped trace_id=...
    """

    def __init__(self, telemetry: Recorder | None = None) -> None:
        super().__init__()
        self._telemetry = telemetry

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        known = record.__dict__
        for name, value in (_ALWAYS | current_fields(self._telemetry)).items():
            if name not in known:
                known[name] = value
        return True


def add_trace_context(
    logger: Any,  # noqa: ARG001  # structlog passes three arguments
    method_name: str,  # noqa: ARG001
    event_dict: MutableMapping[str, Any],
    *,
    telemetry: Recorder | None = None,
) -> MutableMapping[str, Any]:
    """Add the fields of the running operation to an event of structlog; a processor. Fields that are there already stay.

    Args:
        logger, method_name: given by structlog, not used.
        event_dict: the event, which is changed and returned.
        telemetry: as for ``TraceContextFilter``: ``functools.partial(add_trace_context, telemetry=store.telemetry)``.

    >>> add_trace_context(None, "info", {"event": "no span here"})
    {'event': 'no span here'}
    """
    for name, value in current_fields(telemetry).items():
        event_dict.setdefault(name, value)
    return event_dict
