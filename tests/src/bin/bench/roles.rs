//! Processes beside Fanfare: the bench starts its own program with the name of a role.

pub(crate) mod ceiling;
pub(crate) mod child;
pub(crate) mod publisher;
pub(crate) mod receiver;
pub(crate) mod stand_in;
