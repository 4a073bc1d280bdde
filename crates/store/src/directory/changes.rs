//! Changes of the configuration that are not loaded yet.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use fanfare_domain::ids::ApplicationId;
use tokio::sync::Notify;

/// Parts that may have changed. Each look compares the keys and the plans, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// True for all applications.
    pub(crate) all: bool,
    pub(crate) applications: HashSet<ApplicationId>,
}

impl Changes {
    /// Everything may have changed.
    pub(crate) fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Some applications may have changed.
    pub(crate) fn of(applications: impl IntoIterator<Item = ApplicationId>) -> Self {
        Self { all: false, applications: applications.into_iter().collect() }
    }

    /// The keys or the plans may have changed.
    pub(crate) fn keys() -> Self {
        Self::default()
    }

    /// The payload of a notice: `keys`, `plans`, or the id of an application.
    pub(crate) fn of_notice(payload: &str) -> Self {
        match payload.parse() {
            _ if ["keys", "plans"].contains(&payload) => Self::keys(),
            Ok(application) => Self::of([ApplicationId(application)]),
            Err(_) => Self::all(),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.applications.extend(other.applications);
    }
}

/// Changes that the listener has heard of. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    changes: Arc<Mutex<Changes>>,
    heard: Arc<Notify>,
}

impl Heard {
    pub(crate) fn add(&self, changes: Changes) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).add(changes);
        self.heard.notify_one();
    }

    /// Waits for changes, and takes them.
    pub(crate) async fn next(&self) -> Changes {
        self.heard.notified().await;
        mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn changes_add_up_until_they_are_taken() {
        let heard = Heard::default();
        let application = |number| ApplicationId(Uuid::from_u128(number));
        for payload in ["keys", "plans", &application(1).0.to_string(), &application(2).0.to_string()] {
            heard.add(Changes::of_notice(payload));
        }
        let applications = HashSet::from([application(1), application(2)]);
        assert_eq!(heard.next().await, Changes { all: false, applications });
        heard.add(Changes::of_notice("of a later release"));
        assert_eq!(heard.next().await, Changes::all());
    }
}
