"""URLs of SQLite stores."""

from __future__ import annotations

from typing import Final, cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from eventcore.errors import InvalidStoreUrl
from eventcore.stores.sqlite.backend import SqliteBackend
from eventcore.stores.sqlite.schema import Synchronous
from eventcore.stores.url_settings import chosen, number

_FORMS: Final = '"sqlite:///relative.db" or "sqlite:////absolute/path.db"'


def backend_from_url(url: str, *, migrate: bool) -> SqliteBackend:  # noqa: ARG001  # every store has this signature
    """The store that a URL names. ``migrate`` has no effect: opening a file always brings its schema up to date.

    Raises:
        InvalidStoreUrl: the URL names no file, or has a setting that does not exist or an invalid value.
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not parts.path.startswith("/"):
        raise InvalidStoreUrl(
            f"store URL {url!r:.200}: three slashes begin a relative path, four an absolute one; expected {_FORMS}"
        )
    if path == ":memory:":
        raise InvalidStoreUrl(
            'an SQLite store needs a file, since several connections use it; for a store in memory write "memory:"'
        )
    if not path or path.endswith("/") or "\0" in path or parts.fragment:
        raise InvalidStoreUrl(
            f"store URL {url!r:.200} names no file; expected {_FORMS} (write '#' and '?' in the path as %23 and %3F)"
        )
    synchronous, busy_timeout = "full", 5.0
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "synchronous":
            synchronous = chosen(name, value, get_args(Synchronous))
        elif name == "busy_timeout":
            busy_timeout = number(name, value, 0, 3600, "seconds")
        else:
            raise InvalidStoreUrl(f"unknown setting {name!r:.40} in the store URL; expected synchronous or busy_timeout")
    return SqliteBackend(path, synchronous=cast(Synchronous, synchronous), busy_timeout=busy_timeout)
