-- The publisher's `tracestate`, beside `traceparent`.
ALTER TABLE events ADD COLUMN tracestate text;
