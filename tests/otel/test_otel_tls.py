"""TLS with a certificate authority that is made for the test, and a server that requires client certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from eventcore.exporting import RetryLater
from eventcore_otel import OpenTelemetryExporter
from tests.otel.receiver import Receiver
from tests.otel.values import Driver, span

Drive = Callable[..., Driver]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=[False, True], ids=["tls", "mutual_tls"])
def secure_receiver(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Receiver]:
    certificate = authority.issue_cert("localhost")
    pair = certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=request.param)
    receiver = Receiver()
    receiver.start(credentials=credentials)
    yield receiver
    receiver.stop()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The paths for the three settings."""
    mine = authority.issue_cert("client@example.org")
    contents = {
        "certificate": authority.cert_pem.bytes(),
        "client_certificate": b"".join(blob.bytes() for blob in mine.cert_chain_pems),
        "client_key": mine.private_key_pem.bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


@pytest.mark.conforms("OTLP", "TLS and mutual TLS.")
def test_spans_arrive_over_tls_when_both_sides_can_be_checked(
    secure_receiver: Receiver, files: dict[str, str], drive: Drive
) -> None:
    driver = drive(endpoint=f"https://localhost:{secure_receiver.port}", **files)
    assert driver.spans([span()]) is None
    assert len(secure_receiver.spans()) == 1


def test_the_standard_variables_name_the_files_too(
    secure_receiver: Receiver, files: dict[str, str], drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in files.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name.upper()}", path)
    assert drive(endpoint=f"localhost:{secure_receiver.port}").spans([span()]) is None
    assert len(secure_receiver.spans()) == 1


def test_a_server_of_an_unknown_authority_gets_nothing(
    secure_receiver: Receiver, files: dict[str, str], drive: Drive, tmp_path: Path
) -> None:
    (tmp_path / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    driver = drive(endpoint=f"https://localhost:{secure_receiver.port}", certificate=str(tmp_path / "other.pem"))
    with pytest.raises(RetryLater, match="UNAVAILABLE"):
        driver.spans([span()])
    assert secure_receiver.calls == 0


def test_a_plain_connection_to_a_tls_server_gets_nothing(secure_receiver: Receiver, drive: Drive) -> None:
    with pytest.raises(RetryLater, match="UNAVAILABLE"):
        drive(endpoint=f"http://localhost:{secure_receiver.port}").spans([span()])
    assert secure_receiver.calls == 0


def test_a_file_that_cannot_be_read_is_named_at_the_start(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ValueError, match=r"certificate=.*missing.pem.*No such file.*PEM"):
        Driver(OpenTelemetryExporter(endpoint="https://localhost:1", certificate=missing))


def test_a_file_that_holds_no_certificate_fails_at_the_call(drive: Drive, secure_receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"no certificate\n")
    driver = drive(endpoint=f"https://localhost:{secure_receiver.port}", certificate=str(tmp_path / "empty.pem"))
    with pytest.raises(RetryLater, match="UNAVAILABLE"):
        driver.spans([span()], timeout=2)
