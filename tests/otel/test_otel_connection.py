"""Connections and credentials: several collectors, keepalive, authority, proxies, live headers and certificates."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from eventcore.exporting import GiveUp, Rejected, RetryLater
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Proxy, Receiver, receiving
from tests.otel.values import Driver, span

Drive = Callable[..., Driver]


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    with ExitStack() as running:
        yield [running.enter_context(receiving()) for _ in range(2)]


def addresses(receivers: list[Receiver]) -> str:
    return "ipv4:" + ",".join(f"127.0.0.1:{receiver.port}" for receiver in receivers)


def secured(authority: trustme.CA, name: str = "localhost", port: int = 0) -> Receiver:
    certificate = authority.issue_cert(name)
    pair = certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    receiver = Receiver()
    receiver.start(port, credentials=grpc.ssl_server_credentials([pair]))
    return receiver


@pytest.mark.conforms("OTLP", "Several receivers behind one name.")
def test_several_collectors_take_turns(receivers: list[Receiver], drive: Drive) -> None:
    driver = drive(endpoint=addresses(receivers), insecure=True, load_balancing="round_robin")
    deadline = time.monotonic() + 10
    while not all(receiver.calls for receiver in receivers):
        assert time.monotonic() < deadline
        assert driver.spans([span()]) is None
    before = [receiver.calls for receiver in receivers]
    for _ in range(10):
        driver.spans([span()])
    assert [receiver.calls - calls for receiver, calls in zip(receivers, before, strict=True)] == [5, 5]


def test_without_load_balancing_the_second_collector_steps_in_when_the_first_one_is_gone(
    receivers: list[Receiver], drive: Drive
) -> None:
    driver = drive(endpoint=addresses(receivers), insecure=True)
    for _ in range(3):
        driver.spans([span()])
    assert [receiver.calls for receiver in receivers] == [3, 0]
    receivers[0].stop()
    deadline = time.monotonic() + 10
    while not receivers[1].calls:
        assert time.monotonic() < deadline
        try:
            driver.spans([span()], timeout=1)
        except RetryLater:
            time.sleep(0.05)
    assert receivers[1].spans()


@pytest.mark.timing
def test_keepalive_finds_a_dead_connection_before_the_timeout(receiver: Receiver, drive: Drive) -> None:
    proxy = Proxy(receiver.port)
    driver = drive(endpoint=f"http://127.0.0.1:{proxy.port}", keepalive=0.5, timeout=30)
    assert driver.spans([span()]) is None
    proxy.freeze()
    begun = time.monotonic()
    with pytest.raises(RetryLater, match="UNAVAILABLE") as caught:
        driver.spans([span()], timeout=30)
    assert time.monotonic() - begun < 10
    assert caught.value.outcome_unknown
    proxy.close()


def test_an_authority_stands_in_requests_and_is_checked_in_the_certificate(drive: Drive, tmp_path: Path) -> None:
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    receiver = secured(authority, "collector.example")
    target, certificate = f"https://127.0.0.1:{receiver.port}", str(tmp_path / "ca.pem")
    assert drive(endpoint=target, certificate=certificate, authority="collector.example").spans([span()]) is None
    with pytest.raises(RetryLater, match="UNAVAILABLE"):
        drive(endpoint=target, certificate=certificate).spans([span()], timeout=3)
    receiver.stop()


def test_channel_options_of_the_application_are_used(receiver: Receiver, drive: Drive) -> None:
    options = {"grpc.primary_user_agent": "shop/1", "grpc.max_send_message_length": 100}
    driver = drive(endpoint=receiver.endpoint, channel_options=options)
    answer = driver.spans([span(attributes=(("text", "x" * 1000),))])
    assert isinstance(answer, Rejected)
    assert "RESOURCE_EXHAUSTED" in answer.reason
    assert drive(endpoint=receiver.endpoint, channel_options={"grpc.primary_user_agent": "shop/1"}).spans([span()]) is None
    assert str(receiver.metadata[-1]["user-agent"]).startswith("eventcore-otel/0.1.0 shop/1 ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_for_the_network_does_not_divert_this_machine(
    receiver: Receiver, drive: Drive, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert drive(endpoint=f"http://{host}:{receiver.port}").spans([span()], timeout=3) is None


def test_headers_of_a_callable_are_asked_for_once_and_sent_with_every_call(receiver: Receiver, drive: Drive) -> None:
    asked: list[int] = []

    def headers() -> Mapping[str, str]:
        asked.append(1)
        return {"Authorization": f"Bearer {len(asked)}"}

    driver = drive(endpoint=receiver.endpoint, headers=headers)
    for _ in range(3):
        driver.spans([span()])
    assert [metadata["authorization"] for metadata in receiver.metadata] == ["Bearer 1"] * 3


def test_headers_of_a_coroutine_function_are_awaited(receiver: Receiver, drive: Drive) -> None:
    async def headers() -> Mapping[str, str]:
        return {"authorization": "Bearer async"}

    drive(endpoint=receiver.endpoint, headers=headers).spans([span()])
    assert receiver.metadata[0]["authorization"] == "Bearer async"


@pytest.mark.conforms("OTLP", "Headers may change while the exporter runs.")
def test_an_expired_token_is_asked_for_again_and_nothing_is_lost(receiver: Receiver, drive: Drive) -> None:
    tokens = iter(["old", "new"])
    driver = drive(endpoint=receiver.endpoint, headers=lambda: {"authorization": next(tokens)})
    receiver.answers.append(receiver.fail(grpc.StatusCode.UNAUTHENTICATED, "token old has expired"))
    assert driver.spans([span(1)]) is None
    assert [metadata["authorization"] for metadata in receiver.metadata] == ["old", "new"]
    assert [found.name for found in receiver.spans()] == ["span 1"]


def test_a_token_that_is_refused_and_stays_the_same_gives_the_signal_up(receiver: Receiver, drive: Drive) -> None:
    asked: list[int] = []

    def headers() -> Mapping[str, str]:
        asked.append(1)
        return {"authorization": "s3cr3t"}

    driver = drive(endpoint=receiver.endpoint, headers=headers)
    receiver.answers.append(receiver.fail(grpc.StatusCode.UNAUTHENTICATED, "no s3cr3t here"))
    with pytest.raises(GiveUp, match=r"UNAUTHENTICATED: no \*\*\* here"):
        driver.spans([span()])
    assert (receiver.calls, len(asked)) == (1, 2)
    receiver.answers.append(receiver.fail(grpc.StatusCode.PERMISSION_DENIED, "not for you"))
    with pytest.raises(GiveUp, match="PERMISSION_DENIED"):
        driver.spans([span()])
    assert (receiver.calls, len(asked)) == (2, 2)


def test_headers_are_asked_for_again_when_their_lifetime_is_over(receiver: Receiver, drive: Drive) -> None:
    asked: list[float] = []

    def headers() -> Mapping[str, str]:
        asked.append(time.monotonic())
        return {"n": str(len(asked))}

    driver = drive(endpoint=receiver.endpoint, headers=headers, headers_lifetime=0.2)
    driver.spans([span()])
    while time.monotonic() < asked[0] + 0.25:
        time.sleep(0.01)
    driver.spans([span()])
    assert receiver.metadata[-1]["n"] == "2"


def test_a_callable_that_raises_is_a_retry_that_says_why(receiver: Receiver, drive: Drive) -> None:
    outcomes: list[Any] = [OSError("no route to the token service"), {"a": 1}, ["a"], {"authorization": "good"}]

    def headers() -> Any:
        if isinstance(outcome := outcomes.pop(0), OSError):
            raise outcome
        return outcome

    driver = drive(endpoint=receiver.endpoint, headers=headers)
    for problem in ("raised OSError: no route", "names and values of type str", "returned list; expected a mapping"):
        with pytest.raises(RetryLater, match=problem) as caught:
            driver.spans([span()])
        assert not caught.value.outcome_unknown
    assert driver.spans([span()]) is None


@pytest.mark.timing
def test_a_callable_that_hangs_costs_one_timeout_and_its_late_answer_is_used(receiver: Receiver, drive: Drive) -> None:
    go_on = threading.Event()
    asked: list[int] = []

    def headers() -> Mapping[str, str]:
        asked.append(1)
        go_on.wait(30)
        return {"authorization": "late"}

    driver = drive(endpoint=receiver.endpoint, headers=headers)
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(RetryLater, match=r"has not returned within 0\.[23]\d* s"):
            driver.spans([span()], timeout=0.3)
    assert time.monotonic() - begun < 5
    go_on.set()
    assert driver.spans([span()]) is None
    assert (receiver.metadata[0]["authorization"], len(asked)) == ("late", 1)


@pytest.mark.conforms("OTLP", "Certificates may change while the exporter runs.")
def test_certificates_are_read_again_when_their_file_changes(drive: Drive, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    file.write_bytes(old.cert_pem.bytes())
    receiver = secured(old)
    port = receiver.port
    driver = drive(endpoint=f"https://localhost:{port}", certificate=str(file))
    assert driver.spans([span(1)]) is None
    receiver.stop()
    receiver = secured(new, port=port)
    with pytest.raises(RetryLater, match="UNAVAILABLE"):
        driver.spans([span(2)], timeout=3)
    # As a rotation does it: the new file takes the place of the old one.
    (tmp_path / "next.pem").write_bytes(new.cert_pem.bytes())
    os.replace(tmp_path / "next.pem", file)
    assert driver.spans([span(2)]) is None
    assert [found.name for found in receiver.spans()] == ["span 2"]
    receiver.stop()


def test_while_a_file_is_missing_the_certificates_of_before_stay_in_use(
    drive: Drive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.cert_pem.bytes())
    receiver = secured(authority)
    driver = drive(endpoint=f"https://localhost:{receiver.port}", certificate=str(file))
    file.unlink()
    assert driver.spans([span(1)]) is None
    assert driver.spans([span(2)]) is None
    [record] = [record for record in caplog.records if "cannot be read" in record.getMessage()]
    assert "stay in use" in record.getMessage()
    receiver.stop()


def test_channel_credentials_are_used_as_they_are(drive: Drive) -> None:
    authority = trustme.CA()
    receiver = secured(authority)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    assert drive(endpoint=f"localhost:{receiver.port}", credentials=credentials).spans([span()]) is None
    receiver.stop()


def test_every_fault_of_the_connection_is_named() -> None:
    with pytest.raises(ValueError, match="credentials") as caught:
        OpenTelemetryExporter(
            endpoint="http://localhost:1",
            headers_lifetime=5,
            credentials=grpc.ssl_channel_credentials(),
            load_balancing="random",  # type: ignore[arg-type]  # this is the fault
            keepalive=0,
            authority="",
            channel_options={"a": True},
        )
    for fault in ("headers_lifetime", "load_balancing='random'", "keepalive=0", "authority", "channel_options['a']", "http://"):
        assert fault in str(caught.value)


def test_what_a_receiver_says_though_it_accepted_everything_is_logged_once(
    receiver: Receiver, drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    driver = drive(endpoint=receiver.endpoint, headers={"authorization": "s3cr3t"})
    for _ in range(2):
        receiver.answers.append(receiver.refuse(0, "use the new endpoint, s3cr3t"))
        assert driver.spans([span()]) is None
    [record] = [record for record in caplog.records if record.name == "eventcore.exporters.otel"]
    assert record.getMessage() == "the receiver of traces accepted everything and says: use the new endpoint, ***"
    assert record.levelno == logging.WARNING


@pytest.mark.once
def test_grpc_writes_nothing_to_standard_error(tmp_path: Path) -> None:
    authority = trustme.CA()
    receiver = secured(authority)
    (tmp_path / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    program = f"""
import logging, os
logging.basicConfig(filename={str(tmp_path / "log")!r}, level=logging.INFO)
from eventcore_otel import OpenTelemetryExporter
from tests.otel.values import Driver, span
endpoint, certificate = "https://localhost:{receiver.port}", {str(tmp_path / "other.pem")!r}
driver = Driver(OpenTelemetryExporter(endpoint=endpoint, certificate=certificate))
assert "GRPC_VERBOSITY" not in os.environ
try:
    driver.spans([span()], timeout=5)
except Exception as error:
    logging.getLogger("eventcore.exporters.otel").warning("%s", error)
driver.shutdown()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "CERTIFICATE_VERIFY_FAILED" in (tmp_path / "log").read_text()
    receiver.stop()


def test_what_grpc_logs_during_a_call_goes_to_the_exporters_logger(
    receiver: Receiver, drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    driver = drive(endpoint=receiver.endpoint)

    def answer(request: object, context: grpc.ServicerContext) -> None:
        logging.getLogger("grpc._channel").error("deserialization failed")
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    receiver.answers.append(answer)
    with pytest.raises(RetryLater):
        driver.spans([span()])
    logging.getLogger("grpc._channel").error("of somebody else")
    found = [record.getMessage() for record in caplog.records if record.name == "eventcore.exporters.otel"]
    assert found == ["gRPC: deserialization failed"]
