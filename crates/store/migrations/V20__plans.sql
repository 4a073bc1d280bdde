-- Plans, labels and usage of applications.

-- First: the job `rollups` locks its marks before its counts. Another order could be a deadlock.
LOCK TABLE rollup_marks IN ACCESS EXCLUSIVE MODE;

-- Named limits. NULL: the plan has no such limit.
CREATE TABLE plans (
    name           text PRIMARY KEY,
    -- Events a second over HTTP, at each ingest.
    publish_rate   integer CHECK (publish_rate BETWEEN 1 AND 1000000),
    -- Events of a UTC day.
    events_per_day bigint CHECK (events_per_day > 0),
    -- Bytes of the bodies of events within the retention.
    stored_bytes   bigint CHECK (stored_bytes > 0),
    -- Webhooks of an application.
    max_webhooks   integer CHECK (max_webhooks > 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    changed_at     timestamptz NOT NULL DEFAULT now()
);

-- The version of all plans together: a single row. A process loads all plans after a change, and no application.
CREATE TABLE plan_version (
    version bigint NOT NULL
);
INSERT INTO plan_version VALUES (1);

-- With the rights of the owner, as for keys.
CREATE FUNCTION announce_plans() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('UPDATE %I.plan_version SET version = version + 1', TG_TABLE_SCHEMA);
    PERFORM pg_notify('fanfare_configuration', 'plans');
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON plans
    FOR EACH STATEMENT EXECUTE FUNCTION announce_plans();

-- Own limits of an application replace those of the plan. NULL: the plan decides.
ALTER TABLE applications
    ADD COLUMN plan           text REFERENCES plans,
    ADD COLUMN events_per_day bigint CHECK (events_per_day > 0),
    ADD COLUMN stored_bytes   bigint CHECK (stored_bytes > 0),
    ADD COLUMN max_webhooks   integer CHECK (max_webhooks > 0),
    -- An object of texts.
    ADD COLUMN labels         jsonb NOT NULL DEFAULT '{}';
CREATE INDEX applications_by_plan ON applications (plan, id DESC) WHERE plan IS NOT NULL;
CREATE INDEX applications_by_label ON applications USING gin (labels jsonb_path_ops) WHERE labels <> '{}';

-- Bytes of the bodies of the counted events.
ALTER TABLE rollups ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE rollups_hourly ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

-- First UTC day whose usage may still change. The hours of the last days are there: the job settles these days first.
ALTER TABLE rollup_marks
    ADD COLUMN settled date,
    -- Last count of a minute more than two hours old. NULL: none.
    ADD COLUMN lagged  timestamptz;
UPDATE rollup_marks SET settled = (final AT TIME ZONE 'UTC')::date - 90;
ALTER TABLE rollup_marks ALTER COLUMN settled SET NOT NULL;

-- Usage of an application in a UTC day. The job `rollups` writes the rows in the commits that count. A row outlives the
-- events and attempts that the row counts. Free room keeps the row of today on its page.
CREATE TABLE usage_days (
    application_id uuid NOT NULL,
    day            date NOT NULL,
    -- Accepted events, without tests.
    events         bigint NOT NULL,
    -- Deliveries whose first attempt began in the day.
    deliveries     bigint NOT NULL,
    -- Attempts by result.
    taken          bigint NOT NULL,
    failed         bigint NOT NULL,
    unknown        bigint NOT NULL,
    -- Bytes of the bodies of these events.
    bytes          bigint NOT NULL,
    PRIMARY KEY (application_id, day)
) WITH (fillfactor = 80);
CREATE INDEX usage_by_day ON usage_days (day, application_id);
