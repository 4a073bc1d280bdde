//! Quotas of applications. Does not touch the database.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    application::{
        Application,
        quota::{Amount, Exceeded, Recent, admit, used},
    },
    ids::ApplicationId,
    time::{end_of_day, saturating_add},
};
use fanfare_store::Directory;
use jiff::Timestamp;

use crate::{
    http::error::{ApiError, ErrorCode},
    state::publishing::count,
};

/// Interval of the removal of applications without a quota.
const CLEARED_EVERY: Duration = Duration::from_secs(60);

/// Events that this process has accepted of applications with a quota. Each process counts alone, from its start on.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    recent: Mutex<Accepted>,
}

#[derive(Debug, Default)]
struct Accepted {
    of: HashMap<ApplicationId, Recent>,
    cleared: Timestamp,
}

/// An event taken from the quotas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    at: Timestamp,
    amount: Amount,
}

impl Quotas {
    /// Checks that the quotas permit an event now. Takes nothing.
    pub(super) fn check(&self, directory: &Directory, application: &Application) -> Result<(), ApiError> {
        self.decide(directory, application, None).map(drop)
    }

    /// Takes an event with a body of `bytes` from the quotas; `None` without a quota.
    pub(super) fn take(
        &self,
        directory: &Directory,
        application: &Application,
        bytes: usize,
    ) -> Result<Option<Taken>, ApiError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.decide(directory, application, Some(Amount { events: 1, bytes }))
    }

    /// Gives back an event that the broker has not accepted.
    pub(super) fn give_back(&self, application: ApplicationId, taken: Taken) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recent) = recent.of.get_mut(&application) {
            recent.give_back(taken.at, taken.amount);
        }
    }

    fn decide(
        &self,
        directory: &Directory,
        application: &Application,
        amount: Option<Amount>,
    ) -> Result<Option<Taken>, ApiError> {
        let limits = directory.limits(application);
        if !limits.has_quota() {
            return Ok(None);
        }
        let (counted, now) = (directory.counted(application.id), directory.now());
        let mut accepted = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recent) = accepted.of.get_mut(&application.id) {
            recent.forget(counted.to);
        }
        let none = Recent::default();
        let recent = accepted.of.get(&application.id).unwrap_or(&none);
        admit(&limits, used(counted, recent, now)).map_err(|exceeded| {
            count("limited");
            refused(exceeded, application.plan.as_deref(), now)
        })?;
        let Some(amount) = amount else { return Ok(None) };
        accepted.clear(directory, now);
        accepted.of.entry(application.id).or_default().add(now, amount);
        Ok(Some(Taken { at: now, amount }))
    }
}

impl Accepted {
    /// Removes applications that have no quota any more, from time to time.
    fn clear(&mut self, directory: &Directory, now: Timestamp) {
        if now < saturating_add(self.cleared, CLEARED_EVERY) {
            return;
        }
        self.cleared = now;
        let snapshot = directory.snapshot();
        self.of.retain(|id, _| snapshot.applications.get(id).is_some_and(|known| snapshot.limits(known).has_quota()));
    }
}

/// A new day has a new quota of events. Bytes become free with the oldest day of the retention, at no known time.
fn refused(exceeded: Exceeded, plan: Option<&str>, now: Timestamp) -> ApiError {
    let plan = plan.map(|plan| format!(" (plan {plan})")).unwrap_or_default();
    match exceeded {
        Exceeded::EventsPerDay(quota) => {
            let message = format!(
                "the application has published its quota of {quota} events{plan} in this UTC day: publish again after \
                 midnight UTC, or ask the operator for a higher quota"
            );
            ApiError::new(ErrorCode::QuotaExceeded, message)
                .retry_in(end_of_day(now).duration_since(now).unsigned_abs())
        }
        Exceeded::StoredBytes(quota) => {
            let message = format!(
                "the application has stored its quota of {quota} bytes{plan}: room returns with the end of the oldest \
                 events, or with a higher quota"
            );
            ApiError::new(ErrorCode::StorageQuotaExceeded, message)
        }
    }
}
