-- Bytes of the whole body: of a long body, the beginning is kept only. NULL for a body that is kept whole, written by the
-- previous release.
ALTER TABLE parked ADD COLUMN bytes integer;
