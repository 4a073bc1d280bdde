-- Asymmetric signatures: Ed25519 keys of applications, and the endpoints whose deliveries the keys sign.

ALTER TABLE endpoints ADD COLUMN signed_by_keys boolean NOT NULL DEFAULT false;

CREATE TABLE signing_keys (
    application_id uuid NOT NULL REFERENCES applications,
    public_key     bytea NOT NULL CHECK (length(public_key) = 32),
    -- The private key, encrypted with the keyring's key of this name; application and public key are the associated
    -- data.
    key_name       text NOT NULL,
    ciphertext     bytea NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Signs until this time; NULL for the current key.
    expires_at     timestamptz,
    PRIMARY KEY (application_id, public_key)
);
CREATE UNIQUE INDEX current_signing_keys ON signing_keys (application_id) WHERE expires_at IS NULL;

-- Endpoints use the keys: a change of the keys is a change of the application's own settings.
CREATE FUNCTION raise_version_of_signing_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE applications SET version = version + 1, settings_version = version + 1
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.application_id ELSE NEW.application_id END;
    RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE ON signing_keys
    FOR EACH ROW EXECUTE FUNCTION raise_version_of_signing_key();
