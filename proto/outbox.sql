-- The outbox of a publisher: insert a row in the transaction that makes the event happen. `fanfare relay` publishes the
-- rows in order, and deletes them. PostgreSQL 13 or later.

CREATE TABLE fanfare_outbox (
    position      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application   text NOT NULL CHECK (application ~ '^app_[0-9a-z]{26}$'),
    type          text NOT NULL CHECK (type ~ '^[A-Za-z0-9_:/-]([A-Za-z0-9_.:/-]{0,126}[A-Za-z0-9_:/-])?$'),
    -- The publisher's own id of the event: the same id in an application is the same event.
    id            text NOT NULL DEFAULT gen_random_uuid()::text CHECK (octet_length(id) BETWEEN 1 AND 255),
    data          json NOT NULL,
    -- Time of the event.
    time          timestamptz NOT NULL DEFAULT now() CHECK (time BETWEEN '0001-01-01Z' AND '9999-12-31Z'),
    -- Events of an application with the same key are published in order.
    ordering_key  text,
    -- W3C trace context of the event.
    traceparent   text,
    tracestate    text,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Set by `fanfare relay --keep`, which deletes nothing.
    published_at  timestamptz,
    -- The reason why the row can never be published. The relay goes on with other rows.
    refused       text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

CREATE INDEX fanfare_outbox_waiting ON fanfare_outbox (position) WHERE published_at IS NULL AND refused IS NULL;
