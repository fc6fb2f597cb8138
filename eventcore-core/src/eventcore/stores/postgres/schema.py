"""Filling the names that depend on the schema into the SQL of a PostgreSQL store."""

from __future__ import annotations

import hashlib
from functools import lru_cache


@lru_cache(maxsize=256)
def for_schema(sql: str, schema: str) -> str:
    """Fill in the placeholders of a statement of this package.

    ``{schema}`` is the quoted name of the schema, ``{key}`` the number of its append lock, ``{channel}`` its notification
    channel. Nothing is escaped: ``PostgresSettings.from_url`` accepts only names that need no escaping.
    """
    return sql.replace("{schema}", f'"{schema}"').replace("{key}", str(lock_key(schema))).replace("{channel}", channel(schema))


def lock_key(schema: str) -> int:
    """The number of the append lock. Advisory locks are numbers shared by the whole database, hence the hash of a name."""
    return int.from_bytes(hashlib.sha256(f"eventcore append {schema}".encode()).digest()[:8], signed=True)


def channel(schema: str) -> str:
    """The channel on which each append sends the new head position."""
    return f"eventcore_{schema}"
