-- Endpoints that receive the trace context of an event.
ALTER TABLE endpoints ADD COLUMN trace_context boolean NOT NULL DEFAULT false;
