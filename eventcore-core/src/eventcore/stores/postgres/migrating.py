"""Opening a PostgreSQL store: checks whether the server can hold it, and creates or migrates its schema.

The migrations are the SQL files in ``migrations``. A released one never changes; a change of the schema is a new file. Their
placeholders are explained at ``for_schema``.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from eventcore.errors import IncompatibleStore
from eventcore.ground import own_logger
from eventcore.stores.postgres.driver import Connection, transaction
from eventcore.stores.postgres.schema import for_schema, lock_key
from eventcore.stores.postgres.settings import PostgresSettings
from eventcore.stores.values import SCHEMA_VERSION, version_of

logger: Final = own_logger("eventcore.stores.postgres")

# The files that bring the schema to the version in their name, in this order, beginning with an empty schema.
_MIGRATIONS: Final = (
    *("1_events.sql", "2_projections.sql", "3_projections.sql", "4_snapshots.sql", "5_command_keys.sql"),
    "6_refused_rows.sql",
    "7_repeated_appends.sql",
)
_OLDEST_SERVER: Final = 150000
_ABOUT: Final = """
    SELECT current_setting('server_version_num')::integer AS server_version, current_setting('server_version') AS release,
        current_setting('server_encoding') AS encoding, current_setting('default_transaction_isolation') AS isolation,
        current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
        pg_is_in_recovery() AS standby
"""
# One row for each table of the schema, and at least one if the schema exists. A query of the catalogue, and not to_regclass():
# its answer may be older than the lock that the migration has waited for.
_TABLES: Final = """
    SELECT class.relname FROM pg_catalog.pg_namespace AS schema LEFT JOIN pg_catalog.pg_class AS class
    ON schema.oid = class.relnamespace WHERE schema.nspname = $1
"""
_VERSION: Final = "SELECT coalesce(max(version), 0) FROM {schema}.schema_version"
_MIGRATED: Final = "INSERT INTO {schema}.schema_version (version) VALUES ($1)"


async def prepare(connection: Connection, settings: PostgresSettings, *, migrate: bool) -> None:
    """Check the server and the database; create or migrate the schema if ``migrate`` allows it.

    Raises:
        IncompatibleStore: the server or the database cannot hold a store; the schema is newer than this eventcore; or it is
            older and may not be migrated.
    """
    async with transaction(connection):
        about = await connection.fetchrow(_ABOUT)
        version = await _version(connection, settings.schema)
    _check(about, settings.address)
    if version < SCHEMA_VERSION:
        if about["standby"] or not migrate:
            found = f"has version {version}" if version else "does not exist"
            reason = "this process may not migrate it; run 'eventcore migrate'"
            if migrate:
                reason = "a standby cannot be migrated; give the address of the primary"
            raise IncompatibleStore(
                f"the schema {settings.schema!r} at {settings.address} {found}, this eventcore needs version {SCHEMA_VERSION}, "
                f"and {reason}"
            )
        version = await _migrate(connection, settings)
    if version > SCHEMA_VERSION:
        raise IncompatibleStore(
            f"the schema {settings.schema!r} at {settings.address} has version {version}, this eventcore knows version "
            f"{SCHEMA_VERSION}; upgrade eventcore"
        )


def _check(about: Any, address: str) -> None:
    if about["server_version"] < _OLDEST_SERVER:
        raise IncompatibleStore(f"PostgreSQL at {address} is of version {about['release']}; 15 or later is needed")
    if about["encoding"] != "UTF8":
        raise IncompatibleStore(
            f"the database at {address} has the encoding {about['encoding']}, which cannot hold every event; create one with "
            "ENCODING 'UTF8' TEMPLATE template0"
        )
    if about["isolation"] != "read committed":
        raise IncompatibleStore(
            f"the database at {address} has default_transaction_isolation = '{about['isolation']}', under which an append "
            "would not see what was committed before it; set it to 'read committed' for this user or database"
        )
    for setting in ("fsync", "synchronous_commit"):
        if about[setting] == "off":
            logger.warning(
                "PostgreSQL at %s has %s = off: it acknowledges events before they are durable, and a crash loses them",
                address,
                setting,
            )


async def _version(connection: Connection, schema: str) -> int:
    """The version of the schema, 0 when there is none."""
    tables = [row[0] for row in await connection.fetch(_TABLES, schema)]
    return int(await connection.fetchval(for_schema(_VERSION, schema))) if "schema_version" in tables else 0


async def _migrate(connection: Connection, settings: PostgresSettings) -> int:
    schema = settings.schema
    while True:
        async with transaction(connection):
            # One process migrates; the others wait here and then find the schema in its new version.
            await connection.execute(f"SELECT pg_advisory_xact_lock({lock_key(schema) ^ 1})")
            version = await _version(connection, schema)
            if version >= SCHEMA_VERSION:
                return version
            if version == 0:
                await _create_schema(connection, settings)
            reached, name = next((new, name) for name in _MIGRATIONS if (new := version_of(name)) > version)
            statements = files("eventcore.stores.postgres").joinpath("migrations", name).read_text(encoding="utf-8")
            await connection.execute(for_schema(statements, schema))
            await connection.execute(for_schema(_MIGRATED, schema), reached)
        logger.info("migrated the schema %s at %s from version %d to %d", schema, settings.address, version, reached)


async def _create_schema(connection: Connection, settings: PostgresSettings) -> None:
    tables = [row[0] for row in await connection.fetch(_TABLES, settings.schema)]
    # Not IF NOT EXISTS: that needs the right to create schemas even when the schema exists.
    if not tables:
        await connection.execute(for_schema("CREATE SCHEMA {schema}", settings.schema))
    elif tables != [None]:
        raise IncompatibleStore(
            f"the schema {settings.schema!r} at {settings.address} holds tables of something else; name another: "
            "?schema=… in the store URL"
        )
