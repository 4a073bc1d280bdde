//! APIs of replaced systems, for clients that keep their paths.

pub(crate) mod nudj;
