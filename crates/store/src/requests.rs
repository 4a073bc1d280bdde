//! Deliveries on request of clients: resend, replay, test send, and the erasure of an event.

pub(crate) mod erase;
pub(crate) mod replay_advance;
pub(crate) mod replays;
pub(crate) mod resend;
pub(crate) mod send;
pub(crate) mod test_send;
