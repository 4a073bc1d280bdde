-- Order: events with an ordering key get consecutive numbers at each endpoint.

ALTER TABLE events ADD COLUMN ordering_key text;

-- The last number of each endpoint and ordering key. Kept as long as the endpoint: receivers remember the numbers.
CREATE TABLE ordering_keys (
    endpoint_id uuid NOT NULL,
    key         text NOT NULL,
    last        bigint NOT NULL,
    PRIMARY KEY (endpoint_id, key)
) WITH (fillfactor = 80);

-- Numbers of deliveries, partitioned as deliveries are. Written once, with the delivery. A table of its own: other
-- deliveries have no row, and no statement that moves a delivery moves the number.
CREATE TABLE delivery_sequences (
    -- Id of the delivery.
    id       uuid PRIMARY KEY,
    sequence bigint NOT NULL
) PARTITION BY RANGE (id);
