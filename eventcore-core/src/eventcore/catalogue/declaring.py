"""How a metric is declared: once, as a typed class attribute. Instrument, ``HELP`` text and documentation are made from it.

>>> class OrderMetrics(MetricGroup):
...     shipped = Counter("orders.shipped", "{order}", (Label("country"),), "Orders shipped.")
>>> metrics = OrderMetrics(Telemetry(exporters="none"))
>>> metrics.shipped.labels("FR").add(1)
>>> OrderMetrics.shipped.unit
'{order}'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

from eventcore import recording
from eventcore.recording import Instrument, Label
from eventcore.telemetry import Telemetry

InstrumentT = TypeVar("InstrumentT", bound=Instrument[Any])


class Metric(Generic[InstrumentT]):
    """One metric: on its ``MetricGroup`` class it is this declaration, on an instance of the group the instrument.

    Attributes:
        name: without the leading ``eventcore.``.
        unit: in UCUM (https://ucum.org).
        labels: in the order in which the instrument takes their values.
        description: one text for ``HELP`` and for the documentation.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, unit: str, labels: tuple[Label, ...], description: str) -> None:
        self.name = name
        self.unit = unit
        self.labels = labels
        self.description = description

    @overload
    def __get__(self, group: None, owner: type[MetricGroup]) -> Self: ...
    @overload
    def __get__(self, group: MetricGroup, owner: type[MetricGroup]) -> InstrumentT: ...
    def __get__(self, group: MetricGroup | None, owner: type[MetricGroup]) -> Self | InstrumentT:
        # Only reached on the class: a group keeps its instruments in its `__dict__`, which has precedence.
        return self

    def create(self, telemetry: Telemetry) -> InstrumentT:
        """The instrument of ``telemetry``: the same one each time."""
        # The method of `Telemetry` that creates an instrument has the name of its kind.
        create: Callable[..., InstrumentT] = getattr(telemetry, self.kind)
        name = f"eventcore.{self.name}"
        return create(name, unit=self.unit, description=self.description, labels=self.labels, **self._more())

    def _more(self) -> dict[str, Any]:
        """Arguments that only this kind of instrument has."""
        return {}


class Counter(Metric[recording.Counter]):
    kind = recording.Counter.kind


class UpDownCounter(Metric[recording.UpDownCounter]):
    kind = recording.UpDownCounter.kind


class Gauge(Metric[recording.Gauge]):
    kind = recording.Gauge.kind


class Histogram(Metric[recording.Histogram]):
    """``boundaries`` are the ascending upper bounds of its buckets."""

    kind = recording.Histogram.kind

    def __init__(
        self, name: str, unit: str, labels: tuple[Label, ...], boundaries: tuple[float, ...], description: str
    ) -> None:
        super().__init__(name, unit, labels, description)
        self.boundaries = boundaries

    def _more(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries}


class MetricGroup:
    """The metrics that one object records. An instance holds their instruments of one telemetry."""

    def __init__(self, telemetry: Telemetry) -> None:
        vars(self).update({attribute: metric.create(telemetry) for attribute, metric in self.metrics().items()})

    @classmethod
    def metrics(cls) -> dict[str, Metric[Any]]:
        """The declarations by the names of the attributes, those of base classes included."""
        return {
            attribute: metric
            for base in reversed(cls.__mro__)
            for attribute, metric in vars(base).items()
            if isinstance(metric, Metric)
        }
