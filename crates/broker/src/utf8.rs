//! Texts that are not UTF-8: the stream below lapin replaces them, and marks the messages for parking.

mod frames;
mod marked;
mod sanitize;
mod stream;

pub use frames::sanitized;
pub(crate) use marked::{is_sanitized, not_utf8, sanitized_part};
pub(crate) use sanitize::sanitize;
pub(crate) use stream::open;
