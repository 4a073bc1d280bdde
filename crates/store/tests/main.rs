//! Tests of the store's statements with PostgreSQL: results, concurrency, and touched buffers.

mod database;

/// Reading and changing of settings, and sessions.
mod configuration {
    mod directory;
    mod event_types;
    mod filters;
    mod plans;
    mod sessions;
    mod signing_keys;
}

/// The way of an event: persist, lease, record, retry, recover.
mod pipeline {
    mod access_tokens;
    mod backlogs;
    mod delayed;
    mod digests;
    mod fan_out;
    mod feed;
    mod fifo;
    mod lease;
    mod order;
    mod persist;
    mod processes;
    mod record;
    mod recovery;
    mod retries;
    mod templates;
}

/// Requests of customers and operators for deliveries, and the outbox of a publisher.
mod requests {
    mod erase;
    mod outbox;
    mod replays;
    mod resend;
    mod send;
}

/// Migrations, partitions, and numbers for operators.
mod operations {
    mod archive;
    mod audit;
    mod census;
    mod connections;
    mod migrations;
    mod notices;
    mod operational;
    mod parked;
    mod retention;
    mod rollups;
    mod runs;
    mod usage;
}

/// Tests with filled tables, or under load.
mod filled {
    mod delayed;
    mod digests;
    mod lists;
    mod operational;
    mod overview;
    mod plans;
    mod searches;
    mod stress;
    mod usage;
}
