//! Delayed events: events that are delivered at a time that the publisher sets.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    event::{EventFault, FaultCode},
    time::{saturating_add, to_milliseconds},
};

/// Name of the field, and of the column.
pub const DELIVER_AT: &str = "deliver_at";

/// Name of the attribute of a CloudEvent.
pub(super) const CLOUD_EVENT_ATTRIBUTE: &str = "deliverat";

/// Longest delay of an event. All deliveries must end within the event's retention, also under the longest schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongestDelay(Duration);

impl LongestDelay {
    /// The retention without the longest lifetime of a delivery.
    pub fn new(retention: Duration, longest_lifetime: Duration) -> Self {
        Self(retention.saturating_sub(longest_lifetime))
    }

    /// The longest delay as a duration.
    pub fn get(self) -> Duration {
        self.0
    }

    /// The time until which the deliveries of an event must wait, in whole milliseconds. `None` for an ordinary event:
    /// `deliver_at` is absent, or not after `now`.
    ///
    /// # Errors
    /// If `deliver_at` is too far after the acceptance.
    pub fn due(
        self,
        deliver_at: Option<Timestamp>,
        accepted_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, EventFault> {
        let Some(deliver_at) = deliver_at.map(to_milliseconds).filter(|deliver_at| *deliver_at > now) else {
            return Ok(None);
        };
        let greatest = saturating_add(accepted_at, self.0);
        if deliver_at > greatest {
            let message = format!(
                "is too far ahead: the greatest time allowed for this event is {greatest}, since its deliveries must \
                 end within its retention"
            );
            return Err(EventFault::new(FaultCode::TooFarAhead, DELIVER_AT, &message));
        }
        Ok(Some(deliver_at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).expect("a time")
    }

    #[test]
    fn a_retention_below_the_longest_lifetime_permits_no_delay() {
        let longest = LongestDelay::new(DAY, 2 * DAY);
        assert_eq!(longest.get(), Duration::ZERO);
        assert_eq!(longest.due(Some(at(0)), at(0), at(0)), Ok(None));
        let fault = longest.due(Some(at(1)), at(0), at(0)).expect_err("a fault");
        assert_eq!((fault.code, fault.field.as_deref()), (FaultCode::TooFarAhead, Some("deliver_at")));
        assert!(fault.to_string().contains(&at(0).to_string()), "{fault}");
    }

    #[test]
    fn an_extreme_time_is_refused() {
        let longest = LongestDelay::new(Duration::MAX, Duration::ZERO);
        assert_eq!(longest.due(Some(Timestamp::MIN), at(0), at(0)), Ok(None));
        assert!(longest.due(Some(Timestamp::MAX), at(0), at(0)).is_ok());
        assert!(LongestDelay::new(DAY, Duration::ZERO).due(Some(Timestamp::MAX), at(0), at(0)).is_err());
    }

    proptest! {
        /// A delayed event is due after now, and its deliveries end within the retention, unless the retention is
        /// shorter than their lifetime. Every other event is ordinary, or refused with a time that would be accepted.
        #[test]
        fn deliveries_of_a_delayed_event_end_within_the_retention(
            deliver_at in proptest::option::of(-100_000_000_i64..3_000_000_000),
            accepted_at in -10_000_000_i64..10_000_000,
            retention in 0_u64..3_000_000,
            lifetime in 0_u64..3_000_000,
        ) {
            let (retention, lifetime) = (Duration::from_secs(retention), Duration::from_secs(lifetime));
            let longest = LongestDelay::new(retention, lifetime);
            let (asked, accepted_at, now) = (deliver_at.map(at), at(accepted_at), at(0));
            match longest.due(asked, accepted_at, now) {
                Ok(Some(due)) => {
                    prop_assert_eq!(Some(due), asked);
                    prop_assert!(due > now);
                    prop_assert!(due + lifetime.min(retention) <= accepted_at + retention);
                }
                Ok(None) => prop_assert!(asked.is_none_or(|asked| asked <= now)),
                Err(fault) => {
                    let asked = asked.expect("a time");
                    let greatest = accepted_at + longest.get();
                    prop_assert!(asked > greatest && asked > now);
                    prop_assert!(fault.message.contains(&greatest.to_string()));
                    let retried = longest.due(Some(greatest), accepted_at, now);
                    prop_assert_eq!(retried, Ok(Some(greatest).filter(|greatest| *greatest > now)));
                    prop_assert!(greatest <= accepted_at + retention);
                }
            }
        }
    }
}
