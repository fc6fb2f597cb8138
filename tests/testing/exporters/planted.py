"""Exporters with one planted fault each, and the check of the kit that is meant to catch it.

``pytest tests/testing/exporters/planted.py`` runs the whole contract on each of them; ``test_planted_faults.py`` runs the
checks that are meant, and ``python -m tests.testing.exporters.planted`` prints the table.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import pytest

from eventcore.exporting import ExporterContext, Rejected, RetryLater, Secret, Signal, hookimpl
from eventcore.testing import ExporterContract
from tests.testing.exporters.line_exporter import TOKEN, DeltaLineExporter, LineExporter, LineSetup

PLANTED: Final[dict[str, tuple[type[LineExporter], str]]] = {}
"""The exporters by name, each with the check that is meant to catch its fault."""


def planted(check: str) -> Any:
    """Enter a faulty exporter into the table."""

    def enter(kind: type[LineExporter]) -> type[LineExporter]:
        PLANTED[kind.__name__] = (kind, check)
        return kind

    return enter


# Metrics


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
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
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

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
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


# Spans


@planted("test_a_span_arrives_with_every_field")
class MakesEverySpanARoot(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"parent_id": ""}


@planted("test_a_span_arrives_with_every_field")
class LosesLinks(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"links": []}


@planted("test_a_span_that_has_only_a_name_and_ids_arrives")
class WritesIdsWithoutZeros(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | {"span_id": f"{span.context.span_id:x}"}


@planted("test_every_kind_and_status_of_a_span_arrives")
class KnowsNoConsumers(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | ({"kind": "internal"} if span.kind == "consumer" else {})


@planted("test_every_kind_and_status_of_a_span_arrives")
class TakesOkForUnset(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        return super().span(span) | ({"status": "unset"} if span.status == "ok" else {})


@planted("test_several_events_and_links_arrive_in_their_order")
class KeepsTheLastEvent(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        fields = super().span(span)
        return fields | {"events": fields["events"][-1:]}


@planted("test_attributes_of_every_type_arrive")
class WritesBooleansAsText(LineExporter):
    def span(self, span: Any) -> dict[str, Any]:
        fields = super().span(span)
        texts = {name: str(value) for name, value in fields["attributes"].items() if isinstance(value, bool)}
        return fields | {"attributes": fields["attributes"] | texts}


@planted("test_a_value_that_no_protocol_takes_loses_no_other_span")
class LosesTheBatchOfABadValue(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if any(len(str(span["attributes"].get("huge", ""))) > 20 for span in self.waiting["spans"]):
            count, self.waiting["spans"] = len(self.waiting["spans"]), []
            return Rejected(count, "a value cannot be encoded")
        return super().flush(signal, timeout)


@planted("test_thousands_of_spans_arrive_each_once")
class CountsWhatArrivedAsRejected(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        count = len(self.waiting[signal])
        super().flush(signal, timeout)
        return Rejected(max(count - 1000, 0), "too many")


@planted("test_spans_of_several_cycles_arrive_each_once")
class SendsSpansAgain(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.last: list[Any] = []

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        if spans := content.get("spans"):
            content, self.last = {"spans": [*self.last, *spans]}, spans
        super().send(content, timeout)


# Cycles


@planted("test_spans_arrive_once_after_half_a_cycle")
class KeepsWhatAFailedCycleHasLeft(LineExporter):
    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        pass


@planted("test_spans_arrive_once_after_a_cycle_that_failed_before")
class SkipsWhatItHasSeen(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.seen: set[int] = set()

    @hookimpl
    def export_spans(self, spans: Sequence[Any], timeout: float) -> None:
        super().export_spans([span for span in spans if span.context.span_id not in self.seen], timeout)
        self.seen.update(span.context.span_id for span in spans)


@planted("test_a_failed_cycle_of_metrics_is_not_delivered_by_one_of_spans")
class FlushesBothSignals(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        super().flush("metrics", timeout)
        super().flush("spans", timeout)


@planted("test_a_failed_cycle_of_spans_is_not_delivered_by_one_of_metrics")
class FlushesSpansWithMetrics(LineExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        super().flush("spans", timeout)
        super().flush(signal, timeout)


@planted("test_after_an_unknown_outcome_no_span_arrives_more_than_twice")
class SendsARetryTwice(LineExporter):
    attempt = 1

    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        super().begin(signal, attempt)
        self.attempt = attempt

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        super().send(content, timeout)
        if self.attempt > 1:
            super().send(content, timeout)


# Lifecycle


@planted("test_making_the_exporter_opens_nothing")
class ConnectsWhenItIsMade(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        OPEN.append(socket.create_connection(("127.0.0.1", port)))


@planted("test_everything_that_was_opened_is_closed_at_shutdown")
class LeavesAThreadBehind(LineExporter):
    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()


@planted("test_everything_that_was_opened_is_closed_at_shutdown")
class LeavesConnectionsOpen(LineExporter):
    def disconnect(self) -> None:
        OPEN.extend([self.connection] if self.connection is not None else [])
        self.connection = None


@planted("test_shutdown_may_come_before_start_and_twice")
class ShutsDownOnce(LineExporter):
    @hookimpl
    def shutdown(self, timeout: float) -> None:
        del self.context


@planted("test_it_starts_again_after_a_start_that_failed_halfway")
class StartsOnce(LineExporter):
    started = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        if self.started:
            raise RuntimeError("started already")
        self.started = True
        super().start(context)


@planted("test_a_shutdown_delivers_what_was_recorded")
class SendsWithTheNextCycle(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.held: dict[str, Any] = {}

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        for signal, values in content.items():
            held, self.held[signal] = self.held.get(signal), values
            if held:
                super().send({signal: held}, timeout)


@planted("test_a_shutdown_at_any_time_is_in_time")
class HangsInShutdown(LineExporter):
    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        threading.Event().wait(3)


@planted("test_flushes_and_spans_of_several_threads_lose_nothing")
class LeavesOutFlushesThatComeSoon(LineExporter):
    last = 0.0

    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        if signal == "spans" and time.monotonic() < self.last + 0.02:
            return
        super().flush(signal, timeout)
        self.last = time.monotonic()


@planted("test_a_successor_goes_on_without_loss")
class SaysThatASuccessorHasNothingToDo(LineExporter):
    gone: ClassVar[bool] = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        super().start(context)
        self.is_idle = type(self).gone

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        if not self.is_idle:
            super().send(content, timeout)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        type(self).gone = True


@planted("test_a_forked_child_and_its_parent_each_deliver_their_own")
class WorksInItsProcessOnly(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.process = os.getpid()

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        if os.getpid() != self.process:
            raise RuntimeError("made in another process")
        super().send(content, timeout)


@planted("test_a_forked_child_and_its_parent_each_deliver_their_own")
class EndsAtAFork(LineExporter):
    ended = False

    @hookimpl
    def start(self, context: ExporterContext) -> None:
        self.context = context
        context.on_fork(before=self.end)

    def end(self) -> None:
        self.disconnect()
        self.ended = True

    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        if self.ended:
            raise RuntimeError("the connection was closed for a fork")
        super().send(content, timeout)


# Outages


@planted("test_nothing_is_lost_while_the_backend_is_down")
class SwallowsErrors(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        try:
            super().send(content, timeout)
        except RetryLater:
            pass


@planted("test_a_backend_that_was_started_again_gets_everything")
class NeverConnectsAgain(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.was_connected = False

    def connect(self, timeout: float) -> socket.socket:
        if self.connection is None and self.was_connected:
            raise ConnectionError("connected once")
        self.was_connected = True
        return super().connect(timeout)


@planted("test_a_backend_that_never_answers_holds_nobody_up")
class IgnoresItsTimeout(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        super().send(content, timeout + 2)


@planted("test_a_backend_that_never_answers_holds_nobody_up")
class TakesACutForARefusal(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        try:
            super().send(content, timeout)
        except RetryLater as error:
            raise RetryLater(reason=error.reason) from error


@planted("test_a_slow_backend_gets_everything_once")
class IsImpatient(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        for limit in (0.1, timeout):
            try:
                return super().send(content, limit)
            except RetryLater:
                pass
        return None


@planted("test_the_account_adds_up_to_the_item_after_everything")
class RetriesByItself(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        for _ in range(3):
            try:
                return super().send(content, timeout / 4)
            except RetryLater:
                pass
        return super().send(content, timeout / 4)


# Hygiene


@planted("test_nothing_that_a_hook_is_given_is_changed")
class SortsWhatItIsGiven(LineExporter):
    @hookimpl
    def export_gauges(self, gauges: Any, timeout: float) -> None:
        gauges.sort(key=lambda data: data.name, reverse=True)
        gauges.clear()


@planted("test_nothing_that_a_hook_is_given_is_changed")
class ChangesSharedValues(LineExporter):
    @hookimpl
    def export_spans(self, spans: Sequence[Any], timeout: float) -> None:
        super().export_spans(spans, timeout)
        for span in spans:
            msgspec.structs.force_setattr(span, "name", span.name.upper())


@planted("test_no_secret_is_in_the_text_of_the_exporter")
class ShowsItsToken(LineExporter):
    def __repr__(self) -> str:
        return f"ShowsItsToken({self.token.reveal()})"


@planted("test_no_secret_is_in_the_text_of_the_exporter")
class KeepsItsTokenAsText(LineExporter):
    def __init__(self, port: int, token: Secret) -> None:
        super().__init__(port, token)
        self.header = f"Bearer {token.reveal()}"


@planted("test_a_failure_shows_no_secret")
class LogsItsToken(LineExporter):
    def connect(self, timeout: float) -> socket.socket:
        self.context.logger.debug("connecting with %s", self.token.reveal())
        return super().connect(timeout)


@planted("test_a_failure_shows_no_secret")
class PutsItsTokenIntoTheReason(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> None:
        try:
            super().send(content, timeout)
        except RetryLater as error:
            raise RetryLater(reason=f"{error.reason} with {self.token.reveal()}") from error


class _WrongSetup(LineSetup):
    cannot: ClassVar = {"spans": "it is said to have none"}


@planted("test_core_accepts_the_exporter_and_the_declared_limits_are_true")
class DeclaresALimitThatItHasNot(LineExporter):
    setup: ClassVar = _WrongSetup


class _SecretiveSetup(LineSetup):
    secrets: ClassVar = ()


@planted("test_a_setting_that_is_a_secret_has_its_text_in_the_setup")
class DeclaresNoSecrets(LineExporter):
    setup: ClassVar = _SecretiveSetup


OPEN: Final[list[socket.socket]] = []
"""What faulty exporters have left open: kept, so that the garbage collector does not close it."""


class _Planted(ExporterContract):
    kind: ClassVar[type[LineExporter]]

    @pytest.fixture
    def exporter_setup(self, tmp_path: Path) -> Iterator[LineSetup]:
        made = getattr(self.kind, "setup", LineSetup)

        class Impatient(made):  # type: ignore[misc, valid-type]  # chosen at run time
            patience: ClassVar[float] = 0.4

        setup = Impatient(tmp_path, self.kind)
        yield setup
        setup.stop()
        for each in OPEN:
            each.close()
        OPEN.clear()
        assert TOKEN in LineSetup.secrets


globals().update({f"Test{name}": type(f"Test{name}", (_Planted,), {"kind": kind}) for name, (kind, _) in PLANTED.items()})


def run(names: Iterable[str], *, whole: bool = False) -> dict[str, set[str]]:
    """Run the checks that are meant, or the whole contract, on faulty exporters. Returns the failed checks of each."""
    file = str(Path(__file__).relative_to(Path(__file__).parents[3]))
    chosen = [f"{file}::Test{name}" + ("" if whole else f"::{PLANTED[name][1]}") for name in names]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        options = ["-q", "-p", "no:cacheprovider", *(["-n", "2"] if whole else []), "--timeout", "30", f"--junit-xml={results}"]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.DEVNULL,
            check=False,
            timeout=3600,
        )
        failed: dict[str, set[str]] = {}
        for case in ET.parse(results).getroot().iter("testcase"):  # pytest has just written it
            checks = failed.setdefault(case.attrib["classname"].rpartition(".Test")[2], set())
            if case.find("failure") is not None or case.find("error") is not None:
                checks.add(case.attrib["name"].partition("[")[0])
    return failed


def main() -> int:
    """Print the table: each planted fault, whether the check that is meant has caught it, and how many others did, too."""
    failed = run(PLANTED, whole=True)
    missed = [name for name, (_, check) in PLANTED.items() if check not in failed.get(name, ())]
    for name, (_, check) in PLANTED.items():
        found = failed.get(name, set())
        print(f"| {name} | `{check}` | {'caught' if check in found else 'MISSED'} | {len(found - {check})} |")
    print(f"{len(PLANTED)} planted faults, {len(PLANTED) - len(missed)} caught by the check that is meant for them")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
