//! The statements against a PostgreSQL: what they write, how they behave beside each other, and what they touch.

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
