"""The page for a person: one file without any other host, and the figures of this process that it shows."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final, final

import msgspec

from eventcore.ground import own_logger
from eventcore.health.monitor import HealthMonitor
from eventcore.recording.values import HistogramPoint, NumberPoint
from eventcore.version import __version__

# Seconds for which figures are kept: many open pages are no load.
_KEEP: Final = 0.9
_COLLECT_TIMEOUT: Final = 2.0
_HEALTH_TIMEOUT: Final = 1.0
_MAX_TYPES: Final = 50
_PREFIX: Final = "eventcore."
_logger: Final = own_logger(__name__)


def page() -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The page, and headers that forbid it everything but its own style, its own script and its own figures."""
    text = files("eventcore.health").joinpath("page.html").read_text(encoding="utf-8")
    sources = {tag: _sha256(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)) for tag in ("style", "script")}
    policy = (
        f"default-src 'none'; style-src {sources['style']}; script-src {sources['script']}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), (("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer"))


def _sha256(found: re.Match[str] | None) -> str:
    assert found is not None, "page.html has one style and one script"
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    return f"'sha256-{digest}'"


@final
class PageData:
    """The figures that the page shows, as JSON. Called by threads that may wait, never on an event loop."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self._lock = threading.Lock()
        self._made_at: float | None = None
        self._body = b""

    def current(self) -> bytes:
        """The figures, at most about a second old."""
        # Requests at the same time share one collection.
        with self._lock:
            if self._made_at is None or time.monotonic() - self._made_at > _KEEP:
                self._body = msgspec.json.encode(self._make())
                self._made_at = time.monotonic()
            return self._body

    def _make(self) -> dict[str, Any]:
        monitor = self._monitor
        collection: Any = ()
        try:
            collection = monitor.telemetry.collect(_COLLECT_TIMEOUT)
        except TimeoutError:
            _logger.debug("the page shows no figures: collecting took longer than %g s", _COLLECT_TIMEOUT)
        figures = _Figures(collection, monitor.name)
        return {
            "at": time.time(),
            "process": {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "python": platform.python_version(),
                "version": __version__,
            },
            "recording": monitor.telemetry.enabled,
            "health": monitor.from_thread(_HEALTH_TIMEOUT),
            "exporters": [_exporter(exporter) for exporter in monitor.telemetry.exporters()],
            **figures.all(),
        }


def _exporter(exporter: Any) -> dict[str, Any]:
    stats = exporter.stats()
    spans = stats.spans
    return {
        "name": exporter.name,
        "state": exporter.state,
        "cycles": sum(cycles.counts["ok"] for cycles in stats.cycles.values()),
        "failed": sum(cycles.counts["retried"] + cycles.counts["failed"] for cycles in stats.cycles.values()),
        "spans": None if spans is None else spans.exported,
        "dropped": None if spans is None else sum(spans.dropped.values()),
        "pending": None if spans is None else spans.pending,
    }


@final
class _Figures:
    """Sums over the series of one store in one collection."""

    def __init__(self, collection: Any, store: str) -> None:
        self._data = {data.name.removeprefix(_PREFIX): data for data in collection if data.name.startswith(_PREFIX)}
        self._store = store

    def all(self) -> dict[str, Any]:
        durations = self._data.get("commands.duration")
        return {
            "commands": self._commands(),
            "boundaries": () if durations is None else durations.boundaries,
            "active": self._sum("commands.active"),
            "conflicts": self._by("commands.conflicts", "resolution"),
            "events_written": self._sum("events.written"),
            "append": self._histogram("store.operation.duration", operation="append"),
            "batch": self._histogram("store.append.batch"),
            "pool": {**self._by("store.pool.connections", "state"), "limit": self._value("store.pool.limit")},
            "pool_timeouts": self._value("store.pool.timeouts"),
            "head": self._value("store.head.position"),
            "size": self._value("store.size"),
            "projections": self._projections(),
        }

    def _points(self, name: str, **wanted: str) -> Iterator[tuple[Mapping[str, str], Any]]:
        data = self._data.get(name)
        for point in () if data is None else data.points:
            labels = dict(point.labels)
            if labels.get("store") == self._store and wanted.items() <= labels.items():
                yield labels, point

    def _commands(self) -> list[dict[str, Any]]:
        """The most frequent command types, each with its counts by outcome and its durations."""
        outcomes: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for labels, point in self._points("commands.total"):
            outcomes[labels["command.type"]][labels["outcome"]] += point.value
        most = sorted(outcomes, key=lambda name: -sum(outcomes[name].values()))[:_MAX_TYPES]
        return [
            {"type": name, "outcomes": outcomes[name], **self._histogram("commands.duration", **{"command.type": name})}
            for name in most
        ]

    def _projections(self) -> dict[str, dict[str, Any]]:
        found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for labels, point in self._points("projections.events"):
            values = found[labels["projection"]]
            values[labels["outcome"]] = values.get(labels["outcome"], 0) + point.value
        for labels, point in self._points("projections.state"):
            if point.value:
                found[labels["projection"]]["state"] = labels["state"]
        return found

    def _histogram(self, name: str, **wanted: str) -> dict[str, Any]:
        buckets: list[int] = []
        count, total = 0, 0.0
        for _, point in self._points(name, **wanted):
            assert isinstance(point, HistogramPoint)
            buckets = [a + b for a, b in zip(buckets, point.buckets, strict=True)] if buckets else list(point.buckets)
            count, total = count + point.count, total + point.sum
        return {"count": count, "sum": total, "buckets": buckets}

    def _by(self, name: str, label: str) -> dict[str, float]:
        found: defaultdict[str, float] = defaultdict(float)
        for labels, point in self._points(name):
            found[labels[label]] += point.value
        return found

    def _sum(self, name: str) -> float:
        values: list[float] = [point.value for _, point in self._points(name)]
        return sum(values)

    def _value(self, name: str) -> float | None:
        """The value of a gauge; ``None`` where it is absent."""
        for _, point in self._points(name):
            assert isinstance(point, NumberPoint)
            return point.value
        return None
