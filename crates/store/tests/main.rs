//! Tests of the store's statements with PostgreSQL: results, concurrency, and touched buffers.

mod database;

mod backlogs;
mod erase;
mod fan_out;
mod lease;
mod lists;
mod persist;
mod plans;
mod processes;
mod queue;
mod record;
mod replays;
mod resend;
mod retention;
mod stress;
