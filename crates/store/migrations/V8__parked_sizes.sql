-- Bytes of the whole body. Of a long body, only the beginning is kept. NULL for a body that is kept whole, written by
-- the previous release.
ALTER TABLE parked ADD COLUMN bytes integer;
