-- Version 3: projections that are never stuck.
--
-- Processes of the version before run on beside this one: they name the columns that they write, and what is added here has a
-- default. What they do not know they do not protect: a lease that they hold is not watched by leased_for.

ALTER TABLE {schema}.projections
    ADD COLUMN leased_for double precision NOT NULL DEFAULT 0,
    ADD COLUMN leased_token bigint NOT NULL DEFAULT 0,
    ADD COLUMN filter text NOT NULL DEFAULT '',
    ADD COLUMN attempt_position bigint NOT NULL DEFAULT 0,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN {schema}.projections.leased_for IS
    'Seconds for which the lease with the token leased_token was granted. More are left only when the clock was set back.';
COMMENT ON COLUMN {schema}.projections.filter IS 'The filter with which the projection runs, as JSON.';
COMMENT ON COLUMN {schema}.projections.attempts IS
    'How many attempts at the event at attempt_position have begun, and not come back since the process ended.';

-- The number of the lock that each transaction of a projection holds, so that its server process can be found.
CREATE FUNCTION {schema}.projection_key(projection text) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN hashtextextended(projection, {key});

-- The server processes that have a lock of this projection: in the transaction of a handler, or on the row of the lease.
CREATE FUNCTION {schema}.projection_processes(projection text) RETURNS SETOF integer LANGUAGE sql VOLATILE AS $$
    SELECT held.pid FROM pg_catalog.pg_locks AS held
    WHERE held.granted AND held.pid <> pg_backend_pid() AND (
        (held.locktype = 'advisory' AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            AND ((held.classid::bigint << 32) | held.objid::bigint) = {schema}.projection_key($1))
        OR (held.locktype = 'transactionid'
            AND held.transactionid = (SELECT leased.xmax FROM {schema}.projections AS leased WHERE leased.name = $1))
    );
$$;

-- Ends these processes, if the user may, and waits for that.
CREATE FUNCTION {schema}.end_processes(projection text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_terminate_backend(process, 1000) FROM {schema}.projection_processes(projection) AS process;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;

-- Acquires the lease, and returns no row while another owner holds it. abandoned: the owner before has not released it.
--
-- A process that stopped, or whose machine vanished, inside a transaction still has its locks. Its lease is over, so its server
-- process is ended. Where the user may not do that, idle_in_transaction_session_timeout does (see guard_transaction).
CREATE FUNCTION {schema}.acquire_lease(
    projection text, new_owner text, seconds double precision,
    OUT new_token bigint, OUT at_position bigint, OUT at_event text, OUT abandoned boolean,
    OUT filter text, OUT attempt_position bigint, OUT attempts integer
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    held {schema}.projections;
BEGIN
    -- Without a lock, since runners that wait for a lease ask often.
    SELECT leased.* INTO held FROM {schema}.projections AS leased WHERE leased.name = projection;
    IF held.owner NOT IN ('', new_owner) AND held.leased_until > clock_timestamp() THEN
        IF held.leased_token = held.token AND held.leased_until > clock_timestamp() + make_interval(secs => held.leased_for) THEN
            -- The clock was set back. From now on the lease lasts as long as it was granted for: its holder has time to renew it.
            UPDATE {schema}.projections AS leased
            SET leased_until = clock_timestamp() + make_interval(secs => held.leased_for)
            WHERE leased.name = projection AND leased.token = held.token AND leased.leased_until = held.leased_until;
        END IF;
        RETURN;
    END IF;
    PERFORM {schema}.end_processes(projection);
    INSERT INTO {schema}.projections (name) VALUES (projection) ON CONFLICT DO NOTHING;
    SELECT leased.* INTO held FROM {schema}.projections AS leased WHERE leased.name = projection FOR UPDATE;
    IF held.owner NOT IN ('', new_owner) AND held.leased_until > clock_timestamp() THEN
        RETURN;
    END IF;
    UPDATE {schema}.projections AS leased
    SET owner = new_owner, token = held.token + 1, leased_token = held.token + 1, leased_for = seconds,
        leased_until = clock_timestamp() + make_interval(secs => seconds)
    WHERE leased.name = projection;
    RETURN QUERY SELECT held.token + 1, held.position, held.event_id, held.owner NOT IN ('', new_owner),
        held.filter, held.attempt_position, held.attempts;
EXCEPTION WHEN lock_not_available THEN
    RETURN;
END $$;

-- Prepares a transaction in which a handler runs. What is set here ends with the transaction.
--
-- mark: shows at the end that the handler has not ended the transaction and begun another.
-- milliseconds: how long the client may be silent.
CREATE FUNCTION {schema}.guard_transaction(mark text, milliseconds integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('eventcore.transaction', mark, true),
        set_config('idle_in_transaction_session_timeout', milliseconds::text, true),
        set_config('client_connection_check_interval', '1s', true),
        set_config('tcp_keepalives_idle', '1', true),
        set_config('tcp_keepalives_interval', '1', true),
        set_config('tcp_keepalives_count', '3', true),
        set_config('tcp_user_timeout', milliseconds::text, true);
END $$;

-- Begins a handler's transaction. held: the handler may run; lost: the lease or the checkpoint is another; busy: another
-- transaction of the projection has not ended yet; diverged: the event of the new checkpoint is not in the store.
CREATE FUNCTION {schema}.begin_handler(
    projection text, of_token bigint, from_position bigint, from_event text, to_position bigint, to_event text,
    mark text, milliseconds integer
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM {schema}.guard_transaction(mark, milliseconds);
    IF NOT EXISTS (
        SELECT FROM {schema}.projections AS leased
        WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
            AND leased.position = from_position AND leased.event_id = from_event
    ) THEN
        RETURN 'lost';
    END IF;
    IF NOT pg_try_advisory_xact_lock({schema}.projection_key(projection)) THEN
        -- A transaction of an earlier lease, or one of this lease whose client has closed the connection.
        PERFORM {schema}.end_processes(projection);
        IF NOT pg_try_advisory_xact_lock({schema}.projection_key(projection)) THEN
            RETURN 'busy';
        END IF;
    END IF;
    RETURN CASE WHEN {schema}.event_stands(to_position, to_event) THEN 'held' ELSE 'diverged' END;
END $$;

CREATE FUNCTION {schema}.event_stands(at_position bigint, event text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT at_position = 0 OR EXISTS (
        SELECT FROM {schema}.events AS standing WHERE standing.position = at_position AND standing.event_id = event
    );
$$;

-- Moves the checkpoint and stores dead letters (a JSON array). One statement, so that a client which stops cannot keep the row
-- locked. mark: of the transaction of a handler, NULL outside of one.
--
-- Returns moved, lost, diverged (see begin_handler), or ended: the handler has ended the transaction that has the mark.
CREATE FUNCTION {schema}.move_checkpoint(
    projection text, of_token bigint, from_position bigint, from_event text, to_position bigint, to_event text,
    letters text, mark text
) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF mark <> coalesce(current_setting('eventcore.transaction', true), '') THEN
        RETURN 'ended';
    END IF;
    UPDATE {schema}.projections AS leased SET position = to_position, event_id = to_event
    WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
    AND {schema}.event_stands(to_position, to_event) AND (
        (leased.position = from_position AND leased.event_id = from_event)
        -- The call before has moved it, and its answer was lost.
        OR (mark IS NULL AND leased.position = to_position AND leased.event_id = to_event)
    );
    IF NOT FOUND THEN
        RETURN CASE WHEN {schema}.event_stands(to_position, to_event) OR NOT EXISTS (
            SELECT FROM {schema}.projections AS leased
            WHERE leased.name = projection AND leased.token = of_token AND leased.owner <> ''
        ) THEN 'lost' ELSE 'diverged' END;
    END IF;
    INSERT INTO {schema}.dead_letters AS letter
        (projection, position, event_id, error_type, error, attempts, failed_at_ns)
    SELECT new.* FROM jsonb_to_recordset(letters::jsonb) AS new(
        projection text, position bigint, event_id text, error_type text, error text, attempts integer, failed_at_ns bigint
    )
    ON CONFLICT ON CONSTRAINT dead_letters_pkey DO UPDATE
        SET event_id = excluded.event_id, error_type = excluded.error_type, error = excluded.error,
            attempts = excluded.attempts, failed_at_ns = excluded.failed_at_ns;
    RETURN 'moved';
END $$;
