//! The common parts of all routes.

pub(crate) mod answer;
pub(crate) mod audit;
pub(crate) mod authentication;
pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod fallback;
pub(crate) mod openapi;
pub(crate) mod paging;
pub(crate) mod parameters;
pub(crate) mod refresh;
