//! The message that carries a retry through the delay queues.

use serde::{Deserialize, Serialize};

use crate::ids::{ApplicationId, DeliveryId, EndpointId};

/// A retry in the delay queues. The message has ids and never the payload or a secret, so that a million retries cost
/// the broker little. The delivery's row decides whether the retry is still wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryMessage {
    /// Delivery to be retried.
    pub delivery: DeliveryId,
    /// Application that owns the endpoint.
    pub application: ApplicationId,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Number of the attempt that becomes due. The message is stale if the row has another number.
    pub attempt: u32,
    /// Delays after the present delay, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<u64>,
}

impl RetryMessage {
    /// The next delay in seconds, and the message for that delay. `Err` with the unchanged message if the retry is due.
    pub fn next_delay(mut self) -> Result<(u64, Self), Self> {
        if self.then.is_empty() { Err(self) } else { Ok((self.then.remove(0), self)) }
    }
}
