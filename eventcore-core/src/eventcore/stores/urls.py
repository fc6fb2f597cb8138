"""Store URLs: from the text by which an application chooses its store to the backend."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from eventcore.errors import InvalidStoreUrl
from eventcore.stores.base import Backend, EventLog, ProjectionLedger
from eventcore.stores.memory import MemoryBackend

# The built-in stores by URL scheme: the module that reads the URL, and what such a URL looks like. The module is imported when
# a URL with its scheme is used, and has `backend_from_url(url, *, migrate)`. A new store needs a folder and a line here.
_SCHEMES: Final = {
    "memory": ("eventcore.stores.memory.url", '"memory:"'),
    "sqlite": ("eventcore.stores.sqlite.url", '"sqlite:///relative.db", "sqlite:////absolute/path.db"'),
    "postgresql": ("eventcore.stores.postgres.url", '"postgresql://user:password@host:port/database"'),
    "postgres": ("eventcore.stores.postgres.url", ""),
}
_FORMS: Final = ", ".join(form for _, form in _SCHEMES.values() if form)


def as_backend(store: str | Backend, *, migrate: bool = True) -> Backend:
    """The backend that a URL names, not yet opened; a backend that an application has made itself is returned as it is.

    Of a store in memory, each store that is opened has a backend of its own on the same events: what its commands have seen is
    its own.

    Raises:
        InvalidStoreUrl: ``store`` is neither; the message says what it lacks.
        MissingDependency: see ``backend_from_url``.
    """
    if isinstance(store, str):
        return backend_from_url(store, migrate=migrate)
    if isinstance(store, type):
        raise InvalidStoreUrl(
            f"{store.__name__} is a class: open_store takes a backend, which is an instance, or one of {_FORMS}"
        )
    if missing := _missing_from(store):
        raise InvalidStoreUrl(
            f"a value of type {type(store).__name__} is no store: expected one of {_FORMS}, or a backend of your own, which "
            f"would need {', '.join(missing)} as well (eventcore.stores.Backend)"
        )
    return store.another() if isinstance(store, MemoryBackend) else store


def _missing_from(store: object) -> list[str]:
    """The attributes and methods that ``store`` lacks to be a ``Backend``, as dotted names."""
    # `isinstance` with a protocol would not see what an object passes through with `__getattr__`.
    missing = [name for name in _members(Backend) if not hasattr(store, name)]
    parts: tuple[tuple[str, type], ...] = (("log", EventLog), ("ledger", ProjectionLedger))
    for name, protocol in parts:
        if (part := getattr(store, name, None)) is not None:
            missing += [f"{name}.{member}" for member in _members(protocol) if not hasattr(part, member)]
    return missing


def _members(protocol: type) -> list[str]:
    return [*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))]


def backend_from_url(url: str, *, migrate: bool = True) -> Backend:
    """The backend that a URL names, not yet opened.

    Args:
        url: ``memory:``; ``sqlite:///`` and a path, with ``?synchronous=full|normal|extra`` and ``busy_timeout=`` (seconds, 0
            to 3600); or ``postgresql://`` with what ``PostgresSettings`` lists.
        migrate: whether opening may create the schema on a server, or bring it up to date.

    Raises:
        InvalidStoreUrl: no store has this URL; the message says which URLs there are.
        MissingDependency: PostgreSQL needs the extra ``postgres``.

    >>> backend_from_url("memory:").system
    'memory'
    """
    if not isinstance(url, str):
        raise InvalidStoreUrl(f"a store URL is a str, not {type(url).__name__}; expected one of {_FORMS}")
    scheme, colon, _ = url.partition(":")
    if not colon:
        raise InvalidStoreUrl(f"store URL {url!r:.80} has no scheme; expected one of {_FORMS}")
    if scheme not in _SCHEMES:
        raise InvalidStoreUrl(f"a store URL cannot begin with {scheme + ':'!r:.40}; expected one of {_FORMS}")
    module, _ = _SCHEMES[scheme]
    backend: Backend = import_module(module).backend_from_url(url, migrate=migrate)
    return backend
