//! Limits of the container or the machine.

pub(crate) mod memory;
pub(crate) mod open_files;
