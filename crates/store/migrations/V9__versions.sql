-- Versions of endpoints, of the settings of applications, and of the keys: a process loads only changed parts.

-- The application's version with the last change of the endpoint or its secrets.
ALTER TABLE endpoints ADD COLUMN version bigint NOT NULL DEFAULT 0;
-- Finds the endpoints that changed since a version.
CREATE INDEX endpoints_by_version ON endpoints (application_id, version);

-- Each change of an endpoint holds the application's lock already.
CREATE OR REPLACE FUNCTION raise_version_of_endpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1 WHERE id = NEW.application_id RETURNING version INTO NEW.version;
    -- Without the application, the foreign key refuses the row.
    NEW.version := coalesce(NEW.version, 0);
    RETURN NEW;
END $$;
DROP TRIGGER raise_version ON endpoints;
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE ON endpoints
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_endpoint();

CREATE OR REPLACE FUNCTION raise_version_of_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE endpoints SET version = version
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.endpoint_id ELSE NEW.endpoint_id END;
    RETURN NULL;
END $$;

-- The version with the last change of the application's own settings, which its endpoints use.
ALTER TABLE applications ADD COLUMN settings_version bigint NOT NULL DEFAULT 0;

CREATE FUNCTION note_settings_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.settings_version := NEW.version;
    RETURN NEW;
END $$;
CREATE TRIGGER note_settings_version BEFORE UPDATE OF dialect, email, redacted ON applications
    FOR EACH ROW EXECUTE FUNCTION note_settings_version();

-- The version of all keys together: a single row.
CREATE TABLE key_version (
    version bigint NOT NULL
);
INSERT INTO key_version VALUES (1);

-- With the rights of the owner: a role that may write keys has no other way to this row. The path and the schema in the
-- name keep out a table of the same name that the role creates.
CREATE OR REPLACE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('UPDATE %I.key_version SET version = version + 1', TG_TABLE_SCHEMA);
    PERFORM pg_notify('fanfare_configuration', 'keys');
    RETURN NULL;
END $$;
