"""What tests of instruments share."""

from __future__ import annotations

import time

from eventcore.recording import (
    Collection,
    Collector,
    InstrumentRegistry,
)


def collect(registry: InstrumentRegistry) -> Collection:
    return Collector(registry).collect(time.monotonic(), 5.0)


def counter(registry: InstrumentRegistry, name: str = "orders.shipped", labels: tuple[str, ...] = ("country",)):  # type: ignore[no-untyped-def]  # the type under test is inferred
    return registry.counter(name, unit="{order}", description="Orders shipped.", labels=labels)
