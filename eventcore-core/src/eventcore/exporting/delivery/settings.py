"""Core's settings for one exporter: the table ``[exporters.NAME.pipeline]``."""

from __future__ import annotations

from typing import Annotated, final

import msgspec
from msgspec import Meta

_Seconds = Annotated[float, Meta(gt=0, le=3600)]


@final
class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often, how much and how long.

    Attributes:
        interval: seconds between metrics cycles; left out, the exporter's own. A pull exporter takes none.
        span_interval: seconds after which waiting spans are exported; a full chunk goes at once.
        span_queue: spans that may wait; more are dropped and counted.
        span_batch: the most spans of one cycle, which is what is sent again when it fails.
        export_timeout: seconds that one hook call may take; later the exporter is ``stalled`` until it returns.
        max_attempts: how often a cycle is tried before its batch is given up.
        backoff: seconds before the second attempt; doubled each time up to ``max_backoff``, with jitter.
        max_backoff: the longest wait between attempts, also when a backend asks for a longer one.
        cpu_budget: the share of one processor that converting spans may use; what exceeds it waits, and is dropped when
            the queue is full.
    """

    interval: _Seconds | None = None
    span_interval: _Seconds = 1.0
    span_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 16_384
    span_batch: Annotated[int, Meta(ge=1, le=100_000)] = 2048
    export_timeout: _Seconds = 10.0
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 5
    backoff: _Seconds = 1.0
    max_backoff: _Seconds = 30.0
    cpu_budget: Annotated[float, Meta(gt=0, le=1)] = 0.1
