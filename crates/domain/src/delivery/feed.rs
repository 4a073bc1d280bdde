//! Places in a feed.

use std::{fmt, str::FromStr};

use crate::ids::DeliveryId;

/// Place behind an entry of a feed. Feeds are in the order of writing transactions: no entry appears later before a
/// place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedPlace {
    /// Number of the transaction that wrote the entry.
    pub written: i64,
    /// Delivery of the entry.
    pub delivery: DeliveryId,
}

/// The text is no place of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place of a feed, such as 4821.dlv_01h455vb4pex5vsknk084sn02q")]
pub struct InvalidFeedPlace;

impl FeedPlace {
    /// A place before the entry, and behind all earlier entries: the feed then begins with the entry.
    pub fn just_before(self) -> Self {
        let delivery = self.delivery.0.as_u128().saturating_sub(1);
        Self { delivery: DeliveryId(uuid::Uuid::from_u128(delivery)), ..self }
    }
}

impl serde::Serialize for FeedPlace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for FeedPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.written, self.delivery)
    }
}

impl FromStr for FeedPlace {
    type Err = InvalidFeedPlace;

    fn from_str(text: &str) -> Result<Self, InvalidFeedPlace> {
        let (written, delivery) = text.split_once('.').ok_or(InvalidFeedPlace)?;
        let has_digits_only = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
        let written = written.parse().ok().filter(|_| has_digits_only).ok_or(InvalidFeedPlace)?;
        Ok(Self { written, delivery: delivery.parse().map_err(|_| InvalidFeedPlace)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_read_as_written(written in 0..i64::MAX, delivery: u128) {
            let place = FeedPlace { written, delivery: DeliveryId(Uuid::from_u128(delivery)) };
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }

        #[test]
        fn other_texts_are_refused(text in "\\PC{0,40}") {
            if let Ok(place) = text.parse::<FeedPlace>() {
                let same: Result<FeedPlace, _> = place.to_string().parse();
                prop_assert_eq!(same, Ok(place));
            }
        }
    }

    #[test]
    fn a_place_has_a_number_and_a_delivery() {
        for text in [
            "",
            ".",
            "1",
            "1.",
            "-1.dlv_01h455vb4pex5vsknk084sn02q",
            "+1.dlv_01h455vb4pex5vsknk084sn02q",
            "1.evt_01h455vb4pex5vsknk084sn02q",
            "99999999999999999999.dlv_01h455vb4pex5vsknk084sn02q",
        ] {
            assert_eq!(text.parse::<FeedPlace>(), Err(InvalidFeedPlace), "{text}");
        }
    }
}
