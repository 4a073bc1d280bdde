//! How many events each application may publish in a second.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fanfare_domain::{application::Application, ids::ApplicationId, quota::Quota};

/// The quotas of this process. Others have their own.
pub(crate) struct Quotas {
    /// Where an application has no limit of its own; none for no limit.
    per_second: Option<u32>,
    /// What may be published at once, whatever the limit.
    at_once: u32,
    since: Instant,
    /// Of applications with a key that have published: no more than there are.
    left: Mutex<HashMap<ApplicationId, Quota>>,
}

impl Quotas {
    /// Quotas of so many events in a second, 0 for no limit, of which so many may come at once.
    pub(crate) fn new(per_second: u32, at_once: u32) -> Self {
        let per_second = (per_second > 0).then_some(per_second);
        Self { per_second, at_once, since: Instant::now(), left: Mutex::default() }
    }

    /// Takes room for `count` events, or says after what time there will be.
    pub(crate) fn take(&self, application: &Application, count: usize) -> Result<(), Duration> {
        let Some(per_second) = application.publish_rate.or(self.per_second) else { return Ok(()) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.entry(application.id).or_default().take(self.since.elapsed(), per_second, self.at_once, count)
    }
}
