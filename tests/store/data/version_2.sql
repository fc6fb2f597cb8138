PRAGMA application_id = 1702257524;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE dead_letters (
    projection TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    error_type TEXT NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed_at_ns INTEGER NOT NULL,
    PRIMARY KEY (projection, position)
) WITHOUT ROWID;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    data TEXT NOT NULL,
    metadata TEXT NOT NULL,
    recorded_at_ns INTEGER NOT NULL
);
INSERT INTO "events" VALUES(1,'account-1',1,'2b7bf1667de1768adced94f15ffec775','bank.Deposited','{"amount":10}','{"command_type":"Deposit","traceparent":"00-f6abe3820820d9b298a6f864aba6fa72-19915d7e5c732841-01","correlation_id":"dump-1","headers":{"name":"Ada"}}',1795843706100076568);
INSERT INTO "events" VALUES(2,'account-2',1,'675f3e0f5705e843f3ff897f12a8b792','bank.Deposited','{"amount":20}','{"command_type":"Deposit","traceparent":"00-34dd06796db637fb9983aa8bf2fa94ab-c337c17f83ce322e-01","correlation_id":"dump-2","headers":{"name":"Ada"}}',1795843706101812804);
INSERT INTO "events" VALUES(3,'account-3',1,'4c1bc6f82d65ee6589c9b4c59cf3d936','bank.Deposited','{"amount":30}','{"command_type":"Deposit","traceparent":"00-2eb1076f576d6fec2adad8f811beecf8-82890c96b6c867a5-01","correlation_id":"dump-3","headers":{"name":"Ada"}}',1795843706102607126);
INSERT INTO "events" VALUES(4,'account-3',2,'c6950ed1096e35b14071c5082f4bb6e5','bank.Withdrawn','{"amount":5}','{"command_type":"Transfer","traceparent":"00-30a504726a3101adea3f821c2fc4b299-3b8149f3de3978a8-01"}',1795843706103378235);
INSERT INTO "events" VALUES(5,'account-1',2,'2a5180a9eee6f3c4db7de6f58e26191f','bank.Deposited','{"amount":5}','{"command_type":"Transfer","traceparent":"00-30a504726a3101adea3f821c2fc4b299-3b8149f3de3978a8-01"}',1795843706103378235);
CREATE TABLE projections (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    token INTEGER NOT NULL,
    leased_until REAL NOT NULL,
    leased_for REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "projections" VALUES('balances',5,'2a5180a9eee6f3c4db7de6f58e26191f','',1,0.0,0.0);
CREATE UNIQUE INDEX events_by_stream ON events (stream_id, version);
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted: positions must stay dense'); END;
COMMIT;
