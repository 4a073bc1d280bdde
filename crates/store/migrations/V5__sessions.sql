-- Sessions of the web pages, and links that open a session once.
CREATE TABLE sessions (
    id               uuid PRIMARY KEY,
    face             text NOT NULL CHECK (face IN ('console', 'portal')),
    -- SHA-256 of the secret part of the cookie; before the link is opened, of the link.
    digest           bytea NOT NULL CHECK (length(digest) = 32),
    -- NULL for all applications.
    application_id   uuid REFERENCES applications,
    rights           text[] NOT NULL,
    -- The session ends with its key.
    key_id           uuid REFERENCES api_keys,
    -- A session without a key made the link to this session: the session ends with its creator.
    creator_id       uuid,
    name             text NOT NULL,
    -- A session of a proxy lives only while the proxy names the same visitor.
    sign_in          text NOT NULL CHECK (sign_in IN ('key', 'link', 'proxy', 'provider')),
    -- Until this time a link opens the session; NULL for an open session.
    opens_until      timestamptz,
    -- The session ends so long after the sign-in, and so long after the last request.
    lifetime_seconds integer NOT NULL,
    idle_seconds     integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    seen_at          timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz,
    back             text,
    -- Colours and shapes of a portal, as JSON.
    theme            text
);
CREATE INDEX sessions_of_application ON sessions (application_id, id DESC);

-- The name of the session's visitor; NULL for a request with an API key.
ALTER TABLE audit_log ADD COLUMN visitor text;
