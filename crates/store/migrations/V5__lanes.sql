-- The lanes of endpoints as each dispatcher sees its own: those that are worth showing, written every other second, for
-- whoever looks. A view of what is in the memory of processes and nothing else: no process reads what it does by here,
-- and all of it may be lost at any time. So it is not logged, has no reference to endpoints (which would lock their
-- rows), and may lag behind.
CREATE UNLOGGED TABLE lanes (
    endpoint_id        uuid NOT NULL,
    -- Random, another one for each start of a process.
    dispatcher         uuid NOT NULL,
    -- Attempts on their way, how many may be, and deliveries that wait for their turn.
    in_flight          integer NOT NULL,
    bound              integer NOT NULL,
    waiting            integer NOT NULL,
    pace               text NOT NULL,
    -- In a row.
    failures           integer NOT NULL,
    -- Until when nothing is sent. NULL where the breaker is closed.
    breaker_open_until timestamptz,
    -- A row that its dispatcher has not written again for a while is that of one which is gone.
    seen_at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, dispatcher)
-- Rows are changed again and again: in their page, as long as it has room.
) WITH (fillfactor = 50);
