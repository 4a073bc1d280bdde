//! Content of messages: events and retries, parked messages, CloudEvents, and the signature of Fanfare's own headers.

pub(crate) mod cloud_events;
pub(crate) mod codec;
pub(crate) mod own_headers;
pub(crate) mod parked;
