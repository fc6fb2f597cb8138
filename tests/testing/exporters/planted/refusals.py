"""Faults with backends that take a part, refuse, or do not answer; with secrets that change; and with what is left out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from eventcore.exporting import GaugeData, GiveUp, MetricData, Rejected, RetryLater, Signal, hookimpl
from eventcore.testing import Received
from tests.testing.exporters.line_exporter import LineExporter, LineSetup, SeveralLinesExporter
from tests.testing.exporters.planted.table import planted


# What a backend rejects
@planted("test_what_the_backend_rejects_is_counted_to_the_item")
class SaysNothingOfWhatWasRejected(LineExporter):
    def outcome(self, answer: bytes) -> Rejected | None:
        super().outcome(answer)
        return None


@planted("test_what_the_backend_rejects_is_counted_to_the_item")
class TakesARejectedPartForTheWhole(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        answer = super().send(content, timeout)
        return answer and Rejected(sum(map(len, content.values())), answer.reason)


@planted("test_what_the_backend_rejects_is_counted_to_the_item")
class TriesAgainWhatWasRejected(LineExporter):
    def outcome(self, answer: bytes) -> Rejected | None:
        if (rejected := super().outcome(answer)) is not None:
            raise RetryLater(reason=rejected.reason)
        return None


@planted("test_what_the_backend_rejects_is_counted_to_the_item")
class RepeatsAllThatTheBackendSays(LineExporter):
    def clean(self, text: str) -> str:
        return text.replace(self.token.reveal(), "***")


@planted("test_what_the_backend_rejects_is_counted_to_the_item")
class RepeatsTheTokenThatTheBackendRepeats(LineExporter):
    def clean(self, text: str) -> str:
        return text[:200]


@planted("test_what_a_backend_says_although_it_took_everything_is_logged_once")
class LogsEachMessage(LineExporter):
    def hear(self, message: str) -> None:
        super().hear(message)
        self.heard.clear()


@planted("test_what_a_backend_says_although_it_took_everything_is_logged_once")
class TakesAMessageForAFailure(LineExporter):
    def hear(self, message: str) -> None:
        if message:
            raise RetryLater(reason=self.clean(message))


# What a backend refuses
@planted("test_a_cycle_whose_later_requests_are_refused_arrives_whole_and_once")
class SendsAgainWhatWasTaken(SeveralLinesExporter):
    @hookimpl
    def begin(self, signal: Signal, attempt: int) -> None:
        super().begin(signal, attempt)
        self.taken.clear()


@planted("test_a_cycle_whose_later_requests_are_refused_arrives_whole_and_once")
class TakesTheWholeForTakenAfterAPart(SeveralLinesExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        waiting = self.waiting[signal]
        try:
            return super().flush(signal, timeout)
        except RetryLater:
            if self.taken:
                self.taken.update(each["span_id"] for each in waiting if signal == "spans")
            raise


@planted("test_what_is_refused_for_good_is_counted_and_what_was_taken_before_is_not")
class ForgetsWhatWasTakenWhenItGivesUp(SeveralLinesExporter):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        answer = super().flush(signal, timeout)
        if answer is not None:
            raise GiveUp(answer.reason)
        return None


@planted("test_what_is_refused_for_good_is_counted_and_what_was_taken_before_is_not")
class TriesForEver(LineExporter):
    def refusal(self, answer: bytes) -> RetryLater | GiveUp:
        return RetryLater(reason=super().refusal(answer).reason)


@planted("test_a_request_whose_answer_is_missing_may_have_arrived")
class TakesAMissingAnswerForARefusal(LineExporter):
    def outcome(self, answer: bytes) -> Rejected | None:
        if not answer:
            self.disconnect()
            raise RetryLater(reason="the connection ended")
        return super().outcome(answer)


@planted("test_a_request_whose_answer_is_missing_may_have_arrived")
class TakesAMissingAnswerForASuccess(LineExporter):
    def outcome(self, answer: bytes) -> Rejected | None:
        if not answer:
            self.disconnect()
            return None
        return super().outcome(answer)


# Secrets that change
@planted("test_secrets_that_change_are_followed_without_loss")
class KeepsItsFirstToken(LineExporter):
    def look_for_token(self) -> None:
        pass


@planted("test_secrets_that_change_are_followed_without_loss")
class LooksForATokenOnlyAfterItHasGivenUp(LineExporter):
    def look_for_token(self) -> None:
        pass

    def refusal(self, answer: bytes) -> RetryLater | GiveUp:
        super().look_for_token()
        return super().refusal(answer)


@planted("test_while_new_secrets_cannot_be_read_those_of_before_are_used")
class StopsWithoutItsFile(LineExporter):
    def look_for_token(self) -> None:
        super().look_for_token()
        if self.is_lost:
            raise RetryLater(reason="no token")


@planted("test_while_new_secrets_cannot_be_read_those_of_before_are_used")
class WarnsAtEachRequest(LineExporter):
    def look_for_token(self) -> None:
        self.is_lost = False
        super().look_for_token()


@planted("test_while_new_secrets_cannot_be_read_those_of_before_are_used")
class SaysNothingOfALostFile(LineExporter):
    def look_for_token(self) -> None:
        self.is_lost = True
        super().look_for_token()


# What is left out
class _Small(LineExporter):
    """Its backend has no room for large numbers."""

    left_out = 0

    def add_metrics(self, metrics: Sequence[MetricData]) -> None:
        super().add_metrics(metrics)
        every = self.waiting["metrics"]
        self.waiting["metrics"] = [each for each in every if not isinstance(each.get("value"), int) or each["value"] < 2**63]
        self.left_out += len(every) - len(self.waiting["metrics"])


@planted("test_a_number_that_the_backend_has_no_room_for_is_reported")
class LeavesOutWithoutAWord(_Small):
    pass


@planted("test_a_number_that_the_backend_has_no_room_for_is_reported")
class CountsInTheWrongSignal(_Small):
    @hookimpl
    def flush(self, signal: Signal, timeout: float) -> Any:
        super().flush(signal, timeout)
        return Rejected(self.left_out, "too large") if self.left_out else None


@planted("test_each_gauge_arrives_with_its_current_value")
class BeginsGaugesWhenTheyAreSent(LineExporter):
    def point(self, data: MetricData, point: Any) -> dict[str, Any]:
        fields = super().point(data, point)
        return fields | {"start_time_ns": 1} if isinstance(data, GaugeData) else fields


# Scrapes
class _ScrapedSetup(LineSetup):
    """Each look at what the backend has is a scrape."""

    def make(self) -> object:
        self.made: Any = super().make()
        return self.made

    def received(self) -> Received:
        self.made.scrape()
        return super().received()


@planted("test_a_scrape_after_the_shutdown_ends_soon")
class HoldsScrapesUpAfterItsEnd(LineExporter):
    setup: ClassVar = _ScrapedSetup
    interval = None
    has_ended = False

    def scrape(self) -> None:
        if self.has_ended:
            threading.Event().wait(4)
        self.context.export_now(5.0).result(5.0)

    @hookimpl
    def shutdown(self, timeout: float) -> None:
        super().shutdown(timeout)
        self.has_ended = True
