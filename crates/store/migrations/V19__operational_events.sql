-- Operational events: states of endpoints, replays and parked messages that are told to an application of the operator.

-- Beginning of the status; NULL for a status from before this column. A trigger sets the time, so that the previous
-- release sets it, too.
ALTER TABLE endpoints ADD COLUMN status_since timestamptz;
CREATE FUNCTION note_status_since() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.status_since := now();
    RETURN NEW;
END $$;
CREATE TRIGGER note_status_since BEFORE UPDATE ON endpoints
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_status_since();
CREATE INDEX endpoints_disabled ON endpoints (status_since) WHERE status = 'disabled' AND deleted_at IS NULL;

-- The last told state of each condition that changed within a day, or holds.
CREATE TABLE operational_states (
    -- Endpoint, application or replay; the nil id for messages of no known application.
    subject        uuid NOT NULL,
    condition      text NOT NULL,
    application_id uuid,
    holds          boolean NOT NULL,
    -- Beginning of the condition, or of its absence.
    since          timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL,
    -- The state that receivers know.
    told           boolean NOT NULL,
    -- Changes that no event has told.
    changes        integer NOT NULL,
    free_at        timestamptz NOT NULL,
    -- Figures of the condition, as a JSON object.
    figures        text NOT NULL,
    -- The last event.
    event_id       uuid,
    told_at        timestamptz,
    -- Grows with each change: a process without the lock changes nothing.
    version        integer NOT NULL,
    PRIMARY KEY (subject, condition)
);
-- Finds the last events.
CREATE INDEX operational_states_told ON operational_states (told_at) WHERE told_at IS NOT NULL;

-- Progress of the job: at most a single row, since the first look.
CREATE TABLE operational_marks (
    is_single      boolean PRIMARY KEY DEFAULT true CHECK (is_single),
    -- The application that the operator names.
    application_id uuid NOT NULL,
    begun_at       timestamptz NOT NULL DEFAULT now(),
    -- End of the counted occurrences.
    counted        timestamptz NOT NULL DEFAULT now(),
    -- Conditions of the first look are not told.
    is_looked      boolean NOT NULL DEFAULT false,
    -- Last look at held deliveries, which reads many rows.
    held_at        timestamptz NOT NULL DEFAULT '-infinity'
);

-- Finds the deliveries that were given up since the last look. Successes never enter.
CREATE INDEX deliveries_given_up ON ONLY deliveries (finished_at) WHERE state = 'failed';
-- Finds the replays that ended since the last look.
CREATE INDEX replays_finished ON replays (finished_at) WHERE finished_at IS NOT NULL;

-- Changes of a condition to report to the endpoint's owner by mail: the newest of each condition. The row is deleted
-- after the mail server has taken the mail.
CREATE TABLE condition_notices (
    endpoint_id uuid NOT NULL,
    condition   text NOT NULL,
    -- True for the beginning of the condition, false for its end.
    begins      boolean NOT NULL,
    -- Beginning of the condition, or of its absence.
    since       timestamptz NOT NULL,
    -- Reason of a status that Fanfare has set, or of the end of a condition.
    reason      text,
    told_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, condition)
);
