-- Where a message came from, so that it can be put back there; those of the releases before came from the
-- events exchange where their routing key says an application.
ALTER TABLE parked ADD COLUMN origin text CHECK (origin IN ('events', 'deliveries'));
