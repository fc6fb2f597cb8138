"""The names of series: those that Prometheus gets from the catalogue, and those that an expression uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from eventcore.catalogue.declaring import Counter, Histogram, Metric

# The one entry of the rename table, and the words for units; the frozen contract and the page itself are compared in `live`.
_RENAMED: Final = {"commands.duration": "command.duration"}
_UNITS: Final = {"s": "_seconds", "By": "_bytes"}
# Of the plugin for Prometheus itself, which are not in core's catalogue.
PLUGIN: Final = frozenset(
    {
        "eventcore_exporters_worker_up",
        "eventcore_prometheus_scrapes_total",
        "eventcore_prometheus_scrape_duration_seconds_bucket",
        "eventcore_prometheus_scrape_duration_seconds_count",
        "eventcore_prometheus_page_size_bytes",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "python_gc_collections_total",
    }
)


def page_names(metrics: Iterable[Metric[Any]]) -> set[str]:
    """The names of the series of ``metrics`` on the page for Prometheus, and those of its plugin."""
    found = set(PLUGIN)
    for metric in metrics:
        base = "eventcore_" + _RENAMED.get(metric.name, metric.name).replace(".", "_")
        unit = _UNITS.get(metric.unit, "")
        if isinstance(metric, Histogram):
            found |= {f"{base}{unit}{suffix}" for suffix in ("_bucket", "_count", "_sum")}
        elif isinstance(metric, Counter):
            found.add(f"{base.removesuffix('_total')}{unit}_total")
        else:
            found.add(base + unit)
    return found


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics that an expression in PromQL uses."""
    without_texts = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:eventcore|process|python)[\w:]+|\bup(?=\{)", without_texts))
