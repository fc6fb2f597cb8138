"""Who may read: TLS, client certificates, passwords and tokens."""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, final, runtime_checkable

from eventcore.serving.messages import Request, Response, plain
from eventcore.serving.passwords import PasswordHash, read_hash

_TOKEN_BYTES: Final = 16
# Seconds that a request waits for its turn to have a password hashed: those who guess must not make a queue for the others.
_TURN: Final = 1.0


@runtime_checkable
class Revealing(Protocol):
    """A secret that is no text itself, such as ``eventcore.exporting.Secret``."""

    def reveal(self) -> str:
        """The text."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a listener. Without arguments: everybody who can reach it, without encryption.

    With ``users`` and ``tokens``, either is enough.

    Args:
        certificate: path of a PEM file with the server's certificate and those that signed it: the
            listener speaks TLS. It is read again when it changes, and so are the other files.
        key: path of a PEM file with the private key; not needed if ``certificate`` contains it.
        key_password: the password of an encrypted private key.
        client_ca: path of a PEM file with certificates; the listener then accepts only clients with
            a certificate that one of them has signed.
        users: hashes by the names of users, for basic authentication. ``hash_password`` makes them.
        tokens: bearer tokens, each of at least 16 characters. All of them are accepted, so that a
            new one can be distributed before the old one is removed.

    Raises:
        ValueError: the arguments do not fit each other; the message lists every problem, and
            contains no secret.

    >>> Access(key="server.key")
    Traceback (most recent call last):
    ValueError: key is given without certificate
    """

    certificate: str | None = None
    key: str | None = None
    key_password: str | Revealing | None = field(default=None, repr=False)
    client_ca: str | None = None
    users: Mapping[str, str | Revealing] = field(default_factory=dict[str, str | Revealing], repr=False)
    tokens: Sequence[str | Revealing] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.certificate is None:
            names = ("key", "key_password", "client_ca")
            problems += [f"{name} is given without certificate" for name in names if getattr(self, name) is not None]
        for user, text in self.users.items():
            if not user or ":" in user:
                problems.append(f"users: the name {user!r} cannot be used: expected one without ':'")
            try:
                read_hash(revealed(text))
            except ValueError as error:
                problems.append(f"users: {user}: {error}")
        if any(
            len(token) < _TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token
            for token in self._tokens()
        ):
            problems.append(f"tokens: expected printable ASCII without spaces, {_TOKEN_BYTES} characters or more each")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def asks_who(self) -> bool:
        """Whether a request must carry a password or a token."""
        return bool(self.users or self.tokens)

    def _tokens(self) -> list[str]:
        return [revealed(token) for token in self.tokens]


def revealed(secret: str | Revealing) -> str:
    """The text of a secret."""
    return secret.reveal() if isinstance(secret, Revealing) else secret


class _Busy(Exception):
    """Too many other passwords wait to be hashed."""


@final
class Guard:
    """Checks the password or token of each request. Safe to use from any thread."""

    def __init__(self, access: Access) -> None:
        self._tokens = [revealed(token).encode() for token in access.tokens]
        self._users = {user: read_hash(revealed(text)) for user, text in access.users.items()}
        # An unknown user takes as long as a wrong password, so that names cannot be found by time.
        self._nobody: PasswordHash | None = next(iter(self._users.values()), None)
        # Hashing takes 50 ms of a core: one thread at a time does it, and what was right is known again by its digest.
        self._hashing = threading.Lock()
        self._session_key = secrets.token_bytes(32)
        self._known: dict[str, bytes] = {}
        self._challenges = (
            *((("WWW-Authenticate", 'Basic realm="eventcore", charset="UTF-8"'),) if self._users else ()),
            *((("WWW-Authenticate", 'Bearer realm="eventcore"'),) if self._tokens else ()),
        )

    def refusal(self, request: Request) -> Response | None:
        """The response to a request that carries no valid password or token; ``None`` if it does, or needs none."""
        if not self._challenges:
            return None
        scheme, _, credentials = request.headers.get("authorization").partition(" ")
        credentials = credentials.strip()
        if scheme.lower() == "bearer" and self._is_token(credentials):
            return None
        try:
            if scheme.lower() == "basic" and self._is_user(credentials):
                return None
        except _Busy:
            return plain(503, "too many passwords are being checked at once", ("Retry-After", "1"))
        expected = " or ".join(
            [*(["a user and a password"] if self._users else []), *(["a bearer token"] if self._tokens else [])]
        )
        return plain(401, f"expected {expected} in the header Authorization", *self._challenges)

    def _is_token(self, text: str) -> bool:
        given = text.encode("latin-1", "replace")
        # Compare with all of them: the time must not tell which one it was.
        return sum(hmac.compare_digest(given, token) for token in self._tokens) > 0

    def _is_user(self, text: str) -> bool:
        try:
            user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no UTF-8
            return False
        if not colon or self._nobody is None:
            return False
        digest = hmac.digest(self._session_key, f"{user}:{password}".encode(), "sha256")
        if hmac.compare_digest(self._known.get(user, b""), digest):
            return True
        if not self._hashing.acquire(timeout=_TURN):
            raise _Busy
        try:
            right = self._users.get(user, self._nobody).matches(password) and user in self._users
        finally:
            self._hashing.release()
        if right:
            self._known[user] = digest
        return right
