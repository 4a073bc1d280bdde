//! How long a delivery that is put off waits.

use std::time::Duration;

/// The longest wait before a deferred delivery is tried again.
const MAX_DEFERRAL: Duration = Duration::from_secs(300);

/// How long the `count`-th deferral in a row (from 1 on) waits: min(2^count s, 5 min), of which a half
/// is spread by `random` in 0..1, so that what was deferred together does not come back together.
pub fn deferral_wait(count: u32, random: f64) -> Duration {
    let whole = Duration::from_secs(1 << count.clamp(1, 16)).min(MAX_DEFERRAL);
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn deferrals_grow_within_bounds(count in 0u32..100, random in 0.0f64..1.0) {
            let wait = deferral_wait(count, random);
            prop_assert!(wait >= Duration::from_secs(1) && wait <= MAX_DEFERRAL);
            prop_assert!(deferral_wait(count + 1, random) >= wait);
        }
    }
}
