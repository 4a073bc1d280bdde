//! The small message that says: delivery D, attempt n, sequence s, not before T.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    delay,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};

/// A claim on a delivery. It holds ids and times, never the payload or a secret, so that a million
/// waiting ones cost the broker little; which of several is the valid one, the row says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The delivery; its id tells its partition.
    pub delivery: DeliveryId,
    /// The event that is delivered.
    pub event: EventId,
    /// The application that owns the endpoint.
    pub application: ApplicationId,
    /// The endpoint, so that its lane can be asked before anything is read.
    pub endpoint: EndpointId,
    /// The number of the attempt that is to be made.
    pub attempt: u32,
    /// The sequence of the delivery's row when this claim was made for it; stale once the row's is another.
    pub sequence: u32,
    /// Not before this moment.
    pub due: Timestamp,
    /// When the claim was made; with `due` it tells how early it may be.
    pub made: Timestamp,
    /// How many times in a row the delivery has been deferred.
    pub deferrals: u32,
}

impl Claim {
    /// Whether it may be acted upon, or has to wait on.
    pub fn is_due(&self, now: Timestamp) -> bool {
        delay::is_due(self.due, self.wait(), now)
    }

    /// How long it was to wait when it was made.
    pub fn wait(&self) -> Duration {
        Duration::try_from(self.due.duration_since(self.made)).unwrap_or(Duration::ZERO)
    }
}
