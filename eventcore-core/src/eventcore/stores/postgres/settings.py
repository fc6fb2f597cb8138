"""The settings of a PostgreSQL store, and how they are read from its URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from eventcore.errors import InvalidStoreUrl
from eventcore.stores.url_settings import chosen, number

# At most 48 characters: the notification channel is named after the schema, and PostgreSQL cuts names off at 63 bytes.
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_SWITCH: Final = ("on", "off")
# The settings that asyncpg reads itself. It would send any other to the server as a start-up parameter, a misspelt one, too.
_OF_ASYNCPG: Final = (
    *("host", "port", "user", "passfile", "service", "servicefile", "target_session_attrs", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword"),
)
_FORM: Final = (
    "postgresql://user:password@host:port/database?schema=eventcore, with special characters in user and password as %XX"
)
_OWN: Final = ("schema", "pool", "statement_cache", "listen", "timeout", "application_name", "options")
# Beside the connections for reading: one appends, one reads for commands, one listens and holds leases.
_BESIDE_READING: Final = 3


@final
class PostgresSettings(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The settings of a store.

    Attributes:
        dsn: the URL for asyncpg. It may contain a password.
        address: host, port and database, for messages.
        schema: the schema that holds the store's tables.
        pool: connections for reading and for the transactions of projections, 1 to 100; ``limit`` counts the others, too.
        statement_cache: whether statements stay prepared on their connection; off behind pgbouncer in transaction mode.
        listen: whether a connection waits for notifications; off where they do not arrive. The default is ``statement_cache``.
        timeout: seconds that one call may take, reconnecting included; 0.1 to 3600.
        application_name: how the server lists the connections in ``pg_stat_activity``; empty: it shows no name.
        options: command-line options for the server's sessions, such as ``-c work_mem=64MB``.
    """

    dsn: str
    address: str
    schema: str = "eventcore"
    pool: int = 4
    statement_cache: bool = True
    listen: bool = True
    timeout: float = 10.0
    application_name: str = ""
    options: str = ""

    @property
    def limit(self) -> int:
        """The most connections that the store has on the server at the same time."""
        return self.pool + _BESIDE_READING

    @property
    def server_settings(self) -> Mapping[str, str]:
        """The start-up parameters of each connection.

        They end what this process can no longer end, since it was killed or cut off: a statement at the latest after
        ``timeout``, an idle connection when its machine no longer confirms that it is there. Behind pgbouncer they are left
        out: its connections belong to all its clients, and it refuses them.
        """
        seconds, milliseconds = str(max(1, round(self.timeout))), str(round(1000 * self.timeout))
        limits = {
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            "tcp_keepalives_idle": seconds,
            "tcp_keepalives_interval": str(max(1, round(self.timeout / 3))),
            "tcp_keepalives_count": "3",
        }
        found = {name: value for name, value in limits.items() if self.statement_cache and name not in self.options}
        named = {"application_name": self.application_name, "options": self.options}
        return found | {name: value for name, value in named.items() if value}

    def __repr__(self) -> str:
        return f"PostgresSettings({self.address!r}, schema={self.schema!r})"

    @classmethod
    def from_url(cls, url: str) -> PostgresSettings:
        """Read the settings from a URL.

        Raises:
            InvalidStoreUrl: the URL has no database, or a setting that does not exist or an invalid value. The message does not
                contain the URL, which may contain a password.
        """
        try:
            parts = urlsplit(url)
            account, _, address = parts.netloc.rpartition("@")
            given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise InvalidStoreUrl(f"the store URL cannot be read; expected {_FORM}") from None
        # A password may hold these characters. What it ends in would be taken for a host or a database, which messages name.
        if "@" in account or (not account and "@" in parts.path):
            raise InvalidStoreUrl(
                "the store URL has an @ that does not stand between password and host: write special characters of user and "
                "password as %XX, for example @ as %40 and / as %2F"
            )
        database = parts.path.removeprefix("/")
        if not database or "/" in database or parts.fragment:
            raise InvalidStoreUrl(f"the store URL names no database; expected {_FORM}")
        own = {name: value for name, value in given if name in _OWN}
        for_asyncpg = [(name, value) for name, value in given if name in _OF_ASYNCPG]
        if unknown := [name for name, _ in given if name not in (*_OWN, *_OF_ASYNCPG)]:
            raise InvalidStoreUrl(
                f"unknown setting {unknown[0]!r:.40} in the store URL; expected one of {', '.join(_OWN)}, or of asyncpg's "
                f"{', '.join(_OF_ASYNCPG)}"
            )
        statement_cache = chosen("statement_cache", own.get("statement_cache", "on"), _SWITCH)
        host = address or dict(for_asyncpg).get("host", "the local server")
        return cls(
            dsn=parts._replace(query=urlencode(for_asyncpg)).geturl(),
            address=f"{host}/{database}",
            schema=_schema(own.get("schema", "eventcore")),
            pool=int(number("pool", own.get("pool", "4"), 1, 100, "a whole number")),
            statement_cache=statement_cache == "on",
            listen=chosen("listen", own.get("listen", statement_cache), _SWITCH) == "on",
            timeout=number("timeout", own.get("timeout", "10"), 0.1, 3600, "seconds"),
            application_name=_text("application_name", own, 63),
            options=_text("options", own, 2000),
        )


def _text(name: str, given: Mapping[str, str], longest: int) -> str:
    value = given.get(name, "")
    if len(value.encode()) > longest or not value.isprintable():
        raise InvalidStoreUrl(f"{name}={value!r:.80} in the store URL; expected at most {longest} bytes of printable text")
    return value


def _schema(value: str) -> str:
    if not _SCHEMA.fullmatch(value) or value.startswith("pg_"):
        raise InvalidStoreUrl(
            f"schema={value!r:.80} in the store URL; expected 1 to 48 lower-case letters, digits and underscores, not "
            "beginning with a digit or pg_"
        )
    return value
