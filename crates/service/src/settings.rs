//! Settings from the environment, and the command line.

pub(crate) mod argument;
pub(crate) mod environment;
pub(crate) mod shared;
