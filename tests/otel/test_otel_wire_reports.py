"""Failures reported in public trackers of other OTLP exporters and receivers, as tests of this one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from eventcore.exporting import CounterData, NumberPoint, SpanLink, TraceContext
from tests.otel.receiver import Receiver, receiving, values
from tests.otel.values import NOW, START, Driver, counter, span

Drive = Callable[..., Driver]


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    with ExitStack() as running:
        yield [running.enter_context(receiving()) for _ in range(3)]


def test_a_backend_can_tell_which_span_is_the_entry_of_a_service(receiver: Receiver, drive: Drive) -> None:
    """opentelemetry-python#3876, opentelemetry-rust#3152: flags did not say whether a parent or link is remote."""
    parent = TraceContext(0xABC0_0000_0000_0001, 9, 1, is_remote=True)
    entry = span(1, parent_span_id=parent.span_id, parent_is_remote=True, links=(SpanLink(parent),))
    drive(endpoint=receiver.endpoint).spans([entry, span(2, parent_span_id=1)])
    first, second = receiver.spans()
    known, remote = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK, trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert (first.flags & known, first.flags & remote) == (known, remote)
    assert (second.flags & known, second.flags & remote) == (known, 0)
    assert first.links[0].flags & remote


@pytest.mark.conforms("OTLP", "A request has one point of one identity.")
def test_the_points_of_an_instrument_are_one_metric_in_a_request(receiver: Receiver, drive: Drive) -> None:
    """opentelemetry-collector-contrib#8831: several metrics of one name are refused as duplicates."""
    chunks = ([counter("orders.total", {f"country {n}": n})] for n in range(20))
    drive(endpoint=receiver.endpoint).metrics(*chunks)
    assert Counter(metric.name for metric in receiver.metrics()) == {"orders.total": 1}
    assert len(receiver.metrics()[0].sum.data_points) == 20


@pytest.mark.conforms("OTLP", "A request has one point of one identity.")
def test_no_two_points_of_a_request_have_the_same_identity(receiver: Receiver, drive: Drive) -> None:
    """opentelemetry-collector-contrib#36508, rustfs#6111: of two points with the same attributes and time, either may win."""
    points = tuple(NumberPoint((("kind", "a"),), value, START, NOW) for value in (1, 2))
    answer = drive(endpoint=receiver.endpoint).metrics([CounterData("orders.total", "", "", ("kind",), points)])
    [metric] = receiver.metrics()
    assert [values(point.attributes) for point in metric.sum.data_points] == [{"kind": "a"}]
    assert answer is not None
    assert answer.count == 1


def test_metrics_above_four_megabytes_arrive(receiver: Receiver, drive: Drive) -> None:
    """opentelemetry-python#2710, opentelemetry-java#5394: one request of all metrics was refused, for ever."""
    many: dict[str, int | float] = {f"{'x' * 5000}{n}": n for n in range(1000)}
    assert drive(endpoint=receiver.endpoint).metrics([counter("orders.total", many)], timeout=20) is None
    arrived = [point.as_int for metric in receiver.metrics() for point in metric.sum.data_points]
    assert sorted(arrived) == list(range(1000))


@pytest.mark.conforms("OTLP", "A partial success that rejects nothing is a success; its message is logged.")
def test_a_warning_of_a_receiver_that_accepted_everything_is_seen_and_is_no_failure(
    receiver: Receiver, drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    """opentelemetry-python#4803: the message was dropped. opentelemetry-collector#13476: it was repeated with every request."""
    driver = drive(endpoint=receiver.endpoint)
    for _ in range(3):
        receiver.answers.append(receiver.refuse(0, "attribute 'x' is deprecated"))
        assert driver.spans([span()]) is None
    assert [record.getMessage() for record in caplog.records if "'x' is deprecated" in record.getMessage()] == [
        "the receiver of traces accepted everything and says: attribute 'x' is deprecated"
    ]


def test_a_token_that_expires_every_hour_does_not_end_the_export(receiver: Receiver, drive: Drive) -> None:
    """opentelemetry-go#3607, opentelemetry-swift#651: headers were read once; after an hour everything was refused."""
    valid = "first"

    def check(request: object, context: grpc.ServicerContext) -> object:
        if dict(context.invocation_metadata())["authorization"] != valid:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "expired")
        return receiver.refuse(0, "")(request, context)

    driver = drive(endpoint=receiver.endpoint, headers=lambda: {"authorization": valid})
    for token in ("first", "second", "third"):
        valid = token
        receiver.answers.extend([check, check])
        assert driver.spans([span()]) is None
        receiver.answers.clear()
    assert len(receiver.spans()) == 3


def test_every_collector_behind_one_name_gets_its_share(receivers: list[Receiver], drive: Drive) -> None:
    """opentelemetry-specification#2212, opentelemetry-collector#10298: all requests went to the first address, for ever."""
    addresses = ",".join(f"127.0.0.1:{receiver.port}" for receiver in receivers)
    driver = drive(endpoint=f"ipv4:{addresses}", insecure=True, load_balancing="round_robin")
    deadline = time.monotonic() + 10
    while not all(receiver.calls for receiver in receivers):
        assert time.monotonic() < deadline
        driver.spans([span()])
