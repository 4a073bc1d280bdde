//! Operation: migrations, partitions and retention, locks of jobs, encryption anew.

pub(crate) mod advisory_locks;
pub(crate) mod migrations;
pub(crate) mod partitions;
pub(crate) mod reencrypt;
pub(crate) mod retention;
