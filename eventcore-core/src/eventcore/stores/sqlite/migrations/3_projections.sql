-- Version 3: projections that go on after their process has died.
--
-- A table of its own: processes of the version before insert rows into projections without naming its columns.

CREATE TABLE IF NOT EXISTS projection_runs (
    name TEXT PRIMARY KEY,
    filter TEXT NOT NULL,
    attempt_position INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) WITHOUT ROWID;
