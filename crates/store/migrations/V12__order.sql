-- Order: events with an ordering key get consecutive numbers at each endpoint, and may wait for the event before.

ALTER TABLE events ADD COLUMN ordering_key text;

-- FIFO per ordering key: block, park, or skip:N; NULL for deliveries at the same time.
ALTER TABLE endpoints ADD COLUMN fifo text CHECK (fifo ~ '^(block|park|skip:[1-9][0-9]{0,2})$');

-- The last number of each endpoint and ordering key. Kept as long as the endpoint: receivers remember the numbers.
CREATE TABLE ordering_keys (
    endpoint_id uuid NOT NULL,
    key         text NOT NULL,
    last        bigint NOT NULL,
    -- FIFO: time at which a given-up delivery parked the key, and the delivery.
    parked_at   timestamptz,
    parked_by   uuid,
    PRIMARY KEY (endpoint_id, key)
) WITH (fillfactor = 80);
CREATE INDEX parked_keys ON ordering_keys (endpoint_id, key) WHERE parked_at IS NOT NULL;

-- Numbers of deliveries, partitioned as deliveries are. Written once, with the delivery. A table of its own: other
-- deliveries have no row, and no statement that moves a delivery moves the number.
CREATE TABLE delivery_sequences (
    -- Id of the delivery.
    id       uuid PRIMARY KEY,
    sequence bigint NOT NULL
) PARTITION BY RANGE (id);

-- FIFO: key and number of an open delivery that has a place in the order of its endpoint and key. Such a delivery
-- begins queued, in class 2, which no drain leases. The first of its key goes to class 0 (`advance_keys`).
ALTER TABLE open_deliveries ADD COLUMN ordering_key text, ADD COLUMN sequence bigint;
CREATE INDEX open_in_order ON open_deliveries (endpoint_id, ordering_key, sequence) WHERE ordering_key IS NOT NULL;

-- Work list of `advance_keys`: keys whose first delivery may have changed. A commit that opens, ends or fails a
-- delivery with a place in an order adds a row, and locks nothing.
CREATE TABLE ordering_signals (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id uuid NOT NULL,
    key         text NOT NULL,
    -- The ended delivery, if its turn had come.
    delivery_id uuid,
    added_at    timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX signals_of_key ON ordering_signals (endpoint_id, key) WHERE delivery_id IS NOT NULL;

CREATE FUNCTION signal_end_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ordering_signals (endpoint_id, key, delivery_id)
    VALUES (OLD.endpoint_id, OLD.ordering_key, CASE WHEN OLD.class < 2 THEN OLD.id END);
    RETURN NULL;
END $$;
CREATE TRIGGER end_in_order AFTER DELETE ON open_deliveries FOR EACH ROW WHEN (OLD.ordering_key IS NOT NULL)
    EXECUTE FUNCTION signal_end_in_order();

-- Takes up to `most` signals, and moves the deliveries whose turn has come from class 2 into their endpoint's backlog:
-- the first of each key. At endpoints without FIFO, disabled or deleted, all: at most 1000 in a call, with signals for
-- the rest. Returns the number of signals, with the backlogs.
--
-- Each statement has a snapshot of its own, behind the locks of the keys. Persist numbers deliveries under the same
-- locks: no delivery with a smaller number becomes visible later. Locks: keys, then deliveries without a wait, then
-- backlogs.
CREATE FUNCTION advance_keys(process uuid, most integer)
    RETURNS TABLE (signals integer, endpoint_id uuid, application_id uuid, owner uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    count     integer;
    endpoints uuid[];
    keys      text[];
    -- Ended deliveries, with their endpoints and keys.
    ended     uuid[];
    ended_at  uuid[];
    ended_key text[];
    moved     uuid[];
    locked    uuid[];
BEGIN
    WITH taken AS (
        DELETE FROM ordering_signals s WHERE s.id = ANY (ARRAY(
            SELECT n.id FROM ordering_signals n ORDER BY n.id LIMIT most FOR UPDATE SKIP LOCKED))
        RETURNING s.endpoint_id, s.key, s.delivery_id
    ), named AS (
        SELECT array_agg(t.endpoint_id) AS e, array_agg(t.key) AS k FROM (SELECT DISTINCT endpoint_id, key FROM taken) t
    )
    SELECT (SELECT count(*) FROM taken), named.e, named.k, over.id, over.e, over.k
        INTO count, endpoints, keys, ended, ended_at, ended_key
        FROM named, (SELECT array_agg(t.delivery_id) AS id, array_agg(t.endpoint_id) AS e, array_agg(t.key) AS k
                     FROM taken t WHERE t.delivery_id IS NOT NULL) over;
    IF count = 0 THEN
        RETURN;
    END IF;

    PERFORM FROM ordering_keys k WHERE (k.endpoint_id, k.key) IN (SELECT u.e, u.k FROM unnest(endpoints, keys) AS u(e, k))
        ORDER BY k.endpoint_id, k.key FOR NO KEY UPDATE;

    -- Ends the marks that no longer hold, and parks the keys of given-up deliveries. The ids begin with the moment of
    -- acceptance: only the partition of the day is read.
    UPDATE ordering_keys k SET parked_at = NULL, parked_by = NULL
        FROM unnest(endpoints, keys) AS u(e, k) JOIN endpoints p ON p.id = u.e
        WHERE k.endpoint_id = u.e AND k.key = u.k AND k.parked_at IS NOT NULL
          AND (p.fifo IS DISTINCT FROM 'park' OR p.status = 'disabled' OR p.deleted_at IS NOT NULL);
    UPDATE ordering_keys k SET parked_at = now(), parked_by = u.d
        FROM unnest(ended_at, ended_key, ended) AS u(e, k, d) JOIN endpoints p ON p.id = u.e
        WHERE k.endpoint_id = u.e AND k.key = u.k AND k.parked_at IS NULL
          AND p.fifo = 'park' AND p.status <> 'disabled' AND p.deleted_at IS NULL
          AND EXISTS (SELECT FROM deliveries d WHERE d.application_id = p.application_id AND d.id = u.d AND d.state = 'failed'
                      AND d.reason NOT IN ('erased', 'endpoint_gone', 'held_too_long', 'too_many_held',
                                           'stopped_by_receiver', 'disabled_by_receiver'));

    -- A delivery that has failed often enough leaves the order. A locked row comes back with its next failed attempt.
    WITH leaving AS MATERIALIZED (
        SELECT n.id FROM unnest(endpoints, keys) AS u(e, k) JOIN endpoints p ON p.id = u.e AND p.fifo LIKE 'skip:%'
        CROSS JOIN LATERAL (
            SELECT o.id, o.state, o.failures FROM open_deliveries o
            WHERE o.endpoint_id = u.e AND o.ordering_key = u.k ORDER BY o.sequence LIMIT 1) n
        WHERE n.state = 'scheduled' AND n.failures >= substr(p.fifo, 6)::integer
    ), free AS MATERIALIZED (
        SELECT o.id, o.endpoint_id, o.ordering_key FROM open_deliveries o
        WHERE o.id = ANY (ARRAY(SELECT id FROM leaving)) AND o.state || '' = 'scheduled' ORDER BY o.id
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        UPDATE open_deliveries SET ordering_key = NULL WHERE id = ANY (ARRAY(SELECT id FROM free))
    )
    -- The delivery behind may have failed as often.
    INSERT INTO ordering_signals (endpoint_id, key) SELECT f.endpoint_id, f.ordering_key FROM free f;

    -- A key with a further ended delivery waits for the signal's call, which may park the key: both are in this
    -- snapshot.
    SELECT array_agg(n.id) INTO moved FROM (
        SELECT first.id FROM unnest(endpoints, keys) AS u(e, k)
        JOIN endpoints p ON p.id = u.e AND p.fifo IS NOT NULL AND p.status <> 'disabled' AND p.deleted_at IS NULL
        JOIN ordering_keys k ON k.endpoint_id = u.e AND k.key = u.k AND k.parked_at IS NULL
        CROSS JOIN LATERAL (
            SELECT o.id, o.class FROM open_deliveries o WHERE o.endpoint_id = u.e AND o.ordering_key = u.k
            ORDER BY o.sequence LIMIT 1) first
        WHERE first.class = 2
          AND NOT (p.fifo = 'park' AND EXISTS (
                  SELECT FROM ordering_signals s WHERE s.endpoint_id = u.e AND s.key = u.k AND s.delivery_id IS NOT NULL))
        UNION ALL
        (SELECT every.id FROM unnest(endpoints, keys) AS u(e, k)
         JOIN endpoints p ON p.id = u.e AND (p.fifo IS NULL OR p.status = 'disabled' OR p.deleted_at IS NOT NULL)
         CROSS JOIN LATERAL (
             SELECT o.id FROM open_deliveries o
             WHERE o.endpoint_id = u.e AND o.ordering_key = u.k AND o.class = 2 ORDER BY o.sequence LIMIT 1000) every
         LIMIT 1000)) n;
    SELECT array_agg(o.id) INTO locked FROM (
        SELECT o.id FROM open_deliveries o WHERE o.id = ANY (moved) AND o.class = 2 ORDER BY o.id
        FOR UPDATE SKIP LOCKED) o;

    -- The next call comes for the deliveries beyond the bound, and for locked rows: their lock may end without effect.
    INSERT INTO ordering_signals (endpoint_id, key)
        SELECT DISTINCT o.endpoint_id, o.ordering_key FROM open_deliveries o
        WHERE o.id = ANY (moved) AND o.id <> ALL (coalesce(locked, '{}')) AND o.class = 2
        UNION
        SELECT u.e, u.k FROM unnest(endpoints, keys) AS u(e, k) WHERE cardinality(moved) >= 1000;

    RETURN QUERY WITH queued AS (
        -- The wait behind other deliveries is no part of the lifetime.
        UPDATE open_deliveries o
        SET class = 0, since = now(), expires_at = greatest(o.expires_at, now() + (o.expires_at - o.since))
        WHERE o.id = ANY (locked)
        RETURNING o.endpoint_id, o.application_id
    ), held AS MATERIALIZED (
        SELECT b.endpoint_id, b.application_id, b.owner FROM endpoint_backlogs b
        WHERE b.endpoint_id IN (SELECT q.endpoint_id FROM queued q) ORDER BY b.endpoint_id FOR KEY SHARE
    ), created AS (
        INSERT INTO endpoint_backlogs AS b (endpoint_id, application_id, owner, reason)
        SELECT DISTINCT ON (q.endpoint_id) q.endpoint_id, q.application_id, process, 'backlog'
        FROM queued q WHERE q.endpoint_id NOT IN (SELECT h.endpoint_id FROM held h) ORDER BY q.endpoint_id
        ON CONFLICT ON CONSTRAINT endpoint_backlogs_pkey DO UPDATE SET application_id = excluded.application_id
        RETURNING b.endpoint_id, b.application_id, b.owner
    )
    SELECT count, NULL::uuid, NULL::uuid, NULL::uuid
    UNION ALL SELECT 0, t.endpoint_id, t.application_id, t.owner FROM (SELECT * FROM held UNION ALL SELECT * FROM created) t;
END $$;

-- As in V1, without the deliveries that wait for the delivery before: they need no drain.
CREATE OR REPLACE FUNCTION end_backlogs(process uuid, endpoints uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    locked uuid[];
BEGIN
    SELECT array_agg(endpoint_id) INTO locked FROM (
        -- Locks no backlog with a delivery: a persist that queues would wait.
        SELECT b.endpoint_id FROM endpoint_backlogs b WHERE b.endpoint_id = ANY (endpoints) AND b.owner = process
            AND NOT EXISTS (SELECT FROM open_deliveries o WHERE o.endpoint_id = b.endpoint_id AND o.state = 'queued'
                                                            AND o.class < 2)
        ORDER BY b.endpoint_id FOR UPDATE SKIP LOCKED) rows;
    DELETE FROM endpoint_backlogs b WHERE b.endpoint_id = ANY (locked)
        AND NOT EXISTS (SELECT FROM open_deliveries o WHERE o.endpoint_id = b.endpoint_id AND o.state = 'queued'
                                                        AND o.class < 2);
    RETURN QUERY SELECT e FROM unnest(endpoints) AS e WHERE NOT EXISTS (
        SELECT FROM endpoint_backlogs b WHERE b.endpoint_id = e AND b.owner = process);
END $$;
