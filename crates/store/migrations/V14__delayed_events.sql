-- Delayed events: events that are delivered at a time that the publisher sets.

-- Time of delivery; NULL for an ordinary event.
ALTER TABLE events ADD COLUMN deliver_at timestamptz;
-- Time of the cancellation, and its author: a key or a visitor of the web pages.
ALTER TABLE events ADD COLUMN cancelled_at timestamptz;
ALTER TABLE events ADD COLUMN cancelled_by text;

-- Events that are neither due nor cancelled: the work list. A row ends when the deliveries are opened, when the event
-- is cancelled, or when the event is erased. Who needs both rows locks this row before the event.
CREATE TABLE delayed_events (
    event_id       uuid PRIMARY KEY,
    application_id uuid NOT NULL,
    accepted_at    timestamptz NOT NULL,
    -- Time of delivery.
    due_at         timestamptz NOT NULL,
    -- End of the lease of a look, or of the wait after a look that could not open the deliveries. Not in the index, so
    -- that a lease writes no index entry. The time of delivery stays: a stuck event counts as overdue.
    leased_until   timestamptz
) WITH (fillfactor = 50);
CREATE INDEX delayed_events_by_due ON delayed_events (due_at);
