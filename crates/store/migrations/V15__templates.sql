-- Templates: bodies of an endpoint's own form.

-- JSON text; NULL for the dialect's form.
ALTER TABLE endpoints ADD COLUMN template text;
-- True once the endpoint has had a template: deliveries may then have a row in `delivery_bodies`.
ALTER TABLE endpoints ADD COLUMN had_template boolean NOT NULL DEFAULT false;

-- True if the delivery has a body of its own. Without a body in `delivery_bodies`, the next lease renders the body.
ALTER TABLE open_deliveries ADD COLUMN shaped boolean NOT NULL DEFAULT false;

-- Bodies made by templates, partitioned as deliveries are. A body is written once. A table of its own: other deliveries
-- have no row, and no statement that moves a delivery moves the body.
CREATE TABLE delivery_bodies (
    -- Id of the delivery.
    id              uuid PRIMARY KEY,
    -- Body as sent, without the values of redacted members; NULL if the template had no body for the event.
    body            text,
    -- Complete body, encrypted; NULL unless the event has redacted members.
    body_key_name   text,
    body_ciphertext bytea,
    -- Why the template had no body for the event.
    fault           text
) PARTITION BY RANGE (id);
