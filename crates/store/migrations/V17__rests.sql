-- End of the rest that an endpoint asked for by Retry-After, for the next owner of the backlog and the API.
ALTER TABLE endpoint_backlogs ADD COLUMN rests_until timestamptz;

-- Finds the endpoints that stopped: with parked ordering keys, or disabled by an answer.
CREATE INDEX endpoints_with_fifo ON endpoints (application_id) WHERE fifo IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX endpoints_with_reason ON endpoints (application_id) WHERE status_reason IS NOT NULL AND deleted_at IS NULL;
