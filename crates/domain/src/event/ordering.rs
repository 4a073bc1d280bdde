//! Ordering keys: events with the same key reach each endpoint with consecutive numbers.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    event::{EventFault, FaultCode, delay::DELIVER_AT},
    ids::ApplicationId,
};

/// Maximum length of an ordering key.
pub const MAX_ORDERING_KEY: usize = 255;

/// Number of queues of ordered events. Part of the topology: another number would send a key to another queue while the
/// first queue still holds events of the key.
pub const PARTITIONS: u8 = 4;

/// The key of events whose order matters: 1 to 255 visible ASCII characters, so that a header can hold the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderingKey(String);

impl OrderingKey {
    /// Parses a key. `field` names the place of the key in the error.
    ///
    /// # Errors
    /// If the key is empty or too long, or has other characters.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, EventFault> {
        if text.len() > MAX_ORDERING_KEY {
            let message = format!("is longer than {MAX_ORDERING_KEY} characters");
            return Err(EventFault::new(FaultCode::FieldTooLong, field, &message));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "must be 1 to 255 visible ASCII characters, without spaces";
            return Err(EventFault::new(FaultCode::InvalidField, field, message));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Number of the queue for the key, below [`PARTITIONS`].
    pub fn partition(&self, application: ApplicationId) -> u8 {
        let mut digest = Sha256::new();
        digest.update(application.0.as_bytes());
        digest.update(&self.0);
        digest.finalize()[0] % PARTITIONS
    }
}

impl fmt::Display for OrderingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Refuses a delayed event with an ordering key: the numbers follow the order of acceptance.
///
/// # Errors
/// If an event has both.
pub fn check_delay(ordering_key: Option<&OrderingKey>, deliver_at: Option<Timestamp>) -> Result<(), EventFault> {
    if ordering_key.is_some() && deliver_at.is_some() {
        let message = "does not go with an ordering key: the numbers follow the order of acceptance";
        return Err(EventFault::new(FaultCode::InvalidField, DELIVER_AT, message));
    }
    Ok(())
}

/// Place of a delivery in the order of its ordering key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The event's ordering key.
    pub key: OrderingKey,
    /// Number of the delivery for the endpoint and the key, from 1 on.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn application() -> ApplicationId {
        "app_01h455vb4pex5vsknk084sn02q".parse().expect("an id")
    }

    #[test]
    fn a_key_is_visible_ascii_of_at_most_255_characters() {
        for (text, code) in [
            ("", FaultCode::InvalidField),
            ("a b", FaultCode::InvalidField),
            ("ä", FaultCode::InvalidField),
            ("a\n", FaultCode::InvalidField),
            (&"a".repeat(256), FaultCode::FieldTooLong),
        ] {
            assert_eq!(OrderingKey::parse("ordering_key", text).expect_err(text).code, code, "{text:?}");
        }
        assert_eq!(OrderingKey::parse("ordering_key", "order:17").expect("a key").as_str(), "order:17");
    }

    #[test]
    fn keys_use_all_queues() {
        let key = |number: u32| OrderingKey::parse("ordering_key", &number.to_string()).expect("a key");
        let used: HashSet<u8> = (0..100).map(|number| key(number).partition(application())).collect();
        assert_eq!(used, (0..PARTITIONS).collect());
    }

    /// A release with other queues would swap events that wait in the queues of this release.
    #[test]
    fn the_queue_of_a_key_never_changes() {
        let partition = |text| OrderingKey::parse("ordering_key", text).expect("a key").partition(application());
        assert_eq!(["a", "order-1001", "order-1002", "~"].map(partition), [3, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn each_visible_text_is_a_key_of_a_queue(text in "[!-~]{1,255}") {
            let key = OrderingKey::parse("ordering_key", &text).expect("a key");
            prop_assert!(key.partition(application()) < PARTITIONS);
        }
    }
}
