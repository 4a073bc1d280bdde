-- Authentication of Fanfare at receivers: Basic, bearer, OAuth 2.0 client credentials, client certificates.

ALTER TABLE endpoints
    -- The part without secrets, as JSON. NULL: no authentication.
    ADD COLUMN authentication text,
    -- All settings, encrypted.
    ADD COLUMN authentication_key_name text,
    ADD COLUMN authentication_ciphertext bytea,
    -- Grows with each change of the authentication.
    ADD COLUMN authentication_version bigint NOT NULL DEFAULT 0,
    -- The part of the client certificate without secrets, as JSON. NULL: no certificate.
    ADD COLUMN certificate text,
    -- Certificates and private key, encrypted.
    ADD COLUMN certificate_key_name text,
    ADD COLUMN certificate_ciphertext bytea,
    ADD COLUMN certificate_ends_at timestamptz;
CREATE INDEX endpoints_with_certificate ON endpoints (certificate_ends_at)
    WHERE certificate_ends_at IS NOT NULL AND deleted_at IS NULL;

-- The present token of each endpoint with OAuth 2.0, shared by all processes.
CREATE TABLE endpoint_tokens (
    endpoint_id   uuid PRIMARY KEY,
    -- `authentication_version` of the endpoint for which the row holds.
    version       bigint NOT NULL,
    -- Number of the token. Grows with each token of the version.
    generation    bigint NOT NULL DEFAULT 0,
    -- Token, encrypted; NULL without a token.
    key_name      text,
    ciphertext    bytea,
    fetched_at    timestamptz,
    renew_at      timestamptz,
    -- From then on the token is no longer sent: shortly before its end.
    usable_until  timestamptz,
    -- The fetch in flight, and the time from which another process may fetch.
    fetch_id      uuid,
    fetch_ends_at timestamptz,
    -- No fetch begins before.
    next_fetch_at timestamptz NOT NULL DEFAULT '-infinity',
    -- Failed fetches in a row, since when, and the last of them.
    failures      integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    failed_at     timestamptz,
    error         text
) WITH (fillfactor = 50);

-- The previous release deletes endpoints, too, and clears only the columns that it knows.
CREATE FUNCTION clear_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.authentication = NULL;
    NEW.authentication_key_name = NULL;
    NEW.authentication_ciphertext = NULL;
    NEW.certificate = NULL;
    NEW.certificate_key_name = NULL;
    NEW.certificate_ciphertext = NULL;
    NEW.certificate_ends_at = NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER clear_credentials BEFORE UPDATE OF deleted_at ON endpoints
    FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION clear_credentials();
