-- Filters: conditions of endpoints on the data of events.

-- Expression; NULL for all events of the subscribed types.
ALTER TABLE endpoints ADD COLUMN filter text;
