-- Schemas of event types.

-- The application's version with the last change of its schemas, or of the setting that applies them: a process loads
-- schemas only then.
ALTER TABLE applications ADD COLUMN schemas_version bigint NOT NULL DEFAULT 0;

-- JSON Schemas of an application's own event types. A version never changes. The newest version is the type's schema,
-- unless an event names another.
CREATE TABLE event_schemas (
    application_id uuid NOT NULL,
    name           text NOT NULL,
    version        integer NOT NULL CHECK (version BETWEEN 1 AND 20),
    -- Compact JSON.
    schema         text NOT NULL,
    -- A value that fits the schema, as JSON text: the data of a test event if the type has no sample of its own.
    sample         text NOT NULL,
    -- Share of the application's sum of schemas, in bytes.
    size           integer NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (application_id, name, version),
    FOREIGN KEY (application_id, name) REFERENCES event_types ON DELETE CASCADE
);

CREATE FUNCTION raise_version_of_schema() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1, schemas_version = version + 1
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.application_id ELSE NEW.application_id END;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE ON event_schemas
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_schema();

CREATE FUNCTION note_schemas_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.schemas_version := NEW.version;
    RETURN NEW;
END $$;
CREATE TRIGGER note_schemas_version BEFORE UPDATE OF strict ON applications
    FOR EACH ROW EXECUTE FUNCTION note_schemas_version();
