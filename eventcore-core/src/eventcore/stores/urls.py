"""Store URLs: the one text by which an application chooses its store."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from eventcore.errors import InvalidStoreUrl, MissingDependency
from eventcore.stores.base import Backend
from eventcore.stores.memory import MemoryBackend
from eventcore.stores.sqlite import SqliteBackend, Synchronous

_FORMS: Final = (
    '"memory:", "sqlite:///relative.db", "sqlite:////absolute/path.db", "postgresql://user:password@host:port/database"'
)


def as_backend(store: str | Backend, *, migrate: bool = True) -> Backend:
    """The backend that a URL names, or one of somebody else's as it is; not yet opened.

    Raises:
        InvalidStoreUrl: it is neither; the message says what it lacks.
        MissingDependency: see ``backend_from_url``.
    """
    if isinstance(store, str):
        return backend_from_url(store, migrate=migrate)
    # isinstance with a protocol does not see what an object hands through to another.
    wanted = (*Backend.__annotations__, *(name for name in vars(Backend) if not name.startswith("_")))
    missing = [name for name in wanted if not hasattr(store, name)]
    if isinstance(store, type):
        raise InvalidStoreUrl(
            f"{store.__name__} is a class: open_store takes a backend, which is an instance, or one of {_FORMS}"
        )
    if missing:
        raise InvalidStoreUrl(
            f"a {type(store).__name__} is no store: expected one of {_FORMS}, or a backend of your own, which would need "
            f"{', '.join(missing)} as well (eventcore.stores.Backend)"
        )
    return store


def backend_from_url(url: str, *, migrate: bool = True) -> Backend:
    """The backend that a URL names, not yet opened.

    ``sqlite:`` URLs take ``?synchronous=full|normal|extra`` and ``busy_timeout=`` (seconds); those of PostgreSQL what
    ``PostgresSettings`` says. With ``migrate=False`` a server's schema is left as it is.

    Raises:
        InvalidStoreUrl: there is no such store; the message says which there are.
        MissingDependency: PostgreSQL needs the extra ``postgres``.
    """
    if not isinstance(url, str):
        raise InvalidStoreUrl(f"a store URL is a str, not {type(url).__name__}; expected one of {_FORMS}")
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise InvalidStoreUrl(f"store URL {url!r:.80} has no scheme; expected one of {_FORMS}")
    if scheme == "memory":
        if rest:
            raise InvalidStoreUrl(f'store URL {url!r:.80}: a store in memory has no name or settings; write "memory:"')
        return MemoryBackend()
    if scheme == "sqlite":
        return _sqlite(url)
    if scheme in ("postgresql", "postgres"):
        return _postgres(url, migrate)
    raise InvalidStoreUrl(f"a store URL cannot begin with {scheme + ':'!r:.40}; expected one of {_FORMS}")


def _sqlite(url: str) -> SqliteBackend:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not parts.path.startswith("/"):
        raise InvalidStoreUrl(
            f"store URL {url!r:.200}: three slashes begin a relative path, four an absolute one; expected one of {_FORMS}"
        )
    if path == ":memory:":
        raise InvalidStoreUrl(
            'an SQLite store needs a file, since two connections use it; for a store in memory write "memory:"'
        )
    if not path or path.endswith("/") or "\0" in path or parts.fragment:
        raise InvalidStoreUrl(
            f"store URL {url!r:.200} names no file; expected one of {_FORMS} (write '#' and '?' as %23 and %3F)"
        )
    synchronous, busy_timeout = "full", 5.0
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "synchronous" and value in get_args(Synchronous):
            synchronous = value
        elif name == "synchronous":
            raise InvalidStoreUrl(
                f"synchronous={value!r:.40} in the store URL; expected one of {', '.join(get_args(Synchronous))}"
            )
        elif name == "busy_timeout":
            busy_timeout = _seconds(value)
        else:
            raise InvalidStoreUrl(f"unknown setting {name!r:.40} in the store URL; expected synchronous or busy_timeout")
    return SqliteBackend(path, synchronous=cast(Synchronous, synchronous), busy_timeout=busy_timeout)


def _postgres(url: str, migrate: bool) -> Backend:
    from eventcore.stores.postgres.url import PostgresSettings

    settings = PostgresSettings.from_url(url)
    if find_spec("asyncpg") is None:
        raise MissingDependency("a PostgreSQL store needs asyncpg: pip install 'eventcore-core[postgres]'")
    # Only who uses it loads it.
    from eventcore.stores.postgres.backend import PostgresBackend

    return PostgresBackend(settings, migrate=migrate)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise InvalidStoreUrl(f"busy_timeout={value!r:.40} in the store URL; expected seconds from 0 to 3600")
    return seconds
