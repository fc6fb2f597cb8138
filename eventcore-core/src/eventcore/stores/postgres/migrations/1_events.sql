-- Version 1: events, the rules that protect them, and the functions that append and read them.
--
-- The functions fix their plans (SET enable_seqscan = off): they use the indexes, whatever the statistics of a fresh or a fast
-- growing table say.

CREATE TABLE {schema}.schema_version (
    version integer PRIMARY KEY,
    migrated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE {schema}.schema_version IS 'Which migrations of eventcore have been applied; the highest counts.';

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

-- append_events decides on the requests of one batch in order, and inserts the events of the accepted ones.
--
-- Lists are passed as texts, which the client encodes much faster than arrays: numbers as an array literal, texts joined by
-- U+001F, which none of them may contain.
--
-- settling: an earlier call, whose answer was lost, may have appended this batch.
-- lock_milliseconds: how long to wait for the append lock.
-- streams, bases: every stream that the batch names, once, and its version when the batch begins.
-- agreed: whether every request is accepted if the streams have these versions.
-- check_*: what the requests check: check_counts says how many checks each request has; streams are indexes into streams.
-- event_*: the new events: event_counts says how many events each request has.
-- known_*: the newest event that the batch may build on. If it is lost, the versions may be wrong, too.
--
-- head: the highest position before the batch. verdicts: for each request the position of its first event, 0 if it has none,
-- -1 if it is refused; NULL when all requests are accepted, in order. waited: seconds until the lock was granted.
CREATE FUNCTION {schema}.append_events(
    settling boolean, lock_milliseconds integer,
    streams text, bases text, agreed boolean,
    check_counts text, check_streams text, check_bases text, check_versions text,
    event_counts text, event_streams text,
    event_stream_ids text, event_versions text, event_ids text, event_types text,
    event_data text, event_metadata text, event_times text,
    known_position bigint, known_id text,
    OUT head bigint, OUT verdicts bigint[], OUT waited double precision
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    written_counts integer[];
    asked_counts integer[];
    asked_streams integer[];
    asked_bases bigint[];
    asked_versions bigint[];
    written_streams integer[];
    written_versions bigint[];
    known boolean;
    began bigint[];
    now_at bigint[];
    kept boolean[] := '{}';
    next_check integer := 1;
    next_event integer := 1;
    next_position bigint;
    accepted boolean;
    written bigint;
    waiting_since timestamptz;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events must not be called under %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'It needs read committed, to see what it waited for.';
    END IF;
    -- First the lock, then a look: each statement after it sees all that was committed under it.
    PERFORM set_config('lock_timeout', lock_milliseconds::text, true);
    waiting_since := clock_timestamp();
    PERFORM pg_advisory_xact_lock({key});
    waited := extract(epoch FROM clock_timestamp() - waiting_since);
    SELECT
        coalesce((SELECT max(event.position) FROM {schema}.events AS event), 0),
        known_position = 0 OR EXISTS (
            SELECT FROM {schema}.events AS event WHERE event.position = known_position AND event.event_id = known_id
        ),
        agreed AND NOT EXISTS (
            SELECT FROM unnest(string_to_array(streams, E'\x1f'), bases::bigint[]) AS asked(stream_id, version)
            WHERE asked.version <> coalesce(
                (SELECT max(event.version) FROM {schema}.events AS event WHERE event.stream_id = asked.stream_id), 0
            )
        )
    INTO head, known, accepted;
    IF NOT known THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;

    IF settling THEN
        SELECT array_agg(coalesce(standing.position, -1) ORDER BY request.number), count(standing.position)
        INTO verdicts, written
        FROM (
            SELECT number, CASE WHEN events > 0 THEN sum(events) OVER (ORDER BY number) - events + 1 END AS first
            FROM unnest(event_counts::integer[]) WITH ORDINALITY AS counted(events, number)
        ) AS request
        LEFT JOIN unnest(
            string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f')
        ) WITH ORDINALITY AS new(stream_id, version, id, number)
            ON new.number = request.first
        LEFT JOIN {schema}.events AS standing
            ON standing.stream_id = new.stream_id AND standing.version = new.version AND standing.event_id = new.id;
        IF written > 0 THEN
            RETURN;
        END IF;
        verdicts := NULL;
    END IF;

    IF accepted THEN
        INSERT INTO {schema}.events
        SELECT head + new.number, new.stream_id, new.version, new.id, new.type,
            convert_to(new.data, 'UTF8'), convert_to(new.metadata, 'UTF8'), new.time
        FROM unnest(
            string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f'),
            string_to_array(event_types, E'\x1f'), string_to_array(event_data, E'\x1f'),
            string_to_array(event_metadata, E'\x1f'), event_times::bigint[]
        ) WITH ORDINALITY AS new(stream_id, version, id, type, data, metadata, time, number);
        GET DIAGNOSTICS written = ROW_COUNT;
    ELSE
        written_counts := event_counts;
        asked_counts := check_counts;
        asked_streams := check_streams;
        asked_bases := check_bases;
        asked_versions := check_versions;
        written_streams := event_streams;
        written_versions := event_versions;
        SELECT array_agg(coalesce(
            (SELECT max(event.version) FROM {schema}.events AS event WHERE event.stream_id = asked.stream_id), 0
        ) ORDER BY asked.number)
        INTO began
        FROM unnest(string_to_array(streams, E'\x1f')) WITH ORDINALITY AS asked(stream_id, number);
        now_at := began;
        next_position := head + 1;
        verdicts := '{}';
        FOR request IN 1 .. cardinality(written_counts) LOOP
            accepted := true;
            FOR one IN next_check .. next_check + asked_counts[request] - 1 LOOP
                IF began[asked_streams[one]] <> asked_bases[one] OR now_at[asked_streams[one]] <> asked_versions[one] THEN
                    accepted := false;
                    EXIT;
                END IF;
            END LOOP;
            FOR one IN next_event .. next_event + written_counts[request] - 1 LOOP
                kept[one] := accepted;
                IF accepted THEN
                    now_at[written_streams[one]] := written_versions[one];
                END IF;
            END LOOP;
            next_check := next_check + asked_counts[request];
            next_event := next_event + written_counts[request];
            IF NOT accepted THEN
                verdicts[request] := -1;
            ELSIF written_counts[request] = 0 THEN
                verdicts[request] := 0;
            ELSE
                verdicts[request] := next_position;
                next_position := next_position + written_counts[request];
            END IF;
        END LOOP;
        INSERT INTO {schema}.events
        SELECT head + row_number() OVER (ORDER BY new.number),
            new.stream_id, new.version, new.id, new.type,
            convert_to(new.data, 'UTF8'), convert_to(new.metadata, 'UTF8'), new.time
        FROM unnest(
            string_to_array(event_stream_ids, E'\x1f'), written_versions, string_to_array(event_ids, E'\x1f'),
            string_to_array(event_types, E'\x1f'), string_to_array(event_data, E'\x1f'),
            string_to_array(event_metadata, E'\x1f'), event_times::bigint[], kept
        ) WITH ORDINALITY AS new(stream_id, version, id, type, data, metadata, time, kept, number)
        WHERE new.kept;
        written := next_position - head - 1;
    END IF;
    IF written > 0 THEN
        PERFORM pg_notify('{channel}', (head + written)::text);
    END IF;
END $$;

-- At most page events of each stream after its version. The first row holds the head position and nothing else.
-- known_*: as in append_events.
CREATE FUNCTION {schema}.read_streams(
    streams text[], versions bigint[], up_to bigint, page integer, known_position bigint, known_id text
) RETURNS SETOF {schema}.events
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF known_position > 0 AND NOT EXISTS (
        SELECT FROM {schema}.events AS event WHERE event.position = known_position AND event.event_id = known_id
    ) THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;
    RETURN QUERY
    SELECT coalesce(max(event.position), 0), NULL, NULL::bigint, NULL, NULL, NULL::bytea, NULL::bytea, NULL::bigint
    FROM {schema}.events AS event
    UNION ALL
    SELECT found.* FROM unnest(streams, versions) AS asked(stream_id, version)
    CROSS JOIN LATERAL (
        SELECT event.* FROM {schema}.events AS event
        WHERE event.stream_id = asked.stream_id AND event.version > asked.version AND event.position <= up_to
        ORDER BY event.version LIMIT page
    ) AS found;
END $$;

-- At most page matching events in a range of positions.
CREATE FUNCTION {schema}.scan_events(after bigint, up_to bigint, page integer, pattern text, types text[])
RETURNS SETOF {schema}.events
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY SELECT event.* FROM {schema}.events AS event
    WHERE event.position > after AND event.position <= up_to
        AND (pattern IS NULL OR event.stream_id ~ pattern)
        AND (types IS NULL OR event.event_type = ANY (types))
    ORDER BY event.position LIMIT page;
END $$;

-- The same after a checkpoint, in a window of width positions. The first row describes the snapshot: the head position, the end
-- of the window (as version), the event there (as event_id) and the event at the checkpoint (as event_type).
CREATE FUNCTION {schema}.follow_events(after bigint, width bigint, page integer, pattern text, types text[])
RETURNS SETOF {schema}.events
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY WITH snapshot AS (
        SELECT coalesce(max(event.position), 0) AS head FROM {schema}.events AS event
    )
    SELECT head, NULL, greatest(after, least(after + width, head)),
        (SELECT event.event_id FROM {schema}.events AS event
         WHERE event.position = greatest(after, least(after + width, head))),
        (SELECT event.event_id FROM {schema}.events AS event WHERE event.position = after),
        NULL::bytea, NULL::bytea, NULL::bigint
    FROM snapshot
    UNION ALL
    SELECT found.* FROM (
        SELECT event.* FROM {schema}.events AS event
        WHERE event.position > after AND event.position <= after + width
            AND (pattern IS NULL OR event.stream_id ~ pattern)
            AND (types IS NULL OR event.event_type = ANY (types))
        ORDER BY event.position LIMIT page
    ) AS found;
END $$;
