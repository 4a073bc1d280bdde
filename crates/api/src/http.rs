//! The common parts of all routes.

pub mod answer;
pub(crate) mod audit;
pub mod authentication;
pub mod body;
pub mod budget;
pub mod error;
pub(crate) mod fallback;
pub(crate) mod openapi;
pub mod paging;
pub mod parameters;
pub(crate) mod refresh;
pub(crate) mod shares;
