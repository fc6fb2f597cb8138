"""A recorder: the instruments and spans of one part of a program."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final, TypeVar

from eventcore.errors import InvalidInput
from eventcore.ground import shown
from eventcore.recording.instruments import Callback, Counter, Gauge, Histogram, Instrument, UpDownCounter
from eventcore.recording.registry import SECONDS, InstrumentRegistry
from eventcore.recording.spans import Span
from eventcore.recording.trace_context import TraceContext
from eventcore.recording.tracing import Tracer, innermost
from eventcore.recording.values import EVENTCORE, Scope

_MAX_SCOPE_TEXT: Final = 1000

InstrumentT = TypeVar("InstrumentT", bound=Instrument[Any])


class Recorder:
    """Creates instruments and spans, which carry its scope. ``Telemetry`` is one, and ``Telemetry.scope`` makes others.

    Attributes:
        instrumentation: the scope.
    """

    def __init__(self, registry: InstrumentRegistry, tracer: Tracer, scope: Scope = EVENTCORE) -> None:
        self._registry = registry
        self._tracer = tracer
        self.instrumentation: Final = scope
        self.current_span = tracer.current
        self.span = tracer.span
        self.own_io = tracer.ring.own_io
        if scope is not EVENTCORE:
            # Past the type checker: it has the same arguments.
            vars(self)["span"] = partial(tracer.scoped, scope)

    def scope(self, name: str, version: str = "", schema_url: str = "") -> Recorder:
        """A recorder for another part of the program, such as a library, whose name exporters show.

        Names of instruments are unique in all scopes: the same name in another scope is refused.

        Args:
            name: for example the name of the package; not empty.
            version: its version.
            schema_url: where the meaning of its names is described.

        Raises:
            InvalidInput: one of them is no ``str``, or is longer than 1,000 characters, or the name is empty.

        >>> from eventcore.telemetry import Telemetry
        >>> orders = Telemetry(exporters="none").scope("shop.orders", "1.2")
        >>> orders.counter("orders.shipped").add(1)
        >>> with orders.span("ship order") as span:
        ...     span.scope.name
        'shop.orders'
        """
        for what, text in (("name", name), ("version", version), ("schema_url", schema_url)):
            if type(text) is not str or len(text) > _MAX_SCOPE_TEXT or (what == "name" and not text):
                raise InvalidInput(f"{what}={shown(text)} of a scope; expected a str of up to {_MAX_SCOPE_TEXT} characters")
        return Recorder(self._registry, self._tracer, Scope(name, version, schema_url))

    def current_context(self) -> TraceContext | None:
        """The trace context of the innermost span: of eventcore, or of another tracing system that an exporter connects.

        ``None`` where there is no span. For log records, see ``eventcore.logs``.

        >>> from eventcore.telemetry import Telemetry
        >>> telemetry = Telemetry(exporters="none", config={})
        >>> with telemetry.span("ship order") as span:
        ...     telemetry.current_context() == span.context
        True
        """
        found = innermost(self._tracer.ambient)
        return found.context if isinstance(found, Span) else found

    def counter(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: Iterable[str] = (),
        callback: Callback | None = None,
        exemplars: bool = False,
    ) -> Counter:
        """The counter of this name, a total that only grows. The first call makes it; later calls return it.

        Args:
            name: words of a-z and 0-9, joined by dots or underscores. Names that differ only in dots and
                underscores are the same name.
            unit: a UCUM unit, such as ``"s"``, ``"By"`` or ``"{order}"``.
            description: one sentence for the reader of a dashboard.
            labels: the names of the labels. The number of values of a label must be limited: no ids.
            callback: returns the total, or a mapping from label values (tuples) to totals. It is called in
                each collection, on another thread than that of the event loop.
            exemplars: whether a series keeps the newest value that was recorded inside a sampled span, with the ids of the
                span, so that a dashboard can lead to its trace. Recording then takes about 50 ns more. The first call decides.

        Raises:
            InvalidInstrument: a name is not valid, or an instrument of this name exists with another kind, unit, labels or
                scope.
        """
        described = self._described(unit, description, labels)
        return _observed(self._registry.counter(name, **described, exemplars=exemplars), callback)

    def up_down_counter(self, name: str, *, unit: str = "", description: str = "", labels: Iterable[str] = ()) -> UpDownCounter:
        """A sum that grows and shrinks, such as connections in use. Arguments and errors as for ``counter``."""
        return self._registry.up_down_counter(name, **self._described(unit, description, labels))

    def gauge(
        self, name: str, *, unit: str = "", description: str = "", labels: Iterable[str] = (), callback: Callback | None = None
    ) -> Gauge:
        """A current value, such as a temperature. A callback may return ``None``: the collection then has no value.

        Arguments and errors as for ``counter``.
        """
        return _observed(self._registry.gauge(name, **self._described(unit, description, labels)), callback)

    def histogram(
        self,
        name: str,
        *,
        unit: str = "",
        description: str = "",
        labels: Iterable[str] = (),
        boundaries: Iterable[float] = SECONDS,
        callback: Callback | None = None,
        exemplars: bool = False,
    ) -> Histogram:
        """The distribution of values over buckets.

        Args:
            boundaries: the upper bounds of the buckets, ascending; the default suits durations in seconds. A pattern in
                ``[telemetry.histograms]`` that fits the name takes precedence.
            callback: returns a mapping from label values (tuples) to ``HistogramCell`` objects with the same boundaries.
            exemplars: as for ``counter``; one for each bucket.

        Other arguments and errors as for ``counter``.
        """
        described = self._described(unit, description, labels)
        return _observed(self._registry.histogram(name, **described, boundaries=boundaries, exemplars=exemplars), callback)

    def timer(
        self,
        name: str,
        *,
        description: str = "",
        labels: Iterable[str] = (),
        boundaries: Iterable[float] = SECONDS,
        exemplars: bool = False,
    ) -> Histogram:
        """A histogram of seconds: ``with timer.labels(...).time():`` measures a block.

        Arguments and errors as for ``histogram``.
        """
        return self.histogram(
            name, unit="s", description=description, labels=labels, boundaries=boundaries, exemplars=exemplars
        )

    def _described(self, unit: str, description: str, labels: Iterable[str]) -> dict[str, Any]:
        return {"unit": unit, "description": description, "labels": labels, "scope": self.instrumentation}


def _observed(instrument: InstrumentT, callback: Callback | None) -> InstrumentT:
    if callback is not None:
        instrument.add_callback(callback)
    return instrument
