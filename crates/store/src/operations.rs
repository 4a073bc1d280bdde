//! Operation: migrations, partitions, retention, advisory locks, re-encryption, pages for the archive.

pub(crate) mod advisory_locks;
pub(crate) mod archive;
pub(crate) mod census;
pub(crate) mod examine;
pub(crate) mod facts;
pub(crate) mod migrations;
pub(crate) mod operational;
pub(crate) mod partitions;
pub(crate) mod reencrypt;
pub(crate) mod retention;
pub(crate) mod rollups;
pub(crate) mod runs;
pub(crate) mod troubled;
