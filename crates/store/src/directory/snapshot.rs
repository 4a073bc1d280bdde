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
    access::api_key::{ApiKey, Caller, Keys, Role},
    application::{Application, ApplicationSettings, Endpoint, EndpointSecret},
    delivery::policy::{InvalidSchedule, Policy},
    dialect::Dialects,
    endpoint::redaction::Redaction,
    event::{EventType, subscription::Subscription},
    ids::{ApplicationId, EndpointId, KeyId},
};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Keyring, Store, StoreError,
    configuration::{endpoints, secrets},
    connection::clock::Clock,
    directory::listener::listen,
};

/// Interval between two comparisons of all versions, with or without notices.
const POLL: Duration = Duration::from_secs(10);

/// Deadline of a step of a refresh.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// Applications with newest settings unreadable here: this process lacks the dialect or the encryption key. An
    /// older readable copy stays in use.
    unreadable: HashSet<ApplicationId>,
    /// Sum of all applications' versions. The sum grows with each change, and is equal in processes with equal copies.
    pub version: i64,
}

/// Access to the newest snapshot, and the database's time. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    refresh: mpsc::Sender<oneshot::Sender<bool>>,
    clock: Arc<Clock>,
    uses: Uses,
    /// Time of the last look for an unknown key.
    looked_for_key: Arc<Mutex<Option<Instant>>>,
}

/// Times of use per key, until the next write to the database.
type Uses = Arc<Mutex<HashMap<KeyId, Timestamp>>>;

impl Directory {
    /// Loads all applications and keys, waits for the database if necessary, and follows changes until `stop`.
    /// `dialects` are the known dialects.
    pub async fn follow(store: Store, dialects: Arc<Dialects>, stop: CancellationToken) -> Self {
        let clock = Arc::clone(&store.clock);
        let uses = Uses::default();
        let source = Source { store, dialects, uses: Arc::clone(&uses) };
        let (notices, mut noticed) = mpsc::channel(1);
        let (listening, stopping) = (listen(source.store.clone(), notices), stop.clone());
        tokio::spawn(async move { stopping.run_until_cancelled(listening).await });
        // The listener hears all changes after the first hint. A snapshot loaded before the hint could miss a change.
        stop.run_until_cancelled(noticed.recv()).await;
        let mut current = Arc::new(Snapshot::default());
        while let Err(error) = source.refresh(&mut current).await {
            tracing::warn!(%error, "cannot load applications, endpoints and keys; trying again");
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        let (publish, snapshot) = watch::channel(Arc::clone(&current));
        let (requests, requested) = mpsc::channel(64);
        let following = keep_current(source, current, publish, requested, noticed);
        tokio::spawn(async move { stop.run_until_cancelled(following).await });
        Self { snapshot, refresh: requests, clock, uses, looked_for_key: Arc::default() }
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

    /// Authenticates an API key, and notes its use. `None` if the text is not a valid key.
    pub fn authenticate(&self, text: &str) -> Option<Caller> {
        let now = self.now();
        let caller = self.snapshot.borrow().keys.authenticate(text, now)?;
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.key, now);
        Some(caller)
    }

    /// Refreshes the copy if `text` is an unknown key, as the key may be new: the notice of a new key needs a moment, or
    /// is lost. Looks at most once a second.
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
        let _ = tokio::time::timeout(KEY_LOOK_TIMEOUT, self.refresh()).await;
    }

    /// True if this process cannot read the newest settings of the application. An endpoint missing in the copy may
    /// then exist.
    pub fn is_unreadable(&self, id: ApplicationId) -> bool {
        self.snapshot.borrow().unreadable.contains(&id)
    }

    /// Compares the copy with the database now. False after a failure: an unknown application may then exist.
    pub async fn refresh(&self) -> bool {
        let (done, finished) = oneshot::channel();
        self.refresh.send(done).await.is_ok() && finished.await.unwrap_or(false)
    }
}

async fn keep_current(
    source: Source,
    mut current: Arc<Snapshot>,
    publish: watch::Sender<Arc<Snapshot>>,
    mut requested: mpsc::Receiver<oneshot::Sender<bool>>,
    mut noticed: mpsc::Receiver<()>,
) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            _ = poll.tick() => source.note_uses().await,
            Some(()) = noticed.recv() => {}
            request = requested.recv() => match request {
                Some(done) => waiting.push(done),
                None => break,
            },
        }
        // The refresh below answers every request received before its start.
        while let Ok(done) = requested.try_recv() {
            waiting.push(done);
        }
        let refreshed = source.refresh(&mut current).await;
        publish.send_replace(Arc::clone(&current));
        if let Err(error) = &refreshed {
            tracing::warn!(%error, "cannot refresh the configuration; the last copy stays in use");
            tokio::time::sleep(RETRY).await;
        }
        for done in waiting {
            let _ = done.send(refreshed.is_ok());
        }
    }
}

/// Sources of a snapshot.
struct Source {
    store: Store,
    dialects: Arc<Dialects>,
    uses: Uses,
}

impl Source {
    /// Writes the times of use since the last call. A failed write is not repeated: the next use of a key writes a
    /// later time.
    async fn note_uses(&self) {
        let uses: Vec<_> = self.uses.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        if !uses.is_empty()
            && let Err(error) = self.store.with_deadline(STEP_TIMEOUT, self.store.note_key_uses(&uses)).await
        {
            tracing::debug!(%error, keys = uses.len(), "cannot note when keys were used");
        }
    }

    /// Loads all changed applications and all keys.
    async fn refresh(&self, current: &mut Arc<Snapshot>) -> Result<(), StoreError> {
        let versions = self.store.with_deadline(STEP_TIMEOUT, self.versions()).await?;
        let changed: Vec<Uuid> = versions
            .iter()
            .filter(|row| {
                let known = current.applications.get(&ApplicationId(row.get(0)));
                known.is_none_or(|application| application.version != row.get::<_, i64>(1))
            })
            .map(|row| row.get(0))
            .collect();
        let mut applications = current.applications.clone();
        let mut unreadable = HashSet::new();
        for chunk in changed.chunks(1000) {
            for (id, application) in self.store.with_deadline(STEP_TIMEOUT, self.load(chunk)).await? {
                match application {
                    Ok(application) => drop(applications.insert(id, Arc::new(application))),
                    Err(error) => {
                        unreadable.insert(id);
                        if !current.unreadable.contains(&id) {
                            tracing::error!(%error, application = %id, "cannot read an application's settings; others are served");
                        }
                    }
                }
            }
        }
        let keys = Arc::new(self.store.with_deadline(STEP_TIMEOUT, load_keys(&self.store)).await?);
        // The versions of the list, read at once before the rows: one application's newer row would hide another's old
        // row in the sum.
        let version = versions.iter().map(|row| match ApplicationId(row.get(0)) {
            id if unreadable.contains(&id) => applications.get(&id).map_or(0, |application| application.version),
            _ => row.get(1),
        });
        let version = version.sum();
        *current = Arc::new(Snapshot { applications, keys, unreadable, version });
        Ok(())
    }

    async fn versions(&self) -> Result<Vec<Row>, StoreError> {
        let statement = "SELECT id, version FROM applications";
        Ok(self.store.connection().await?.query(statement, &[]).await?)
    }

    async fn load(&self, ids: &[Uuid]) -> Result<Vec<(ApplicationId, Result<Application, StoreError>)>, StoreError> {
        let mut connection = self.store.connection().await?;
        // One snapshot of the database for all rows, so that a version never comes with older endpoints.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await?;
        let statement =
            "SELECT a.id, a.version, a.dialect, a.strict, a.email IS NOT NULL AS has_email, a.publish_rate, a.redacted,
                                ARRAY(SELECT name FROM event_types t WHERE t.application_id = a.id) AS event_types
                         FROM applications a WHERE a.id = ANY($1)";
        let applications = transaction.query(statement, &[&ids]).await?;
        let statement = "SELECT e.id, e.application_id, e.url, e.event_types, e.status, e.timeout_ms, e.schedule, e.rate_per_second,
                                e.headers_key_name, e.headers_ciphertext, e.email IS NOT NULL AS has_email, e.trace_context,
                                s.id AS secret_id, s.key_name, s.ciphertext, s.created_at, s.expires_at
                         FROM endpoints e
                         LEFT JOIN endpoint_secrets s ON s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now())
                         WHERE e.application_id = ANY($1) AND e.deleted_at IS NULL
                         ORDER BY e.application_id, e.id, s.created_at DESC";
        let rows = transaction.query(statement, &[&ids]).await?;
        transaction.commit().await?;

        let mut of_application: HashMap<Uuid, Vec<&Row>> = HashMap::new();
        for row in &rows {
            of_application.entry(row.get("application_id")).or_default().push(row);
        }
        let application = |row: &Row| {
            let settings = self.settings(row)?;
            let rows = of_application.get(&settings.id.0).map_or(&[][..], Vec::as_slice);
            let endpoints = self.endpoints(rows, &settings, row.get("has_email"))?;
            Ok(Application::new(settings, endpoints))
        };
        Ok(applications.iter().map(|row| (ApplicationId(row.get("id")), application(row))).collect())
    }

    fn settings(&self, row: &Row) -> Result<ApplicationSettings, StoreError> {
        let id = ApplicationId(row.get("id"));
        let corrupt = |what: String| StoreError::corrupt("applications", format!("{id}: {what}"));
        let dialect: &str = row.get("dialect");
        let dialect = self.dialects.get(dialect).ok_or_else(|| {
            corrupt(format!("this process knows no dialect {dialect:?}; see FANFARE_DIALECTS, which all must share"))
        })?;
        let own: Vec<&str> = row.get("event_types");
        let own_event_types =
            own.into_iter().map(EventType::parse).collect::<Result<_, _>>().map_err(|fault| corrupt(fault.message))?;
        Ok(ApplicationSettings {
            id,
            version: row.get("version"),
            dialect: Arc::clone(dialect),
            is_strict: row.get("strict"),
            own_event_types,
            publish_rate: row.get::<_, Option<i32>>("publish_rate").map(i32::cast_unsigned),
            redaction: Redaction::parse(&row.get::<_, Vec<String>>("redacted"))
                .map(Arc::new)
                .map_err(|fault| corrupt(format!("redacted {fault}")))?,
        })
    }

    /// Reads endpoints from rows sorted by endpoint, the newest secret first. Each row holds one secret or none.
    fn endpoints(
        &self,
        rows: &[&Row],
        settings: &ApplicationSettings,
        owner_has_email: bool,
    ) -> Result<Vec<Endpoint>, StoreError> {
        let keyring = &self.store.keyring;
        let mut read: Vec<Endpoint> = Vec::new();
        for row in rows {
            let id = EndpointId(row.get("id"));
            if read.last().is_none_or(|last| last.id != id) {
                read.push(endpoint(keyring, row, settings, owner_has_email)?);
            }
            if let (Some(endpoint), Some(_)) = (read.last_mut(), row.get::<_, Option<Uuid>>("secret_id")) {
                let secret = secrets::open(keyring, id, row)?;
                let (created_at, expires_at) = (row.get("created_at"), row.get("expires_at"));
                endpoint.secrets.push(EndpointSecret { secret, created_at, expires_at });
            }
        }
        Ok(read)
    }
}

fn endpoint(
    keyring: &Keyring,
    row: &Row,
    settings: &ApplicationSettings,
    owner_has_email: bool,
) -> Result<Endpoint, StoreError> {
    let id = EndpointId(row.get("id"));
    let dialect = &settings.dialect;
    let corrupt = |what: String| StoreError::corrupt("endpoints", format!("{id}: {what}"));
    let subscriptions = row
        .get::<_, Vec<String>>("event_types")
        .iter()
        .map(|text| Subscription::parse(text).map_err(|fault| corrupt(fault.to_string())))
        .collect::<Result<_, _>>()?;
    Ok(Endpoint {
        id,
        application: ApplicationId(row.get("application_id")),
        url: row.get::<_, &str>("url").parse().map_err(|_| corrupt("url".to_owned()))?,
        status: endpoints::status(row)?,
        subscriptions,
        secrets: Vec::new(),
        headers: secrets::open_headers(keyring, id, row)?,
        dialect: Arc::clone(dialect),
        policy: policy(row, &dialect.policy).map_err(|fault| corrupt(fault.to_string()))?,
        redaction: Arc::clone(&settings.redaction),
        sends_trace: row.get("trace_context"),
        notifies_owner: dialect.notifies_owner && (owner_has_email || row.get("has_email")),
    })
}

/// Policy of the dialect, with the endpoint's own values.
fn policy(row: &Row, of_dialect: &Arc<Policy>) -> Result<Arc<Policy>, InvalidSchedule> {
    let (schedule, timeout, rate) = (endpoints::schedule(row)?, endpoints::timeout(row), endpoints::rate(row));
    if schedule.is_none() && timeout.is_none() && rate.is_none() {
        return Ok(Arc::clone(of_dialect));
    }
    let mut policy = Policy::clone(of_dialect);
    if let Some(schedule) = schedule {
        policy.schedule = schedule;
    }
    if let Some(timeout) = timeout {
        policy.timeout = timeout;
    }
    policy.rate_per_second = rate.or(policy.rate_per_second);
    Ok(Arc::new(policy))
}

async fn load_keys(store: &Store) -> Result<Keys, StoreError> {
    let statement = "SELECT id, application_id, role, digest, expires_at FROM api_keys
                     WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())";
    let rows = store.connection().await?.query(statement, &[]).await?;
    rows.iter()
        .map(|row| {
            let id = KeyId(row.get(0));
            let corrupt = |what| StoreError::corrupt("api_keys", format!("{id}: {what}"));
            Ok(ApiKey {
                id,
                application: row.get::<_, Option<Uuid>>(1).map(ApplicationId),
                role: Role::parse(row.get(2)).ok_or_else(|| corrupt("role"))?,
                digest: row.get::<_, &[u8]>(3).try_into().map_err(|_| corrupt("digest"))?,
                expires_at: row.get(4),
            })
        })
        .collect()
}
