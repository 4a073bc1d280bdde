//! The sign-in, the session of a request, and the guard of all requests.

pub(crate) mod cookie;
pub(crate) mod guard;
pub(crate) mod home;
pub(crate) mod page;
pub(crate) mod places;
pub(crate) mod sign_in;
pub(crate) mod theme;
pub(crate) mod visitor;
