-- Feeds: receivers read their deliveries beside the POSTs, or instead of them.

-- none: deliveries are sent. copy: deliveries are sent and listed. only: deliveries are listed, and never sent.
ALTER TABLE endpoints ADD COLUMN feed text NOT NULL DEFAULT 'none' CHECK (feed IN ('none', 'copy', 'only'));

-- Deletion of a temporary endpoint. Each read of the feed defers the time.
ALTER TABLE endpoints ADD COLUMN expires_at timestamptz;
CREATE INDEX endpoints_by_expiry ON endpoints (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- Entries of feeds, partitioned as deliveries are.
CREATE TABLE feed_entries (
    endpoint_id    uuid NOT NULL,
    -- Transaction of the entry. Readers stop before the oldest running transaction: no later commit has a smaller
    -- number.
    written        bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    -- Id of the delivery.
    id             uuid NOT NULL,
    application_id uuid NOT NULL,
    event_id       uuid NOT NULL,
    PRIMARY KEY (endpoint_id, written, id)
) PARTITION BY RANGE (id);
