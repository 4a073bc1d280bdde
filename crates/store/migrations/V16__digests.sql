-- Daily digests of feeds: count and hash of the deliveries of a UTC day.

-- First day that the digests cover. NULL: no digests.
ALTER TABLE endpoints ADD COLUMN digest_from date;
CREATE INDEX endpoints_with_digest ON endpoints (id) WHERE digest_from IS NOT NULL AND deleted_at IS NULL;

-- The last told count of each day.
CREATE TABLE digests (
    endpoint_id uuid NOT NULL,
    day         date NOT NULL,
    -- Event that told the day first.
    event_id    uuid NOT NULL,
    deliveries  bigint NOT NULL,
    hash        bytea NOT NULL,
    -- All entries of the feed by earlier transactions are counted, and no others.
    counted_to  bigint NOT NULL,
    told_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, day)
);
