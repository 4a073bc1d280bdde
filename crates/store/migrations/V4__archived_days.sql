-- Days in the archive. While `archives` is true, a day is dropped only after its archiving.

ALTER TABLE retention
    -- Deliveries below this line are ended: nothing there changes any more, and the days can be archived.
    ADD COLUMN ended      timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN archives   boolean NOT NULL DEFAULT false,
    -- Names this database in manifests: two deployments must not write the same days.
    ADD COLUMN deployment uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE archived_days (
    day         date PRIMARY KEY,
    archived_at timestamptz NOT NULL DEFAULT now()
);
