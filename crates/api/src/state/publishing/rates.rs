//! Publish rate limits of applications.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fanfare_domain::{ids::ApplicationId, rate_limit::LeakyBucket};

use crate::state::publishing::MAX_BATCH;

/// The publish rates in this process. Each process counts alone.
pub(super) struct PublishRates {
    /// The default limit of an application, in events per second. `None` for no limit.
    per_second: Option<u32>,
    since: Instant,
    /// Buckets of applications that have published with a valid key. The number of applications bounds the map.
    buckets: Mutex<HashMap<ApplicationId, LeakyBucket>>,
}

impl PublishRates {
    /// Creates rates of `per_second` events, 0 for no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = (per_second > 0).then_some(per_second);
        Self { per_second, since: Instant::now(), buckets: Mutex::default() }
    }

    /// Checks that the rate permits an event now. `own` is the limit of the application or its plan. The error is the
    /// wait until then.
    pub(super) fn check(&self, application: ApplicationId, own: Option<u32>) -> Result<(), Duration> {
        let Some(per_second) = own.or(self.per_second) else { return Ok(()) };
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copy = buckets.get(&application).copied().unwrap_or_default();
        copy.take(self.since.elapsed(), per_second, MAX_BATCH.into(), 1)
    }

    /// Takes `count` events from the application's rate. The error is the wait until the rate permits `count` events.
    pub(super) fn take(&self, application: ApplicationId, own: Option<u32>, count: usize) -> Result<(), Duration> {
        let Some(per_second) = own.or(self.per_second) else { return Ok(()) };
        // The least burst is a whole batch, even for a lower limit.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.entry(application).or_default().take(self.since.elapsed(), per_second, MAX_BATCH.into(), count)
    }
}
