"""Logs that can be joined to traces: fields for ``logging`` and structlog, and a configuration for a service without one.

``TraceContextFilter`` and ``add_trace_context`` add the fields of the operation that is running:

- ``trace_id``, ``span_id``, ``trace_flags``: in hexadecimal digits, under the names that OpenTelemetry specifies for logs that
  are not OTLP (https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/).
- ``eventcore.correlation_id``, ``eventcore.causation_id``: as given to ``execute``, or inherited.
- ``eventcore.store``, and ``eventcore.command.type`` or ``eventcore.projection``.

They are there inside ``Command.handle``, ``apply`` and ``discover_streams``, inside handlers of projections, inside
``telemetry.span``, in tasks and threads that take the context along, and in the records that eventcore itself writes there.

The ids are those of the innermost span. Spans of another tracing system that an exporter connects, such as OpenTelemetry's SDK,
count inside spans of eventcore; with the argument ``telemetry=`` (of all three) they count everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcore.ground import when_used
from eventcore.logs.masking import MaskFilter, mask_secrets

if TYPE_CHECKING:
    from eventcore.logs.configuring import configure
    from eventcore.logs.fields import TraceContextFilter, add_trace_context

__all__ = ["MaskFilter", "TraceContextFilter", "add_trace_context", "configure", "mask_secrets"]

# The store itself needs only the masking.
__getattr__ = when_used(
    __name__,
    configure="eventcore.logs.configuring",
    TraceContextFilter="eventcore.logs.fields",
    add_trace_context="eventcore.logs.fields",
)
