-- Who changed what, when, and from where; what is not to be read by whoever reads the database; what somebody wants gone.

CREATE TABLE audit_log (
    -- Version 7: sorts by the time of the request.
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT now(),
    -- What it was about, where that is one application.
    application_id uuid,
    -- Who: a key of the API; NULL for whoever ran the command `fanfare`, or Fanfare itself.
    key_id         uuid,
    -- From where: an address, or user and host of the command.
    origin         text NOT NULL,
    -- The name of the operation in the API's description, or the command.
    action         text NOT NULL,
    path           text,
    -- What was asked, as JSON, without secrets.
    request        text,
    -- What it was done to: ids, separated by spaces.
    subject        text,
    -- NULL until it was answered, and for ever where the process did not live to tell.
    outcome        text CHECK (outcome IN ('done', 'refused', 'failed'))
);
CREATE INDEX audit_log_of_application ON audit_log (application_id, id DESC);

-- Appended to, and nothing else: an entry gets its outcome once. What is older than 90 days may be deleted, and never before.
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

ALTER TABLE applications
    -- Events in a second over HTTP, at each ingest; NULL for the deployment's limit.
    ADD COLUMN publish_rate integer CHECK (publish_rate BETWEEN 1 AND 1000000),
    -- Members of bodies whose values are not to be read: `password`, `card.number`.
    ADD COLUMN redacted     text[] NOT NULL DEFAULT '{}';

ALTER TABLE events
    -- What is sent, encrypted, where `body` is without the values of redacted members.
    ADD COLUMN body_key_name   text,
    ADD COLUMN body_ciphertext bytea,
    -- Since when all that could tell what was in it is gone.
    ADD COLUMN erased_at       timestamptz;
-- By it those are found that are to be encrypted anew.
CREATE INDEX events_sealed ON ONLY events (body_key_name) WHERE body_key_name IS NOT NULL;
