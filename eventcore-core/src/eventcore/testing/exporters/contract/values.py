"""The contract of exporters: every kind of metric arrives with every field that the backend keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf, nan
from typing import Any, Final

import msgspec
import pytest

from eventcore.exporting import Exemplar, MetricData
from eventcore.testing.exporters.contract.fixtures import ContractFixtures, StartTrial, Trial
from eventcore.testing.exporters.delivery import wait_for
from eventcore.testing.exporters.samples import (
    SCOPES,
    sample_collection,
    sample_counter,
    sample_gauge,
    sample_histogram,
    sample_spans,
)
from eventcore.testing.exporters.setup import ExporterSetup

TEXTS: Final = {
    "empty": "",
    "spaces": "  a  b ",
    "quotes": "say \"hi\" and 'ho'",
    "backslash": "C:\\temp\\new",
    "newline": "one\ntwo\r\n",
    "separators": "a,b=c|d:e;f#g@h{i}%s/k\t",
    "unicode": "Grüße 日本 🎈",
    "number": "42",
    "long": "x" * 1000,
}
"""Values of labels that backends have trouble with."""

_HUGE: Final = 2000


class ValueContract(ContractFixtures):
    """Tests of metrics."""

    def test_each_counter_arrives_with_its_total(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "counters")
        self._deliver(trial, sample_counter(), sample_counter("orders.lost", {(): 11}, labels=()))

    def test_each_gauge_arrives_with_its_current_value(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "gauges")
        self._deliver(
            trial,
            sample_gauge(),
            sample_gauge("jobs.active", {("mail",): 4, ("print",): -2}, additive=True),
            sample_gauge("temperature", {(): 0}, labels=(), unit="Cel"),
        )

    def test_each_histogram_arrives_with_count_sum_and_buckets(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "histograms")
        on_a_bound = sample_histogram("on.a.bound", {(): (0.005, 0.5, 5.0)}, labels=())
        self._deliver(trial, sample_histogram(), on_a_bound)

    def test_a_histogram_without_buckets_or_values_arrives(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "histograms")
        plain = sample_histogram("plain.duration", {("/",): (1.0, 2.0)}, boundaries=())
        tested = self._deliver(trial, plain)
        # A series in which nothing was recorded may be shown with 0, or left out.
        tested.record(sample_histogram("no.duration", {("/",): ()}))
        tested.deliver()
        tested.expect(plain)

    def test_a_histogram_of_values_below_zero_arrives(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "histograms")
        values = {("up",): (-2.5, 4.0), ("down",): (-8.0, -0.5, 0.25)}
        self._deliver(
            trial,
            sample_histogram("balance.change", values, boundaries=(-5.0, -1.0, 0.0, 1.0), unit=""),
            sample_histogram("total.change", {(): (-0.5,)}, boundaries=(-1.0, 1.0), unit="", labels=()),
        )

    def test_label_values_at_their_edges_stay_apart(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        values = {(text,): number for number, text in enumerate(TEXTS.values(), 1)}
        measured = {(text,): (float(number),) for number, text in enumerate(TEXTS.values(), 1)}
        self._deliver(
            trial,
            sample_counter("edges.total", values),
            sample_gauge("edges.now", values),
            sample_histogram("edges.duration", measured),
        )

    def test_several_labels_arrive_each_with_its_own_value(self, trial: StartTrial) -> None:
        names = ("store", "command.type", "outcome")
        series = {("a", "b", "c"): 1, ("a", "c", "b"): 2, ("c", "b", "a"): 3}
        measured = {labels: (float(value),) for labels, value in series.items()}
        self._deliver(
            trial,
            sample_counter("many.labels", series, labels=names),
            sample_gauge("many.labels.now", series, labels=names),
            sample_histogram("many.labels.duration", measured, labels=names),
        )

    def test_a_label_whose_name_means_something_in_a_protocol_arrives(self, trial: StartTrial) -> None:
        # Prometheus puts the bounds of histograms there.
        values = {("small",): 1, ("large",): 2}
        self._deliver(
            trial, sample_counter("sizes.total", values, labels=("le",)), sample_gauge("sizes.now", values, labels=("le",))
        )

    def test_metrics_of_similar_names_stay_apart(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        names = ("orders", "orders.total", "orders.sum", "orders.count", "orders.created", "orders.x", "orders.x.y")
        metrics: list[MetricData] = [
            sample_gauge(name, {(): number}, labels=(), unit="") for number, name in enumerate(names, 1)
        ]
        metrics.append(sample_counter("requests", {(): 100}, labels=(), unit=""))
        # In a backend that appends `_total` to the names of counters, these two are one name.
        metrics.append(sample_counter("sold", {(): 100}, labels=(), unit=""))
        metrics.append(sample_gauge("sold.total", {(): 7}, labels=(), unit=""))
        metrics.append(sample_histogram("requests.duration", {(): (0.25,)}, labels=()))
        tested = trial()
        tested.record(*metrics)
        tested.deliver()
        hidden = tested.delivery.pipeline.hidden
        assert set(hidden) <= {"sold", "sold.total"}, f"these names are in nobody's way: {hidden}"
        for name, reason in hidden.items():
            other = "sold" if name == "sold.total" else "sold.total"
            assert repr(other) in reason, f"the reason must name the instrument that has the name: {reason}"
        wanted = [data for data in metrics if data.name not in hidden]
        tested.expect(*wanted)

    def test_names_that_another_one_reserves_stay_apart_when_they_come_later(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "counters")
        # OpenMetrics reserves `made_created` for the counter `made`.
        tested = self._deliver(trial, sample_counter("sent", {(): 1}, labels=()), sample_counter("made", {(): 2}, labels=()))
        tested.record(sample_counter("made.created", {(): 3}, labels=()), sample_gauge("sent.created", {(): 4}, labels=()))
        tested.deliver()
        # A name may turn out to be taken when the backend asks for it.
        wait_for(lambda: not tested.differences(exporter_setup.received(), tested.shown()), exporter_setup.patience)
        hidden = tested.delivery.pipeline.hidden
        assert set(hidden) <= {"sent.created", "made.created"}, f"what was shown before must stay: {hidden}"
        tested.expect(*tested.shown())

    def test_a_name_that_ends_in_its_unit_arrives(self, trial: StartTrial) -> None:
        ends = {"wait.s": "s", "size.by": "By", "age.seconds": "s", "memory.bytes": "By", "speed.by.s": "By/s"}
        self._deliver(trial, *(sample_gauge(name, {(): 1.5}, labels=(), unit=unit) for name, unit in ends.items()))

    def test_the_names_of_eventcore_are_kept_for_eventcore(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "counters")
        # The application's counter comes first. Dashboards and alerts need the other one.
        tested = trial()
        tested.record(sample_counter("eventcore.commands", {(): 100}, labels=(), unit="{command}"))
        tested.deliver()
        ours = sample_counter("eventcore.commands.total", {(): 7}, labels=(), unit="{command}")
        tested.record(ours)
        tested.deliver()
        assert "eventcore.commands.total" not in tested.delivery.pipeline.hidden, (
            "where two names become one, eventcore's own instrument is shown, and the application's is reported as hidden"
        )
        tested.expect(ours)

    def test_texts_that_are_one_for_the_backend_are_added(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "counters")
        times: dict[str, Any] = {"start_time_ns": time.time_ns() - 10**9, "time_ns": time.time_ns()}
        texts = {"a\x00b": 1, "a\ufffdb": 2, "plain": 4}
        tested = trial()
        tested.record(
            sample_counter("texts.total", {(text,): value for text, value in texts.items()}, **times),
            sample_histogram("texts.duration", {(text,): [0.25] * value for text, value in texts.items()}, **times),
            alone := sample_counter("zero.total", {("a\x00b",): 1, ("plain",): 2}, **times),
        )
        tested.deliver()
        # Series that the backend tells apart arrive as they are.
        added: dict[str, int] = {}
        for text, value in texts.items():
            added[exporter_setup.text(text)] = added.get(exporter_setup.text(text), 0) + value
        shown = {text: next(each for each in texts if exporter_setup.text(each) == text) for text in added}
        totals = {(shown[text],): value for text, value in added.items()}
        tested.expect(
            sample_counter("texts.total", totals, **times),
            sample_histogram("texts.duration", {labels: [0.25] * value for labels, value in totals.items()}, **times),
            alone,
        )

    def test_quantiles_lie_where_the_values_are(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "histograms")
        if not exporter_setup.quantiles:
            pytest.skip("the setup declares no quantiles")
        values = {
            ("one",): (0.3,),
            ("narrow",): (0.01, 0.02, 0.03),
            ("low",): (0.001, 0.002),
            ("high",): (6.0, 7.0, 9.0),
            ("spread",): (0.001, 0.01, 0.1, 1.0, 10.0),
        }
        self._deliver(trial, sample_histogram(values=values))

    def test_a_rate_is_the_increase_per_second(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "counters")
        if not exporter_setup.has_rates:
            pytest.skip("the setup declares no rates")
        second = 10**9
        tested, now = trial(), time.time_ns()
        # The third cycle follows soon, and in the last one the series has begun anew.
        for value, begun, until, rate in ((50, -100, 0, None), (80, -100, 10, 3), (85, -100, 10.5, 10), (10, 15, 20, 2)):
            times: dict[str, Any] = {"start_time_ns": now + int(begun * second), "time_ns": now + int(until * second)}
            counter = sample_counter(values={("FR",): value}, **times)
            tested.record(counter)
            tested.deliver()
            tested.expect(counter)
            name = exporter_setup.metric_name(counter)
            shown = [point.rate for point in exporter_setup.received().points if point.name == name][-1]
            assert rate is None or shown == pytest.approx(rate, rel=exporter_setup.tolerance), (
                f"the rate is {shown}; expected {rate} per second"
            )

    def test_whole_and_broken_large_and_small_numbers_arrive(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        numbers = (0, 1, -1, 0.1, 1e-9, 123456.789, 1234567.0, -1234567.25, 1e21, 2**31, 2**53 + 1, -(2**40))
        values = {(str(number),): value for number, value in enumerate(numbers)}
        totals = {labels: value for labels, value in values.items() if value >= 0}
        self._deliver(trial, sample_gauge("numbers.now", values), sample_counter("numbers.total", totals))

    def test_values_that_are_not_finite_harm_no_other_value(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "gauges")
        values = {("before",): 1, ("nan",): nan, ("inf",): inf, ("-inf",): -inf, ("after",): 2}
        tested = trial()
        tested.record(sample_gauge("readings", values), sample_gauge("other.readings", {("fine",): 3}))
        tested.flush()
        tested.expect(*tested.totals.values())

    def test_a_number_that_the_backend_has_no_room_for_is_reported(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "counters")
        values: dict[tuple[str, ...], float] = {("before",): 1, ("large",): 2**70, ("after",): 2}
        if "non_finite" not in exporter_setup.cannot:
            values[("infinite",)] = inf
        tested = trial()
        numbers = sample_counter("numbers.total", values)
        tested.record(numbers)
        report = tested.flush()
        fine = [point for point in numbers.points if point.labels[0][1] in ("before", "after")]
        few = msgspec.structs.replace(numbers, points=tuple(fine))

        def others() -> list[str]:
            return [each for each in tested.differences(exporter_setup.received(), [few]) if "was never recorded" not in each]

        wait_for(lambda: not others(), exporter_setup.patience)
        assert not others(), f"the other numbers must arrive: {others()[0]}"
        differences = tested.differences(exporter_setup.received(), [numbers])
        missing = [each for each in differences if "is missing" in each]
        assert len(missing) == len(differences), f"a number may be missing, but not be wrong: {differences}"
        hidden = tested.delivery.pipeline.hidden
        assert report.points_rejected >= len(missing) or numbers.name in hidden, (
            f"return Rejected(count, reason) for what is left out: {len(missing)} points are missing. {report}"
        )
        assert report.points_rejected <= len(missing), f"{len(missing)} points are missing: {report}"
        # What is left out of one signal is not counted in the other.
        tested.end_spans(spans := sample_spans(3))
        tested.flush()
        tested.expect_spans(spans)
        tested.check_account(report := tested.shutdown())
        assert not report.spans_dropped.get("rejected"), f"no span was rejected: {report}"

    def test_an_instrument_without_points_is_no_fault(self, trial: StartTrial) -> None:
        tested = trial()
        tested.record(sample_counter("empty", {}), sample_gauge("empty.now", {}), sample_histogram("empty.duration", {}))
        metrics = tuple(sample_collection())
        tested.record(*metrics)
        tested.deliver()
        tested.expect(*metrics)
        hidden = tested.delivery.pipeline.hidden
        assert not hidden, f"an instrument may have no points: {hidden}"

    def test_a_cycle_without_anything_is_no_fault(self, trial: StartTrial) -> None:
        tested = trial()
        tested.deliver()
        self._deliver_with(tested, *sample_collection())

    def test_thousands_of_series_arrive_to_the_last_one(self, trial: StartTrial) -> None:
        totals = {(f"k{number}",): number + 1 for number in range(_HUGE)}
        few = dict(list(totals.items())[: _HUGE // 4])
        measured = {labels: (value / 8,) for labels, value in few.items()}
        self._deliver(
            trial,
            sample_counter("huge.total", totals),
            sample_gauge("huge.now", few),
            sample_histogram("huge.duration", measured),
        )

    def test_further_cycles_show_the_newest_values(self, trial: StartTrial) -> None:
        first = sample_collection()
        start = first.time_ns - 60 * 10**9
        tested = self._deliver(trial, *first)
        for grown in (1, 5):
            now = first.time_ns + grown
            measured = {("/",): (0.001, 0.0625, 0.0625, 0.75, 8.0, *[0.25] * grown), ("/cart",): (0.25,)}
            self._deliver_with(
                tested,
                sample_counter(values={("FR",): 3 + grown, ("DE",): 2.5}, start_time_ns=start, time_ns=now),
                sample_gauge(values={("mail",): -grown, ("print",): 0}, time_ns=now),
                sample_histogram(values=measured, start_time_ns=start, time_ns=now),
            )

    def test_a_total_that_begins_anew_is_counted_from_its_beginning(
        self, exporter_setup: ExporterSetup, trial: StartTrial
    ) -> None:
        self.needs(exporter_setup, "counters")
        old, new = sample_counter(values={("FR",): 100}), sample_counter(values={("FR",): 4}, start_time_ns=time.time_ns())
        tested = self._deliver(trial, old)
        tested.record(new)
        tested.deliver()
        if tested.hooks.temporality != "cumulative":
            [point] = old.points
            new = msgspec.structs.replace(new, points=(msgspec.structs.replace(point, value=104),))
        tested.expect(new)

    def test_a_series_that_appears_later_is_shown(self, trial: StartTrial) -> None:
        tested = self._deliver(trial, sample_gauge(), sample_counter())
        self._deliver_with(tested, sample_counter("orders.later", {("b",): 5}), sample_gauge("queue.later", {("b",): 2}))

    def test_two_exporters_of_one_process_do_not_mix(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        one, other = trial(), trial()
        one.record(sample_counter("first.total"), sample_gauge("first.now"))
        other.record(sample_counter("second.total"), sample_gauge("second.now"))
        one.deliver()
        other.deliver()
        # Of exporters that are scraped, the backend reads the one that was made last.
        other.expect(*other.totals.values())
        if one.is_pulled:
            names = {exporter_setup.metric_name(data) for data in one.totals.values()}
            mixed = [point for point in exporter_setup.received().points if point.name in names]
            assert not mixed, f"an exporter shows what another one was given: {mixed[0]}"
        else:
            one.expect(*one.totals.values())

    def test_exemplars_arrive_with_value_time_and_ids(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "exemplars")
        now = time.time_ns() // 10**9 * 10**9 + 250 * 10**6
        # One for each of two buckets, and leading zeros in the ids.
        seen = Exemplar(0.0625, now, 7, 8), Exemplar(8.0, now + 10**6, (1 << 127) + 1, 1 << 63)
        counter, histogram = sample_counter(), sample_histogram()
        marked = [
            _with_exemplars(counter, (Exemplar(2.5, now, (1 << 127) + 2, 9),)),
            _with_exemplars(histogram, seen),
            # A whole number, and below zero.
            _with_exemplars(
                sample_histogram("balance.change", {(): (-3.0,)}, boundaries=(-5.0, 0.0), unit="", labels=()),
                (Exemplar(-3, now, 11, 12),),
            ),
        ]
        self._deliver(trial, *marked)

    def test_metrics_of_several_scopes_arrive_each_with_its_own(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "scopes")
        kinds: tuple[Callable[[str], MetricData], ...] = sample_counter, sample_gauge, sample_histogram
        self._deliver(
            trial,
            *(
                msgspec.structs.replace(sample(f"scoped.{kind}.{number}"), scope=scope)
                for kind, sample in enumerate(kinds)
                for number, scope in enumerate(SCOPES)
            ),
        )

    def test_the_resource_arrives_with_what_it_sends(self, exporter_setup: ExporterSetup, trial: StartTrial) -> None:
        self.needs(exporter_setup, "resource")
        tested = trial()
        tested.record(*sample_collection())
        tested.end_spans(sample_spans(1))
        tested.deliver()
        tested.expect_resource()

    @staticmethod
    def _deliver(trial: StartTrial, *metrics: MetricData) -> Trial:
        return ValueContract._deliver_with(trial(), *metrics)

    @staticmethod
    def _deliver_with(tested: Trial, *metrics: MetricData) -> Trial:
        tested.record(*metrics)
        tested.deliver()
        tested.expect(*metrics)
        return tested


def _with_exemplars(data: MetricData, exemplars: tuple[Exemplar, ...]) -> MetricData:
    """The metric with exemplars of its first series."""
    first, *others = data.points
    return msgspec.structs.replace(data, points=(msgspec.structs.replace(first, exemplars=exemplars), *others))
