-- Trace context: the publisher's `tracestate`, and the endpoints that receive `traceparent` and `tracestate`.

ALTER TABLE endpoints ADD COLUMN trace_context boolean NOT NULL DEFAULT false;
ALTER TABLE events ADD COLUMN tracestate text;
