//! The message that carries a retry through the delay queues.

use serde::{Deserialize, Serialize};

use crate::ids::{ApplicationId, DeliveryId, EndpointId};

/// A retry on its way through the delay queues. It holds ids and never the payload or a secret, so that a million of them
/// cost the broker little. The row of the delivery decides whether it is still wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryMessage {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The application that owns the endpoint.
    pub application: ApplicationId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The number of the attempt that becomes due. The message is stale where the row has another.
    pub attempt: u32,
    /// The delays still to pass after the present one, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<u64>,
}

impl RetryMessage {
    /// The next delay to pass, in seconds, and the message that passes it; `None` where the retry is due.
    pub fn next_delay(mut self) -> Result<(u64, Self), Self> {
        if self.then.is_empty() { Err(self) } else { Ok((self.then.remove(0), self)) }
    }
}
