//! The stream below lapin. It replaces texts that are not UTF-8, cuts messages that are too long, and marks both for
//! parking.

mod cut;
mod frames;
mod marked;
mod sanitize;
mod stream;

pub(crate) use cut::uncut;
pub use frames::sanitized;
pub(crate) use marked::{is_sanitized, not_utf8, sanitized_part};
pub(crate) use sanitize::sanitize;
pub(crate) use stream::open;
