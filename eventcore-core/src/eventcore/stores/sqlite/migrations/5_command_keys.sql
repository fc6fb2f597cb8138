-- Version 5: idempotency keys of commands.

CREATE TABLE IF NOT EXISTS command_keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first INTEGER NOT NULL,
    events INTEGER NOT NULL,
    position INTEGER NOT NULL,
    expires_at_ns INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS command_keys_by_expiry ON command_keys (expires_at_ns);
