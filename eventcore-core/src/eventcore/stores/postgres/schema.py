"""The schema of the PostgreSQL store: its tables, the triggers that protect them, and its migrations.

A released migration never changes; a change of the schema is a new migration. The placeholders in the statements are explained
at ``for_schema``.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from eventcore.stores.postgres.functions import APPEND, READING

VERSION_TABLE: Final = """
    CREATE TABLE {schema}.schema_version (
        version integer PRIMARY KEY,
        migrated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    COMMENT ON TABLE {schema}.schema_version IS 'Which migrations of eventcore have been applied; the highest counts.';
"""

_EVENTS: Final = """
    CREATE TABLE {schema}.events (
        position bigint PRIMARY KEY,
        stream_id text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        event_type text COLLATE "C" NOT NULL,
        data bytea NOT NULL,
        metadata bytea NOT NULL,
        recorded_at_ns bigint NOT NULL,
        CONSTRAINT events_by_stream UNIQUE (stream_id, version)
    );
    COMMENT ON TABLE {schema}.events IS
        'Every event, in one order without gaps; data and metadata are JSON in UTF-8. People read readable_events.';

    CREATE VIEW {schema}.readable_events AS
        SELECT position, stream_id, version, event_type,
            convert_from(data, 'UTF8')::jsonb AS data,
            convert_from(metadata, 'UTF8')::jsonb AS metadata,
            to_timestamp(recorded_at_ns / 1e9) AS recorded_at,
            event_id
        FROM {schema}.events;

    CREATE TABLE {schema}.redactions (
        redaction bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        position bigint NOT NULL REFERENCES {schema}.events,
        reason text NOT NULL CHECK (reason <> ''),
        redacted_by name NOT NULL DEFAULT session_user,
        redacted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    COMMENT ON TABLE {schema}.redactions IS
        'The trace of redact_event: which events are not what they were, since when and why.';

    CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% of %.% is forbidden: what has happened stays', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation', HINT = 'To remove what an event says, call redact_event.';
    END $$;

    CREATE FUNCTION {schema}.allow_redaction() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (OLD.position, OLD.stream_id, OLD.version, OLD.event_id, OLD.event_type, OLD.recorded_at_ns)
            IS DISTINCT FROM (NEW.position, NEW.stream_id, NEW.version, NEW.event_id, NEW.event_type, NEW.recorded_at_ns)
            OR NOT EXISTS (
                SELECT FROM {schema}.redactions AS trace
                WHERE trace.position = OLD.position AND trace.transaction_id = pg_current_xact_id()
            )
        THEN
            RAISE EXCEPTION 'event % must not be changed: what has happened stays', OLD.position
                USING ERRCODE = 'restrict_violation', HINT = 'To remove what it says, call redact_event.';
        END IF;
        RETURN NEW;
    END $$;

    CREATE TRIGGER events_are_kept BEFORE DELETE OR TRUNCATE ON {schema}.events
        FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();
    CREATE TRIGGER events_are_only_redacted BEFORE UPDATE ON {schema}.events
        FOR EACH ROW EXECUTE FUNCTION {schema}.allow_redaction();
    CREATE TRIGGER redactions_are_kept BEFORE DELETE OR TRUNCATE OR UPDATE ON {schema}.redactions
        FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse();

    CREATE FUNCTION {schema}.redact_event(of_position bigint, new_data jsonb, reason text, new_metadata jsonb DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {schema}.redactions (position, reason) VALUES (of_position, redact_event.reason);
        UPDATE {schema}.events AS event SET
            data = convert_to(new_data::text, 'UTF8'),
            metadata = coalesce(convert_to(new_metadata::text, 'UTF8'), event.metadata)
        WHERE event.position = of_position;
    END $$;
    COMMENT ON FUNCTION {schema}.redact_event IS
        'Replaces what an event says, and leaves a trace. The new data must still fit its event type. Running processes may '
        'remember the old until they end.';
"""

_PROJECTIONS: Final = """
    CREATE TABLE {schema}.projections (
        name text COLLATE "C" PRIMARY KEY,
        position bigint NOT NULL DEFAULT 0,
        event_id text COLLATE "C" NOT NULL DEFAULT '',
        owner text NOT NULL DEFAULT '',
        token bigint NOT NULL DEFAULT 0,
        leased_until timestamptz NOT NULL DEFAULT 'epoch'
    );
    COMMENT ON TABLE {schema}.projections IS 'How far each projection has come, and who runs it until when.';

    CREATE TABLE {schema}.dead_letters (
        projection text COLLATE "C" NOT NULL REFERENCES {schema}.projections,
        position bigint NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        error_type text NOT NULL,
        error text NOT NULL,
        attempts integer NOT NULL,
        failed_at_ns bigint NOT NULL,
        PRIMARY KEY (projection, position)
    );
    COMMENT ON TABLE {schema}.dead_letters IS 'Events that a projection could not apply and has put aside.';
"""

MIGRATIONS: Final = (_EVENTS + APPEND + READING, _PROJECTIONS)
"""The statements that bring the schema from each version to the next, beginning with version 0, an empty schema."""


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
