-- Version 5: idempotency keys of commands.

CREATE TABLE {schema}.command_keys (
    key text COLLATE "C" PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    attempts integer NOT NULL,
    first bigint NOT NULL,
    events integer NOT NULL,
    position bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE {schema}.command_keys IS
    'The first command with each idempotency key: the positions of its events, or the head position that it has seen.';
CREATE INDEX command_keys_by_expiry ON {schema}.command_keys (expires_at);

-- append_batch for a batch in which a request has an idempotency key. When the store knows one of the keys, nothing is stored,
-- and known has these keys: the caller sends the batch again without their requests. (Processes of an older version go on
-- calling append_events.)
--
-- keys, fingerprints, attempts, seconds: for each request that has a key: the key, its command, and how long to keep it.
-- key_requests: the number of each of these requests in the batch, from 1.
CREATE FUNCTION {schema}.append_events_once(
    settling boolean, lock_milliseconds integer,
    streams text, bases text, agreed boolean,
    check_counts text, check_streams text, check_bases text, check_versions text,
    event_counts text, event_streams text,
    event_stream_ids text, event_versions text, event_ids text, event_types text,
    event_data text, event_metadata text, event_times text,
    known_redactions bigint, known_position bigint, known_id text,
    keys text, fingerprints text, key_requests text, attempts text, seconds text,
    OUT head bigint, OUT verdicts bigint[], OUT waited double precision, OUT known text[]
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    waiting_since timestamptz := clock_timestamp();
    was_appended boolean := false;
BEGIN
    -- The lock of append_batch, which takes it once more: under it, keys that are not known here stay unknown.
    PERFORM set_config('lock_timeout', lock_milliseconds::text, true);
    PERFORM pg_advisory_xact_lock({key});
    waited := extract(epoch FROM clock_timestamp() - waiting_since);
    IF settling THEN
        SELECT EXISTS (
            SELECT FROM unnest(
                string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f')
            ) AS new(stream_id, version, id)
            JOIN {schema}.events AS standing
                ON standing.stream_id = new.stream_id AND standing.version = new.version AND standing.event_id = new.id
        ) INTO was_appended;
    END IF;
    IF NOT was_appended THEN
        SELECT array_agg(stored.key) INTO known FROM {schema}.command_keys AS stored
        WHERE stored.key = ANY (string_to_array(keys, E'\x1f')) AND stored.expires_at > clock_timestamp();
        IF known IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;
    SELECT appended.head, appended.verdicts INTO head, verdicts FROM {schema}.append_batch(
        settling, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
        event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types, event_data, event_metadata,
        event_times, known_redactions, known_position, known_id
    ) AS appended;
    IF was_appended THEN
        -- The earlier call has stored the keys, too.
        RETURN;
    END IF;
    -- Each append removes more keys than it adds, so that expired keys cannot pile up.
    DELETE FROM {schema}.command_keys WHERE key IN (
        SELECT expired.key FROM {schema}.command_keys AS expired WHERE expired.expires_at <= clock_timestamp()
        ORDER BY expired.expires_at LIMIT cardinality(key_requests::integer[]) + 16
    );
    INSERT INTO {schema}.command_keys AS stored
    SELECT asked.key, asked.fingerprint, asked.attempts,
        CASE WHEN request.events > 0 THEN request.last - request.events + 1 ELSE 0 END, request.events, request.last,
        clock_timestamp() + make_interval(secs => asked.seconds)
    FROM unnest(
        string_to_array(append_events_once.keys, E'\x1f'), string_to_array(fingerprints, E'\x1f'), key_requests::integer[],
        append_events_once.attempts::integer[], append_events_once.seconds::double precision[]
    ) AS asked(key, fingerprint, request, attempts, seconds)
    JOIN (
        SELECT judged.number, judged.events, judged.accepted,
            append_events_once.head
                + sum(CASE WHEN judged.accepted THEN judged.events ELSE 0 END) OVER (ORDER BY judged.number) AS last
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
