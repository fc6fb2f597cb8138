-- Version 4: stored states of streams, redactions, and indexes of large events.

CREATE TABLE IF NOT EXISTS snapshots (
    stream_id TEXT NOT NULL,
    state_type TEXT NOT NULL,
    state_version INTEGER NOT NULL,
    version INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    redactions INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stream_id, state_type, state_version)
);

-- The trace of redactions. To redact an event, insert a row with its new data: the trigger moves the data to the event.
CREATE TABLE IF NOT EXISTS redactions (
    redaction INTEGER PRIMARY KEY,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL CHECK (reason <> ''),
    redacted_at_ns INTEGER NOT NULL,
    new_data TEXT
);

CREATE TRIGGER IF NOT EXISTS redactions_name_an_event BEFORE INSERT ON redactions
    WHEN NEW.new_data IS NULL OR NOT EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
    BEGIN SELECT RAISE(ABORT, 'a redaction needs the position of an event and its new data'); END;

CREATE TRIGGER IF NOT EXISTS redactions_change_their_event AFTER INSERT ON redactions
    BEGIN
        UPDATE events SET data = NEW.new_data WHERE position = NEW.position;
        UPDATE redactions SET new_data = NULL WHERE redaction = NEW.redaction;
        DELETE FROM snapshots WHERE stream_id = (SELECT stream_id FROM events WHERE position = NEW.position);
    END;

-- The only change that is allowed is to drop the data, which the trigger above does.
CREATE TRIGGER IF NOT EXISTS redactions_stay BEFORE UPDATE ON redactions
    WHEN OLD.new_data IS NULL OR NEW.new_data IS NOT NULL
        OR (OLD.redaction, OLD.position, OLD.reason, OLD.redacted_at_ns)
            IS NOT (NEW.redaction, NEW.position, NEW.reason, NEW.redacted_at_ns)
    BEGIN SELECT RAISE(ABORT, 'what has happened stays: a redaction is never changed'); END;

CREATE TRIGGER IF NOT EXISTS redactions_are_kept BEFORE DELETE ON redactions
    BEGIN SELECT RAISE(ABORT, 'what has happened stays: a redaction is never deleted'); END;

-- An update passes only while a redaction of this event with this data is being inserted.
CREATE TRIGGER IF NOT EXISTS events_are_only_redacted BEFORE UPDATE ON events
    WHEN (OLD.position, OLD.stream_id, OLD.version, OLD.event_id, OLD.event_type, OLD.metadata, OLD.recorded_at_ns)
            IS NOT (NEW.position, NEW.stream_id, NEW.version, NEW.event_id, NEW.event_type, NEW.metadata, NEW.recorded_at_ns)
        OR NOT EXISTS (SELECT 1 FROM redactions WHERE position = OLD.position AND new_data IS NEW.data)
    BEGIN SELECT RAISE(ABORT, 'what has happened stays: events change only by redact, which leaves a trace'); END;

-- Events of more than 2,048 bytes (the length of a text would count its characters, which takes long). While there are none in a range, a page of it cannot be too large, and its events need
-- not be measured one by one.
CREATE INDEX IF NOT EXISTS large_events ON events (position) WHERE length(CAST(data AS BLOB)) + length(CAST(metadata AS BLOB)) > 2048;
CREATE INDEX IF NOT EXISTS large_events_by_stream ON events (stream_id, version)
    WHERE length(CAST(data AS BLOB)) + length(CAST(metadata AS BLOB)) > 2048;
