"""The fixtures of the contract: the exporter under test in a pipeline of core, and what its backend should get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite, isnan
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from eventcore.exporting import CounterData, GaugeData, HistogramData, HistogramPoint, MetricData, NumberPoint, Scope, SpanData
from eventcore.exporting.delivery import ExporterReport
from eventcore.testing.exporters.delivery import RESOURCE, Delivery, wait_for
from eventcore.testing.exporters.received import Received, ReceivedExemplar, ReceivedPoint, ReceivedSpan
from eventcore.testing.exporters.recording import received_point, received_span
from eventcore.testing.exporters.samples import sample_counter, sample_spans
from eventcore.testing.exporters.setup import LIMITS, ExporterSetup

_NOT_COMPARED: Final = ("name", "labels", "quantiles", "rate")
_KINDS: Final[dict[str, type[MetricData]]] = {
    "counters": CounterData,
    "gauges": GaugeData,
    "histograms": HistogramData,
}
# The fields of a span that a backend may not keep, by the limit that says so.
_SPAN_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "span_ids": ("trace_id", "span_id"),
    "span_parents": ("parent_id",),
    "span_kinds": ("kind",),
    "span_times": ("start_time_ns", "end_time_ns"),
    "span_attributes": ("attributes",),
    "span_events": ("events",),
    "span_links": ("links",),
    "span_statuses": ("status", "status_description"),
    "span_states": ("tracestate",),
    "scopes": ("scope",),
}
_POINT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "kinds": ("kind",),
    "units": ("unit",),
    "descriptions": ("description",),
    "start_times": ("start_time_ns",),
    "times": ("time_ns",),
    "sums": ("sum",),
    "min_max": ("min", "max"),
    "buckets": ("buckets",),
    "scopes": ("scope",),
    "exemplars": ("exemplars",),
}

_Key: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


class Trial:
    """One exporter under test, and what its backend should have got.

    Args:
        setup: of the author.
        fail_start: whether the first start fails when the exporter's hook has returned.
        settings: changes of the pipeline's settings.

    Attributes:
        delivery: the exporter in its pipeline.
        totals: the metrics as they were recorded last, by name.
    """

    def __init__(self, setup: ExporterSetup, *, fail_start: bool = False, **settings: Any) -> None:
        self.setup = setup
        self.delivery = Delivery(setup.make(), fail_start=fail_start, **settings)
        self.hooks = self.delivery.hooks
        self.is_pulled = self.hooks.interval is None
        self.totals: dict[str, MetricData] = {}
        self.reports: list[ExporterReport] = []
        self._created: dict[str, int] = {}

    # What happens

    def record(self, *metrics: MetricData) -> None:
        """Set the values that the next cycle exports, of the kinds that the exporter takes."""
        taken = tuple(_KINDS[kind] for kind in self.hooks.kinds if kind in _KINDS)
        # As core numbers instruments in the order in which they are made.
        mine = [
            data
            if data.created
            else msgspec.structs.replace(data, created=self._created.setdefault(data.name, len(self._created) + 1))
            for data in metrics
            if isinstance(data, taken)
        ]
        self.totals.update((data.name, data) for data in mine)
        self.delivery.record(*mine)

    def end_spans(self, spans: Sequence[SpanData]) -> None:
        """Let spans end, if the exporter takes spans."""
        if "spans" in self.hooks.kinds:
            self.delivery.end_spans(spans)

    def flush(self, timeout: float | None = None) -> ExporterReport:
        """Deliver, and return the report."""
        self.reports.append(self.delivery.flush(self.setup.patience if timeout is None else timeout))
        return self.reports[-1]

    def deliver(self) -> None:
        """Deliver everything. An exporter that is scraped delivers its metrics when the backend is asked."""
        report = self.flush()
        assert report.delivered, f"a flush must deliver everything while the backend works: {report}"

    def shutdown(self, timeout: float | None = None) -> ExporterReport:
        """Shut the exporter down."""
        self.reports.append(self.delivery.shutdown(self.setup.patience if timeout is None else timeout))
        return self.reports[-1]

    # What the backend has

    def expect(self, *metrics: MetricData) -> None:
        """Wait until the backend shows these metrics, all of their series and no others, and compare every field it keeps."""
        mine = [data for data in metrics if data.name in self.totals]
        if mine:
            problems: list[str] = []

            def arrived() -> bool:
                problems[:] = self.differences(self.setup.received(), mine)
                return not problems

            asked = wait_for(arrived, self.setup.patience)
            if not asked and not problems:
                problems = self.differences(self.setup.received(), mine)
            assert not problems, "the backend must have what was recorded:\n  " + "\n  ".join(problems[:20])

    def expect_spans(self, spans: Sequence[SpanData], most: int = 1) -> None:
        """Wait until each span is in the backend, and check that none is there more than ``most`` times."""
        if "spans" not in self.hooks.kinds:
            return
        wanted = {self.setup.text(span.name) for span in spans}
        found = wait_for(
            lambda: wanted <= (names := {span.name for span in self.setup.received().spans}) and names, self.setup.patience
        )
        if not found:
            missing = sorted(wanted - {span.name for span in self.setup.received().spans})
            raise AssertionError(f"{len(missing)} of {len(wanted)} spans did not arrive, for example {missing[:3]}")
        self.check_no_span_more_than(most)

    def shown(self) -> list[MetricData]:
        """The metrics as they were recorded last, without those that the exporter has reported as hidden."""
        return [data for data in self.totals.values() if data.name not in self.delivery.pipeline.hidden]

    def check_no_point_twice(self) -> None:
        """Check that no cycle has brought a point twice: a failed one must leave nothing behind."""
        if "flush" not in self.hooks.implemented:
            return
        flushes = [call for call in self.hooks.calls if call.hook == "flush" and call.arguments["signal"] == "metrics"]
        committed = sum(call.error is None for call in flushes)
        names = {self.setup.metric_name(data) for data in self.totals.values()}
        counts: dict[_Key, int] = {}
        for point in self.setup.received().points:
            if point.name in names:
                key = point.name, frozenset(point.labels.items())
                counts[key] = counts.get(key, 0) + 1
        most = 1 if self.is_pulled else committed
        often = [(name, dict(labels), count) for (name, labels), count in counts.items() if count > most]
        assert not often, f"{most} cycles were delivered, and a series has come more often: {often[0]}"

    def check_no_span_more_than(self, most: int) -> None:
        """Check how often each span has arrived."""
        counts = self.arrivals()
        often = {name: count for name, count in counts.items() if count > most}
        times = "once" if most == 1 else f"{most} times"
        assert not often, (
            f"no span may arrive more than {times}: {len(often)} of {len(counts)} did, such as {list(often.items())[:3]}"
        )

    def arrivals(self) -> dict[str, int]:
        """How often each span has arrived, by its name."""
        counts: dict[str, int] = {}
        for span in self.setup.received().spans:
            counts[span.name] = counts.get(span.name, 0) + 1
        return counts

    def settle(self) -> None:
        """Wait until nothing has arrived for a tenth of a second: a backend that was stalled takes what waits for it."""
        before: list[int] = []

        def is_quiet() -> bool:
            before.append(len(self.setup.received().spans))
            return len(before) > 1 and before[-1] == before[-2]

        wait_for(is_quiet, 5.0, pause=0.1)

    def check_account(self, report: ExporterReport) -> None:
        """Check the account of spans, and compare it with what arrived: to the item."""
        if "spans" not in self.hooks.kinds:
            return
        dropped = sum(report.spans_dropped.values())
        accounted = report.spans_exported + dropped + report.spans_unknown + report.spans_pending
        assert report.spans_recorded == len(self.delivery.offered) == accounted, (
            f"recorded = delivered + dropped + unknown: {report}"
        )
        if "acknowledgements" in self.setup.cannot:
            assert len(self.arrivals()) <= report.spans_recorded
            return
        wait_for(lambda: len(self.arrivals()) >= report.spans_exported, self.setup.patience)
        self.settle()
        arrived = len(self.arrivals())
        most = report.spans_exported + report.spans_unknown
        assert report.spans_exported <= arrived <= most, (
            f"{arrived} different spans arrived; reported are {report.spans_exported} exported, {report.spans_unknown} unknown"
        )

    def expect_resource(self) -> None:
        """Wait until the backend shows the attributes of the resource. It may have further ones."""
        expected = {self.setup.label_name(name): value for name, value in RESOURCE.attributes}

        def found() -> Mapping[str, Any]:
            return self.setup.received().resource or {}

        if not wait_for(lambda: expected.items() <= found().items(), self.setup.patience):
            raise AssertionError(f"the backend must have the attributes of the resource, {expected}; it has {dict(found())}")

    # Comparing

    def differences(self, received: Received, metrics: Iterable[MetricData]) -> list[str]:
        """How the backend's series differ from ``metrics``; empty when they do not."""
        found: dict[str, list[ReceivedPoint]] = {}
        for point in received.points:
            found.setdefault(point.name, []).append(point)
        return [problem for data in metrics for problem in self._differences_of(data, found)]

    def _differences_of(self, data: MetricData, received: dict[str, list[ReceivedPoint]]) -> Iterator[str]:
        name = self.setup.metric_name(data)
        there = self._series(received.get(name, ()), data)
        wanted = {self._key(name, point): point for point in data.points}
        for key, point in wanted.items():
            shown = f"{name} {dict(key[1])}"
            if isinstance(point, NumberPoint) and not isfinite(point.value) and "non_finite" in self.setup.cannot:
                if key in there:
                    yield f"{shown}: {point.value} must be left out, as `cannot` says; the backend has {there[key].value}"
            elif key not in there:
                if self._is_difference(data) and not (point.value if isinstance(point, NumberPoint) else point.count):
                    continue  # a series to which nothing was added is left out
                yield f"{shown}: is missing; the backend has {[dict(labels) for _, labels in list(there)[:5]]}"
            else:
                yield from (f"{shown}: {problem}" for problem in self._field_problems(data, point, there[key]))
        for key in there.keys() - wanted.keys():
            yield f"{name} {dict(key[1])}: was never recorded"

    def _key(self, name: str, point: NumberPoint | HistogramPoint) -> _Key:
        text = self.setup.text
        labels = ((self.setup.label_name(label), text(value)) for label, value in point.labels)
        return name, frozenset(pair for pair in labels if pair[1])

    def _series(self, points: Iterable[ReceivedPoint], data: MetricData) -> dict[_Key, ReceivedPoint]:
        """The newest point of each series; of differences, their sum."""
        is_difference = self._is_difference(data) and not self.setup.adds_up
        series: dict[_Key, ReceivedPoint] = {}
        for point in points:
            # Many backends keep no label without a text: it counts as missing.
            key = point.name, frozenset(pair for pair in point.labels.items() if pair[1])
            series[key] = _added(series[key], point) if is_difference and key in series else point
        return series

    def _is_difference(self, data: MetricData) -> bool:
        return self.hooks.temporality != "cumulative" and not isinstance(data, GaugeData)

    def _field_problems(self, data: MetricData, point: NumberPoint | HistogramPoint, found: ReceivedPoint) -> Iterator[str]:
        full = msgspec.structs.replace(received_point(data, point), unit=self.setup.unit(data.unit))
        if self._is_difference(data):
            # A histogram of differences has neither; the times are those of the intervals.
            full = msgspec.structs.replace(full, min=None, max=None, start_time_ns=None, time_ns=None)
            found = msgspec.structs.replace(found, min=None, max=None, start_time_ns=None, time_ns=None)
        elif isinstance(data, GaugeData) and found.start_time_ns is None:
            # The value of a gauge holds at one time: a backend need not have the time when its series began.
            full = msgspec.structs.replace(full, start_time_ns=None)
        if isinstance(data, HistogramData) and data.boundaries[:1] < (0.0,) and "negative_sums" in self.setup.cannot:
            full, found = (msgspec.structs.replace(each, sum=None, count=None) for each in (full, found))
        skipped = {field for limit, fields in _POINT_FIELDS.items() if limit in self.setup.cannot for field in fields}
        for field in msgspec.structs.fields(ReceivedPoint):
            if field.name in _NOT_COMPARED or field.name in skipped:
                continue
            expected, got = getattr(full, field.name), getattr(found, field.name)
            same = self._are_same_exemplars if field.name == "exemplars" else self._is_same
            if not same(expected, got):
                yield f"{field.name} is {got!r}; expected {expected!r}"
        if isinstance(data, HistogramData) and isinstance(point, HistogramPoint) and point.count:
            for quantile in self.setup.quantiles:
                yield from self._quantile_problems(data.boundaries, point, quantile, (found.quantiles or {}).get(quantile))

    def _quantile_problems(
        self, boundaries: Sequence[float], point: HistogramPoint, quantile: float, got: float | None
    ) -> Iterator[str]:
        """An estimate must lie between the bounds of the buckets of the two values around it, and within all values."""
        if got is None:
            yield f"the quantile {quantile} is missing"
            return
        assert point.min is not None
        assert point.max is not None
        rank = int(quantile * point.count)
        bounds = (point.min, *boundaries), (*boundaries, point.max)
        buckets = [index for index, count in enumerate(point.buckets) for _ in range(count)]
        low = max(point.min, bounds[0][buckets[max(0, rank - 1)]])
        high = min(point.max, bounds[1][buckets[min(rank, point.count - 1)]])
        slack = self.setup.tolerance * max(abs(low), abs(high))
        if not low - slack <= got <= high + slack:
            yield f"the quantile {quantile} is {got!r}; expected between {low} and {high}"

    def _are_same_exemplars(self, expected: Sequence[ReceivedExemplar], got: Sequence[ReceivedExemplar] | None) -> bool:
        def order(exemplar: ReceivedExemplar) -> tuple[str, str]:
            return exemplar.trace_id, exemplar.span_id

        if got is None or list(map(order, got := sorted(got, key=order))) != sorted(map(order, expected)):
            return False
        return all(
            self._is_same(one.value, other.value) and other.time_ns in (None, one.time_ns)
            for one, other in zip(sorted(expected, key=order), got, strict=True)
        )

    def _is_same(self, expected: Any, got: Any) -> bool:
        if isinstance(expected, dict | Scope):
            return bool(expected == got)
        if isinstance(expected, str) or expected is None or got is None:
            return bool(expected == got)
        if isnan(expected) or isnan(got):
            return isnan(expected) and isnan(got)
        if not isfinite(expected) or not isfinite(got):
            return bool(expected == got)
        if isinstance(expected, int):
            if abs(expected) <= self.setup.largest_exact or "large_integers" not in self.setup.cannot:
                return bool(expected == got)
            expected = float(expected)
        return bool(expected == got) or abs(expected - got) <= self.setup.tolerance * abs(expected)

    def span_differences(self, span: SpanData) -> list[str]:
        """How the backend's copy of a span differs from it."""
        name = self.setup.text(span.name)
        [found] = [each for each in self.setup.received().spans if each.name == name][:1] or [ReceivedSpan(name=name)]
        full = received_span(span)
        problems: list[str] = []
        for limit, fields in _SPAN_FIELDS.items():
            for field in fields if limit not in self.setup.cannot else ():
                expected, got = getattr(full, field), getattr(found, field)
                if field == "attributes" and got is not None:
                    # An exporter may add some, such as the correlation id.
                    got = {key: value for key, value in got.items() if key in expected}
                if got is None or (list(got) if field in ("events", "links") else got) != expected:
                    problems.append(f"{field} is {got!r}; expected {expected!r}")
        return problems


def _added(one: ReceivedPoint, other: ReceivedPoint) -> ReceivedPoint:
    """Two differences of one series, as one."""

    def both(name: str) -> Any:
        mine, its = getattr(one, name), getattr(other, name)
        return its if mine is None else mine if its is None else mine + its

    buckets = other.buckets
    if one.buckets is not None and other.buckets is not None:
        buckets = {bound: one.buckets.get(bound, 0) + count for bound, count in other.buckets.items()}
    return msgspec.structs.replace(other, value=both("value"), count=both("count"), sum=both("sum"), buckets=buckets)


StartTrial: TypeAlias = Callable[..., Trial]


class ContractFixtures:
    """A test class must override ``exporter_setup``."""

    @pytest.fixture
    def exporter_setup(self) -> Any:
        """How to build the exporter and read back what its backend got: an ``ExporterSetup``."""
        raise NotImplementedError(
            f"{type(self).__name__} inherits ExporterContract: override its fixture exporter_setup so that it returns or "
            "yields an ExporterSetup, which builds the exporter and reads back what its backend got"
        )

    @pytest.fixture
    def trial(self, exporter_setup: ExporterSetup, caplog: pytest.LogCaptureFixture) -> Iterator[StartTrial]:
        """A function that puts a new exporter into a pipeline. At the end each is shut down, and checked for what holds always:
        no hook has changed what it was given, and no secret is in a log or in a report."""
        trials: list[Trial] = []
        # Everything, also what the application's configuration would not show.
        caplog.set_level(logging.DEBUG)

        def start(**settings: Any) -> Trial:
            trials.append(Trial(exporter_setup, **settings))
            return trials[-1]

        yield start
        for each in trials:
            each.shutdown(min(2.0, exporter_setup.patience))
        for each in trials:
            assert not each.hooks.changed, f"a hook must not change what it is given: {each.hooks.changed[0]}"
            for report in each.reports:
                check_no_secret(exporter_setup, "a report", str(report))
            check_no_secret(exporter_setup, "the problem that the exporter shows", each.delivery.pipeline.problem)
        for record in [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]:
            check_no_secret(exporter_setup, "a log record", logging.Formatter().format(record))

    def needs(self, setup: ExporterSetup, *limits: str) -> None:
        """Skip the test, with the author's reason, if the backend cannot take what it is about."""
        for limit in limits:
            assert limit in LIMITS
            if limit in setup.cannot:
                pytest.skip(f"declared: {limit}: {setup.cannot[limit]}")

    @staticmethod
    def pushed(trial: StartTrial, **settings: float) -> Trial:
        """Start a trial; skip the test if the exporter is scraped."""
        tested = trial(**settings)
        if tested.is_pulled:
            pytest.skip("the exporter is scraped: it has no connection that can fail")
        return tested

    @staticmethod
    def deliver_some(tested: Trial, name: str) -> None:
        """Deliver something, so that the exporter has a connection."""
        spans = sample_spans(3, name)
        tested.end_spans(spans)
        tested.record(sample_counter(f"{name.replace(' ', '.')}.total"))
        tested.flush()
        tested.expect_spans(spans, most=2)


def check_no_secret(setup: ExporterSetup, where: str, text: str) -> None:
    """Check that no secret is in a text."""
    for secret in setup.secrets:
        assert secret not in text, f"a secret must be in no repr, log or report: {where} shows it"


Context: TypeAlias = AbstractContextManager[object]
