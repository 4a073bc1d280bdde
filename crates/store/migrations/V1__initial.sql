-- Forward only, and safe while the previous version serves: see README.md in this folder.

-- Who publishes, and who may.

CREATE TABLE applications (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    -- Grows with each change of the application or its endpoints: what a service compares its copy by.
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id             uuid PRIMARY KEY,
    application_id uuid REFERENCES applications,
    role           text NOT NULL CHECK (role IN ('publish', 'manage', 'admin')),
    -- SHA-256 of the token's secret part.
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    created_at     timestamptz NOT NULL DEFAULT now(),
    revoked_at     timestamptz,
    CHECK ((role = 'admin') = (application_id IS NULL))
);

CREATE TABLE endpoints (
    id             uuid PRIMARY KEY,
    application_id uuid NOT NULL REFERENCES applications,
    url            text NOT NULL,
    -- Event types and wildcards, as the customer wrote them.
    event_types    text[] NOT NULL,
    status         text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'paused', 'disabled')),
    -- The deadline of one attempt; NULL for the deployment's.
    timeout_ms     integer CHECK (timeout_ms BETWEEN 100 AND 60000),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- Kept after deletion: deliveries point here.
    deleted_at     timestamptz
);
CREATE INDEX endpoints_of_application ON endpoints (application_id, id) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secrets (
    id          uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    -- Encrypted under the key ring's key of this name; the row's own ids are the associated data.
    key_name    text NOT NULL,
    ciphertext  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Signs until then; NULL for the current one.
    expires_at  timestamptz
);
CREATE INDEX endpoint_secrets_of_endpoint ON endpoint_secrets (endpoint_id);

-- A change of what the services keep in memory raises the application's version and tells them.
-- The notice is a hint: who misses it finds the version at the next poll.

CREATE FUNCTION announce_application() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fanfare_configuration', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON applications
    FOR EACH ROW EXECUTE FUNCTION announce_application();

CREATE FUNCTION raise_version_of_endpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1 WHERE id = NEW.application_id;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE ON endpoints
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_endpoint();

CREATE FUNCTION raise_version_of_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1
    WHERE id = (SELECT application_id FROM endpoints
                WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.endpoint_id ELSE NEW.endpoint_id END);
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE ON endpoint_secrets
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_secret();

CREATE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fanfare_configuration', 'keys');
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION announce_keys();

-- What is delivered. Partitioned by the day (UTC) on which the event was accepted. That moment is set
-- once, in whole milliseconds, and carried along, so that a repeated insert meets its unique row and a
-- look-up touches one partition. There is no default partition: with rows in it, none could be made.

-- The moment of acceptance of events whose id is derived from a key and does not hold it.
CREATE TABLE event_keys (
    event_id    uuid PRIMARY KEY,
    accepted_at timestamptz NOT NULL
);
CREATE INDEX event_keys_by_time ON event_keys USING brin (accepted_at);

CREATE TABLE events (
    id             uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    application_id uuid NOT NULL,
    type           text NOT NULL,
    -- The publisher's own id of it.
    key            text,
    -- The publisher's own time of it.
    occurred_at    timestamptz,
    -- What is sent, rendered once. Text and not jsonb, which reorders keys and breaks signatures.
    body           text NOT NULL,
    -- Endpoints that matched when it was fanned out.
    matches        integer NOT NULL,
    -- False while the deliveries of an event with many endpoints are still being written.
    fanned_out     boolean NOT NULL,
    traceparent    text NOT NULL,
    PRIMARY KEY (id, accepted_at)
) PARTITION BY RANGE (accepted_at);

CREATE TABLE deliveries (
    -- Derived from accepted_at, event and endpoint: also the unique (event, endpoint).
    id             uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    event_id       uuid NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    state          text NOT NULL
                   CHECK (state IN ('sending', 'waiting', 'held', 'delivered', 'failed', 'skipped')),
    -- Why it failed, or waits though the endpoint did not fail.
    reason         text,
    -- The number of the attempt that is being made, or is next, or was the last.
    attempt        integer NOT NULL,
    -- Raised by every change of what the delivery waits for: a claim with another is stale.
    sequence       integer NOT NULL,
    -- Failed attempts that the endpoint answers for: its place in the schedule.
    failures       integer NOT NULL DEFAULT 0,
    -- Attempts in a row whose process died.
    unknowns       integer NOT NULL DEFAULT 0,
    -- Deferrals in a row.
    deferrals      integer NOT NULL DEFAULT 0,
    -- waiting: when the attempt is due. sending: from when on another process may take it over.
    due_at         timestamptz,
    -- sending: the taking that may record the outcome, and since when.
    taken_by       uuid,
    taken_at       timestamptz,
    finished_at    timestamptz,
    PRIMARY KEY (id, accepted_at)
) PARTITION BY RANGE (accepted_at);
CREATE INDEX deliveries_unfinished ON deliveries (due_at) WHERE state IN ('sending', 'waiting');
CREATE INDEX deliveries_held ON deliveries (endpoint_id, id) WHERE state = 'held';
CREATE INDEX deliveries_of_application ON deliveries (application_id, id DESC);
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, id DESC);

CREATE TABLE attempts (
    delivery_id      uuid NOT NULL,
    attempt          integer NOT NULL,
    accepted_at      timestamptz NOT NULL,
    -- NULL where the process that sent it did not live to tell.
    url              text,
    started_at       timestamptz NOT NULL,
    duration_ms      integer,
    outcome          text NOT NULL,
    status           integer,
    error            text,
    -- A short list of the response's headers, as JSON.
    response_headers text,
    response_body    bytea,
    next_due_at      timestamptz,
    PRIMARY KEY (delivery_id, attempt, accepted_at)
) PARTITION BY RANGE (accepted_at);

-- Messages that could not be read. Off the broker, where a queue cannot be looked into without damage.
CREATE TABLE parked (
    id          uuid PRIMARY KEY,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    message     text NOT NULL,
    routing_key text,
    message_id  text,
    -- What is kept of the headers that it was published with, as JSON.
    headers     text NOT NULL,
    body        bytea NOT NULL
);
