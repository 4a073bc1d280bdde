//! Quotas of applications. Does not touch the database.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use fanfare_domain::{
    application::Application,
    ids::ApplicationId,
    quota::{Amount, Exceeded, Recent, admit, end_of_day, used},
};
use fanfare_store::Directory;

use crate::{
    http::error::{ApiError, ErrorCode},
    state::publishing::count,
};

/// Events that this process has accepted of applications with a quota. Each process counts alone, from the moment on up
/// to which the database has counted.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    recent: Mutex<HashMap<ApplicationId, Recent>>,
}

impl Quotas {
    /// Checks that the quotas permit an event now. Takes nothing.
    pub(super) fn check(&self, directory: &Directory, application: &Application) -> Result<(), ApiError> {
        self.decide(directory, application, None)
    }

    /// Takes an event with a body of `bytes` from the quotas. An event that the broker then refuses counts until the
    /// database has counted its minute.
    pub(super) fn take(&self, directory: &Directory, application: &Application, bytes: usize) -> Result<(), ApiError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.decide(directory, application, Some(Amount { events: 1, bytes }))
    }

    fn decide(&self, directory: &Directory, application: &Application, taken: Option<Amount>) -> Result<(), ApiError> {
        let limits = directory.limits(application);
        if !limits.has_quota() {
            return Ok(());
        }
        let (counted, now) = (directory.snapshot().counts.of(application.id), directory.now());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.entry(application.id).or_default();
        recent.forget(counted.to);
        admit(&limits, used(counted, recent, now)).map_err(|exceeded| {
            count("limited");
            refused(exceeded, application.plan.as_deref()).retry_in(end_of_day(now).duration_since(now).unsigned_abs())
        })?;
        if let Some(taken) = taken {
            recent.add(now, taken);
        }
        Ok(())
    }
}

/// Bytes become free with the oldest day of the retention, thus at the same moment as the events of a new day.
fn refused(exceeded: Exceeded, plan: Option<&str>) -> ApiError {
    let plan = plan.map(|plan| format!(" (plan {plan})")).unwrap_or_default();
    match exceeded {
        Exceeded::EventsPerDay(quota) => {
            let message = format!(
                "the application has published its quota of {quota} events{plan} in this UTC day: publish again after \
                 midnight UTC, or ask the operator for a higher quota"
            );
            ApiError::new(ErrorCode::QuotaExceeded, message)
        }
        Exceeded::StoredBytes(quota) => {
            let message = format!(
                "the application has stored its quota of {quota} bytes{plan}: room returns after midnight UTC, as the \
                 oldest events end, or with a higher quota"
            );
            ApiError::new(ErrorCode::StorageQuotaExceeded, message)
        }
    }
}
