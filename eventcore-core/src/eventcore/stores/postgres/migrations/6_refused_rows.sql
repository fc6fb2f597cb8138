-- Version 6: an append that refuses requests returns what their streams hold, so that their commands need not read.
--
-- Processes of version 5 run on meanwhile: their functions stay as they are.

-- append_events, for batches with and without idempotency keys, and more:
--
-- chained: two requests name the same stream, or a request checks none: they are decided one after the other (append_events).
-- rows, bytes: how many rows to return at most when requests are refused, and their size.
-- keys, fingerprints, key_requests, attempts, seconds: as in append_events_once; empty if no request has a key.
--
-- known: as in append_events_once. redactions: how many redactions the store has.
-- began: when requests are refused, the version of each of streams before the batch, in order. row_*: the rows behind its version
-- in bases, of streams that have few and small ones; streams that have a stored state are better read from there. row_streams are
-- indexes into streams. All of them are NULL when no request is refused, or when an earlier call has appended the batch.
CREATE FUNCTION {schema}.append_requests(
    settling boolean, lock_milliseconds integer,
    streams text, bases text, agreed boolean,
    check_counts text, check_streams text, check_bases text, check_versions text,
    event_counts text, event_streams text,
    event_stream_ids text, event_versions text, event_ids text, event_types text,
    event_data text, event_metadata text, event_times text, chained boolean,
    known_redactions bigint, known_position bigint, known_id text,
    rows bigint, bytes bigint,
    keys text, fingerprints text, key_requests text, attempts text, seconds text,
    OUT head bigint, OUT verdicts bigint[], OUT waited double precision, OUT known text[], OUT redactions bigint,
    OUT began bigint[], OUT row_positions bigint[], OUT row_streams integer[], OUT row_versions bigint[], OUT row_ids text[],
    OUT row_types text[], OUT row_data bytea[], OUT row_metadata bytea[], OUT row_times bigint[]
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    waiting_since timestamptz;
    is_known boolean;
    accepted boolean;
    was_appended boolean := false;
    written bigint;
    asked_counts integer[];
    asked_streams integer[];
    asked_bases bigint[];
    asked_versions bigint[];
    written_counts integer[];
    kept boolean[];
    kept_events boolean[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_requests must not be called under %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'It needs read committed, to see what it waited for.';
    END IF;
    -- First the lock, then a look: each statement after it sees all that was committed under it.
    PERFORM set_config('lock_timeout', lock_milliseconds::text, true);
    waiting_since := clock_timestamp();
    PERFORM pg_advisory_xact_lock({key});
    waited := extract(epoch FROM clock_timestamp() - waiting_since);
    SELECT
        coalesce((SELECT max(event.position) FROM {schema}.events AS event), 0),
        coalesce((SELECT max(trace.redaction) FROM {schema}.redactions AS trace), 0),
        known_position = 0 OR EXISTS (
            SELECT FROM {schema}.events AS event WHERE event.position = known_position AND event.event_id = known_id
        ),
        agreed AND NOT EXISTS (
            SELECT FROM unnest(string_to_array(streams, E'\x1f'), bases::bigint[]) AS asked(stream_id, version)
            WHERE asked.version <> coalesce(
                (SELECT max(event.version) FROM {schema}.events AS event WHERE event.stream_id = asked.stream_id), 0
            )
        )
    INTO head, redactions, is_known, accepted;
    IF NOT is_known THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;

    IF settling THEN
        SELECT EXISTS (
            SELECT FROM unnest(
                string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f')
            ) AS new(stream_id, version, id)
            JOIN {schema}.events AS standing
                ON standing.stream_id = new.stream_id AND standing.version = new.version AND standing.event_id = new.id
        ) INTO was_appended;
        IF was_appended THEN
            -- The earlier call has stored the keys, too. It was not refused for a redaction, which may have come since.
            SELECT answer.head, answer.verdicts INTO head, verdicts FROM {schema}.append_events(
                true, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
                event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types,
                event_data, event_metadata, event_times, known_position, known_id
            ) AS answer;
            RETURN;
        END IF;
    END IF;
    IF redactions > known_redactions AND NOT settling THEN
        RAISE EXCEPTION 'the store has % redactions, the batch has seen %', redactions, known_redactions
            USING ERRCODE = 'EC002';
    END IF;
    IF keys <> '' THEN
        -- Under the lock, keys that are not known here stay unknown.
        SELECT array_agg(stored.key) INTO known FROM {schema}.command_keys AS stored
        WHERE stored.key = ANY (string_to_array(append_requests.keys, E'\x1f')) AND stored.expires_at > clock_timestamp();
        IF known IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;

    IF accepted THEN
        INSERT INTO {schema}.events (
            position, stream_id, version, event_id, event_type, data, metadata, recorded_at_ns
        )
        SELECT head + new.number, new.stream_id, new.version, new.id, new.type,
            convert_to(new.data, 'UTF8'), convert_to(new.metadata, 'UTF8'), new.time
        FROM unnest(
            string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f'),
            string_to_array(event_types, E'\x1f'), string_to_array(event_data, E'\x1f'),
            string_to_array(event_metadata, E'\x1f'), event_times::bigint[]
        ) WITH ORDINALITY AS new(stream_id, version, id, type, data, metadata, time, number);
        GET DIAGNOSTICS written = ROW_COUNT;
    ELSE
        -- The rows first: the batch may add others to the same streams.
        SELECT array_agg(coalesce(
            (SELECT max(event.version) FROM {schema}.events AS event WHERE event.stream_id = asked.stream_id), 0
        ) ORDER BY asked.number)
        INTO began
        FROM unnest(string_to_array(streams, E'\x1f')) WITH ORDINALITY AS asked(stream_id, number);
        WITH behind AS (
            SELECT asked.number, asked.stream_id, asked.version,
                sum(now_at.version - asked.version) OVER (ORDER BY asked.number) AS total
            FROM unnest(string_to_array(streams, E'\x1f'), bases::bigint[]) WITH ORDINALITY
                AS asked(stream_id, version, number)
            JOIN unnest(began) WITH ORDINALITY AS now_at(version, number) ON now_at.number = asked.number
            WHERE now_at.version > asked.version AND now_at.version - asked.version <= rows
                AND (asked.version > 0 OR NOT EXISTS (
                    SELECT FROM {schema}.snapshots AS snapshot WHERE snapshot.stream_id = asked.stream_id
                ))
        ), found AS (
            SELECT behind.number, event.position, event.version, event.event_id, event.event_type, event.data, event.metadata,
                event.recorded_at_ns, sum(octet_length(event.data) + octet_length(event.metadata)) OVER (
                    ORDER BY behind.number, event.version ROWS UNBOUNDED PRECEDING
                ) AS size
            FROM behind JOIN {schema}.events AS event
                ON event.stream_id = behind.stream_id AND event.version > behind.version
            WHERE behind.total <= rows
        )
        SELECT array_agg(found.position ORDER BY found.number, found.version),
            array_agg(found.number::integer ORDER BY found.number, found.version),
            array_agg(found.version ORDER BY found.number, found.version),
            array_agg(found.event_id ORDER BY found.number, found.version),
            array_agg(found.event_type ORDER BY found.number, found.version),
            array_agg(found.data ORDER BY found.number, found.version),
            array_agg(found.metadata ORDER BY found.number, found.version),
            array_agg(found.recorded_at_ns ORDER BY found.number, found.version)
        INTO row_positions, row_streams, row_versions, row_ids, row_types, row_data, row_metadata, row_times
        FROM found WHERE found.size <= bytes;
        IF chained THEN
            SELECT answer.head, answer.verdicts INTO head, verdicts FROM {schema}.append_events(
                false, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
                event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types,
                event_data, event_metadata, event_times, known_position, known_id
            ) AS answer;
            -- It has sent the notification.
            written := 0;
        ELSE
            -- No request depends on another one, so all of them are decided at once.
            asked_counts := check_counts;
            asked_streams := check_streams;
            asked_bases := check_bases;
            asked_versions := check_versions;
            written_counts := event_counts;
            SELECT array_agg(judged.accepted ORDER BY judged.request) INTO kept FROM (
                SELECT one.request,
                    bool_and(
                        began[asked_streams[one.number]] = asked_bases[one.number]
                        AND asked_bases[one.number] = asked_versions[one.number]
                    ) AS accepted
                FROM (
                    SELECT counted.request, row_number() OVER (ORDER BY counted.request) AS number
                    FROM unnest(asked_counts) WITH ORDINALITY AS counted(checks, request)
                    CROSS JOIN generate_series(1, counted.checks)
                ) AS one
                GROUP BY one.request
            ) AS judged;
            SELECT array_agg(
                    CASE WHEN NOT counted.accepted THEN -1 WHEN counted.events = 0 THEN 0
                        ELSE head + counted.up_to - counted.events + 1 END
                    ORDER BY counted.number
                ),
                coalesce(max(counted.up_to), 0)
            INTO verdicts, written
            FROM (
                SELECT asked.events, asked.number, kept[asked.number] AS accepted,
                    sum(CASE WHEN kept[asked.number] THEN asked.events ELSE 0 END) OVER (ORDER BY asked.number) AS up_to
                FROM unnest(written_counts) WITH ORDINALITY AS asked(events, number)
            ) AS counted;
            IF written > 0 THEN
                SELECT array_agg(kept[counted.request] ORDER BY counted.request) INTO kept_events
                FROM unnest(written_counts) WITH ORDINALITY AS counted(events, request)
                CROSS JOIN generate_series(1, counted.events);
                INSERT INTO {schema}.events (
                    position, stream_id, version, event_id, event_type, data, metadata, recorded_at_ns
                )
                SELECT head + row_number() OVER (ORDER BY new.number), new.stream_id, new.version, new.id, new.type,
                    convert_to(new.data, 'UTF8'), convert_to(new.metadata, 'UTF8'), new.time
                FROM unnest(
                    string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f'),
                    string_to_array(event_types, E'\x1f'), string_to_array(event_data, E'\x1f'),
                    string_to_array(event_metadata, E'\x1f'), event_times::bigint[], kept_events
                ) WITH ORDINALITY AS new(stream_id, version, id, type, data, metadata, time, kept, number)
                WHERE new.kept;
            END IF;
        END IF;
    END IF;
    IF written > 0 THEN
        PERFORM pg_notify('{channel}', (head + written)::text);
    END IF;

    IF keys = '' THEN
        RETURN;
    END IF;
    -- Each append removes more keys than it adds, so that expired keys cannot pile up.
    DELETE FROM {schema}.command_keys WHERE key IN (
        SELECT expired.key FROM {schema}.command_keys AS expired WHERE expired.expires_at <= clock_timestamp()
        ORDER BY expired.expires_at LIMIT cardinality(key_requests::integer[]) + 16
    );
    INSERT INTO {schema}.command_keys AS stored (key, fingerprint, attempts, first, events, position, expires_at)
    SELECT asked.key, asked.fingerprint, asked.attempts,
        CASE WHEN request.events > 0 THEN request.last - request.events + 1 ELSE 0 END, request.events, request.last,
        clock_timestamp() + make_interval(secs => asked.seconds)
    FROM unnest(
        string_to_array(append_requests.keys, E'\x1f'), string_to_array(fingerprints, E'\x1f'), key_requests::integer[],
        append_requests.attempts::integer[], append_requests.seconds::double precision[]
    ) AS asked(key, fingerprint, request, attempts, seconds)
    JOIN (
        SELECT judged.number, judged.events, judged.accepted,
            append_requests.head + sum(CASE WHEN judged.accepted THEN judged.events ELSE 0 END) OVER (ORDER BY judged.number)
                AS last
        FROM (
            -- verdicts is NULL when all requests are accepted.
            SELECT counted.number, counted.events, coalesce(verdicts[counted.number] >= 0, true) AS accepted
            FROM unnest(event_counts::integer[]) WITH ORDINALITY AS counted(events, number)
        ) AS judged
    ) AS request ON request.number = asked.request
    WHERE request.accepted
    -- An expired key that was not removed.
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, attempts = excluded.attempts, first = excluded.first,
        events = excluded.events, position = excluded.position, expires_at = excluded.expires_at;
END $$;
