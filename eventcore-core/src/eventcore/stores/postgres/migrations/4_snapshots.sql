-- Version 4: stored states of streams, redactions that other processes notice, and pages that are bounded in bytes.
--
-- Processes of version 2 run on meanwhile: their functions stay as they are. Functions name the columns of events that they
-- return, so a column that an operator adds to the table changes nothing.

CREATE TABLE {schema}.snapshots (
    stream_id text COLLATE "C" NOT NULL,
    state_type text COLLATE "C" NOT NULL,
    state_version bigint NOT NULL,
    version bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    redactions bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (stream_id, state_type, state_version)
);
COMMENT ON TABLE {schema}.snapshots IS
    'Stored states of streams: folding need not begin at the first event. May be emptied at any time.';

-- Who may read or append events, may read and store states of streams, and read redactions, too.
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END AS role,
            bool_or(acl.privilege_type = 'INSERT') AS may_append
        FROM pg_catalog.pg_class AS class CROSS JOIN LATERAL aclexplode(class.relacl) AS acl
        WHERE class.oid = '{schema}.events'::regclass AND acl.grantee <> class.relowner
            AND acl.privilege_type IN ('SELECT', 'INSERT')
        GROUP BY acl.grantee
    LOOP
        EXECUTE format('GRANT SELECT ON {schema}.snapshots, {schema}.redactions TO %s', allowed.role);
        IF allowed.may_append THEN
            EXECUTE format('GRANT INSERT, UPDATE ON {schema}.snapshots TO %s', allowed.role);
        END IF;
    END LOOP;
END $$;

-- Whether a stored state may be used: its event is there, and no later redaction concerns its stream.
CREATE FUNCTION {schema}.snapshot_fits(of_stream text, of_version bigint, of_id text, seen bigint)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM {schema}.events AS event
        WHERE event.stream_id = of_stream AND event.version = of_version AND event.event_id = of_id
    ) AND NOT EXISTS (
        SELECT FROM {schema}.redactions AS trace JOIN {schema}.events AS event ON event.position = trace.position
        WHERE trace.redaction > seen AND event.stream_id = of_stream
    )
$$;

-- Redactions are made one after the other, so that their numbers grow in the order of their commits: a process that has seen
-- number 5 will never miss number 4. Fires for each statement, before the numbers are given.
CREATE FUNCTION {schema}.begin_redaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(({key})::bigint # 2);
    RETURN NULL;
END $$;

-- With the rights of the owner: who may redact need not have a right to stored states.
CREATE FUNCTION {schema}.forget_snapshots() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    DELETE FROM {schema}.snapshots AS snapshot USING {schema}.events AS event
    WHERE event.position = NEW.position AND snapshot.stream_id = event.stream_id;
    RETURN NULL;
END $$;

CREATE TRIGGER redactions_are_in_order BEFORE INSERT ON {schema}.redactions
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.begin_redaction();
CREATE TRIGGER redactions_forget_snapshots AFTER INSERT ON {schema}.redactions
    FOR EACH ROW EXECUTE FUNCTION {schema}.forget_snapshots();

-- Replaces the data of one event. Returns no row when the event is not at this position.
CREATE FUNCTION {schema}.redact(of_position bigint, of_id text, new_data bytea, why text)
RETURNS TABLE (number bigint, stream_id text, version bigint, redacted_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    SELECT event.stream_id, event.version INTO stream_id, version
    FROM {schema}.events AS event WHERE event.position = of_position AND event.event_id = of_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO {schema}.redactions AS trace (position, reason) VALUES (of_position, why)
    RETURNING trace.redaction, trace.redacted_at INTO number, redacted_at;
    UPDATE {schema}.events AS event SET data = new_data WHERE event.position = of_position;
    RETURN NEXT;
END $$;

-- Stores the states that fit. While a redaction is not committed yet, nothing is stored: the states may hold the old text.
CREATE FUNCTION {schema}.save_snapshots(
    streams text[], types text[], type_versions bigint[], versions bigint[], ids text[], seen bigint[], states bytea[]
) RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(({key})::bigint # 2) THEN
        RETURN;
    END IF;
    -- In the order of the key, so that two processes never wait for each other.
    INSERT INTO {schema}.snapshots AS kept (stream_id, state_type, state_version, version, event_id, redactions, data)
    SELECT new.* FROM unnest(streams, types, type_versions, versions, ids, seen, states)
        AS new(stream_id, state_type, state_version, version, event_id, redactions, data)
    WHERE {schema}.snapshot_fits(new.stream_id, new.version, new.event_id, new.redactions)
    ORDER BY new.stream_id, new.state_type, new.state_version
    ON CONFLICT (stream_id, state_type, state_version) DO UPDATE SET
        version = excluded.version, event_id = excluded.event_id, redactions = excluded.redactions, data = excluded.data
    WHERE kept.version <= excluded.version
        OR NOT {schema}.snapshot_fits(kept.stream_id, kept.version, kept.event_id, kept.redactions);
END $$;

-- append_events, unless the store has more redactions than the batch has seen. A call that asks again (settling) is not
-- checked: the earlier call may have appended the batch before the redaction.
CREATE FUNCTION {schema}.append_batch(
    settling boolean, lock_milliseconds integer,
    streams text, bases text, agreed boolean,
    check_counts text, check_streams text, check_bases text, check_versions text,
    event_counts text, event_streams text,
    event_stream_ids text, event_versions text, event_ids text, event_types text,
    event_data text, event_metadata text, event_times text,
    known_redactions bigint, known_position bigint, known_id text,
    OUT head bigint, OUT verdicts bigint[], OUT waited double precision
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    redacted bigint := max(trace.redaction) FROM {schema}.redactions AS trace;
BEGIN
    IF redacted > known_redactions AND NOT settling THEN
        RAISE EXCEPTION 'the store has % redactions, the batch has seen %', redacted, known_redactions USING ERRCODE = 'EC002';
    END IF;
    SELECT answer.head, answer.verdicts, answer.waited INTO head, verdicts, waited FROM {schema}.append_events(
        settling, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
        event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types,
        event_data, event_metadata, event_times, known_position, known_id
    ) AS answer;
END $$;

-- At most page events of each stream after its version, and at most bytes in all (but a first event of any size).
--
-- The first row holds the head position and, as version, the number of redactions. A row without a position is a stored state:
-- its version, event_id and data, and as recorded_at_ns the redactions that it has seen; the events of its stream begin behind
-- it. A row without data says that its stream has more events.
-- known_*: as in append_events. state_*: the key of the state that is wanted of each stream; NULL: none.
CREATE FUNCTION {schema}.load_streams(
    streams text[], versions bigint[], up_to bigint, page integer, bytes bigint, known_position bigint, known_id text,
    state_types text[], state_versions bigint[]
) RETURNS TABLE (
    "position" bigint, stream_id text, version bigint, event_id text, event_type text,
    data bytea, metadata bytea, recorded_at_ns bigint
) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF known_position > 0 AND NOT EXISTS (
        SELECT FROM {schema}.events AS event WHERE event.position = known_position AND event.event_id = known_id
    ) THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;
    IF cardinality(state_types) = 0 THEN
        -- The same without stored states: most calls want none, and these statements start faster.
        RETURN QUERY SELECT coalesce((SELECT max(event.position) FROM {schema}.events AS event), 0), NULL::text,
            coalesce((SELECT max(trace.redaction) FROM {schema}.redactions AS trace), 0),
            NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::bigint;
        RETURN QUERY
        SELECT found.position, found.stream_id, found.version, found.event_id, found.event_type,
            CASE WHEN found.nth <= page AND (found.total <= bytes OR found.total = found.size) THEN found.data END,
            found.metadata, found.recorded_at_ns
        FROM (
            SELECT event.*, event.version - asked.version AS nth, octet_length(event.data) + octet_length(event.metadata) AS size,
                sum(octet_length(event.data) + octet_length(event.metadata)) OVER (
                    ORDER BY asked.number, event.version ROWS UNBOUNDED PRECEDING
                ) AS total
            FROM unnest(streams, versions) WITH ORDINALITY AS asked(stream_id, version, number)
            CROSS JOIN LATERAL (
                SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
                    event.data, event.metadata, event.recorded_at_ns
                FROM {schema}.events AS event
                WHERE event.stream_id = asked.stream_id AND event.version > asked.version AND event.position <= up_to
                ORDER BY event.version LIMIT page + 1
            ) AS event
        ) AS found
        WHERE found.total <= bytes OR found.total = found.size OR found.total - found.size <= bytes OR found.nth <= 2;
        RETURN;
    END IF;
    RETURN QUERY
    WITH asked AS (
        SELECT wanted.number, wanted.stream_id, coalesce(state.version, wanted.version) AS version,
            state.version AS state_version, state.event_id, state.redactions, state.data
        FROM unnest(streams, versions, state_types, state_versions) WITH ORDINALITY
            AS wanted(stream_id, version, state_type, state_version, number)
        LEFT JOIN LATERAL (
            SELECT snapshot.version, snapshot.event_id, snapshot.redactions, snapshot.data FROM {schema}.snapshots AS snapshot
            WHERE wanted.state_type IS NOT NULL AND snapshot.stream_id = wanted.stream_id
                AND snapshot.state_type = wanted.state_type AND snapshot.state_version = wanted.state_version
                AND {schema}.snapshot_fits(snapshot.stream_id, snapshot.version, snapshot.event_id, snapshot.redactions)
                AND up_to >= (
                    SELECT event.position FROM {schema}.events AS event
                    WHERE event.stream_id = snapshot.stream_id AND event.version = snapshot.version
                )
        ) AS state ON true
    ), found AS (
        SELECT event.*, event.version - asked.version AS nth, octet_length(event.data) + octet_length(event.metadata) AS size,
            sum(octet_length(event.data) + octet_length(event.metadata)) OVER (
                ORDER BY asked.number, event.version ROWS UNBOUNDED PRECEDING
            ) AS total
        FROM asked CROSS JOIN LATERAL (
            SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
                event.data, event.metadata, event.recorded_at_ns
            FROM {schema}.events AS event
            WHERE event.stream_id = asked.stream_id AND event.version > asked.version AND event.position <= up_to
            ORDER BY event.version LIMIT page + 1
        ) AS event
    )
    SELECT coalesce((SELECT max(event.position) FROM {schema}.events AS event), 0), NULL,
        coalesce((SELECT max(trace.redaction) FROM {schema}.redactions AS trace), 0),
        NULL, NULL, NULL::bytea, NULL::bytea, NULL::bigint
    UNION ALL
    SELECT NULL, asked.stream_id, asked.state_version, asked.event_id, NULL, asked.data, NULL, asked.redactions
    FROM asked WHERE asked.state_version IS NOT NULL
    UNION ALL
    SELECT found.position, found.stream_id, found.version, found.event_id, found.event_type,
        CASE WHEN found.nth <= page AND (found.total <= bytes OR found.total = found.size) THEN found.data END,
        found.metadata, found.recorded_at_ns
    FROM found
    -- Of the events that do not fit, one or two of each stream are enough (two: the first event may be larger than the page).
    WHERE found.total <= bytes OR found.total = found.size OR found.total - found.size <= bytes OR found.nth <= 2;
END $$;

-- At most page matching events in a window of width positions after a checkpoint, and at most bytes in all (but a first event of
-- any size).
--
-- The first row describes the snapshot: the head position, the end of the window (as version), the event there (as event_id) and
-- the event at the checkpoint (as event_type). With a filter, a last row without data says that the next event did not fit,
-- unless it follows one that is larger than the page. Without a filter, positions say it: they have no gaps.
CREATE FUNCTION {schema}.follow_page(
    after bigint, width bigint, page integer, bytes bigint, pattern text, types text[]
) RETURNS TABLE (
    "position" bigint, stream_id text, version bigint, event_id text, event_type text,
    data bytea, metadata bytea, recorded_at_ns bigint
) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    up_to bigint := after + width;
BEGIN
    RETURN QUERY WITH snapshot AS (
        SELECT coalesce(max(event.position), 0) AS head FROM {schema}.events AS event
    )
    SELECT snapshot.head, NULL, greatest(after, least(up_to, snapshot.head)),
        (SELECT event.event_id FROM {schema}.events AS event
         WHERE event.position = greatest(after, least(up_to, snapshot.head))),
        (SELECT event.event_id FROM {schema}.events AS event WHERE event.position = after),
        NULL::bytea, NULL::bytea, NULL::bigint
    FROM snapshot;
    IF pattern IS NOT NULL OR types IS NOT NULL THEN
        RETURN QUERY SELECT found.position, found.stream_id, found.version, found.event_id, found.event_type,
            CASE WHEN found.total <= bytes OR found.total = found.size THEN found.data END,
            found.metadata, found.recorded_at_ns
        FROM (
            SELECT event.*, octet_length(event.data) + octet_length(event.metadata) AS size,
                sum(octet_length(event.data) + octet_length(event.metadata)) OVER (
                    ORDER BY event.position ROWS UNBOUNDED PRECEDING
                ) AS total
            FROM (
                SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
                    event.data, event.metadata, event.recorded_at_ns
                FROM {schema}.events AS event
                WHERE event.position > after AND event.position <= up_to
                    AND (pattern IS NULL OR event.stream_id ~ pattern)
                    AND (types IS NULL OR event.event_type = ANY (types))
                ORDER BY event.position LIMIT page
            ) AS event
        ) AS found
        WHERE found.total <= bytes OR found.total = found.size OR found.total - found.size <= bytes;
        RETURN;
    END IF;
    -- Usually all events fit. One sum shows that, and costs a third of the time that measuring each event takes.
    IF bytes < (
        SELECT sum(octet_length(found.data) + octet_length(found.metadata)) FROM (
            SELECT event.data, event.metadata FROM {schema}.events AS event
            WHERE event.position > after AND event.position <= up_to ORDER BY event.position LIMIT page
        ) AS found
    ) THEN
        page := count(*) FROM (
            SELECT one.size, sum(one.size) OVER (ORDER BY one.position ROWS UNBOUNDED PRECEDING) AS total FROM (
                SELECT event.position, octet_length(event.data) + octet_length(event.metadata) AS size
                FROM {schema}.events AS event
                WHERE event.position > after AND event.position <= up_to ORDER BY event.position LIMIT page
            ) AS one
        ) AS found
        WHERE found.total <= bytes OR found.total = found.size;
    END IF;
    RETURN QUERY SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
        event.data, event.metadata, event.recorded_at_ns
    FROM {schema}.events AS event
    WHERE event.position > after AND event.position <= up_to
    ORDER BY event.position LIMIT page;
END $$;

-- The event with an id, in a window of width positions up to up_to.
CREATE FUNCTION {schema}.find_event(id text, up_to bigint, width bigint)
RETURNS TABLE (
    "position" bigint, stream_id text, version bigint, event_id text, event_type text,
    data bytea, metadata bytea, recorded_at_ns bigint
) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
        event.data, event.metadata, event.recorded_at_ns
    FROM {schema}.events AS event
    WHERE event.position > up_to - width AND event.position <= up_to AND event.event_id = id;
END $$;
