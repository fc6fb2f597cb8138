--
-- PostgreSQL database dump
--


-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: eventcore; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA eventcore;


--
-- Name: acquire_lease(text, text, double precision); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.acquire_lease(projection text, new_owner text, seconds double precision, OUT new_token bigint, OUT at_position bigint, OUT at_event text, OUT abandoned boolean, OUT filter text, OUT attempt_position bigint, OUT attempts integer) RETURNS SETOF record
    LANGUAGE plpgsql
    SET lock_timeout TO '1s'
    AS $$
DECLARE
    held "eventcore".projections;
BEGIN
    -- Without a lock, since runners that wait for a lease ask often.
    SELECT leased.* INTO held FROM "eventcore".projections AS leased WHERE leased.name = projection;
    IF held.owner NOT IN ('', new_owner) AND held.leased_until > clock_timestamp() THEN
        IF held.leased_token = held.token AND held.leased_until > clock_timestamp() + make_interval(secs => held.leased_for) THEN
            -- The clock was set back. From now on the lease lasts as long as it was granted for: its holder has time to renew it.
            UPDATE "eventcore".projections AS leased
            SET leased_until = clock_timestamp() + make_interval(secs => held.leased_for)
            WHERE leased.name = projection AND leased.token = held.token AND leased.leased_until = held.leased_until;
        END IF;
        RETURN;
    END IF;
    PERFORM "eventcore".end_processes(projection);
    INSERT INTO "eventcore".projections (name) VALUES (projection) ON CONFLICT DO NOTHING;
    SELECT leased.* INTO held FROM "eventcore".projections AS leased WHERE leased.name = projection FOR UPDATE;
    IF held.owner NOT IN ('', new_owner) AND held.leased_until > clock_timestamp() THEN
        RETURN;
    END IF;
    UPDATE "eventcore".projections AS leased
    SET owner = new_owner, token = held.token + 1, leased_token = held.token + 1, leased_for = seconds,
        leased_until = clock_timestamp() + make_interval(secs => seconds)
    WHERE leased.name = projection;
    RETURN QUERY SELECT held.token + 1, held.position, held.event_id, held.owner NOT IN ('', new_owner),
        held.filter, held.attempt_position, held.attempts;
EXCEPTION WHEN lock_not_available THEN
    RETURN;
END $$;


--
-- Name: allow_redaction(); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.allow_redaction() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF (OLD.position, OLD.stream_id, OLD.version, OLD.event_id, OLD.event_type, OLD.recorded_at_ns)
        IS DISTINCT FROM (NEW.position, NEW.stream_id, NEW.version, NEW.event_id, NEW.event_type, NEW.recorded_at_ns)
        OR NOT EXISTS (
            SELECT FROM "eventcore".redactions AS trace
            WHERE trace.position = OLD.position AND trace.transaction_id = pg_current_xact_id()
        )
    THEN
        RAISE EXCEPTION 'event % must not be changed: what has happened stays', OLD.position
            USING ERRCODE = 'restrict_violation', HINT = 'To remove what it says, call redact_event.';
    END IF;
    RETURN NEW;
END $$;


--
-- Name: append_batch(boolean, integer, text, text, boolean, text, text, text, text, text, text, text, text, text, text, text, text, text, bigint, bigint, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.append_batch(settling boolean, lock_milliseconds integer, streams text, bases text, agreed boolean, check_counts text, check_streams text, check_bases text, check_versions text, event_counts text, event_streams text, event_stream_ids text, event_versions text, event_ids text, event_types text, event_data text, event_metadata text, event_times text, known_redactions bigint, known_position bigint, known_id text, OUT head bigint, OUT verdicts bigint[], OUT waited double precision) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    redacted bigint := max(trace.redaction) FROM "eventcore".redactions AS trace;
BEGIN
    IF redacted > known_redactions AND NOT settling THEN
        RAISE EXCEPTION 'the store has % redactions, the batch has seen %', redacted, known_redactions USING ERRCODE = 'EC002';
    END IF;
    SELECT answer.head, answer.verdicts, answer.waited INTO head, verdicts, waited FROM "eventcore".append_events(
        settling, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
        event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types,
        event_data, event_metadata, event_times, known_position, known_id
    ) AS answer;
END $$;


--
-- Name: append_events(boolean, integer, text, text, boolean, text, text, text, text, text, text, text, text, text, text, text, text, text, bigint, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.append_events(settling boolean, lock_milliseconds integer, streams text, bases text, agreed boolean, check_counts text, check_streams text, check_bases text, check_versions text, event_counts text, event_streams text, event_stream_ids text, event_versions text, event_ids text, event_types text, event_data text, event_metadata text, event_times text, known_position bigint, known_id text, OUT head bigint, OUT verdicts bigint[], OUT waited double precision) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
    PERFORM pg_advisory_xact_lock(670362314698036718);
    waited := extract(epoch FROM clock_timestamp() - waiting_since);
    SELECT
        coalesce((SELECT max(event.position) FROM "eventcore".events AS event), 0),
        known_position = 0 OR EXISTS (
            SELECT FROM "eventcore".events AS event WHERE event.position = known_position AND event.event_id = known_id
        ),
        agreed AND NOT EXISTS (
            SELECT FROM unnest(string_to_array(streams, E'\x1f'), bases::bigint[]) AS asked(stream_id, version)
            WHERE asked.version <> coalesce(
                (SELECT max(event.version) FROM "eventcore".events AS event WHERE event.stream_id = asked.stream_id), 0
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
        LEFT JOIN "eventcore".events AS standing
            ON standing.stream_id = new.stream_id AND standing.version = new.version AND standing.event_id = new.id;
        IF written > 0 THEN
            RETURN;
        END IF;
        verdicts := NULL;
    END IF;

    IF accepted THEN
        INSERT INTO "eventcore".events
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
            (SELECT max(event.version) FROM "eventcore".events AS event WHERE event.stream_id = asked.stream_id), 0
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
        INSERT INTO "eventcore".events
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
        PERFORM pg_notify('eventcore_eventcore', (head + written)::text);
    END IF;
END $$;


--
-- Name: append_events_once(boolean, integer, text, text, boolean, text, text, text, text, text, text, text, text, text, text, text, text, text, bigint, bigint, text, text, text, text, text, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.append_events_once(settling boolean, lock_milliseconds integer, streams text, bases text, agreed boolean, check_counts text, check_streams text, check_bases text, check_versions text, event_counts text, event_streams text, event_stream_ids text, event_versions text, event_ids text, event_types text, event_data text, event_metadata text, event_times text, known_redactions bigint, known_position bigint, known_id text, keys text, fingerprints text, key_requests text, attempts text, seconds text, OUT head bigint, OUT verdicts bigint[], OUT waited double precision, OUT known text[]) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    waiting_since timestamptz := clock_timestamp();
    was_appended boolean := false;
BEGIN
    -- The lock of append_batch, which takes it once more: under it, keys that are not known here stay unknown.
    PERFORM set_config('lock_timeout', lock_milliseconds::text, true);
    PERFORM pg_advisory_xact_lock(670362314698036718);
    waited := extract(epoch FROM clock_timestamp() - waiting_since);
    IF settling THEN
        SELECT EXISTS (
            SELECT FROM unnest(
                string_to_array(event_stream_ids, E'\x1f'), event_versions::bigint[], string_to_array(event_ids, E'\x1f')
            ) AS new(stream_id, version, id)
            JOIN "eventcore".events AS standing
                ON standing.stream_id = new.stream_id AND standing.version = new.version AND standing.event_id = new.id
        ) INTO was_appended;
    END IF;
    IF NOT was_appended THEN
        SELECT array_agg(stored.key) INTO known FROM "eventcore".command_keys AS stored
        WHERE stored.key = ANY (string_to_array(keys, E'\x1f')) AND stored.expires_at > clock_timestamp();
        IF known IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;
    SELECT appended.head, appended.verdicts INTO head, verdicts FROM "eventcore".append_batch(
        settling, lock_milliseconds, streams, bases, agreed, check_counts, check_streams, check_bases, check_versions,
        event_counts, event_streams, event_stream_ids, event_versions, event_ids, event_types, event_data, event_metadata,
        event_times, known_redactions, known_position, known_id
    ) AS appended;
    IF was_appended THEN
        -- The earlier call has stored the keys, too.
        RETURN;
    END IF;
    -- Each append removes more keys than it adds, so that expired keys cannot pile up.
    DELETE FROM "eventcore".command_keys WHERE key IN (
        SELECT expired.key FROM "eventcore".command_keys AS expired WHERE expired.expires_at <= clock_timestamp()
        ORDER BY expired.expires_at LIMIT cardinality(key_requests::integer[]) + 16
    );
    INSERT INTO "eventcore".command_keys AS stored
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


--
-- Name: begin_handler(text, bigint, bigint, text, bigint, text, text, integer); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.begin_handler(projection text, of_token bigint, from_position bigint, from_event text, to_position bigint, to_event text, mark text, milliseconds integer) RETURNS text
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM "eventcore".guard_transaction(mark, milliseconds);
    IF NOT EXISTS (
        SELECT FROM "eventcore".projections AS leased
        WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
            AND leased.position = from_position AND leased.event_id = from_event
    ) THEN
        RETURN 'lost';
    END IF;
    IF NOT pg_try_advisory_xact_lock("eventcore".projection_key(projection)) THEN
        -- A transaction of an earlier lease, or one of this lease whose client has closed the connection.
        PERFORM "eventcore".end_processes(projection);
        IF NOT pg_try_advisory_xact_lock("eventcore".projection_key(projection)) THEN
            RETURN 'busy';
        END IF;
    END IF;
    RETURN CASE WHEN "eventcore".event_stands(to_position, to_event) THEN 'held' ELSE 'diverged' END;
END $$;


--
-- Name: begin_redaction(); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.begin_redaction() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock((670362314698036718)::bigint # 2);
    RETURN NULL;
END $$;


--
-- Name: end_processes(text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.end_processes(projection text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_terminate_backend(process, 1000) FROM "eventcore".projection_processes(projection) AS process;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;


--
-- Name: event_stands(bigint, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.event_stands(at_position bigint, event text) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT at_position = 0 OR EXISTS (
        SELECT FROM "eventcore".events AS standing WHERE standing.position = at_position AND standing.event_id = event
    );
$$;


--
-- Name: find_event(text, bigint, bigint); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.find_event(id text, up_to bigint, width bigint) RETURNS TABLE("position" bigint, stream_id text, version bigint, event_id text, event_type text, data bytea, metadata bytea, recorded_at_ns bigint)
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
        event.data, event.metadata, event.recorded_at_ns
    FROM "eventcore".events AS event
    WHERE event.position > up_to - width AND event.position <= up_to AND event.event_id = id;
END $$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: events; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.events (
    "position" bigint NOT NULL,
    stream_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    event_id text NOT NULL COLLATE pg_catalog."C",
    event_type text NOT NULL COLLATE pg_catalog."C",
    data bytea NOT NULL,
    metadata bytea NOT NULL,
    recorded_at_ns bigint NOT NULL
);


--
-- Name: TABLE events; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.events IS 'Every event, in one order without gaps; data and metadata are JSON in UTF-8. People read readable_events.';


--
-- Name: follow_events(bigint, bigint, integer, text, text[]); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.follow_events(after bigint, width bigint, page integer, pattern text, types text[]) RETURNS SETOF eventcore.events
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    RETURN QUERY WITH snapshot AS (
        SELECT coalesce(max(event.position), 0) AS head FROM "eventcore".events AS event
    )
    SELECT head, NULL, greatest(after, least(after + width, head)),
        (SELECT event.event_id FROM "eventcore".events AS event
         WHERE event.position = greatest(after, least(after + width, head))),
        (SELECT event.event_id FROM "eventcore".events AS event WHERE event.position = after),
        NULL::bytea, NULL::bytea, NULL::bigint
    FROM snapshot
    UNION ALL
    SELECT found.* FROM (
        SELECT event.* FROM "eventcore".events AS event
        WHERE event.position > after AND event.position <= after + width
            AND (pattern IS NULL OR event.stream_id ~ pattern)
            AND (types IS NULL OR event.event_type = ANY (types))
        ORDER BY event.position LIMIT page
    ) AS found;
END $$;


--
-- Name: follow_page(bigint, bigint, integer, bigint, text, text[]); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.follow_page(after bigint, width bigint, page integer, bytes bigint, pattern text, types text[]) RETURNS TABLE("position" bigint, stream_id text, version bigint, event_id text, event_type text, data bytea, metadata bytea, recorded_at_ns bigint)
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    up_to bigint := after + width;
BEGIN
    RETURN QUERY WITH snapshot AS (
        SELECT coalesce(max(event.position), 0) AS head FROM "eventcore".events AS event
    )
    SELECT snapshot.head, NULL, greatest(after, least(up_to, snapshot.head)),
        (SELECT event.event_id FROM "eventcore".events AS event
         WHERE event.position = greatest(after, least(up_to, snapshot.head))),
        (SELECT event.event_id FROM "eventcore".events AS event WHERE event.position = after),
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
                FROM "eventcore".events AS event
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
            SELECT event.data, event.metadata FROM "eventcore".events AS event
            WHERE event.position > after AND event.position <= up_to ORDER BY event.position LIMIT page
        ) AS found
    ) THEN
        page := count(*) FROM (
            SELECT one.size, sum(one.size) OVER (ORDER BY one.position ROWS UNBOUNDED PRECEDING) AS total FROM (
                SELECT event.position, octet_length(event.data) + octet_length(event.metadata) AS size
                FROM "eventcore".events AS event
                WHERE event.position > after AND event.position <= up_to ORDER BY event.position LIMIT page
            ) AS one
        ) AS found
        WHERE found.total <= bytes OR found.total = found.size;
    END IF;
    RETURN QUERY SELECT event.position, event.stream_id, event.version, event.event_id, event.event_type,
        event.data, event.metadata, event.recorded_at_ns
    FROM "eventcore".events AS event
    WHERE event.position > after AND event.position <= up_to
    ORDER BY event.position LIMIT page;
END $$;


--
-- Name: forget_snapshots(); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.forget_snapshots() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    DELETE FROM "eventcore".snapshots AS snapshot USING "eventcore".events AS event
    WHERE event.position = NEW.position AND snapshot.stream_id = event.stream_id;
    RETURN NULL;
END $$;


--
-- Name: guard_transaction(text, integer); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.guard_transaction(mark text, milliseconds integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM set_config('eventcore.transaction', mark, true),
        set_config('idle_in_transaction_session_timeout', milliseconds::text, true),
        set_config('client_connection_check_interval', '1s', true),
        set_config('tcp_keepalives_idle', '1', true),
        set_config('tcp_keepalives_interval', '1', true),
        set_config('tcp_keepalives_count', '3', true),
        set_config('tcp_user_timeout', milliseconds::text, true);
END $$;


--
-- Name: load_streams(text[], bigint[], bigint, integer, bigint, bigint, text, text[], bigint[]); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.load_streams(streams text[], versions bigint[], up_to bigint, page integer, bytes bigint, known_position bigint, known_id text, state_types text[], state_versions bigint[]) RETURNS TABLE("position" bigint, stream_id text, version bigint, event_id text, event_type text, data bytea, metadata bytea, recorded_at_ns bigint)
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
BEGIN
    IF known_position > 0 AND NOT EXISTS (
        SELECT FROM "eventcore".events AS event WHERE event.position = known_position AND event.event_id = known_id
    ) THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;
    IF cardinality(state_types) = 0 THEN
        -- The same without stored states: most calls want none, and these statements start faster.
        RETURN QUERY SELECT coalesce((SELECT max(event.position) FROM "eventcore".events AS event), 0), NULL::text,
            coalesce((SELECT max(trace.redaction) FROM "eventcore".redactions AS trace), 0),
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
                FROM "eventcore".events AS event
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
            SELECT snapshot.version, snapshot.event_id, snapshot.redactions, snapshot.data FROM "eventcore".snapshots AS snapshot
            WHERE wanted.state_type IS NOT NULL AND snapshot.stream_id = wanted.stream_id
                AND snapshot.state_type = wanted.state_type AND snapshot.state_version = wanted.state_version
                AND "eventcore".snapshot_fits(snapshot.stream_id, snapshot.version, snapshot.event_id, snapshot.redactions)
                AND up_to >= (
                    SELECT event.position FROM "eventcore".events AS event
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
            FROM "eventcore".events AS event
            WHERE event.stream_id = asked.stream_id AND event.version > asked.version AND event.position <= up_to
            ORDER BY event.version LIMIT page + 1
        ) AS event
    )
    SELECT coalesce((SELECT max(event.position) FROM "eventcore".events AS event), 0), NULL,
        coalesce((SELECT max(trace.redaction) FROM "eventcore".redactions AS trace), 0),
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


--
-- Name: move_checkpoint(text, bigint, bigint, text, bigint, text, text, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.move_checkpoint(projection text, of_token bigint, from_position bigint, from_event text, to_position bigint, to_event text, letters text, mark text) RETURNS text
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF mark <> coalesce(current_setting('eventcore.transaction', true), '') THEN
        RETURN 'ended';
    END IF;
    UPDATE "eventcore".projections AS leased SET position = to_position, event_id = to_event
    WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
    AND "eventcore".event_stands(to_position, to_event) AND (
        (leased.position = from_position AND leased.event_id = from_event)
        -- The call before has moved it, and its answer was lost.
        OR (mark IS NULL AND leased.position = to_position AND leased.event_id = to_event)
    );
    IF NOT FOUND THEN
        RETURN CASE WHEN "eventcore".event_stands(to_position, to_event) OR NOT EXISTS (
            SELECT FROM "eventcore".projections AS leased
            WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
        ) THEN 'lost' ELSE 'diverged' END;
    END IF;
    INSERT INTO "eventcore".dead_letters AS letter
        (projection, position, event_id, error_type, error, attempts, failed_at_ns)
    SELECT new.* FROM jsonb_to_recordset(letters::jsonb) AS new(
        projection text, position bigint, event_id text, error_type text, error text, attempts integer, failed_at_ns bigint
    )
    ON CONFLICT ON CONSTRAINT dead_letters_pkey DO UPDATE
        SET event_id = excluded.event_id, error_type = excluded.error_type, error = excluded.error,
            attempts = excluded.attempts, failed_at_ns = excluded.failed_at_ns;
    RETURN 'moved';
END $$;


--
-- Name: projection_key(text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.projection_key(projection text) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    RETURN hashtextextended(projection, '670362314698036718'::bigint);


--
-- Name: projection_processes(text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.projection_processes(projection text) RETURNS SETOF integer
    LANGUAGE sql
    AS $_$
    SELECT held.pid FROM pg_catalog.pg_locks AS held
    WHERE held.granted AND held.pid <> pg_backend_pid() AND (
        (held.locktype = 'advisory' AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND ((held.classid::bigint << 32) | held.objid::bigint) = "eventcore".projection_key($1))
        OR (held.locktype = 'transactionid'
            AND held.transactionid = (SELECT leased.xmax FROM "eventcore".projections AS leased WHERE leased.name = $1))
    );
$_$;


--
-- Name: read_streams(text[], bigint[], bigint, integer, bigint, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.read_streams(streams text[], versions bigint[], up_to bigint, page integer, known_position bigint, known_id text) RETURNS SETOF eventcore.events
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    IF known_position > 0 AND NOT EXISTS (
        SELECT FROM "eventcore".events AS event WHERE event.position = known_position AND event.event_id = known_id
    ) THEN
        RAISE EXCEPTION 'the event % does not stand at position %', known_id, known_position USING ERRCODE = 'EC001';
    END IF;
    RETURN QUERY
    SELECT coalesce(max(event.position), 0), NULL, NULL::bigint, NULL, NULL, NULL::bytea, NULL::bytea, NULL::bigint
    FROM "eventcore".events AS event
    UNION ALL
    SELECT found.* FROM unnest(streams, versions) AS asked(stream_id, version)
    CROSS JOIN LATERAL (
        SELECT event.* FROM "eventcore".events AS event
        WHERE event.stream_id = asked.stream_id AND event.version > asked.version AND event.position <= up_to
        ORDER BY event.version LIMIT page
    ) AS found;
END $$;


--
-- Name: redact(bigint, text, bytea, text); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.redact(of_position bigint, of_id text, new_data bytea, why text) RETURNS TABLE(number bigint, stream_id text, version bigint, redacted_at timestamp with time zone)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
    SELECT event.stream_id, event.version INTO stream_id, version
    FROM "eventcore".events AS event WHERE event.position = of_position AND event.event_id = of_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO "eventcore".redactions AS trace (position, reason) VALUES (of_position, why)
    RETURNING trace.redaction, trace.redacted_at INTO number, redacted_at;
    UPDATE "eventcore".events AS event SET data = new_data WHERE event.position = of_position;
    RETURN NEXT;
END $$;


--
-- Name: redact_event(bigint, jsonb, text, jsonb); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.redact_event(of_position bigint, new_data jsonb, reason text, new_metadata jsonb DEFAULT NULL::jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO "eventcore".redactions (position, reason) VALUES (of_position, redact_event.reason);
    UPDATE "eventcore".events AS event SET
        data = convert_to(new_data::text, 'UTF8'),
        metadata = coalesce(convert_to(new_metadata::text, 'UTF8'), event.metadata)
    WHERE event.position = of_position;
END $$;


--
-- Name: FUNCTION redact_event(of_position bigint, new_data jsonb, reason text, new_metadata jsonb); Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON FUNCTION eventcore.redact_event(of_position bigint, new_data jsonb, reason text, new_metadata jsonb) IS 'Replaces what an event says, and leaves a trace. The new data must still fit its event type. Running processes may remember the old until they end.';


--
-- Name: refuse(); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% of %.% is forbidden: what has happened stays', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'To remove what an event says, call redact_event.';
END $$;


--
-- Name: save_snapshots(text[], text[], bigint[], bigint[], text[], bigint[], bytea[]); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.save_snapshots(streams text[], types text[], type_versions bigint[], versions bigint[], ids text[], seen bigint[], states bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared((670362314698036718)::bigint # 2) THEN
        RETURN;
    END IF;
    -- In the order of the key, so that two processes never wait for each other.
    INSERT INTO "eventcore".snapshots AS kept (stream_id, state_type, state_version, version, event_id, redactions, data)
    SELECT new.* FROM unnest(streams, types, type_versions, versions, ids, seen, states)
        AS new(stream_id, state_type, state_version, version, event_id, redactions, data)
    WHERE "eventcore".snapshot_fits(new.stream_id, new.version, new.event_id, new.redactions)
    ORDER BY new.stream_id, new.state_type, new.state_version
    ON CONFLICT (stream_id, state_type, state_version) DO UPDATE SET
        version = excluded.version, event_id = excluded.event_id, redactions = excluded.redactions, data = excluded.data
    WHERE kept.version <= excluded.version
        OR NOT "eventcore".snapshot_fits(kept.stream_id, kept.version, kept.event_id, kept.redactions);
END $$;


--
-- Name: scan_events(bigint, bigint, integer, text, text[]); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.scan_events(after bigint, up_to bigint, page integer, pattern text, types text[]) RETURNS SETOF eventcore.events
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    RETURN QUERY SELECT event.* FROM "eventcore".events AS event
    WHERE event.position > after AND event.position <= up_to
        AND (pattern IS NULL OR event.stream_id ~ pattern)
        AND (types IS NULL OR event.event_type = ANY (types))
    ORDER BY event.position LIMIT page;
END $$;


--
-- Name: snapshot_fits(text, bigint, text, bigint); Type: FUNCTION; Schema: eventcore; Owner: -
--

CREATE FUNCTION eventcore.snapshot_fits(of_stream text, of_version bigint, of_id text, seen bigint) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (
        SELECT FROM "eventcore".events AS event
        WHERE event.stream_id = of_stream AND event.version = of_version AND event.event_id = of_id
    ) AND NOT EXISTS (
        SELECT FROM "eventcore".redactions AS trace JOIN "eventcore".events AS event ON event.position = trace.position
        WHERE trace.redaction > seen AND event.stream_id = of_stream
    )
$$;


--
-- Name: command_keys; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.command_keys (
    key text NOT NULL COLLATE pg_catalog."C",
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    attempts integer NOT NULL,
    first bigint NOT NULL,
    events integer NOT NULL,
    "position" bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL
);


--
-- Name: TABLE command_keys; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.command_keys IS 'The first command with each idempotency key: the positions of its events, or the head position that it has seen.';


--
-- Name: dead_letters; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.dead_letters (
    projection text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    event_id text NOT NULL COLLATE pg_catalog."C",
    error_type text NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL,
    failed_at_ns bigint NOT NULL
);


--
-- Name: TABLE dead_letters; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.dead_letters IS 'Events that a projection could not apply and has put aside.';


--
-- Name: projections; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.projections (
    name text NOT NULL COLLATE pg_catalog."C",
    "position" bigint DEFAULT 0 NOT NULL,
    event_id text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    owner text DEFAULT ''::text NOT NULL,
    token bigint DEFAULT 0 NOT NULL,
    leased_until timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    leased_for double precision DEFAULT 0 NOT NULL,
    leased_token bigint DEFAULT 0 NOT NULL,
    filter text DEFAULT ''::text NOT NULL,
    attempt_position bigint DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL
);


--
-- Name: TABLE projections; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.projections IS 'How far each projection has come, and who runs it until when.';


--
-- Name: COLUMN projections.leased_for; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON COLUMN eventcore.projections.leased_for IS 'Seconds for which the lease with the token leased_token was granted. More are left only when the clock was set back.';


--
-- Name: COLUMN projections.filter; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON COLUMN eventcore.projections.filter IS 'The filter with which the projection runs, as JSON.';


--
-- Name: COLUMN projections.attempts; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON COLUMN eventcore.projections.attempts IS 'How many attempts at the event at attempt_position have begun, and not come back since the process ended.';


--
-- Name: readable_events; Type: VIEW; Schema: eventcore; Owner: -
--

CREATE VIEW eventcore.readable_events AS
 SELECT events."position",
    events.stream_id,
    events.version,
    events.event_type,
    (convert_from(events.data, 'UTF8'::name))::jsonb AS data,
    (convert_from(events.metadata, 'UTF8'::name))::jsonb AS metadata,
    to_timestamp((((events.recorded_at_ns)::numeric / '1000000000'::numeric))::double precision) AS recorded_at,
    events.event_id
   FROM eventcore.events;


--
-- Name: redactions; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.redactions (
    redaction bigint NOT NULL,
    "position" bigint NOT NULL,
    reason text NOT NULL,
    redacted_by name DEFAULT SESSION_USER NOT NULL,
    redacted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    transaction_id xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT redactions_reason_check CHECK ((reason <> ''::text))
);


--
-- Name: TABLE redactions; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.redactions IS 'The trace of redact_event: which events are not what they were, since when and why.';


--
-- Name: redactions_redaction_seq; Type: SEQUENCE; Schema: eventcore; Owner: -
--

ALTER TABLE eventcore.redactions ALTER COLUMN redaction ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME eventcore.redactions_redaction_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: schema_version; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.schema_version (
    version integer NOT NULL,
    migrated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


--
-- Name: TABLE schema_version; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.schema_version IS 'Which migrations of eventcore have been applied; the highest counts.';


--
-- Name: snapshots; Type: TABLE; Schema: eventcore; Owner: -
--

CREATE TABLE eventcore.snapshots (
    stream_id text NOT NULL COLLATE pg_catalog."C",
    state_type text NOT NULL COLLATE pg_catalog."C",
    state_version bigint NOT NULL,
    version bigint NOT NULL,
    event_id text NOT NULL COLLATE pg_catalog."C",
    redactions bigint NOT NULL,
    data bytea NOT NULL
);


--
-- Name: TABLE snapshots; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.snapshots IS 'Stored states of streams: folding need not begin at the first event. May be emptied at any time.';


--
-- Data for Name: command_keys; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.command_keys VALUES ('key-1', '1c11e2711dd96b153518e9506198c831', 1, 1, 1, 1, '2026-12-05 12:24:04.172951+00');
INSERT INTO eventcore.command_keys VALUES ('key-2', '8e48cd672518c27c595a558b7cf3fa06', 1, 2, 1, 2, '2026-12-05 12:24:04.187303+00');
INSERT INTO eventcore.command_keys VALUES ('key-3', 'adf38b6f751dfa99dce6a9678eb50f7b', 1, 3, 1, 3, '2026-12-05 12:24:04.192368+00');


--
-- Data for Name: dead_letters; Type: TABLE DATA; Schema: eventcore; Owner: -
--



--
-- Data for Name: events; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.events VALUES (1, 'account-1', 1, 'cf2dd7807afed46892230d14acd6feb4', 'bank.Deposited', '\x7b22616d6f756e74223a31307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d66303736616166356563666330666135303132633836333862613433313833622d663161613063386564336138666362632d3031227d', 1795868644158485329);
INSERT INTO eventcore.events VALUES (2, 'account-2', 1, 'f052f77b00ef04ca20a99aebf86be301', 'bank.Deposited', '\x7b22616d6f756e74223a32307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d33336639373464663033353039333931663635656338663433386463336439332d653137383265393135643039396165382d3031227d', 1795868644186378685);
INSERT INTO eventcore.events VALUES (3, 'account-3', 1, 'bd5a4a86f9121b57b47d6e26bdb810b8', 'bank.Deposited', '\x7b22616d6f756e74223a33307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d64316230343137393133303463303935396435663838613335363034363337342d633266333432336636613863643665352d3031227d', 1795868644191751335);
INSERT INTO eventcore.events VALUES (4, 'account-1', 2, 'b1ac280b949a56965a7add47ca04f4d1', 'bank.Withdrawn', '\x7b22616d6f756e74223a357d', '\x7b22636f6d6d616e645f74797065223a225472616e73666572222c227472616365706172656e74223a2230302d39303165613235343430303239343665396664366463323339343931353037322d353632393435393965633665313431382d3031227d', 1795868644195286953);
INSERT INTO eventcore.events VALUES (5, 'account-2', 2, '3dbb5fd48c85d1bfae42ee82990c5f5a', 'bank.Deposited', '\x7b22616d6f756e74223a357d', '\x7b22636f6d6d616e645f74797065223a225472616e73666572222c227472616365706172656e74223a2230302d39303165613235343430303239343665396664366463323339343931353037322d353632393435393965633665313431382d3031227d', 1795868644195286953);


--
-- Data for Name: projections; Type: TABLE DATA; Schema: eventcore; Owner: -
--



--
-- Data for Name: redactions; Type: TABLE DATA; Schema: eventcore; Owner: -
--



--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.schema_version VALUES (1, '2026-11-28 12:24:03.979689+00');
INSERT INTO eventcore.schema_version VALUES (2, '2026-11-28 12:24:04.022635+00');
INSERT INTO eventcore.schema_version VALUES (3, '2026-11-28 12:24:04.033434+00');
INSERT INTO eventcore.schema_version VALUES (4, '2026-11-28 12:24:04.048908+00');
INSERT INTO eventcore.schema_version VALUES (5, '2026-11-28 12:24:04.071027+00');


--
-- Data for Name: snapshots; Type: TABLE DATA; Schema: eventcore; Owner: -
--



--
-- Name: redactions_redaction_seq; Type: SEQUENCE SET; Schema: eventcore; Owner: -
--

SELECT pg_catalog.setval('eventcore.redactions_redaction_seq', 1, false);


--
-- Name: command_keys command_keys_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.command_keys
    ADD CONSTRAINT command_keys_pkey PRIMARY KEY (key);


--
-- Name: dead_letters dead_letters_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (projection, "position");


--
-- Name: events events_by_stream; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.events
    ADD CONSTRAINT events_by_stream UNIQUE (stream_id, version);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.events
    ADD CONSTRAINT events_pkey PRIMARY KEY ("position");


--
-- Name: projections projections_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.projections
    ADD CONSTRAINT projections_pkey PRIMARY KEY (name);


--
-- Name: redactions redactions_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.redactions
    ADD CONSTRAINT redactions_pkey PRIMARY KEY (redaction);


--
-- Name: schema_version schema_version_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);


--
-- Name: snapshots snapshots_pkey; Type: CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (stream_id, state_type, state_version);


--
-- Name: command_keys_by_expiry; Type: INDEX; Schema: eventcore; Owner: -
--

CREATE INDEX command_keys_by_expiry ON eventcore.command_keys USING btree (expires_at);


--
-- Name: events events_are_kept; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER events_are_kept BEFORE DELETE OR TRUNCATE ON eventcore.events FOR EACH STATEMENT EXECUTE FUNCTION eventcore.refuse();


--
-- Name: events events_are_only_redacted; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER events_are_only_redacted BEFORE UPDATE ON eventcore.events FOR EACH ROW EXECUTE FUNCTION eventcore.allow_redaction();


--
-- Name: redactions redactions_are_in_order; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER redactions_are_in_order BEFORE INSERT ON eventcore.redactions FOR EACH STATEMENT EXECUTE FUNCTION eventcore.begin_redaction();


--
-- Name: redactions redactions_are_kept; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER redactions_are_kept BEFORE DELETE OR UPDATE OR TRUNCATE ON eventcore.redactions FOR EACH STATEMENT EXECUTE FUNCTION eventcore.refuse();


--
-- Name: redactions redactions_forget_snapshots; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER redactions_forget_snapshots AFTER INSERT ON eventcore.redactions FOR EACH ROW EXECUTE FUNCTION eventcore.forget_snapshots();


--
-- Name: dead_letters dead_letters_projection_fkey; Type: FK CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.dead_letters
    ADD CONSTRAINT dead_letters_projection_fkey FOREIGN KEY (projection) REFERENCES eventcore.projections(name);


--
-- Name: redactions redactions_position_fkey; Type: FK CONSTRAINT; Schema: eventcore; Owner: -
--

ALTER TABLE ONLY eventcore.redactions
    ADD CONSTRAINT redactions_position_fkey FOREIGN KEY ("position") REFERENCES eventcore.events("position");


--
-- PostgreSQL database dump complete
--


