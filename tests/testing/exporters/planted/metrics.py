"""Faults with metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from eventcore.exporting import ExporterContext, Secret, Signal, hookimpl
from tests.testing.exporters.line_exporter import DeltaLineExporter, LineExporter, LineSetup
from tests.testing.exporters.planted.table import planted


@planted("test_each_counter_arrives_with_its_total")
class LosesCountersWithoutLabels(LineExporter):
    def add_metrics(self, metrics: Sequence[Any]) -> None:
        super().add_metrics([data for data in metrics if data.label_names])


@planted("test_each_counter_arrives_with_its_total")
class LosesDescriptions(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        return super().point(data, point) | {"description": ""}


@planted("test_each_counter_arrives_with_its_total")
class SetsItsOwnStartTime(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        return super().point(data, point) | {"start_time_ns": point.time_ns}


@planted("test_each_gauge_arrives_with_its_current_value")
class TakesUpDownCountersForCounters(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        return super().point(data, point) | ({"kind": "counter"} if getattr(data, "additive", False) else {})


@planted("test_each_gauge_arrives_with_its_current_value")
class LosesTheSign(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | ({"value": abs(fields["value"])} if isinstance(fields["value"], int) else {})


@planted("test_each_histogram_arrives_with_count_sum_and_buckets")
class SendsTheMeanForTheSum(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | ({"sum": fields["sum"] / fields["count"]} if fields["count"] else {})


@planted("test_each_histogram_arrives_with_count_sum_and_buckets")
class AddsBucketsUp(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields, below = super().point(data, point), 0
        for bound, count in (fields["buckets"] or {}).items():
            fields["buckets"][bound] = below = below + count
        return fields


@planted("test_each_histogram_arrives_with_count_sum_and_buckets")
class SwapsMinAndMax(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"min": fields["max"], "max": fields["min"]}


@planted("test_a_histogram_without_buckets_or_values_arrives")
class DividesByTheCount(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        if fields["kind"] == "histogram":
            fields["mean"] = fields["sum"] / fields["count"]
            del fields["mean"]
        return fields


@planted("test_label_values_at_their_edges_stay_apart")
class StripsLabels(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"labels": {name: value.strip() for name, value in fields["labels"].items()}}


@planted("test_label_values_at_their_edges_stay_apart")
class CutsLabels(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"labels": {name: value[:255] for name, value in fields["labels"].items()}}


@planted("test_several_labels_arrive_each_with_its_own_value")
class SortsTheValuesOfLabels(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"labels": dict(zip(fields["labels"], sorted(fields["labels"].values()), strict=True))}


@planted("test_metrics_of_similar_names_stay_apart")
class CutsNamesAtTheLastDot(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"name": fields["name"].removesuffix(".total").removesuffix(".y")}


@planted("test_whole_and_broken_large_and_small_numbers_arrive")
class KeepsSixDigits(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | ({"value": float(f"{float(fields['value']):.6g}")} if fields["value"] is not None else {})


@planted("test_values_that_are_not_finite_harm_no_other_value")
class CannotTakeNaN(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        if getattr(point, "value", 0) != getattr(point, "value", 0):
            raise ValueError("not a number")
        return super().point(data, point)


@planted("test_a_cycle_without_anything_is_no_fault")
class NeedsSomethingToSend(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if not self.waiting[signal]:
            raise RuntimeError("nothing to send")
        super().flush(signal, timeout)


@planted("test_thousands_of_series_arrive_to_the_last_one")
class SendsAThousandPoints(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        super().send({key: values[:1000] for key, values in content.items()}, timeout)


@planted("test_further_cycles_show_the_newest_values")
class AddsTotalsUp(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.totals: dict[Any, float] = {}

    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        if fields["kind"] == "counter":
            key = data.name, point.labels
            fields["value"] = self.totals[key] = self.totals.get(key, 0) + fields["value"]
        return fields


@planted("test_further_cycles_show_the_newest_values")
class SendsEachSeriesOnce(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.seen: set[Any] = set()

    def add_metrics(self, metrics: Sequence[Any]) -> None:
        super().add_metrics([data for data in metrics if data.name not in self.seen])
        self.seen.update(data.name for data in metrics)


@planted("test_a_total_that_begins_anew_is_counted_from_its_beginning")
class KeepsTheHighestTotal(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.highest: dict[Any, float] = {}

    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        if fields["kind"] == "counter":
            key = data.name, point.labels
            fields["value"] = self.highest[key] = max(self.highest.get(key, 0), fields["value"])
        return fields


@planted("test_a_series_that_appears_later_is_shown")
class LearnsSeriesAtTheFirstCycle(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.known: set[str] | None = None

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if signal == "metrics":
            self.known = self.known or {fields["name"] for fields in self.waiting[signal]}
            self.waiting[signal] = [fields for fields in self.waiting[signal] if fields["name"] in self.known]
        super().flush(signal, timeout)


@planted("test_two_exporters_of_one_process_do_not_mix")
class WorksForTheFirstInstance(LineExporter):
    first: ClassVar[LineExporter | None] = None

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        cls = type(self)
        cls.first = cls.first or self

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if type(self).first is self:
            super().send(content, timeout)


@planted("test_metrics_arrive_whole_after_a_cycle_that_failed_before")
class ForgetsARetry(DeltaLineExporter):
    attempt = 1

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        super().begin(signal, attempt)
        self.attempt = attempt

    def add_metrics(self, metrics: Sequence[Any]) -> None:
        if self.attempt == 1:
            super().add_metrics(metrics)


@planted("test_metrics_arrive_whole_after_a_cycle_that_failed_behind")
class AddsDifferencesOfAFailedCycle(DeltaLineExporter):
    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        if signal == "spans":
            super().begin(signal, attempt)


@planted("test_exemplars_arrive_with_value_time_and_ids")
class WritesTraceIdsWithoutZeros(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"exemplars": [each | {"trace_id": each["trace_id"].lstrip("0")} for each in fields["exemplars"]]}


@planted("test_exemplars_arrive_with_value_time_and_ids")
class KeepsTheLastExemplar(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"exemplars": fields["exemplars"][-1:]}


@planted("test_metrics_of_several_scopes_arrive_each_with_its_own")
class LosesTheVersionOfTheScope(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"scope": fields["scope"] | ({"version": "1.2"} if fields["scope"]["name"] == "shop" else {})}


@planted("test_the_resource_arrives_with_what_it_sends")
class SendsTheServiceNameOnly(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        self.resource = {"service.name": self.resource["service.name"]}
        super().send(content, timeout)


@planted("test_a_label_whose_name_means_something_in_a_protocol_arrives")
class KeepsALabelForItself(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"labels": {name: value for name, value in fields["labels"].items() if name != "le"}}


class LineSetupWithEstimates(LineSetup):
    """The backend shows quantiles and rates, too."""

    quantiles: ClassVar[Sequence[float]] = (0.5, 0.99)
    has_rates: ClassVar[bool] = True


class Estimating(LineExporter):
    """Computes both as it should."""

    setup = LineSetupWithEstimates

    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.before: dict[Any, tuple[float, int]] = {}

    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        if fields["kind"] == "histogram" and point.count:
            fields["quantiles"] = {q: self.quantile(data, point, q) for q in (0.5, 0.99)}
        if fields["kind"] == "counter":
            fields["rate"] = self.rate(data, point)
        return fields

    def quantile(self, data: Any, point: Any, quantile: float) -> float:
        """The value whose rank it is, taken for the middle of its bucket."""
        bounds = [point.min, *data.boundaries, point.max]
        buckets = [index for index, count in enumerate(point.buckets) for _ in range(count)]
        index = buckets[min(len(buckets) - 1, int(quantile * len(buckets)))]
        return float(min(point.max, max(point.min, (bounds[index] + bounds[index + 1]) / 2)))

    def rate(self, data: Any, point: Any) -> float | None:
        key = data.name, point.labels
        value, since = self.before.get(key, (0, point.start_time_ns))
        if since < point.start_time_ns:
            value, since = 0, point.start_time_ns
        self.before[key] = point.value, point.time_ns
        return float((point.value - value) * 1e9 / (point.time_ns - since)) if point.time_ns > since else None


@planted("test_quantiles_lie_where_the_values_are")
class TakesTheBucketBelow(Estimating):
    def quantile(self, data: Any, point: Any, quantile: float) -> float:
        return super().quantile(data, point, quantile) / 10


@planted("test_quantiles_lie_where_the_values_are")
class LosesTheLastQuantile(Estimating):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        fields.get("quantiles", {}).pop(0.99, None)
        return fields


@planted("test_a_rate_is_the_increase_per_second")
class ComputesNegativeRates(Estimating):
    def rate(self, data: Any, point: Any) -> float | None:
        key = data.name, point.labels
        value, since = self.before.get(key, (0, point.start_time_ns))
        self.before[key] = point.value, point.time_ns
        return float((point.value - value) * 1e9 / (point.time_ns - since))


@planted("test_whole_and_broken_large_and_small_numbers_arrive")
class RoundsLargeTotals(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        large = isinstance(fields["value"], int) and abs(fields["value"]) >= 10_000_000_000
        return fields | ({"value": round(fields["value"], -2)} if large else {})


@planted("test_a_name_that_ends_in_its_unit_arrives")
class CutsTheUnitOffTheName(LineExporter):
    def point(self, data: Any, point: Any) -> dict[str, Any]:
        return super().point(data, point) | {"name": data.name.removesuffix(f".{data.unit}")}


class WordsBesideTotals(LineExporter):
    """Its backend has one name for `sold` and `sold.total`: what comes first has it, and the other one is reported."""

    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.owners: dict[str, str] = {}

    def add_metrics(self, metrics: Sequence[Any]) -> None:
        shown = []
        for data in metrics:
            owner = self.owners.setdefault(data.name.removesuffix(".total"), data.name)
            if owner == data.name:
                shown.append(data)
            else:
                self.context.report_hidden(data.name, f"{owner!r} has this name", "collision")
        super().add_metrics(shown)


@planted("test_the_names_of_eventcore_are_kept_for_eventcore")
class GivesItsNameToTheFirst(WordsBesideTotals):
    pass


@planted("test_names_that_another_one_reserves_stay_apart_when_they_come_later")
class LosesTheMetricThatComesLater(LineExporter):
    def add_metrics(self, metrics: Sequence[Any]) -> None:
        super().add_metrics([data for data in metrics if not data.name.endswith(".created")])


class OneTextSetup(LineSetup):
    """The backend has no zero byte."""

    def text(self, text: str) -> str:
        return text.replace("\0", "\ufffd")


@planted("test_texts_that_are_one_for_the_backend_are_added")
class ShowsTheLastOfTwo(LineExporter):
    setup = OneTextSetup

    def point(self, data: Any, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"labels": {name: text.replace("\0", "\ufffd") for name, text in fields["labels"].items()}}
