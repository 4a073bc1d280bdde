-- End of the rest that an endpoint asked for by Retry-After, for the next owner of the backlog and the API.
ALTER TABLE endpoint_backlogs ADD COLUMN rests_until timestamptz;
