-- Events of the past that somebody has sent again, at a pace. A job goes through them in the order of their acceptance;
-- how far it is stands here, changed in the commit that sends the next ones.
CREATE TABLE replays (
    id              uuid PRIMARY KEY,
    application_id  uuid NOT NULL REFERENCES applications,
    -- NULL for all.
    endpoint_id     uuid,
    -- Types and wildcards; none for all.
    event_types     text[] NOT NULL,
    -- Which deliveries: their states, and `unmatched` for those that there never were.
    states          text[] NOT NULL,
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    rate_per_second integer NOT NULL CHECK (rate_per_second BETWEEN 1 AND 1000),
    state           text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
    -- The last event that it has gone through.
    reached_at      timestamptz,
    reached_event   uuid,
    events          bigint NOT NULL DEFAULT 0,
    deliveries      bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    CHECK ((reached_at IS NULL) = (reached_event IS NULL))
);
CREATE INDEX replays_of_application ON replays (application_id, id DESC);
CREATE INDEX replays_running ON replays (id) WHERE state = 'running';

ALTER TABLE deliveries
    -- The replay that it was last sent by.
    ADD COLUMN replay_id uuid;
CREATE INDEX deliveries_of_replay ON ONLY deliveries (replay_id)
    WHERE replay_id IS NOT NULL AND state IN ('sending', 'waiting');
