//! An immutable copy of applications, endpoints and keys for the services. The copy is normally less than a second old,
//! and at most ten seconds while the database answers.
//!
//! A notice from the database reports each change at once; a slow poll finds a change whose notice was lost. While the
//! database is away, the services keep the last copy.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    access::api_key::{Caller, Keys},
    application::{Application, plan::Limits, quota::Counted},
    dialect::Dialects,
    ids::{ApplicationId, KeyId},
};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Store,
    connection::clock::Clock,
    directory::{
        changes::{Changes, Heard},
        counts::{Counts, keep_counts},
        listener::listen,
        source::{STEP_TIMEOUT, Source},
    },
};

/// Interval between two comparisons of all versions, with or without notices.
pub(super) const POLL: Duration = Duration::from_secs(10);

/// Shortest interval between two looks for unknown keys: random keys must not load the database.
const KEY_LOOKS_EVERY: Duration = Duration::from_secs(1);

/// Deadline of a look for an unknown key. While the database is away, the caller gets the refusal this late.
const KEY_LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait between a failed refresh and the next.
const RETRY: Duration = Duration::from_millis(500);

/// All applications and all keys.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Applications, each replaced whole when it changes.
    pub applications: HashMap<ApplicationId, Arc<Application>>,
    /// Valid keys.
    pub keys: Arc<Keys>,
    /// Limits of the plans by name, in processes that authenticate callers.
    pub plans: Arc<HashMap<String, Limits>>,
    /// Applications with newest settings unreadable here: this process lacks the dialect or the encryption key. An
    /// older readable copy stays in use.
    pub(super) unreadable: HashSet<ApplicationId>,
    /// Sum of all applications' versions. The sum grows with each change, and is equal in processes with equal copies.
    pub version: i64,
}

impl Snapshot {
    /// Limits of an application: its own, or else the plan's.
    pub fn limits(&self, application: &Application) -> Limits {
        let plan = application.plan.as_deref().and_then(|plan| self.plans.get(plan));
        application.limits.within(plan.copied())
    }

    /// Ids of the applications with a quota, sorted.
    pub(super) fn with_quota(&self) -> Vec<Uuid> {
        let has_quota = |application: &&Arc<Application>| self.limits(application).has_quota();
        let mut ids: Vec<Uuid> =
            self.applications.values().filter(has_quota).map(|application| application.id.0).collect();
        ids.sort_unstable();
        ids
    }
}

/// Access to the newest snapshot, and the database's time. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Counts of the applications with a quota, in processes that authenticate callers.
    counts: watch::Receiver<Arc<Counts>>,
    refresh: mpsc::Sender<Request>,
    clock: Arc<Clock>,
    uses: Uses,
    /// Time of the last look for an unknown key.
    looked_for_key: Arc<Mutex<Option<Instant>>>,
}

/// A request to compare parts of the copy with the database; the answer is false after a failure.
type Request = (Changes, oneshot::Sender<bool>);

/// Times of use per key, until the next write to the database.
type Uses = Arc<Mutex<HashMap<KeyId, Timestamp>>>;

impl Directory {
    /// Loads all applications and keys, waits for the database if necessary, and follows changes until `stop`.
    /// `dialects` are the known dialects.
    pub async fn follow(store: Store, dialects: Arc<Dialects>, stop: CancellationToken) -> Self {
        Self::follow_parts(store, dialects, true, stop).await
    }

    /// Like [`Self::follow`], without the keys: the process authenticates no callers.
    pub async fn follow_applications(store: Store, dialects: Arc<Dialects>, stop: CancellationToken) -> Self {
        Self::follow_parts(store, dialects, false, stop).await
    }

    async fn follow_parts(store: Store, dialects: Arc<Dialects>, needs_keys: bool, stop: CancellationToken) -> Self {
        let clock = Arc::clone(&store.clock);
        let heard = Heard::default();
        let (listening, stopping) = (listen(store.clone(), heard.clone()), stop.clone());
        tokio::spawn(async move { stopping.run_until_cancelled(listening).await });
        // The listener hears all changes after the first hint. A snapshot loaded before the hint could miss a change.
        stop.run_until_cancelled(heard.next()).await;
        let listed = HashMap::new();
        let mut source = Source { store: store.clone(), dialects, needs_keys, listed, keys: None, plans: None };
        let mut current = Arc::new(Snapshot::default());
        while let Err(error) = source.refresh(&mut current, &Changes::all()).await {
            tracing::warn!(%error, "cannot load applications, endpoints and keys; trying again");
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        let (publish, snapshot) = watch::channel(Arc::clone(&current));
        let (requests, requested) = mpsc::channel(64);
        let uses = Uses::default();
        tokio::spawn(stop.clone().run_until_cancelled_owned(note_uses(store.clone(), Arc::clone(&uses))));
        let (publish_counts, counts) = watch::channel(Arc::default());
        if needs_keys {
            // A task of its own: a slow count delays no change of the configuration.
            let counting = keep_counts(store, snapshot.clone(), publish_counts);
            tokio::spawn(stop.clone().run_until_cancelled_owned(counting));
        }
        let following = keep_current(source, current, publish, requested, heard);
        tokio::spawn(stop.run_until_cancelled_owned(following));
        Self { snapshot, counts, refresh: requests, clock, uses, looked_for_key: Arc::default() }
    }

    /// The newest snapshot, with a notification after each comparison with the database.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The database's time, also while the database is away.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The last snapshot that was read.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Finds an application in the newest snapshot.
    pub fn application(&self, id: ApplicationId) -> Option<Arc<Application>> {
        self.snapshot.borrow().applications.get(&id).cloned()
    }

    /// Limits of an application: its own, or else the plan's. Without a plan, looks at no snapshot.
    pub fn limits(&self, application: &Application) -> Limits {
        if application.plan.is_none() {
            return application.limits;
        }
        self.snapshot.borrow().limits(application)
    }

    /// Counts of an application with a quota.
    pub fn counted(&self, application: ApplicationId) -> Counted {
        self.counts.borrow().of(application)
    }

    /// Authenticates an API key, and notes its use. `None` if the text is not a valid key.
    pub fn authenticate(&self, text: &str) -> Option<Caller> {
        let now = self.now();
        let caller = self.snapshot.borrow().keys.authenticate(text, now)?;
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.key, now);
        Some(caller)
    }

    /// Refreshes the keys if `text` is an unknown key, as the key may be new: the notice of a new key needs a moment,
    /// or is lost. Looks at most once a second.
    pub async fn look_for_key(&self, text: &str) {
        if !self.snapshot.borrow().keys.lacks(text) {
            return;
        }
        {
            let mut looked = self.looked_for_key.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|at| at.elapsed() < KEY_LOOKS_EVERY) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let _ = tokio::time::timeout(KEY_LOOK_TIMEOUT, self.look(Changes::keys())).await;
    }

    /// True if this process cannot read the newest settings of the application. An endpoint missing in the copy may
    /// then exist.
    pub fn is_unreadable(&self, id: ApplicationId) -> bool {
        self.snapshot.borrow().unreadable.contains(&id)
    }

    /// Compares the copies of applications with the database now, and the keys. False after a failure: an unknown
    /// application may then exist.
    pub async fn refresh(&self, applications: impl IntoIterator<Item = ApplicationId>) -> bool {
        self.look(Changes::of(applications)).await
    }

    /// Compares the whole copy with the database now. False after a failure.
    pub async fn refresh_all(&self) -> bool {
        self.look(Changes::all()).await
    }

    async fn look(&self, changes: Changes) -> bool {
        let (done, finished) = oneshot::channel();
        self.refresh.send((changes, done)).await.is_ok() && finished.await.unwrap_or(false)
    }
}

async fn keep_current(
    mut source: Source,
    mut current: Arc<Snapshot>,
    publish: watch::Sender<Arc<Snapshot>>,
    mut requested: mpsc::Receiver<Request>,
    heard: Heard,
) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (mut changes, mut waiting) = (Changes::default(), Vec::new());
        tokio::select! {
            _ = poll.tick() => changes = Changes::all(),
            heard = heard.next() => changes = heard,
            request = requested.recv() => match request {
                Some((asked, done)) => {
                    changes.add(asked);
                    waiting.push(done);
                }
                None => break,
            },
        }
        // The refresh below answers every request received before its start.
        while let Ok((asked, done)) = requested.try_recv() {
            changes.add(asked);
            waiting.push(done);
        }
        let refreshed = source.refresh(&mut current, &changes).await;
        publish.send_replace(Arc::clone(&current));
        if let Err(error) = &refreshed {
            tracing::warn!(%error, "cannot refresh the configuration; the last copy stays in use");
            tokio::time::sleep(RETRY).await;
            heard.add(Changes::all());
        }
        for done in waiting {
            let _ = done.send(refreshed.is_ok());
        }
    }
}

/// Writes the times of use since the last write, from time to time. A failed write is not repeated: the next use of a
/// key writes a later time.
async fn note_uses(store: Store, uses: Uses) {
    loop {
        tokio::time::sleep(POLL).await;
        let uses: Vec<_> = uses.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        if !uses.is_empty()
            && let Err(error) = store.with_deadline(STEP_TIMEOUT, store.note_key_uses(&uses)).await
        {
            tracing::debug!(%error, keys = uses.len(), "cannot note when keys were used");
        }
    }
}
