-- The configuration: applications, keys, endpoints.

CREATE TABLE applications (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    -- Grows with each change of the application or its endpoints. The services compare their copy by it.
    version      bigint NOT NULL DEFAULT 1,
    dialect      text NOT NULL DEFAULT 'incenta',
    -- Refuses events of types that are not described.
    strict       boolean NOT NULL DEFAULT false,
    -- Receives failure mails of endpoints without an address of their own.
    email        text,
    -- Events a second over HTTP, at each ingest; NULL for the deployment's limit.
    publish_rate integer CHECK (publish_rate BETWEEN 1 AND 1000000),
    -- Members of bodies whose values are hidden: `password`, `card.number`.
    redacted     text[] NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id             uuid PRIMARY KEY,
    application_id uuid REFERENCES applications,
    role           text NOT NULL CHECK (role IN ('publish', 'manage', 'admin')),
    -- SHA-256 of the token's secret part.
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    created_at     timestamptz NOT NULL DEFAULT now(),
    revoked_at     timestamptz,
    -- NULL for a key that ends only when it is revoked.
    expires_at     timestamptz,
    CHECK ((role = 'admin') = (application_id IS NULL))
);

-- A table of its own: each change of api_keys makes all processes read the keys anew.
CREATE TABLE key_uses (
    key_id       uuid PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);

CREATE TABLE endpoints (
    id                 uuid PRIMARY KEY,
    application_id     uuid NOT NULL REFERENCES applications,
    name               text,
    url                text NOT NULL,
    -- Event types and wildcards, as the customer wrote them.
    event_types        text[] NOT NULL,
    status             text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'paused', 'disabled')),
    -- Set where the service changed the status by itself.
    status_reason      text,
    -- The deadline of one attempt; NULL for the dialect's.
    timeout_ms         integer CHECK (timeout_ms BETWEEN 100 AND 60000),
    -- The waits after each failed attempt; NULL for the dialect's.
    schedule           text[],
    -- Attempts a second, in all processes together; NULL for the dialect's.
    rate_per_second    integer CHECK (rate_per_second BETWEEN 1 AND 10000),
    -- Receives failure mails; NULL for the application's address.
    email              text,
    header_names       text[] NOT NULL DEFAULT '{}',
    -- The headers' values, encrypted, as a JSON object.
    headers_key_name   text,
    headers_ciphertext bytea,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    -- Rows stay after deletion: deliveries refer to them.
    deleted_at         timestamptz
);
CREATE INDEX endpoints_of_application ON endpoints (application_id, id) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secrets (
    id          uuid PRIMARY KEY,
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    -- Encrypted under the key ring's key of this name; the row's own ids are the associated data.
    key_name    text NOT NULL,
    ciphertext  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Signs until then; NULL for the current secret.
    expires_at  timestamptz
);
CREATE INDEX endpoint_secrets_of_endpoint ON endpoint_secrets (endpoint_id);

-- Event types that an application describes beside its dialect's.
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

-- A change of the configuration raises the application's version and notifies the services. A lost notice is found by
-- the next poll of versions.

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

CREATE FUNCTION raise_version_of_event_type() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.application_id ELSE NEW.application_id END;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE ON event_types
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_event_type();

CREATE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fanfare_configuration', 'keys');
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION announce_keys();

-- Events, partitioned by the day (UTC) of acceptance. The moment is set once, in whole milliseconds.

-- The keys of events whose id is derived from a publisher's key. One partition a month, by the clock of the statement
-- that inserts and never by the moment of acceptance: each copy of a message has a moment of its own.
CREATE TABLE event_keys (
    -- Each partition has a unique index on it.
    event_id    uuid NOT NULL,
    month       date NOT NULL,
    accepted_at timestamptz NOT NULL
) PARTITION BY LIST (month);

CREATE TABLE events (
    id              uuid NOT NULL,
    accepted_at     timestamptz NOT NULL,
    application_id  uuid NOT NULL,
    type            text NOT NULL,
    -- The publisher's own id of the event.
    key             text,
    -- The publisher's own time of the event.
    occurred_at     timestamptz,
    -- The rendered payload. Text and not jsonb, which reorders keys and breaks signatures.
    body            text NOT NULL,
    -- The number of endpoints that matched.
    matches         integer NOT NULL,
    traceparent     text NOT NULL,
    -- SHA-256 of type and data, cut to 16 bytes. It tells a key that is used for another event.
    content         bytea,
    is_test         boolean NOT NULL DEFAULT false,
    -- The payload encrypted, where `body` lacks the values of redacted members.
    body_key_name   text,
    body_ciphertext bytea,
    -- Since then the content is gone.
    erased_at       timestamptz,
    PRIMARY KEY (application_id, accepted_at, id)
) PARTITION BY RANGE (accepted_at);
-- Finds the events to encrypt anew.
CREATE INDEX events_sealed ON events (body_key_name) WHERE body_key_name IS NOT NULL;

-- Events with many endpoints whose deliveries are still being inserted.
CREATE TABLE fan_outs (
    event_id       uuid PRIMARY KEY,
    application_id uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    -- The last endpoint whose delivery was inserted. Endpoints are walked in the order of their ids.
    mark           uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- The process that inserts them; NULL for none.
    owner          uuid
);

-- Deliveries that have not finished: the work list, narrow and not partitioned.
CREATE TABLE open_deliveries (
    -- Derived from the moment of acceptance, the event and the endpoint: also the unique (event, endpoint).
    id             uuid PRIMARY KEY,
    event_id       uuid NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    -- sending: a process holds the lease. scheduled: waits for its retry time. queued: its endpoint cannot take it now.
    state          text NOT NULL CHECK (state IN ('sending', 'scheduled', 'queued')),
    -- Why it is queued.
    reason         text,
    -- The order in a backlog: 0 before 1 (replays).
    class          smallint NOT NULL DEFAULT 0,
    -- Lists show it. Rows that are sent at once are not listed, unless they become slow: the index costs.
    listed         boolean NOT NULL,
    -- A row of `deliveries` exists: the delivery had finished and was requested again.
    finished_once  boolean NOT NULL DEFAULT false,
    -- The number of the attempt that is being made, or is next.
    attempt        integer NOT NULL DEFAULT 1,
    -- Failed attempts that the endpoint answers for: the place in the schedule.
    failures       integer NOT NULL DEFAULT 0,
    -- Consecutive attempts whose process died.
    unknowns       integer NOT NULL DEFAULT 0,
    -- When the state began.
    since          timestamptz NOT NULL DEFAULT now(),
    -- sending: the lease that may record the outcome, and its end.
    lease_id       uuid,
    lease_until    timestamptz,
    -- scheduled: when the next attempt is due.
    due_at         timestamptz,
    -- When the delivery fails as expired. A pause of the endpoint defers it.
    expires_at     timestamptz NOT NULL,
    -- The replay that requested it last.
    replay_id      uuid
);
CREATE INDEX open_leases ON open_deliveries (lease_until) WHERE state = 'sending';
CREATE INDEX open_due ON open_deliveries (due_at) WHERE state = 'scheduled';
CREATE INDEX open_backlog ON open_deliveries (endpoint_id, class, id) WHERE state = 'queued';
CREATE INDEX open_listed ON open_deliveries (application_id, id DESC) WHERE listed;
CREATE INDEX open_listed_of_endpoint ON open_deliveries (endpoint_id, id DESC) WHERE listed;
CREATE INDEX open_of_replay ON open_deliveries (replay_id) WHERE replay_id IS NOT NULL;
-- Deliveries that are leased alone: processes died with them.
CREATE INDEX open_suspects ON open_deliveries (id) WHERE unknowns >= 2;

-- One row for each endpoint with queued deliveries. Written when it is created, changes its owner, is probed or ends, and
-- never once per delivery.
CREATE TABLE endpoint_backlogs (
    endpoint_id    uuid PRIMARY KEY,
    application_id uuid NOT NULL,
    -- The dispatcher that drains it; NULL for none.
    owner          uuid,
    -- A backlog without a living owner is taken over from then on. Never more than 5 minutes ahead.
    next_look      timestamptz NOT NULL DEFAULT now(),
    reason         text NOT NULL,
    since          timestamptz NOT NULL DEFAULT now(),
    -- The breaker: failures in a row, and the time of the next probe where it is open.
    failures       integer NOT NULL DEFAULT 0,
    next_probe     timestamptz,
    -- The owner has found it empty and could not end it, since other deliveries were being queued. First attempts are made
    -- beside it from then on, so that it ends.
    is_ending      boolean NOT NULL DEFAULT false,
    -- When the endpoint was resumed last. Deliveries queued before have their whole time again from then on.
    resumed_at     timestamptz
);
CREATE INDEX backlogs_by_owner ON endpoint_backlogs (owner, next_look);

-- Ends the backlogs of these endpoints that `process` owns and that are empty. Returns the endpoints whose backlog it does not
-- own any more.
--
-- Each statement that queues a delivery holds its backlog's row FOR KEY SHARE until it commits. FOR UPDATE waits for none
-- of them (SKIP LOCKED): a row that is held is not empty. The second look has a snapshot of its own, behind the locks.
CREATE FUNCTION end_backlogs(process uuid, endpoints uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    locked uuid[];
BEGIN
    SELECT array_agg(endpoint_id) INTO locked FROM (
        SELECT endpoint_id FROM endpoint_backlogs WHERE endpoint_id = ANY (endpoints) AND owner = process
        ORDER BY endpoint_id FOR UPDATE SKIP LOCKED) rows;
    DELETE FROM endpoint_backlogs b WHERE b.endpoint_id = ANY (locked)
        AND NOT EXISTS (SELECT FROM open_deliveries o WHERE o.endpoint_id = b.endpoint_id AND o.state = 'queued');
    RETURN QUERY SELECT e FROM unnest(endpoints) AS e WHERE NOT EXISTS (
        SELECT FROM endpoint_backlogs b WHERE b.endpoint_id = e AND b.owner = process);
END $$;

-- The processes that run.
CREATE TABLE processes (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('dispatcher', 'ingest')),
    started_at  timestamptz NOT NULL DEFAULT now(),
    -- A process that does not renew this is declared dead by another one, which then releases what it owns.
    alive_until timestamptz NOT NULL,
    is_dead     boolean NOT NULL DEFAULT false,
    -- Dispatchers: free places for attempts.
    free_places integer NOT NULL DEFAULT 0,
    version     text NOT NULL,
    -- A digest of each setting that all processes must agree on, as a JSON object.
    settings    text NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- Finished deliveries, partitioned by ranges of the id, which begins with the moment of acceptance. A row is inserted once,
-- when the delivery ends. A late 2xx, or the end of a resend, changes it.
CREATE TABLE deliveries (
    application_id   uuid NOT NULL,
    id               uuid NOT NULL,
    event_id         uuid NOT NULL,
    endpoint_id      uuid NOT NULL,
    state            text NOT NULL CHECK (state IN ('delivered', 'failed', 'skipped')),
    reason           text,
    -- The highest number of an attempt that was made; 0 for none.
    attempt          integer NOT NULL,
    failures         integer NOT NULL,
    finished_at      timestamptz NOT NULL DEFAULT now(),
    replay_id        uuid,
    -- Attempt 1, where it succeeded within 10 s of acceptance. `attempts` then has no row of it.
    url              text,
    started_at       timestamptz,
    duration_ms      integer,
    status           integer,
    response_headers text,
    response_body    bytea,
    PRIMARY KEY (application_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, id DESC);
-- Successes, by far the most rows, are in neither.
CREATE INDEX deliveries_by_state ON deliveries (application_id, state, id DESC) WHERE state <> 'delivered';
CREATE INDEX deliveries_of_endpoint_by_state ON deliveries (endpoint_id, state, id DESC) WHERE state <> 'delivered';

-- Attempts, partitioned by ranges of the delivery's id. Successes of attempt 1 are inline in `deliveries`.
CREATE TABLE attempts (
    delivery_id      uuid NOT NULL,
    attempt          integer NOT NULL,
    event_id         uuid NOT NULL,
    application_id   uuid NOT NULL,
    endpoint_id      uuid NOT NULL,
    -- NULL where the process that sent it died.
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
    PRIMARY KEY (delivery_id, attempt)
) PARTITION BY RANGE (delivery_id);
CREATE INDEX attempts_of_endpoint ON attempts (endpoint_id, started_at DESC);
CREATE INDEX attempts_of_application ON attempts (application_id, started_at DESC);

-- The moment of acceptance that a delivery's id begins with.
CREATE FUNCTION delivery_accepted_at(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || substr(encode(uuid_send(id), 'hex'), 1, 12))::bit(48)::bigint / 1000.0)
$$;

-- The line of retention. What was accepted before it is being dropped: nothing below is opened any more.
CREATE TABLE retention (
    line timestamptz NOT NULL
);
INSERT INTO retention VALUES ('-infinity');

-- Replays. A job walks past events in the order of their acceptance. The cursor moves in the commit that queues the
-- deliveries.
CREATE TABLE replays (
    id              uuid PRIMARY KEY,
    application_id  uuid NOT NULL REFERENCES applications,
    -- NULL for all.
    endpoint_id     uuid,
    -- Types and wildcards; none for all.
    event_types     text[] NOT NULL,
    -- The states of deliveries to send again, and `unmatched` for deliveries that never existed.
    states          text[] NOT NULL,
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    rate_per_second integer NOT NULL CHECK (rate_per_second BETWEEN 1 AND 1000),
    state           text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
    -- The cursor: the last event that was processed.
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

-- Failed deliveries whose owner gets a mail. A row goes once the mail server took the mail.
CREATE TABLE failure_notices (
    delivery_id    uuid NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    failed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, delivery_id)
);
CREATE INDEX failure_notices_by_time ON failure_notices (failed_at);

-- The last mail to each recipient. It delays the next one, which reports all failures since.
CREATE TABLE mailed (
    address text PRIMARY KEY,
    last_at timestamptz NOT NULL
);

-- Messages that could not be read. A table, since a look into a queue moves its messages.
CREATE TABLE parked (
    id          uuid PRIMARY KEY,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    message     text NOT NULL,
    -- The exchange that the message is put back into.
    origin      text CHECK (origin IN ('events', 'deliveries')),
    routing_key text,
    message_id  text,
    -- The headers that are kept, as JSON.
    headers     text NOT NULL,
    body        bytea NOT NULL
);

CREATE TABLE audit_log (
    -- Version 7: sorts by the time of the request.
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT now(),
    -- The application concerned, where it is one.
    application_id uuid,
    -- The key of the API; NULL for the command `fanfare` and for Fanfare itself.
    key_id         uuid,
    -- An address, or user and host of the command.
    origin         text NOT NULL,
    -- The operation in the API's description, or the command.
    action         text NOT NULL,
    path           text,
    -- The request as JSON, without secrets.
    request        text,
    -- The ids of the objects changed, separated by spaces.
    subject        text,
    -- NULL until the request was answered, and for ever where the process died before.
    outcome        text CHECK (outcome IN ('done', 'refused', 'failed'))
);
CREATE INDEX audit_log_of_application ON audit_log (application_id, id DESC);

-- The log is append-only: an entry gets its outcome once, and may be deleted after 90 days, never before.
CREATE FUNCTION keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '90 days' THEN
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.outcome IS NULL AND NEW.outcome IS NOT NULL
       AND (OLD.application_id IS NULL OR NEW.application_id = OLD.application_id)
       AND (to_jsonb(NEW) - 'outcome' - 'subject' - 'application_id')
         = (to_jsonb(OLD) - 'outcome' - 'subject' - 'application_id') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log is only appended to' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION keep_audit_log();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_log();
