//! FIFO per ordering key: an endpoint gets the next delivery of a key when the delivery before has ended.

use std::fmt;

/// Greatest number of failed attempts after which a delivery may leave the order.
pub const MAX_SKIP_AFTER: u32 = 100;

/// Rule for an ordering key whose present delivery fails. A delivery has ended when it was delivered or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fifo {
    /// The next delivery waits until the present delivery has ended.
    Block,
    /// The next delivery waits until the present delivery has ended, or has failed this often: its retries then stand
    /// outside the order.
    SkipAfter(u32),
    /// Like [`Fifo::Block`]. If the present delivery was given up, the key is parked: the next delivery waits until a
    /// person resumes the key.
    Park,
}

impl Fifo {
    /// Parses `block`, `park` or `skip:N`, with N from 1 to [`MAX_SKIP_AFTER`].
    ///
    /// # Errors
    /// A sentence about all other texts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let skip_after = || {
            let number = text.strip_prefix("skip:")?;
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
            number.parse().ok().filter(|number| is_plain && (1..=MAX_SKIP_AFTER).contains(number))
        };
        match text {
            "block" => Ok(Self::Block),
            "park" => Ok(Self::Park),
            _ => skip_after().map(Self::SkipAfter).ok_or_else(|| {
                format!("must be block, park, or skip:N, with N failed attempts from 1 to {MAX_SKIP_AFTER}")
            }),
        }
    }
}

impl fmt::Display for Fifo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block => formatter.write_str("block"),
            Self::SkipAfter(after) => write!(formatter, "skip:{after}"),
            Self::Park => formatter.write_str("park"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_skip_has_a_number() {
        for text in
            ["", "fifo", "skip", "skip:", "skip:0", "skip:01", "skip:101", "skip:+3", "skip:-1", "block:1", "Block"]
        {
            assert!(Fifo::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn texts_round_trip(after in 1..=MAX_SKIP_AFTER) {
            for fifo in [Fifo::Block, Fifo::Park, Fifo::SkipAfter(after)] {
                prop_assert_eq!(Fifo::parse(&fifo.to_string()), Ok(fifo));
            }
        }
    }
}
