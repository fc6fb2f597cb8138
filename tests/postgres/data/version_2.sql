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
    leased_until timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL
);


--
-- Name: TABLE projections; Type: COMMENT; Schema: eventcore; Owner: -
--

COMMENT ON TABLE eventcore.projections IS 'How far each projection has come, and who runs it until when.';


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
-- Data for Name: dead_letters; Type: TABLE DATA; Schema: eventcore; Owner: -
--



--
-- Data for Name: events; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.events VALUES (1, 'account-1', 1, '6fafc7969c72ee21cb8377db7e7351d5', 'bank.Deposited', '\x7b22616d6f756e74223a31307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d31643634343064346438313265663137393365393461663437326337393035652d333166623632623762653236343664362d3031222c22636f7272656c6174696f6e5f6964223a2264756d702d31222c2268656164657273223a7b226e616d65223a22416461227d7d', 1795843705960939629);
INSERT INTO eventcore.events VALUES (3, 'account-3', 1, '87505532cd442dbb78be4c25f8862c76', 'bank.Deposited', '\x7b22616d6f756e74223a33307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d32346435613030393333363730663161316161323536393738363430353365342d623562303366303330336461356633662d3031222c22636f7272656c6174696f6e5f6964223a2264756d702d33222c2268656164657273223a7b226e616d65223a22416461227d7d', 1795843705966354557);
INSERT INTO eventcore.events VALUES (4, 'account-3', 2, 'f9c3461f9bdea1807cff1f12a5833a71', 'bank.Withdrawn', '\x7b22616d6f756e74223a357d', '\x7b22636f6d6d616e645f74797065223a225472616e73666572222c227472616365706172656e74223a2230302d64646533346438353336366236346430396462346538356134333462623565662d633133303530336331393336373136622d3031227d', 1795843705967674528);
INSERT INTO eventcore.events VALUES (5, 'account-1', 2, 'debd3994f7e08191ee5eb9f53b5e39d2', 'bank.Deposited', '\x7b22616d6f756e74223a357d', '\x7b22636f6d6d616e645f74797065223a225472616e73666572222c227472616365706172656e74223a2230302d64646533346438353336366236346430396462346538356134333462623565662d633133303530336331393336373136622d3031227d', 1795843705967674528);
INSERT INTO eventcore.events VALUES (2, 'account-2', 1, 'aac0cb4a1d052e570086b563b9d4a809', 'bank.Deposited', '\x7b22616d6f756e74223a2032307d', '\x7b22636f6d6d616e645f74797065223a224465706f736974222c227472616365706172656e74223a2230302d30666238323034656235633336653637653863383063633233613738363831322d626139393839383564393761613738382d3031222c22636f7272656c6174696f6e5f6964223a2264756d702d32222c2268656164657273223a7b226e616d65223a22416461227d7d', 1795843705964421206);


--
-- Data for Name: projections; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.projections VALUES ('balances', 5, 'debd3994f7e08191ee5eb9f53b5e39d2', '', 1, '1970-01-01 00:00:00+00');


--
-- Data for Name: redactions; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.redactions OVERRIDING SYSTEM VALUE VALUES (1, 2, 'asked by the customer', 'postgres', '2026-11-28 05:28:26.012786+00', '735');


--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: eventcore; Owner: -
--

INSERT INTO eventcore.schema_version VALUES (1, '2026-11-28 05:28:25.91569+00');
INSERT INTO eventcore.schema_version VALUES (2, '2026-11-28 05:28:25.92543+00');


--
-- Name: redactions_redaction_seq; Type: SEQUENCE SET; Schema: eventcore; Owner: -
--

SELECT pg_catalog.setval('eventcore.redactions_redaction_seq', 1, true);


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
-- Name: events events_are_kept; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER events_are_kept BEFORE DELETE OR TRUNCATE ON eventcore.events FOR EACH STATEMENT EXECUTE FUNCTION eventcore.refuse();


--
-- Name: events events_are_only_redacted; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER events_are_only_redacted BEFORE UPDATE ON eventcore.events FOR EACH ROW EXECUTE FUNCTION eventcore.allow_redaction();


--
-- Name: redactions redactions_are_kept; Type: TRIGGER; Schema: eventcore; Owner: -
--

CREATE TRIGGER redactions_are_kept BEFORE DELETE OR UPDATE OR TRUNCATE ON eventcore.redactions FOR EACH STATEMENT EXECUTE FUNCTION eventcore.refuse();


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


