"""From a URL to a PostgreSQL store. This module can be imported without asyncpg; opening a URL needs it."""

from __future__ import annotations

from importlib.util import find_spec

from eventcore.errors import MissingDependency
from eventcore.stores.base import Backend
from eventcore.stores.postgres.settings import PostgresSettings


def backend_from_url(url: str, *, migrate: bool) -> Backend:
    """The store that a URL names.

    Raises:
        InvalidStoreUrl: see ``PostgresSettings.from_url``.
        MissingDependency: asyncpg is not installed.
    """
    settings = PostgresSettings.from_url(url)
    if find_spec("asyncpg") is None:
        raise MissingDependency("a PostgreSQL store needs asyncpg: pip install 'eventcore-core[postgres]'")
    # Imported here, since it imports asyncpg.
    from eventcore.stores.postgres.backend import PostgresBackend

    return PostgresBackend(settings, migrate=migrate)
