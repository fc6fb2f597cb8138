"""The tables of an SQLite store, the versions of its schema, and the settings of its connections."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from eventcore.errors import IncompatibleStore
from eventcore.stores.sqlite.connection import StoreConnection, is_read_only
from eventcore.stores.values import SCHEMA_VERSION, version_of

Synchronous: TypeAlias = Literal["full", "normal", "extra"]
"""How a commit is made durable: the values of SQLite's ``PRAGMA synchronous``, see ``SqliteBackend``."""

_APPLICATION_ID: Final = 0x65766374  # "evct"

# The files that bring the schema to the version in their name, beginning with an empty file. A released one never changes.
# Every statement can run again: another process may migrate the same file at the same time.
_MIGRATIONS: Final = (
    *("1_events.sql", "2_projections.sql", "3_projections.sql", "4_snapshots.sql", "5_command_keys.sql"),
    "6_refused_rows.sql",
    "7_repeated_appends.sql",
)

# REPLACE removes rows without a trigger for deletes. This trigger changes nothing for processes of earlier versions, so it
# needs no version of the schema: the next process that can write the file adds it.
_NOT_REPLACED: Final = """
    CREATE TRIGGER IF NOT EXISTS events_are_not_replaced BEFORE INSERT ON events
        WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
            OR EXISTS (SELECT 1 FROM events WHERE stream_id = NEW.stream_id AND version = NEW.version)
        BEGIN SELECT RAISE(ABORT, 'what has happened stays: events change only by redact, which leaves a trace'); END
"""


def prepare(connection: StoreConnection, path: str, synchronous: Synchronous, busy_timeout: float) -> None:
    """Check that the file is a store or empty, set up the connection that appends, and create or migrate the schema.

    Raises:
        IncompatibleStore: the file is something else, has a later schema version, or has an earlier one and cannot be written.
    """
    connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if tables and application != _APPLICATION_ID:
        raise IncompatibleStore(f"{path} is a database of something else; give the path of an eventcore store or of a new file")
    if tables and not 0 < version <= SCHEMA_VERSION:
        raise IncompatibleStore(
            f"{path} has schema version {version}, this eventcore knows versions up to {SCHEMA_VERSION}; "
            "open it with the eventcore that made it, or upgrade"
        )
    if is_read_only(path):
        if version < SCHEMA_VERSION:
            raise IncompatibleStore(
                f"{path} has schema version {version}, this eventcore reads version {SCHEMA_VERSION}, and the file or its "
                "directory cannot be written to migrate it: allow that, or migrate a copy"
            )
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    if version < SCHEMA_VERSION:
        from importlib.resources import files  # takes five milliseconds, and an existing file does not need it

        folder = files("eventcore.stores.sqlite") / "migrations"
        missing = [name for name in _MIGRATIONS if version_of(name) > version]
        steps = "".join([(folder / name).read_text("utf-8") for name in missing])
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps} PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
    connection.execute(_NOT_REPLACED)


def set_up_ledger(connection: StoreConnection, busy_timeout: float) -> None:
    """Set up the connection that writes for projections: its commits do not wait for the disk (see ``SqliteLedger``)."""
    connection.executescript(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}; PRAGMA synchronous = NORMAL")


def set_up_reader(connection: StoreConnection, busy_timeout: float) -> None:
    """Set up a connection that only reads."""
    connection.executescript(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}; PRAGMA query_only = ON")
