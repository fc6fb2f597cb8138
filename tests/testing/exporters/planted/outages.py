"""Faults while the backend is down, slow or dead; and texts and declarations that are wrong."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from eventcore.exporting import RetryLater, Secret, hookimpl
from tests.testing.exporters.line_exporter import LineExporter, LineSetup
from tests.testing.exporters.planted.table import planted


# Outages
@planted("test_nothing_is_lost_while_the_backend_is_down")
class SwallowsErrors(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
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
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        super().send(content, timeout + 2)


@planted("test_a_backend_that_never_answers_holds_nobody_up")
class TakesACutForARefusal(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        try:
            super().send(content, timeout)
        except RetryLater as error:
            raise RetryLater(reason=error.reason) from error


@planted("test_a_slow_backend_gets_everything_once")
class IsImpatient(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        for limit in (0.1, timeout):
            try:
                return super().send(content, limit)
            except RetryLater:
                pass
        return None


@planted("test_the_account_adds_up_to_the_item_after_everything")
class RetriesByItself(LineExporter):
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
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
    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
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


@planted("test_a_backend_that_asks_for_a_pause_gets_it")
class ForgetsThePause(LineExporter):
    def refusal(self, answer: bytes) -> RetryLater:
        return RetryLater(reason="refused")


@planted("test_a_backend_that_asks_for_a_pause_gets_it")
class TakesSecondsForMilliseconds(LineExporter):
    def refusal(self, answer: bytes) -> RetryLater:
        asked: Any = super().refusal(answer)
        return RetryLater((asked.after or 0.0) / 1000, asked.reason)


@planted("test_an_exporter_goes_on_after_calls_that_nobody_answered")
class StaysClosedAfterACallWithoutAnswer(LineExporter):
    failed = False

    def send(self, content: Mapping[str, Any], timeout: float) -> Any:
        if self.failed:
            raise RetryLater(reason="the connection is closed")
        try:
            super().send(content, timeout)
        except RetryLater as error:
            self.failed = error.outcome_unknown
            raise
