-- Rollups: counts of attempts and events, for charts. The job `rollups` writes the rows from `attempts`, `deliveries`
-- and `events`; the stages of an event's way write none.

-- First, as the stages lock `events` before `attempts`: another order causes deadlocks with running processes.
LOCK TABLE ONLY events IN SHARE MODE;

-- Written with the attempt, since the rules of the dialect are known then.
ALTER TABLE attempts
    -- True if the dialect took the answer for a success.
    ADD COLUMN taken   boolean NOT NULL DEFAULT false,
    -- True for a delivery of a test event. Charts count the attempts of publishers' events only.
    ADD COLUMN is_test boolean NOT NULL DEFAULT false;

-- The last mail to an owner that reported a failure of the delivery. Such a mail changes the finished row.
ALTER TABLE deliveries
    ADD COLUMN mailed_at timestamptz,
    ADD COLUMN mailed_to text;

-- The moment of acceptance at the beginning of a delivery's id, without `numeric`: a third of the time. The rollups
-- call the function for each attempt.
CREATE OR REPLACE FUNCTION delivery_accepted_at(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || encode(substr(uuid_send(id), 1, 6), 'hex'))::bit(48)::bigint / 1000::float8)
$$;

-- Counts of five minutes, partitioned by day and kept for two days.
CREATE TABLE rollups (
    -- Endpoint, application, or the nil id for the whole deployment.
    subject       uuid NOT NULL,
    -- Beginning of the time that the row counts. An attempt counts at its start, an event at its acceptance.
    at            timestamptz NOT NULL,
    -- 0: the whole deployment, 1: an application, 2: an endpoint.
    kind          smallint NOT NULL,
    -- Attempts by result: taken, failed by status, and failed without a response. `unknown`: the process died. `other`:
    -- a response that is not HTTP, or that the dialect refuses, or a request that cannot be made.
    taken         integer NOT NULL,
    failed_3xx    integer NOT NULL,
    failed_4xx    integer NOT NULL,
    failed_5xx    integer NOT NULL,
    timed_out     integer NOT NULL,
    no_connection integer NOT NULL,
    tls_failed    integer NOT NULL,
    forbidden     integer NOT NULL,
    unknown       integer NOT NULL,
    other         integer NOT NULL,
    -- Events and events without a matching endpoint; 0 in the rows of endpoints.
    events        integer NOT NULL,
    unmatched     integer NOT NULL,
    -- Buckets of durations, and of times from acceptance to the first attempt. fanfare_domain::diagnosis::rollup has
    -- the bounds.
    d0 integer NOT NULL, d1 integer NOT NULL, d2 integer NOT NULL, d3 integer NOT NULL, d4 integer NOT NULL, d5 integer NOT NULL, d6 integer NOT NULL,
    d7 integer NOT NULL, d8 integer NOT NULL, d9 integer NOT NULL, d10 integer NOT NULL, d11 integer NOT NULL, d12 integer NOT NULL, d13 integer NOT NULL,
    l0 integer NOT NULL, l1 integer NOT NULL, l2 integer NOT NULL, l3 integer NOT NULL, l4 integer NOT NULL, l5 integer NOT NULL, l6 integer NOT NULL,
    l7 integer NOT NULL, l8 integer NOT NULL, l9 integer NOT NULL, l10 integer NOT NULL, l11 integer NOT NULL, l12 integer NOT NULL, l13 integer NOT NULL,
    PRIMARY KEY (subject, at)
) PARTITION BY RANGE (at);
-- Finds the loudest applications.
CREATE INDEX rollups_of_applications ON rollups (at) WHERE kind = 1;

-- Finds the failing endpoints.
CREATE INDEX rollups_of_failing ON rollups (at) WHERE kind = 2 AND taken = 0;

-- Counts of an hour, partitioned by day and kept as long as events.
CREATE TABLE rollups_hourly (
    LIKE rollups,
    PRIMARY KEY (subject, at)
) PARTITION BY RANGE (at);

-- Progress of the job: a single row. A statement that counts moves the mark in the same commit, so that each minute
-- counts once.
CREATE TABLE rollup_marks (
    -- End of the counted minutes.
    counted timestamptz NOT NULL,
    -- End of the hours with a row in `rollups_hourly`: each was counted anew an hour after its end.
    hourly  timestamptz NOT NULL,
    -- End of the hours that were counted anew a day after their end.
    final   timestamptz NOT NULL
);
INSERT INTO rollup_marks
    SELECT date_trunc('minute', now()), date_trunc('hour', now()), date_trunc('hour', now());

-- State of each process, written with every heartbeat.
ALTER TABLE processes
    ADD COLUMN host              text,
    ADD COLUMN seen_at           timestamptz,
    -- Events and attempts in the last 10 s; of ingest, events published over HTTP.
    ADD COLUMN events            integer NOT NULL DEFAULT 0,
    ADD COLUMN attempts          integer NOT NULL DEFAULT 0,
    -- Places in use and in total, and bytes of their payloads. An attempt in flight has a place.
    ADD COLUMN places_used       integer NOT NULL DEFAULT 0,
    ADD COLUMN places            integer NOT NULL DEFAULT 0,
    ADD COLUMN bytes_used        bigint NOT NULL DEFAULT 0,
    ADD COLUMN bytes             bigint NOT NULL DEFAULT 0,
    -- Lanes of slow endpoints, and lanes with an open breaker.
    ADD COLUMN lanes_slow        integer NOT NULL DEFAULT 0,
    ADD COLUMN lanes_open        integer NOT NULL DEFAULT 0,
    -- Owned backlogs; backlogs that wait for a place, their deliveries (counted up to 1,000 each), and the longest
    -- wait.
    ADD COLUMN backlogs          integer NOT NULL DEFAULT 0,
    ADD COLUMN backlogs_waiting  integer NOT NULL DEFAULT 0,
    ADD COLUMN due               bigint NOT NULL DEFAULT 0,
    ADD COLUMN longest_wait_ms   bigint NOT NULL DEFAULT 0,
    -- Un-acked messages of the queues `events` and `deliveries`.
    ADD COLUMN events_in_hand    integer NOT NULL DEFAULT 0,
    ADD COLUMN retries_in_hand   integer NOT NULL DEFAULT 0,
    ADD COLUMN has_broker        boolean NOT NULL DEFAULT true,
    ADD COLUMN has_database      boolean NOT NULL DEFAULT true,
    -- Sum of the versions of all applications in the loaded configuration.
    ADD COLUMN configuration     bigint NOT NULL DEFAULT 0,
    -- Deviation of the machine's clock from the database's.
    ADD COLUMN clock_offset_ms   bigint NOT NULL DEFAULT 0,
    -- Bounds on the held deliveries of an endpoint; NULL for ingest.
    ADD COLUMN max_held          bigint,
    ADD COLUMN max_held_age_s    bigint;

-- Depths of the broker's queues by the minute, kept for a day. The dispatchers look in turn, every 10 s.
CREATE TABLE queue_depths (
    queue     text NOT NULL,
    at        timestamptz NOT NULL,
    ready     bigint NOT NULL,
    consumers bigint NOT NULL,
    looked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, at)
);

-- The last run of each job, written at most every 10 s unless the outcome changes.
CREATE TABLE job_runs (
    job          text PRIMARY KEY,
    process_id   uuid NOT NULL,
    ended_at     timestamptz NOT NULL DEFAULT now(),
    duration_ms  bigint NOT NULL,
    -- Message of the error; NULL after a success.
    error        text,
    succeeded_at timestamptz
);

-- Finds the rotations of secrets that end soon.
CREATE INDEX endpoint_secrets_by_end ON endpoint_secrets (expires_at) WHERE expires_at IS NOT NULL;

-- Read by the job: the attempts and events of a minute, from the pages of that time. A row enters a range of pages, and
-- changes the index only with the first row of a range.
CREATE INDEX deliveries_by_start ON ONLY deliveries USING brin (started_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX attempts_by_start ON ONLY attempts USING brin (started_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX events_by_acceptance ON ONLY events USING brin (accepted_at) WITH (pages_per_range = 32, autosummarize = on);
