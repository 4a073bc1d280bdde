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
mod retries;
mod send;
mod sessions;

/// Migrations, partitions, and numbers for operators.
mod operations {
    mod archive;
    mod census;
    mod migrations;
    mod retention;
    mod rollups;
    mod runs;
}

/// Tests with filled tables, or under load.
mod filled {
    mod lists;
    mod overview;
    mod plans;
    mod searches;
    mod stress;
}
