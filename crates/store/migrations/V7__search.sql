-- Indexes for searches and counts.

-- Finds a parked message by the publisher's id of the event.
CREATE INDEX parked_by_message_id ON parked (message_id);
-- Lists of parked messages, and changes of many. An empty routing key is none.
CREATE INDEX parked_by_reason ON parked (reason, id DESC);
CREATE INDEX parked_by_routing_key ON parked (coalesce(routing_key, ''), id DESC);

-- Counts scheduled deliveries without the queued deliveries beside them. Deliveries that are sent at once never enter.
CREATE INDEX open_scheduled ON open_deliveries (endpoint_id, id DESC) WHERE state = 'scheduled';
