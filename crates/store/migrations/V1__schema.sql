-- The configuration: applications, keys, endpoints.

CREATE TABLE applications (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    -- Grows with each change of the application or its endpoints. The services compare their copy by the version.
    version      bigint NOT NULL DEFAULT 1,
    dialect      text NOT NULL DEFAULT 'incenta',
    -- Refuses events of undescribed types, and subscriptions to undescribed types.
    strict       boolean NOT NULL DEFAULT false,
    -- Receives failure mails of endpoints without an own address.
    email        text,
    -- Events a second over HTTP, at each ingest; NULL for the deployment's limit.
    publish_rate integer CHECK (publish_rate BETWEEN 1 AND 1000000),
    -- Paths of redacted members: `password`, `card.number`.
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
    -- NULL for a key without an expiry.
    expires_at     timestamptz,
    CHECK ((role = 'admin') = (application_id IS NULL))
);

-- Separate from api_keys: each change of api_keys makes all processes read all keys.
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
    -- Reason of a status set by the service itself.
    status_reason      text,
    -- Deadline of an attempt; NULL for the dialect's.
    timeout_ms         integer CHECK (timeout_ms BETWEEN 100 AND 60000),
    -- Waits after each failed attempt; NULL for the dialect's.
    schedule           text[],
    -- Attempts a second, in all processes together; NULL for the dialect's.
    rate_per_second    integer CHECK (rate_per_second BETWEEN 1 AND 10000),
    -- Receives failure mails; NULL for the application's address.
    email              text,
    header_names       text[] NOT NULL DEFAULT '{}',
    -- Values of the headers, encrypted, as a JSON object.
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
    -- Encrypted with the keyring's key of this name; the row's own ids are the associated data.
    key_name    text NOT NULL,
    ciphertext  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Signs until this time; NULL for the current secret.
    expires_at  timestamptz
);
CREATE INDEX endpoint_secrets_of_endpoint ON endpoint_secrets (endpoint_id);

-- Event types described by an application, beside the event types of its dialect.
CREATE TABLE event_types (
    application_id uuid NOT NULL REFERENCES applications,
    name           text NOT NULL,
    category       text,
    description    text,
    -- Data of a test event, as JSON text.
    sample         text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (application_id, name)
);

-- A change of the configuration raises the application's version and notifies the services. The next poll of versions
-- finds the change of a lost notice.

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

-- Events, partitioned by the day (UTC) of acceptance. The moment of acceptance is set once, in whole milliseconds.

-- Keys of events whose id is derived from a publisher's key. A partition holds a month, by the clock of the inserting
-- statement. The moment of acceptance does not decide: each copy of a message has its own moment.
CREATE TABLE event_keys (
    -- Unique in each partition, by an index.
    event_id    uuid NOT NULL,
    month       date NOT NULL,
    accepted_at timestamptz NOT NULL
) PARTITION BY LIST (month);

CREATE TABLE events (
    id              uuid NOT NULL,
    accepted_at     timestamptz NOT NULL,
    application_id  uuid NOT NULL,
    type            text NOT NULL,
    -- The publisher's id of the event.
    key             text,
    -- The publisher's time of the event.
    occurred_at     timestamptz,
    -- Rendered payload. Text and not jsonb, which reorders keys and breaks signatures.
    body            text NOT NULL,
    -- Number of endpoints that matched.
    matches         integer NOT NULL,
    traceparent     text NOT NULL,
    -- SHA-256 of type and data, cut to 16 bytes. Detects a key used for two different events.
    content         bytea,
    is_test         boolean NOT NULL DEFAULT false,
    -- Encrypted payload, if `body` lacks the values of redacted members.
    body_key_name   text,
    body_ciphertext bytea,
    -- Time of erasure; the content is gone since.
    erased_at       timestamptz,
    PRIMARY KEY (application_id, accepted_at, id)
) PARTITION BY RANGE (accepted_at);
-- Finds the events to re-encrypt.
CREATE INDEX events_sealed ON events (body_key_name) WHERE body_key_name IS NOT NULL;

-- Fan-outs: events with many endpoints whose deliveries are still being inserted.
CREATE TABLE fan_outs (
    event_id       uuid PRIMARY KEY,
    application_id uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    -- Last endpoint whose delivery was inserted. A fan-out walks the endpoints in the order of ids.
    mark           uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- Process that inserts the deliveries; NULL if unowned.
    owner          uuid
);

-- Open deliveries: the work list, narrow and not partitioned.
CREATE TABLE open_deliveries (
    -- Derived from the moment of acceptance, the event and the endpoint: thereby also the unique (event, endpoint).
    id             uuid PRIMARY KEY,
    event_id       uuid NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    -- sending: leased by a process. scheduled: waiting for the retry time. queued: the endpoint cannot take the
    -- delivery now.
    state          text NOT NULL CHECK (state IN ('sending', 'scheduled', 'queued')),
    -- queued: reason of the wait.
    reason         text,
    -- Order in a backlog: 0 before 1 (replays).
    class          smallint NOT NULL DEFAULT 0,
    -- True if lists show the row. A row that is sent at once is not listed until its attempt is slow: the index costs.
    listed         boolean NOT NULL,
    -- True if `deliveries` has a row: the delivery had finished and was requested again.
    finished_once  boolean NOT NULL DEFAULT false,
    -- Number of the current or next attempt.
    attempt        integer NOT NULL DEFAULT 1,
    -- Failed attempts caused by the endpoint: the place in the schedule.
    failures       integer NOT NULL DEFAULT 0,
    -- Consecutive attempts whose process died.
    unknowns       integer NOT NULL DEFAULT 0,
    -- Beginning of the state.
    since          timestamptz NOT NULL DEFAULT now(),
    -- sending: lease that may record the outcome, and its end.
    lease_id       uuid,
    lease_until    timestamptz,
    -- scheduled: due time of the next attempt.
    due_at         timestamptz,
    -- Time at which the delivery fails as expired. A pause of the endpoint defers the expiry.
    expires_at     timestamptz NOT NULL,
    -- Replay that requested the delivery last.
    replay_id      uuid
);
CREATE INDEX open_leases ON open_deliveries (lease_until) WHERE state = 'sending';
CREATE INDEX open_due ON open_deliveries (due_at) WHERE state = 'scheduled';
CREATE INDEX open_backlog ON open_deliveries (endpoint_id, class, id) WHERE state = 'queued';
CREATE INDEX open_listed ON open_deliveries (application_id, id DESC) WHERE listed;
CREATE INDEX open_listed_of_endpoint ON open_deliveries (endpoint_id, id DESC) WHERE listed;
CREATE INDEX open_of_replay ON open_deliveries (replay_id) WHERE replay_id IS NOT NULL;
-- Suspects: deliveries that are leased alone, as processes died with them.
CREATE INDEX open_suspects ON open_deliveries (id) WHERE unknowns >= 2;

-- A row for each endpoint with queued deliveries. Statements write the row when the backlog is created, changes its
-- owner, is probed or ends, and never once per delivery.
CREATE TABLE endpoint_backlogs (
    endpoint_id    uuid PRIMARY KEY,
    application_id uuid NOT NULL,
    -- Dispatcher that drains the backlog; NULL if unowned.
    owner          uuid,
    -- An unowned backlog may be taken over from this time on. Never more than 5 minutes ahead.
    next_look      timestamptz NOT NULL DEFAULT now(),
    reason         text NOT NULL,
    since          timestamptz NOT NULL DEFAULT now(),
    -- Breaker: consecutive failures, and the time of the next probe while the breaker is open.
    failures       integer NOT NULL DEFAULT 0,
    next_probe     timestamptz,
    -- The owner found the backlog empty and could not end it, since other deliveries were being queued. First attempts
    -- then pass beside the backlog, so that it ends.
    is_ending      boolean NOT NULL DEFAULT false,
    -- Last resumption of the endpoint. Deliveries queued before have their whole lifetime again from this time on.
    resumed_at     timestamptz
);
CREATE INDEX backlogs_by_owner ON endpoint_backlogs (owner, next_look);

-- Ends the empty backlogs of `process` among `endpoints`. Returns the endpoints whose backlog `process` no longer owns.
--
-- Each statement that queues a delivery holds its backlog's row FOR KEY SHARE until the commit. FOR UPDATE waits for
-- none of these statements (SKIP LOCKED): the backlog of a locked row is not empty. The DELETE has a snapshot of its
-- own, behind the locks.
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

-- Running processes.
CREATE TABLE processes (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('dispatcher', 'ingest')),
    started_at  timestamptz NOT NULL DEFAULT now(),
    -- Another process declares a process dead that does not renew this time, and then releases its backlogs and
    -- fan-outs.
    alive_until timestamptz NOT NULL,
    is_dead     boolean NOT NULL DEFAULT false,
    -- Free places of a dispatcher for attempts.
    free_places integer NOT NULL DEFAULT 0,
    version     text NOT NULL,
    -- Digest of each setting on which all processes must agree, as a JSON object.
    settings    text NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- Finished deliveries, partitioned by ranges of the id, which begins with the moment of acceptance. A delivery's end
-- inserts the row once. Only a late 2xx, an erasure, or the end of a resend or replay changes the row.
CREATE TABLE deliveries (
    application_id   uuid NOT NULL,
    id               uuid NOT NULL,
    event_id         uuid NOT NULL,
    endpoint_id      uuid NOT NULL,
    state            text NOT NULL CHECK (state IN ('delivered', 'failed', 'skipped')),
    reason           text,
    -- Highest number of an attempt made; 0 for none.
    attempt          integer NOT NULL,
    failures         integer NOT NULL,
    finished_at      timestamptz NOT NULL DEFAULT now(),
    replay_id        uuid,
    -- Attempt 1, if it succeeded within 10 s of acceptance. `attempts` then has no row of this attempt.
    url              text,
    started_at       timestamptz,
    duration_ms      integer,
    status           integer,
    response_headers text,
    response_body    bytea,
    PRIMARY KEY (application_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint_id, id DESC);
-- Both leave out successes, by far the most rows.
CREATE INDEX deliveries_by_state ON deliveries (application_id, state, id DESC) WHERE state <> 'delivered';
CREATE INDEX deliveries_of_endpoint_by_state ON deliveries (endpoint_id, state, id DESC) WHERE state <> 'delivered';

-- Attempts, partitioned by ranges of the delivery's id. Prompt successes of attempt 1 are inline in `deliveries`.
CREATE TABLE attempts (
    delivery_id      uuid NOT NULL,
    attempt          integer NOT NULL,
    event_id         uuid NOT NULL,
    application_id   uuid NOT NULL,
    endpoint_id      uuid NOT NULL,
    -- NULL if the sending process died.
    url              text,
    started_at       timestamptz NOT NULL,
    duration_ms      integer,
    outcome          text NOT NULL,
    status           integer,
    error            text,
    -- Kept headers of the response, as a JSON object.
    response_headers text,
    response_body    bytea,
    next_due_at      timestamptz,
    PRIMARY KEY (delivery_id, attempt)
) PARTITION BY RANGE (delivery_id);
CREATE INDEX attempts_of_endpoint ON attempts (endpoint_id, started_at DESC);
CREATE INDEX attempts_of_application ON attempts (application_id, started_at DESC);

-- The moment of acceptance at the beginning of a delivery's id.
CREATE FUNCTION delivery_accepted_at(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || substr(encode(uuid_send(id), 'hex'), 1, 12))::bit(48)::bigint / 1000.0)
$$;

-- The line of retention. Events accepted before the line are being dropped, and nothing below the line is opened.
CREATE TABLE retention (
    line timestamptz NOT NULL
);
INSERT INTO retention VALUES ('-infinity');

-- Replays. A job walks past events in the order of acceptance. The cursor moves in the commit that queues the
-- deliveries.
CREATE TABLE replays (
    id              uuid PRIMARY KEY,
    application_id  uuid NOT NULL REFERENCES applications,
    -- NULL for all endpoints.
    endpoint_id     uuid,
    -- Types and wildcards; empty for all types.
    event_types     text[] NOT NULL,
    -- States of deliveries to send again, and `unmatched` for deliveries that never existed.
    states          text[] NOT NULL,
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    rate_per_second integer NOT NULL CHECK (rate_per_second BETWEEN 1 AND 1000),
    state           text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
    -- Cursor: the last processed event.
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

-- Failed deliveries to report to the endpoint's owner by mail. The row is deleted after the mail server has taken the
-- mail.
CREATE TABLE failure_notices (
    delivery_id    uuid NOT NULL,
    application_id uuid NOT NULL,
    endpoint_id    uuid NOT NULL,
    failed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, delivery_id)
);
CREATE INDEX failure_notices_by_time ON failure_notices (failed_at);

-- The last mail to each recipient. This time delays the next mail, which reports all failures since.
CREATE TABLE mailed (
    address text PRIMARY KEY,
    last_at timestamptz NOT NULL
);

-- Unreadable messages. A table, since a look into a queue moves its messages.
CREATE TABLE parked (
    id          uuid PRIMARY KEY,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    message     text NOT NULL,
    -- Exchange of a put-back.
    origin      text CHECK (origin IN ('events', 'deliveries')),
    routing_key text,
    message_id  text,
    -- Kept headers of the message, as a JSON object.
    headers     text NOT NULL,
    body        bytea NOT NULL
);

CREATE TABLE audit_log (
    -- UUID version 7: sorts by the time of the request.
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT now(),
    -- Application concerned, if the change is about a single application.
    application_id uuid,
    -- API key of the caller; NULL for the command `fanfare` and for Fanfare itself.
    key_id         uuid,
    -- Address of the caller, or user and host of the command.
    origin         text NOT NULL,
    -- Operation in the API's description, or the command.
    action         text NOT NULL,
    path           text,
    -- The request as JSON, without secrets.
    request        text,
    -- Ids of the changed objects, separated by spaces.
    subject        text,
    -- NULL until the answer, and for ever if the process died before.
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
