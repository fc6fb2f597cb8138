"""Exporters that are broken, each in its own way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eventcore.exporting import Exporter, ExporterContext, Rejected, Signal, hookimpl

if TYPE_CHECKING:
    from collections import OrderedDict

NOT_CALLABLE = 7


class RaisesEverywhere(Exporter):
    @hookimpl
    def start(self, context: ExporterContext) -> None:
        raise RuntimeError("start is broken")

    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None:
        raise RuntimeError("export_counters is broken")

    @hookimpl
    def export_spans(self, spans: Any, timeout: float) -> None:
        raise RuntimeError("export_spans is broken")

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> None:
        raise RuntimeError("flush is broken")

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        raise RuntimeError("shutdown is broken")


class Hangs(Exporter):
    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> None:
        threading.Event().wait()


class Refuses(Exporter):
    @hookimpl
    def export_counters(self, counters: Any, timeout: float) -> Rejected:
        return Rejected(sum(len(counter.points) for counter in counters), "quota used up")


class RefusesSpans(Exporter):
    @hookimpl
    def export_spans(self, spans: Any, timeout: float) -> Rejected:
        return Rejected(len(spans), "too many spans")


class CannotBeMade(RaisesEverywhere):
    def __init__(self) -> None:
        raise ValueError("cannot be made")


def leave() -> Exporter:
    raise SystemExit(4)


class Misspelt(Exporter):
    @hookimpl
    def export_counter(self, counters: Any) -> None: ...


class Unmarked(Exporter):
    def export_counters(self, counters: Any, timeout: float) -> None: ...


class WrongSignature(Exporter):
    @hookimpl
    def export_counters(self, metrics: Any) -> None: ...  # type: ignore[override]  # the wrong signature is the point


class Generator(Exporter):
    @hookimpl
    def export_counters(self, counters: Any) -> Iterator[Any]:  # type: ignore[override]  # the wrong signature is the point
        yield counters


def give_a_class() -> type[RaisesEverywhere]:
    return RaisesEverywhere


class OpenSettings(RaisesEverywhere):
    def __init__(self, **settings: str) -> None:
        self.settings = settings


class UntypedSettings(RaisesEverywhere):
    def __init__(self, host, pipeline: str = "", table: OrderedDict[str, str] | None = None) -> None:  # type: ignore[no-untyped-def]  # that it is untyped is the point
        self.host = host
