//! From a message to open deliveries: decode, match, shape, persist, fan out. Messages that cannot be read are parked.

pub(crate) mod events;
pub(crate) mod fan_out;
pub(crate) mod matching;
pub(crate) mod park;
pub(crate) mod persist;
pub(crate) mod shaping;
pub(crate) mod unrouted;
