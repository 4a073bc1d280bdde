-- Rights in PostgreSQL, for two users beside the superuser:
--
--   fanfare          owns the database: `fanfare migrate`, the other commands, and dispatchers, which create and drop
--                    partitions
--   fanfare_ingest   serves the API, which everybody can reach: changes no schema, deletes no record of a delivery or an
--                    attempt, and can only append to the audit log
--
-- Create both (CREATE ROLE … LOGIN PASSWORD …) and the database (CREATE DATABASE … OWNER fanfare), run `fanfare
-- migrate` as fanfare, and then this as fanfare: after the first migration, and again after each, for the tables that
-- are new. `fanfare migrate --ingest-role fanfare_ingest` does both.

BEGIN;

-- Up to PostgreSQL 14 everybody may create tables.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM fanfare_ingest;
GRANT USAGE ON SCHEMA public TO fanfare_ingest;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO fanfare_ingest;

-- The configuration.
GRANT INSERT, UPDATE ON applications, api_keys, key_uses, endpoints, replays TO fanfare_ingest;
GRANT INSERT, UPDATE, DELETE ON endpoint_secrets, signing_keys, event_types, plans TO fanfare_ingest;
GRANT INSERT, DELETE ON event_schemas TO fanfare_ingest;
-- A test of a webhook fetches the token, and the deletion of a webhook deletes the token.
GRANT INSERT, UPDATE, DELETE ON endpoint_tokens TO fanfare_ingest;

-- Events and deliveries: ingest records tests and erases events. An erasure ends open deliveries, which are no record.
GRANT INSERT, UPDATE ON events, deliveries, attempts TO fanfare_ingest;
GRANT INSERT, DELETE ON delivery_bodies TO fanfare_ingest;
GRANT DELETE ON parked TO fanfare_ingest;
-- A cancellation or an erasure of an event that is not yet due.
GRANT DELETE ON delayed_events TO fanfare_ingest;

-- A delivery that a request opens is listed in the feed.
GRANT INSERT ON feed_entries TO fanfare_ingest;

-- Deliveries that are requested again, and their backlogs. Only dispatchers end backlogs.
GRANT INSERT, UPDATE, DELETE ON open_deliveries TO fanfare_ingest;
GRANT INSERT, UPDATE ON endpoint_backlogs TO fanfare_ingest;
-- Parked ordering keys that are resumed, and the ends of deliveries in order.
GRANT UPDATE (parked_at, parked_by) ON ordering_keys TO fanfare_ingest;
GRANT INSERT ON ordering_signals TO fanfare_ingest;

-- Sessions of the web pages. The partitions job deletes old sessions.
GRANT INSERT, UPDATE ON sessions TO fanfare_ingest;

-- Its own row among the processes. Counts for charts, usage, depths of queues and runs of jobs are written by
-- dispatchers only.
GRANT INSERT, UPDATE, DELETE ON processes TO fanfare_ingest;

-- Append-only, also without the trigger that enforces it.
GRANT INSERT, UPDATE (outcome, subject, application_id) ON audit_log TO fanfare_ingest;

COMMIT;
