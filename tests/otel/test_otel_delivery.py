"""The outcomes of one attempt to send, with a real gRPC server whose answers the test chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import pytest

import eventcore_otel.outbox
from eventcore.exporting import GiveUp, Rejected, Resource, RetryLater
from tests.otel.receiver import Proxy, Receiver, receiving, values
from tests.otel.values import Driver, counter, gauge, histogram, span

Drive = Callable[..., Driver]

RETRYABLE = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
HOPELESS = ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"]
FINAL = [
    "INVALID_ARGUMENT",
    "INTERNAL",
    "UNKNOWN",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
]


def names(receiver: Receiver) -> list[str]:
    return [found.name for found in receiver.spans()]


def test_a_cycle_arrives_as_one_request_however_many_chunks_it_has(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    chunks = [counter("c", {"a": 1})], [counter("c", {"b": 2})], [gauge("g", 1.0)], [histogram("h")]
    assert driver.metrics(*chunks) is None
    assert receiver.calls == 1
    assert [metric.name for metric in receiver.metrics()] == ["c", "g", "h"]
    assert driver.spans([span(1), span(2)], [span(3)]) is None
    assert receiver.calls == 2
    assert names(receiver) == ["span 1", "span 2", "span 3"]


def test_an_empty_cycle_sends_nothing(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    assert driver.spans([]) is None
    assert driver.metrics() is None
    assert receiver.calls == 0


@pytest.mark.conforms("OTLP", "A `User-Agent` names the exporter and its version.")
def test_headers_and_our_name_go_along_with_every_call(receiver: Receiver, drive: Drive) -> None:
    drive(endpoint=receiver.endpoint, headers={"Authorization": "Bearer s3cr3t"}).spans([span()])
    assert receiver.metadata[0]["authorization"] == "Bearer s3cr3t"
    assert str(receiver.metadata[0]["user-agent"]).startswith("eventcore-otel/")


@pytest.mark.conforms("OTLP", "gzip compression.")
def test_a_request_can_be_compressed(receiver: Receiver, drive: Drive) -> None:
    drive(endpoint=receiver.endpoint, compression="gzip").spans([span(n) for n in range(1, 200)])
    assert len(receiver.spans()) == 199


def test_the_resource_is_cores_with_the_exporters_own_attributes_on_top(
    receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Core has read them, below the sources that it was given.
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,region=eu")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "variable")
    resource = Resource((("service.name", "core"), ("service.instance.id", "i-1"), ("team", "b")))
    driver = drive(resource, endpoint=receiver.endpoint, service_name="shop", resource_attributes={"region": "us"})
    driver.spans([span()])
    [found] = receiver.resources()
    assert found.pop("telemetry.sdk.version")
    assert found == {
        "telemetry.sdk.name": "eventcore",
        "telemetry.sdk.language": "python",
        "service.name": "shop",
        "service.instance.id": "i-1",
        "team": "b",
        "region": "us",
    }


@pytest.mark.conforms("OTLP", "Each signal may have an endpoint of its own.")
def test_metrics_and_traces_can_go_to_different_receivers(
    receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", other.endpoint)
        driver = drive()
        driver.metrics([counter("c", {"a": 1})])
        driver.spans([span()])
        assert (len(receiver.metrics()), len(receiver.spans())) == (1, 0)
        assert (len(other.metrics()), len(other.spans())) == (0, 1)


@pytest.mark.conforms("OTLP", "What a partial success rejects is not sent again.")
def test_a_partial_success_says_how_many_were_refused_and_why(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.refuse(2, "too old"))
    assert driver.spans([span(1), span(2), span(3)]) == Rejected(2, "partial success: too old")
    receiver.answers.append(receiver.refuse(1, "no such unit"))
    assert driver.metrics([counter("c", {"a": 1, "b": 2})]) == Rejected(1, "partial success: no such unit")


def test_a_partial_success_without_a_number_is_only_a_warning(receiver: Receiver, drive: Drive) -> None:
    receiver.answers.append(receiver.refuse(0, "deprecated attribute"))
    assert drive(endpoint=receiver.endpoint).spans([span()]) is None


@pytest.mark.conforms("OTLP", "The codes that are retryable are retried.")
@pytest.mark.parametrize("code", RETRYABLE)
def test_a_code_that_may_pass_asks_for_a_retry(receiver: Receiver, drive: Drive, code: str) -> None:
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "not now"))
    with pytest.raises(RetryLater) as caught:
        drive(endpoint=receiver.endpoint).spans([span()])
    assert caught.value.reason.startswith(f"{code}: not now")
    assert caught.value.after is None
    assert caught.value.outcome_unknown == (code in ("CANCELLED", "DEADLINE_EXCEEDED"))


@pytest.mark.parametrize("code", HOPELESS)
def test_a_code_that_never_passes_gives_the_signal_up(receiver: Receiver, drive: Drive, code: str) -> None:
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "never"))
    with pytest.raises(GiveUp, match=f"{code}: never"):
        driver.spans([span(1), span(2)])
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "never"))
    with pytest.raises(GiveUp, match=f"{code}: never"):
        driver.metrics([counter("c", {"a": 1, "b": 2})])
    assert driver.spans([span(3)]) is None


def test_what_was_answered_before_the_signal_is_given_up_stays_answered(
    receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventcore_otel.outbox, "MAX_REQUEST", 1)
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.refuse(0, ""))
    receiver.answers.append(receiver.fail(grpc.StatusCode.UNAUTHENTICATED, "expired"))
    assert driver.spans([span(1)], [span(2)], [span(3)]) == Rejected(2, "UNAUTHENTICATED: expired")
    assert names(receiver)[0] == "span 1"


@pytest.mark.conforms("OTLP", "Other codes are not retried, and what was dropped is counted.")
@pytest.mark.parametrize("code", FINAL)
def test_a_code_that_will_not_pass_refuses_everything(receiver: Receiver, drive: Drive, code: str) -> None:
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "never"))
    assert driver.spans([span(1), span(2)]) == Rejected(2, f"{code}: never")
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "never"))
    assert driver.metrics([counter("c", {"a": 1, "b": 2})], [histogram("h")]) == Rejected(3, f"{code}: never")
    assert driver.spans([span(3)]) is None


@pytest.mark.conforms("OTLP", "`RESOURCE_EXHAUSTED` is retried only with `RetryInfo`.")
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_servers_own_delay_is_passed_on(receiver: Receiver, drive: Drive, code: str) -> None:
    receiver.answers.append(receiver.fail(grpc.StatusCode[code], "busy", retry_after=2.25))
    with pytest.raises(RetryLater) as caught:
        drive(endpoint=receiver.endpoint).spans([span()])
    assert caught.value.after == 2.25
    assert caught.value.reason == f"{code}: busy"


def test_status_details_that_cannot_be_read_are_ignored(receiver: Receiver, drive: Drive) -> None:
    def answer(request: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    receiver.answers.append(answer)
    with pytest.raises(RetryLater, match="UNAVAILABLE: busy"):
        drive(endpoint=receiver.endpoint).spans([span()])


def test_a_short_value_of_a_header_leaves_the_text_of_a_server_alone(receiver: Receiver, drive: Drive) -> None:
    receiver.answers.append(receiver.fail(grpc.StatusCode.INVALID_ARGUMENT, "1 of 10 spans is too long"))
    outcome = drive(endpoint=receiver.endpoint, headers={"x-tenant": "1"}).spans([span()])
    assert "1 of 10 spans is too long" in str(outcome)


def test_what_a_server_says_is_cut_and_shows_no_header(receiver: Receiver, drive: Drive) -> None:
    receiver.answers.append(receiver.fail(grpc.StatusCode.INVALID_ARGUMENT, "bad token\n 'Bearer s3cr3t' " + "x" * 1000))
    answer = drive(endpoint=receiver.endpoint, headers={"authorization": "Bearer s3cr3t"}).spans([span()])
    assert isinstance(answer, Rejected)
    assert answer.reason.startswith("INVALID_ARGUMENT: bad token '***' xxx")
    assert len(answer.reason) < 400


def test_a_receiver_that_is_silent_costs_no_more_than_the_timeout(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.hang())
    begun = time.monotonic()
    with pytest.raises(RetryLater, match="DEADLINE_EXCEEDED") as caught:
        driver.spans([span(1)], timeout=0.5)
    assert caught.value.outcome_unknown
    assert 0.4 < time.monotonic() - begun < 1.5
    assert driver.spans([span(1)]) is None
    assert names(receiver) == ["span 1"]


def test_the_exporters_own_timeout_holds_when_it_is_shorter(receiver: Receiver, drive: Drive) -> None:
    receiver.answers.append(receiver.hang())
    begun = time.monotonic()
    with pytest.raises(RetryLater, match="DEADLINE_EXCEEDED"):
        drive(endpoint=receiver.endpoint, timeout=0.3).spans([span()], timeout=20)
    assert time.monotonic() - begun < 2


def test_a_receiver_that_is_down_is_no_error_at_the_start_and_a_quick_one_at_flush(drive: Drive) -> None:
    with receiving() as gone:
        endpoint = gone.endpoint
    driver = drive(endpoint=endpoint)
    begun = time.monotonic()
    with pytest.raises(RetryLater, match=r"UNAVAILABLE: .*refused"):
        driver.spans([span()], timeout=5)
    assert time.monotonic() - begun < 2


def test_a_receiver_that_comes_back_is_found_within_seconds(drive: Drive) -> None:
    with receiving() as gone:
        port = gone.port
    driver = drive(endpoint=f"http://127.0.0.1:{port}")
    failing_until = time.monotonic() + 4  # by then, gRPC waits longer between attempts to connect
    while time.monotonic() < failing_until:
        with pytest.raises(RetryLater):
            driver.spans([span(1)], timeout=1)
        time.sleep(0.1)
    back = Receiver()
    back.start(port)
    try:
        begun = time.monotonic()
        while not back.spans():
            assert time.monotonic() - begun < 5
            try:
                driver.spans([span(1)], timeout=1)
            except RetryLater:
                time.sleep(0.05)
        assert names(back) == ["span 1"]
    finally:
        back.stop()


def test_a_connection_that_died_without_a_word_is_replaced_after_one_timeout(receiver: Receiver, drive: Drive) -> None:
    proxy = Proxy(receiver.port)
    driver = drive(endpoint=f"http://127.0.0.1:{proxy.port}")
    assert driver.spans([span(1)]) is None
    proxy.freeze()
    with pytest.raises(RetryLater, match="DEADLINE_EXCEEDED"):
        driver.spans([span(2)], timeout=0.5)
    assert driver.spans([span(2)]) is None
    assert names(receiver) == ["span 1", "span 2"]
    proxy.close()


@pytest.mark.parametrize("cut_by", ["the receiver, which stops", "the network"])
def test_a_call_whose_connection_is_cut_may_have_arrived(receiver: Receiver, drive: Drive, cut_by: str) -> None:
    proxy = Proxy(receiver.port)
    driver = drive(endpoint=f"http://127.0.0.1:{proxy.port}")
    go_on = threading.Event()
    receiver.answers.append(lambda request, context: go_on.wait(10))

    def cut_when_it_has_arrived() -> None:
        deadline = time.monotonic() + 10
        while not receiver.calls and time.monotonic() < deadline:
            time.sleep(0.005)
        (proxy.close if cut_by == "the network" else receiver.stop)()

    cut = threading.Thread(target=cut_when_it_has_arrived)
    cut.start()
    with pytest.raises(RetryLater, match="UNAVAILABLE") as caught:
        driver.spans([span()], timeout=20)
    assert caught.value.outcome_unknown
    go_on.set()
    cut.join(10)
    # From here on, nothing can be sent any more, so that nothing can arrive.
    proxy.close()
    # A call that begins before gRPC has seen the end of the connection is cut, too.
    for _ in range(10):
        with pytest.raises(RetryLater, match="UNAVAILABLE") as caught:
            driver.spans([span()], timeout=5)
        if not caught.value.outcome_unknown:
            break
    assert not caught.value.outcome_unknown


def test_shutdown_ends_a_call_in_flight(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    receiver.answers.append(receiver.hang())
    outcome: list[BaseException] = []

    def export() -> None:
        try:
            driver.spans([span()], timeout=20)
        except BaseException as error:  # noqa: BLE001  # it is what the test looks at
            outcome.append(error)

    thread = threading.Thread(target=export)
    thread.start()
    while not receiver.calls:
        time.sleep(0.01)
    begun = time.monotonic()
    driver.shutdown()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 1
    [error] = outcome
    assert isinstance(error, RetryLater)
    assert error.reason.startswith("CANCELLED")


def test_an_export_after_shutdown_says_so(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    driver.shutdown()
    with pytest.raises(RetryLater, match="CANCELLED: the exporter has been shut down"):
        driver.spans([span()])


@pytest.mark.conforms("OTLP", "Requests stay below the size that receivers accept.")
def test_a_large_cycle_is_split_into_requests_that_a_collector_takes(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    large = [span(n, attributes=(("text", "x" * 200_000),)) for n in range(1, 51)]
    assert driver.spans(large[:25], large[25:]) is None
    assert len(names(receiver)) == 50
    assert receiver.calls > 4
    assert max(request.ByteSize() for request in receiver.requests) <= eventcore_otel.outbox.MAX_REQUEST


def test_the_retry_of_a_cycle_leaves_out_what_an_earlier_request_has_delivered(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    batch = [span(n, attributes=(("text", "x" * 600_000),)) for n in range(1, 11)]
    receiver.answers.extend([receiver.refuse(1, "odd"), receiver.fail(grpc.StatusCode.UNAVAILABLE)])
    with pytest.raises(RetryLater):
        driver.spans(batch[:5], batch[5:])
    delivered = names(receiver)
    assert 0 < len(delivered) < 10
    # A metrics cycle in between, or other chunk sizes, make no difference.
    assert driver.metrics([counter("c", {"a": 1})]) is None
    assert driver.spans(batch[:2], batch[2:]) == Rejected(1, "partial success: odd")
    assert sorted(names(receiver)) == sorted(f"span {n}" for n in range(1, 11))
    # After a commit the answers are forgotten: the same spans in another cycle are sent.
    assert driver.spans(batch[:1]) is None
    assert names(receiver).count("span 1") == 2


def test_a_cycle_that_begins_again_without_a_flush_sends_nothing_twice(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    driver.hook.export_spans(spans=[span(1), span(2)], timeout=1)
    assert driver.spans([span(1)], [span(2), span(3)]) is None
    assert names(receiver) == ["span 1", "span 2", "span 3"]
    driver.hook.export_counters(counters=[counter("c", {"a": 1})], timeout=1)
    driver.hook.export_gauges(gauges=[gauge("g", 1.0)], timeout=1)
    assert driver.metrics([counter("c", {"a": 2})], [gauge("g", 2.0)]) is None
    assert [metric.name for metric in receiver.metrics()] == ["c", "g"]


def test_a_cycle_that_ended_without_a_flush_is_not_sent_with_the_other_signal(receiver: Receiver, drive: Drive) -> None:
    driver = drive(endpoint=receiver.endpoint)
    driver.hook.export_counters(counters=[counter("c", {"a": 1})], timeout=1)
    assert driver.spans([span(1)]) is None
    assert (receiver.metrics(), names(receiver)) == ([], ["span 1"])


def test_values_arrive_as_they_were_given(receiver: Receiver, drive: Drive) -> None:
    drive(endpoint=receiver.endpoint).metrics([counter("orders.total", {"a": 3, "b": 2.5})])
    [metric] = receiver.metrics()
    found = {values(point.attributes)["kind"]: getattr(point, point.WhichOneof("value")) for point in metric.sum.data_points}
    assert found == {"a": 3, "b": 2.5}
