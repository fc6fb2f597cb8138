"""Core's settings for one exporter: the table ``[exporters.NAME.pipeline]``."""

from __future__ import annotations

from typing import Annotated, final

import msgspec
from msgspec import Meta

from eventcore.exporting.context import Signal

_LabelName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]*$")]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]


@final
class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often an exporter exports, how much, and how long it may take. Seconds are greater than
    0 and at most 3600.

    Attributes:
        interval: seconds between metrics cycles; ``None``: the exporter's own. A pull exporter has
            none.
        span_interval: seconds after which waiting spans are exported; a full batch is exported at
            once.
        span_queue: how many spans may wait, up to 1,000,000; more are dropped and counted.
        span_batch: the largest number of spans of one cycle, up to 100,000; a cycle that fails is
            tried again with the same ones.
        load_timeout: seconds that importing the plugin may take, and making the exporter, before
            nobody waits for it any longer; it joins when it comes.
        export_timeout: seconds that one hook call may take; after that the exporter is ``stalled``
            until the hook returns.
        max_age: seconds after its first attempt at which a batch of spans is given up, up to a day.
            Until then, and until the queue is full, nothing is lost while a backend is down.
        backoff: seconds before the second attempt; doubles with each further one up to
            ``max_backoff``, with jitter.
        max_backoff: the longest pause between attempts in seconds. A backend may ask for a longer
            one, up to ``max_age``.
        cpu_budget: the share of one processor that converting spans may use, greater than 0 and at
            most 1. Spans beyond it wait, and are dropped when the queue is full.
        signals: which of ``metrics`` and ``spans`` are exported; ``None``: all that the exporter
            takes.
        include: patterns of the instruments that are exported, such as ``eventcore.commands.*``;
            none: all.
        exclude: patterns of instruments that are not exported.
        drop_labels: labels that are left out. Series that differ only in them are merged; the
            series of a gauge cannot be, and keep them, unless it is additive.
        labels: labels with a constant value that every point gets.
        process: whether the exporter runs in a process of its own. Only for an exporter that the
            configuration loads and that exports by itself (see docs/exporters.md).
    """

    interval: _Seconds | None = None
    span_interval: _Seconds = 1.0
    span_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 16_384
    span_batch: Annotated[int, Meta(ge=1, le=100_000)] = 2048
    load_timeout: _Seconds = 2.0
    export_timeout: _Seconds = 10.0
    max_age: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    backoff: _Seconds = 1.0
    max_backoff: _Seconds = 30.0
    cpu_budget: Annotated[float, Meta(gt=0, le=1)] = 0.1
    signals: tuple[Signal, ...] | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    drop_labels: tuple[str, ...] = ()
    labels: dict[_LabelName, str] = {}
    process: bool = False
