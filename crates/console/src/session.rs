//! The sign-in, the session of a request, and the guard of all requests.

#[cfg(feature = "oidc")]
mod attempt;
pub(crate) mod cookie;
pub(crate) mod guard;
pub(crate) mod home;
pub(crate) mod page;
#[cfg(feature = "oidc")]
pub(crate) mod provider;
pub(crate) mod proxy;
pub(crate) mod sign_in;
pub(crate) mod theme;
pub(crate) mod visitor;
