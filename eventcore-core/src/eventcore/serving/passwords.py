"""Hashed passwords: made by ``hash_password``, checked in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final, final

# What scrypt's author recommends for passwords that somebody waits for: 16 MiB and about 50 ms of one core.
_LOG_N: Final = 14
_R: Final = 8
_P: Final = 1
_SALT_BYTES: Final = 16
# What a configured hash may cost at most, so that it cannot exhaust the memory.
_LARGEST_LOG_N: Final = 18
_LARGEST_ROUNDS: Final = 64
_LARGEST_MEMORY: Final = 512 * 1024 * 1024


def hash_password(password: str) -> str:
    """The hash of a password, to keep in configuration in its place.

    The format is that of the Password Hashing Competition for scrypt:
    ``$scrypt$ln=14,r=8,p=1$SALT$HASH``.

    >>> hash_password("correct horse").startswith("$scrypt$ln=14,r=8,p=1$")
    True
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    made = PasswordHash(_LOG_N, _R, _P, salt, b"")
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_to_text(salt)}${_to_text(made.compute(password, 32))}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class PasswordHash:
    """A hash that was read from configuration.

    Attributes:
        log_n, r, p: the cost parameters of scrypt.
        salt, digest: bytes.
    """

    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        """Whether this is the hash of ``password``. Takes the time that the parameters say, whatever the answer."""
        return hmac.compare_digest(self.compute(password, len(self.digest)), self.digest)

    def compute(self, password: str, length: int) -> bytes:
        """The hash of ``password`` with these parameters."""
        return hashlib.scrypt(
            password.encode(errors="surrogatepass"),
            salt=self.salt,
            n=1 << self.log_n,
            r=self.r,
            p=self.p,
            dklen=length,
            maxmem=_LARGEST_MEMORY,
        )


def read_hash(text: str) -> PasswordHash:
    """A hash in the format of ``hash_password``.

    Raises:
        ValueError: the text is no such hash. The message does not contain it.
    """
    try:
        empty, kind, costs, salt, digest = text.split("$")
        names, values = zip(*(cost.split("=") for cost in costs.split(",")), strict=True)
        log_n, r, p = map(int, values)
        read = PasswordHash(log_n, r, p, _to_bytes(salt), _to_bytes(digest))
    except (ValueError, binascii.Error):
        raise ValueError(_EXPECTED) from None
    if (empty, kind, names) != ("", "scrypt", ("ln", "r", "p")) or not read.salt or not read.digest:
        raise ValueError(_EXPECTED)
    if not (1 <= log_n <= _LARGEST_LOG_N and 1 <= r <= _LARGEST_ROUNDS and 1 <= p <= _LARGEST_ROUNDS):
        raise ValueError(f"its cost is too large: expected ln up to {_LARGEST_LOG_N}, r and p up to {_LARGEST_ROUNDS}")
    return read


_EXPECTED: Final = "expected a hash $scrypt$ln=..,r=..,p=..$SALT$HASH, as eventcore.serving.hash_password makes it"


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _to_bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
