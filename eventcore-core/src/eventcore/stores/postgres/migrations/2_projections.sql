-- Version 2: projections: leases, checkpoints and dead letters.

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
