//! Plans: named limits of applications.

/// Maximum length of a plan's name.
const MAX_NAME: usize = 63;

/// Publish rates that an application may have, in events per second.
pub const RATES: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// Quotas that an application may have: of events a day, and of stored bytes. JSON readers keep such numbers exact.
pub const QUOTAS: std::ops::RangeInclusive<u64> = 1..=1_000_000_000_000_000;

/// Numbers of webhooks that an application may have.
pub const WEBHOOKS: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// The limits of an application, or of a plan. `None` is no limit here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Events per second over HTTP, at each ingest.
    pub publish_rate: Option<u32>,
    /// Events per UTC day.
    pub events_per_day: Option<u64>,
    /// Bytes of the bodies of events within the retention.
    pub stored_bytes: Option<u64>,
    /// Webhooks of an application.
    pub max_webhooks: Option<u32>,
}

impl Limits {
    /// The limits of an application with these own limits in a plan. An own limit replaces the plan's, also if higher.
    #[must_use]
    pub fn within(self, plan: Option<Self>) -> Self {
        let plan = plan.unwrap_or_default();
        Self {
            publish_rate: self.publish_rate.or(plan.publish_rate),
            events_per_day: self.events_per_day.or(plan.events_per_day),
            stored_bytes: self.stored_bytes.or(plan.stored_bytes),
            max_webhooks: self.max_webhooks.or(plan.max_webhooks),
        }
    }

    /// True if a quota needs the counts of the application.
    pub fn has_quota(&self) -> bool {
        self.events_per_day.is_some() || self.stored_bytes.is_some()
    }

    /// Checks the ranges of the limits.
    ///
    /// # Errors
    /// The first limit beyond its range.
    pub fn check(&self) -> Result<(), InvalidLimit> {
        let fault = |member, least: u64, most: u64| InvalidLimit { member, least, most };
        if self.publish_rate.is_some_and(|rate| !RATES.contains(&rate)) {
            return Err(fault("publish_rate_per_second", (*RATES.start()).into(), (*RATES.end()).into()));
        }
        for (member, quota) in [("events_per_day", self.events_per_day), ("stored_bytes", self.stored_bytes)] {
            if quota.is_some_and(|quota| !QUOTAS.contains(&quota)) {
                return Err(fault(member, *QUOTAS.start(), *QUOTAS.end()));
            }
        }
        if self.max_webhooks.is_some_and(|webhooks| !WEBHOOKS.contains(&webhooks)) {
            return Err(fault("max_webhooks", (*WEBHOOKS.start()).into(), (*WEBHOOKS.end()).into()));
        }
        Ok(())
    }
}

/// A limit beyond its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be between {least} and {most}")]
pub struct InvalidLimit {
    /// Member of requests that names the limit.
    pub member: &'static str,
    least: u64,
    most: u64,
}

/// The text is not the name of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX_NAME} small letters, digits, `.`, `_` and `-`, and begin with a letter or a digit")]
pub struct InvalidPlanName;

/// Checks the name of a plan.
///
/// # Errors
/// If the name is empty, too long, begins with a mark, or has other characters.
pub fn check_plan_name(name: &str) -> Result<(), InvalidPlanName> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins = name.bytes().next().is_some_and(is_plain);
    let is_sound =
        begins && name.len() <= MAX_NAME && name.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte));
    if is_sound { Ok(()) } else { Err(InvalidPlanName) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> impl Strategy<Value = Limits> {
        use proptest::option::of;
        (of(1u32..100), of(1u64..100), of(1u64..100), of(1u32..100)).prop_map(|(rate, events, bytes, webhooks)| {
            Limits { publish_rate: rate, events_per_day: events, stored_bytes: bytes, max_webhooks: webhooks }
        })
    }

    proptest! {
        /// Each limit is the own limit, or else the plan's. Without a plan, own limits stay as they are.
        #[test]
        fn own_limits_replace_those_of_the_plan(own in limits(), plan in limits()) {
            let merged = own.within(Some(plan));
            prop_assert_eq!(merged.events_per_day, own.events_per_day.or(plan.events_per_day));
            prop_assert_eq!(merged.publish_rate, own.publish_rate.or(plan.publish_rate));
            prop_assert_eq!(merged.stored_bytes, own.stored_bytes.or(plan.stored_bytes));
            prop_assert_eq!(merged.max_webhooks, own.max_webhooks.or(plan.max_webhooks));
            prop_assert_eq!(own.within(None), own);
            prop_assert_eq!(Limits::default().within(Some(plan)), plan);
            prop_assert_eq!(merged.within(Some(plan)), merged);
            prop_assert_eq!(merged.check(), Ok(()));
        }
    }

    #[test]
    fn a_limit_beyond_its_range_is_named() {
        let fault = Limits { max_webhooks: Some(0), ..Limits::default() }.check().expect_err("a fault");
        assert_eq!((fault.member, fault.to_string().as_str()), ("max_webhooks", "must be between 1 and 1000000"));
        let fault = Limits { stored_bytes: Some(u64::MAX), ..Limits::default() }.check().expect_err("a fault");
        assert_eq!(fault.member, "stored_bytes");
    }

    #[test]
    fn names_of_plans_fit_in_paths() {
        for name in ["free", "2026-gold.v2", &"a".repeat(63)] {
            assert_eq!(check_plan_name(name), Ok(()), "{name}");
        }
        for name in ["", "Gold", "a b", ".hidden", "a/b", &"a".repeat(64)] {
            assert_eq!(check_plan_name(name), Err(InvalidPlanName), "{name}");
        }
    }
}
