//! The processes that the bench starts beside Fanfare: this program, started with the name of a role.

pub(crate) mod ceiling;
pub(crate) mod child;
pub(crate) mod publisher;
pub(crate) mod receiver;
