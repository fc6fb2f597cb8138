"""Who may read from a listener: TLS, client certificates, passwords, tokens."""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import os
import ssl
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from eventcore.exporting import Secret
from eventcore.serving import Access, Limits, Request, Response, hash_password, plain
from eventcore.serving.access import Guard
from eventcore.serving.passwords import PasswordHash
from tests.serving.conftest import Listen, connected, read_all, read_response

GET = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


def cheaply_hashed(password: str) -> str:
    """As ``hash_password`` makes it, but a thousand times as fast."""
    digest = hashlib.scrypt(password.encode(), salt=b"salt", n=16, r=8, p=1, dklen=32)
    return f"$scrypt$ln=4,r=8,p=1$c2FsdA${base64.b64encode(digest).decode().rstrip('=')}"


HASHED = cheaply_hashed("correct horse")
TOKENS = ("first-token-of-16-characters", "second-token-of-16-characters")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, directory: Path, name: str = "server") -> tuple[str, str]:
    """The paths of a new certificate for 127.0.0.1 and of its key, with the same names each time."""
    made = authority.issue_cert("127.0.0.1")
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    # Replaced as a whole, so that no half-written file is read.
    for path, blob in (
        (certificate, b"".join(each.bytes() for each in made.cert_chain_pems)),
        (key, made.private_key_pem.bytes()),
    ):
        path.with_suffix(".new").write_bytes(blob)
        os.replace(path.with_suffix(".new"), path)
    return str(certificate), str(key)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def get_over_tls(address: tuple[str, int], context: ssl.SSLContext) -> tuple[int, bytes | None]:
    """The status, and the certificate that the server has shown."""
    with closing(http.client.HTTPSConnection(*address, timeout=10, context=context)) as connection:
        connection.request("GET", "/")
        assert isinstance(connection.sock, ssl.SSLSocket)
        shown = connection.sock.getpeercert(binary_form=True)
        return connection.getresponse().status, shown


def get(address: tuple[str, int], authorization: str | None = None) -> http.client.HTTPResponse:
    with closing(http.client.HTTPConnection(*address, timeout=10)) as connection:
        connection.request("GET", "/", headers={"Authorization": authorization} if authorization else {})
        return connection.getresponse()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_tls_encrypts_and_keeps_connections(listen: Listen, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = issue(authority, tmp_path)
    listener = listen(access=Access(certificate=certificate, key=key))
    assert listener.url.startswith("https://127.0.0.1:")
    with closing(http.client.HTTPSConnection(*listener.address, timeout=10, context=trusting(authority))) as connection:
        for _ in range(2):
            connection.request("GET", "/twice")
            assert connection.getresponse().read() == b"GET /twice \n"


def test_a_large_response_arrives_whole_over_tls(listen: Listen, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = issue(authority, tmp_path)
    body = os.urandom(3_000_000)

    def respond(request: Request) -> Response:
        return Response(200, (), (body[at : at + 65536] for at in range(0, len(body), 65536)), len(body))

    listener = listen(respond, access=Access(certificate=certificate, key=key))
    with closing(http.client.HTTPSConnection(*listener.address, timeout=10, context=trusting(authority))) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == body


def test_a_certificate_that_is_replaced_is_used_for_the_next_connection(
    listen: Listen, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = issue(authority, tmp_path)
    listener = listen(access=Access(certificate=certificate, key=key))
    _, first = get_over_tls(listener.address, trusting(authority))
    # Between the two files of a rotation, the old pair stays in use.
    Path(certificate).write_bytes(authority.issue_cert("127.0.0.1").cert_chain_pems[0].bytes())
    with caplog.at_level(logging.INFO):
        assert get_over_tls(listener.address, trusting(authority))[1] == first
    assert "cannot be used" in caplog.text
    issue(authority, tmp_path)
    status, second = get_over_tls(listener.address, trusting(authority))
    assert (status, second == first) == (200, False)


def test_a_key_with_a_password_is_read_and_a_wrong_password_is_a_clear_error(
    listen: Listen, authority: trustme.CA, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate, key = issue(authority, tmp_path)
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"opensesame")
        )
    )
    listener = listen(access=Access(certificate=certificate, key=key, key_password=Secret("opensesame")))
    assert get_over_tls(listener.address, trusting(authority))[0] == 200
    for wrong in (Secret("guess-of-a-password"), None):
        with pytest.raises(OSError, match="cannot speak TLS with") as caught:
            listen(access=Access(certificate=certificate, key=key, key_password=wrong))
        assert "guess" not in str(caught.value)


def test_a_missing_certificate_is_a_clear_error(listen: Listen) -> None:
    with pytest.raises(OSError, match=r"cannot speak TLS with /nowhere/server\.pem.*No such file"):
        listen(access=Access(certificate="/nowhere/server.pem"))


def test_only_clients_with_a_certificate_are_answered_where_one_is_asked_for(
    listen: Listen, authority: trustme.CA, tmp_path: Path
) -> None:
    certificate, key = issue(authority, tmp_path)
    trusted = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(trusted)
    listener = listen(access=Access(certificate=certificate, key=key, client_ca=str(trusted)))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get_over_tls(listener.address, trusting(authority))
    stranger, known = trusting(authority), trusting(authority)
    trustme.CA().issue_cert("scraper").configure_cert(stranger)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get_over_tls(listener.address, stranger)
    authority.issue_cert("scraper").configure_cert(known)
    assert get_over_tls(listener.address, known)[0] == 200


def test_plain_http_on_a_tls_port_is_told_so(listen: Listen, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = issue(authority, tmp_path)
    listener = listen(access=Access(certificate=certificate, key=key))
    with connected(listener.address, GET) as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"this port speaks HTTPS" in answer


def test_a_client_that_never_ends_its_handshake_is_cut_off_and_delays_no_other(
    listen: Listen, authority: trustme.CA, tmp_path: Path
) -> None:
    certificate, key = issue(authority, tmp_path)
    listener = listen(access=Access(certificate=certificate, key=key), limits=Limits(head_time=0.5))
    with connected(listener.address, b"\x16\x03\x01") as stalled:
        assert get_over_tls(listener.address, trusting(authority))[0] == 200
        assert read_all(stalled) == b""


def test_tls_without_newer_versions_than_1_1_is_refused(listen: Listen, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = issue(authority, tmp_path)
    listener = listen(access=Access(certificate=certificate, key=key))
    with connected(listener.address) as client:
        # A hello of TLS 1.1, which no client of today's libraries sends.
        hello = bytes([3, 2]) + bytes(32) + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
        client.sendall(b"\x16\x03\x01" + (len(hello) + 4).to_bytes(2, "big") + b"\x01" + len(hello).to_bytes(3, "big") + hello)
        assert not read_all(client).startswith(b"\x16")


def test_a_password_or_a_token_is_asked_for_and_each_token_works(listen: Listen) -> None:
    access = Access(users={"prometheus": Secret(HASHED)}, tokens=tuple(map(Secret, TOKENS)))
    address = listen(access=access).address
    refused = get(address)
    assert refused.status == 401
    assert refused.headers.get_all("WWW-Authenticate") == [
        'Basic realm="eventcore", charset="UTF-8"',
        'Bearer realm="eventcore"',
    ]
    accepted = [basic("prometheus", "correct horse"), *(f"Bearer {token}" for token in TOKENS), f"bearer  {TOKENS[0]}"]
    assert [get(address, authorization).status for authorization in accepted] == [200] * len(accepted)
    wrong = [
        basic("prometheus", "battery staple"),
        basic("stranger", "correct horse"),
        basic("prometheus", ""),
        "Basic not-base64!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        f"Bearer {TOKENS[0][:-1]}",
        "Bearer",
        "Bearer ",
        TOKENS[0],
        f"Basic {TOKENS[0]}",
    ]
    assert [get(address, authorization).status for authorization in wrong] == [401] * len(wrong)


def test_nothing_is_done_for_a_request_that_is_refused(listen: Listen) -> None:
    asked: list[Request] = []

    def respond(request: Request) -> Response:
        asked.append(request)
        return plain(200, "secret")

    address = listen(respond, access=Access(tokens=TOKENS)).address
    with connected(address, GET) as client:
        assert b"secret" not in read_all(client)
    assert asked == []


def test_the_hash_of_a_password_differs_each_time_and_matches(listen: Listen) -> None:
    first, second = hash_password("päss:word"), hash_password("päss:word")
    assert first != second
    address = listen(access=Access(users={"u": first, "v": second})).address
    assert [get(address, basic(user, "päss:word")).status for user in "uv"] == [200, 200]


def test_a_password_that_was_right_is_not_hashed_again(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    compute = PasswordHash.compute

    def counting(self: PasswordHash, password: str, length: int) -> bytes:
        hashed.append(password)
        return compute(self, password, length)

    access = Access(users={"prometheus": HASHED})
    monkeypatch.setattr(PasswordHash, "compute", counting)
    address = listen(access=access).address
    assert {get(address, basic("prometheus", "correct horse")).status for _ in range(3)} == {200}
    assert hashed == ["correct horse"]
    # A wrong password for the same user is still wrong, and the time is that of a hash also for unknown users.
    assert get(address, basic("prometheus", "wrong")).status == 401
    assert get(address, basic("nobody", "wrong")).status == 401
    assert hashed == ["correct horse", "wrong", "wrong"]


def test_a_wrong_password_of_one_client_delays_no_client_with_a_token(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hanging(self: PasswordHash, password: str, length: int) -> bytes:
        entered.set()
        gate.wait(10)
        return b""

    access = Access(users={"prometheus": HASHED}, tokens=TOKENS)
    monkeypatch.setattr(PasswordHash, "compute", hanging)
    address = listen(access=access).address
    attempt = f"GET / HTTP/1.1\r\nAuthorization: {basic('prometheus', 'guess')}\r\n\r\n".encode()
    with connected(address, attempt) as guessing:
        assert entered.wait(10)
        assert get(address, f"Bearer {TOKENS[0]}").status == 200
        gate.set()
        assert read_response(guessing).startswith(b"HTTP/1.1 401")


def test_clients_that_guess_passwords_keep_nobody_out(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Semaphore(0), threading.Event()
    refusal = Guard.refusal

    def hanging(self: Guard, request: Request) -> Response | None:
        if "Basic" in request.headers.get("authorization"):
            entered.release()
            gate.wait(10)
        return refusal(self, request)

    monkeypatch.setattr(Guard, "refusal", hanging)
    address = listen(access=Access(users={"prometheus": HASHED}, tokens=TOKENS), limits=Limits(connections=2)).address
    attempt = f"GET / HTTP/1.1\r\nAuthorization: {basic('prometheus', 'guess')}\r\n\r\n".encode()
    with connected(address, attempt), connected(address, attempt):
        assert all(entered.acquire(timeout=10) for _ in range(2))
        try:
            assert get(address, f"Bearer {TOKENS[0]}").status == 200
        finally:
            gate.set()


def test_a_connection_ends_with_a_wrong_password(listen: Listen) -> None:
    address = listen(access=Access(users={"prometheus": HASHED})).address
    attempt = f"GET / HTTP/1.1\r\nAuthorization: {basic('prometheus', 'guess')}\r\n\r\n".encode()
    with connected(address, attempt) as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"Connection: close" in answer


def test_a_password_is_not_checked_when_too_many_others_wait(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hanging(self: PasswordHash, password: str, length: int) -> bytes:
        entered.set()
        gate.wait(10)
        return b""

    access = Access(users={"prometheus": HASHED})
    monkeypatch.setattr(PasswordHash, "compute", hanging)
    address = listen(access=access).address
    attempt = f"GET / HTTP/1.1\r\nAuthorization: {basic('prometheus', 'guess')}\r\n\r\n".encode()
    with connected(address, attempt):
        assert entered.wait(10)
        try:
            answer = get(address, basic("prometheus", "correct horse"))
            assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
        finally:
            gate.set()


def test_credentials_that_are_no_ascii_are_wrong_and_no_fault(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    address = listen(access=Access(users={"prometheus": HASHED}, tokens=TOKENS)).address
    for scheme in (b"Basic", b"Bearer"):
        with connected(address, b"GET / HTTP/1.0\r\nAuthorization: " + scheme + b" \xff\xe9\r\n\r\n") as client:
            assert read_all(client).startswith(b"HTTP/1.1 401")
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"key": "server.key"}, "key is given without certificate"),
        ({"client_ca": "ca.pem"}, "client_ca is given without certificate"),
        ({"users": {"prometheus": "plain-text-password"}}, "users: prometheus: expected a hash"),
        ({"users": {"a:b": HASHED}}, "the name 'a:b' cannot be used"),
        ({"users": {"prometheus": "$scrypt$ln=40,r=8,p=1$c2FsdA$aGFzaA"}}, "its cost is too large"),
        ({"users": {"prometheus": "$2b$12$abcdefghijklmnopqrstuv"}}, "expected a hash"),
        ({"tokens": ["short-secret"]}, "16 characters or more"),
        ({"tokens": ["with a space in the token"]}, "without spaces"),
    ],
)
def test_settings_that_do_not_fit_are_faults_that_show_no_secret(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Access(**options)
    for secret in ("plain-text-password", "c2FsdA", "short-secret", "with a space"):
        assert secret not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(Access(certificate="server.pem", key_password="opensesame", users={"u": HASHED}, tokens=TOKENS))
    assert "server.pem" in shown
    assert all(secret not in shown for secret in ("opensesame", "scrypt", *TOKENS))


def test_credentials_without_encryption_are_warned_of_unless_they_stay_on_this_machine(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    listen(access=Access(tokens=TOKENS))
    assert "without encryption" not in caplog.text
    listen(access=Access(tokens=TOKENS), host="0.0.0.0")
    assert "without encryption" in caplog.text


def test_an_exporter_answers_over_https_to_who_has_the_token(authority: trustme.CA, tmp_path: Path) -> None:
    from eventcore import Telemetry
    from eventcore_prometheus import PrometheusExporter

    certificate, key = issue(authority, tmp_path)
    exporter = PrometheusExporter(port=0, tls_certificate=certificate, tls_key=key, tokens=[Secret(TOKENS[0])])
    telemetry = Telemetry(exporters=[], config={})
    telemetry.register_exporter(exporter)
    telemetry.start_blocking()
    try:
        assert exporter.url is not None
        assert exporter.url.startswith("https://127.0.0.1:")
        assert exporter.address is not None
        with closing(http.client.HTTPSConnection(*exporter.address, timeout=10, context=trusting(authority))) as connection:
            connection.request("GET", "/metrics")
            assert connection.getresponse().status == 401
        with closing(http.client.HTTPSConnection(*exporter.address, timeout=10, context=trusting(authority))) as connection:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKENS[0]}"})
            assert connection.getresponse().status == 200
    finally:
        telemetry.shutdown_blocking(5.0)
