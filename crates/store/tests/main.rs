//! Tests of the store's statements with PostgreSQL: results, concurrency, and touched buffers.

mod database;

mod backlogs;
mod directory;
mod erase;
mod fan_out;
mod lease;
mod persist;
mod processes;
mod record;
mod recovery;
mod replays;
mod resend;
mod retention;
mod retries;

/// Tests with filled tables, or under load.
mod filled {
    mod lists;
    mod plans;
    mod stress;
}
