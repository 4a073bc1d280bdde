-- Keys that end by themselves, and when each was used.

-- From then on it opens nothing. NULL for one that ends only when it is revoked.
ALTER TABLE api_keys ADD COLUMN expires_at timestamptz;

-- Beside the keys: whoever writes those tells all processes to read them anew.
CREATE TABLE key_uses (
    key_id       uuid PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);
