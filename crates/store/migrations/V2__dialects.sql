-- What an application picks, and what an endpoint may have of its own.

ALTER TABLE applications
    -- A dialect's name. The services know the dialects; here is only which one.
    ADD COLUMN dialect text NOT NULL DEFAULT 'incenta',
    -- Whether events of types that are not described are refused.
    ADD COLUMN strict  boolean NOT NULL DEFAULT false,
    -- Who is told of failed deliveries, where an endpoint names nobody else.
    ADD COLUMN email   text;

-- Event types that an application describes beside those of its dialect.
CREATE TABLE event_types (
    application_id uuid NOT NULL REFERENCES applications,
    name           text NOT NULL,
    category       text NOT NULL,
    description    text NOT NULL,
    -- The data of a test event, as JSON text.
    sample         text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (application_id, name)
);

CREATE FUNCTION raise_version_of_event_type() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.application_id ELSE NEW.application_id END;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE ON event_types
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_event_type();

ALTER TABLE endpoints
    ADD COLUMN name               text,
    ADD COLUMN email              text,
    -- The waits after each failed attempt; NULL for the dialect's.
    ADD COLUMN schedule           text[],
    -- Attempts in a second, in all processes together; NULL for the dialect's.
    ADD COLUMN rate_per_second    integer CHECK (rate_per_second BETWEEN 1 AND 10000),
    -- Names and values of the headers that deliveries carry. The values are encrypted, as a JSON object.
    ADD COLUMN header_names       text[] NOT NULL DEFAULT '{}',
    ADD COLUMN headers_key_name   text,
    ADD COLUMN headers_ciphertext bytea,
    -- Why the status is what it is, where nobody set it by hand.
    ADD COLUMN status_reason      text;

-- Until when the attempts of endpoints with a rate are given away, one after the other.
CREATE TABLE endpoint_rates (
    endpoint_id uuid PRIMARY KEY,
    taken_until timestamptz NOT NULL
);

ALTER TABLE events
    -- SHA-256 of type and data, cut to 16 bytes: by it a key that is used for another event is found.
    ADD COLUMN content bytea,
    -- Sent once by whoever tests an endpoint: nothing that happened.
    ADD COLUMN is_test boolean NOT NULL DEFAULT false;
CREATE INDEX events_of_application ON ONLY events (application_id, accepted_at DESC, id DESC);

ALTER TABLE deliveries
    -- When it fails as expired, whatever it waits for.
    ADD COLUMN expires_at timestamptz;
-- From here on the due_at of a held row says since when it is held. Rows of the release before have none.
CREATE INDEX deliveries_held_since ON ONLY deliveries (endpoint_id, due_at, id) WHERE state = 'held';

ALTER TABLE attempts
    ADD COLUMN endpoint_id uuid;
CREATE INDEX attempts_of_endpoint ON ONLY attempts (endpoint_id, started_at DESC);

-- Deliveries that were given up and whose owner is to be told. Gone once a mail was taken.
CREATE TABLE failure_notices (
    delivery_id    uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    failed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, delivery_id)
);
CREATE INDEX failure_notices_by_time ON failure_notices (failed_at);

-- Who got a mail when: the next one waits, and tells of all that failed meanwhile.
CREATE TABLE mailed (
    address text PRIMARY KEY,
    last_at timestamptz NOT NULL
);
