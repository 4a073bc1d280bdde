//! Databases on the server of DATABASE_URL: a template once per run, and a copy for each test.

use std::{
    env,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_credentials::Credentials;
use fanfare_store::{Store, StoreSettings};
use tokio::{
    runtime,
    sync::{OnceCell, Semaphore, SemaphorePermit},
};
use tokio_postgres::{Client, error::SqlState};

use super::{TEMPLATE, connect};

/// Databases in use at once: each takes up to a dozen connections.
static ROOM: Semaphore = Semaphore::const_new(12);

static TEMPLATE_NAME: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Databases for the next tests: a copy takes longer than most tests.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Removes the rows written by a test, and the sessions left open.
const RESET: &str = "
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DELETE FROM open_deliveries; DELETE FROM endpoint_backlogs; DELETE FROM fan_outs; DELETE FROM delayed_events; DELETE FROM event_keys;
DELETE FROM events; DELETE FROM deliveries; DELETE FROM attempts; DELETE FROM failure_notices; DELETE FROM parked;
DELETE FROM replays; DELETE FROM processes; DELETE FROM rollups; DELETE FROM rollups_hourly; DELETE FROM queue_depths;
DELETE FROM job_runs; DELETE FROM sessions; DELETE FROM api_keys; DELETE FROM ordering_keys; DELETE FROM delivery_sequences;
DELETE FROM ordering_signals; DELETE FROM delivery_bodies; DELETE FROM operational_states; DELETE FROM operational_marks;
DELETE FROM condition_notices;
DELETE FROM usage_days; DELETE FROM signing_keys; DELETE FROM endpoint_tokens;
UPDATE endpoints SET status = 'enabled', deleted_at = NULL, fifo = NULL, authentication = NULL,
                     authentication_key_name = NULL, certificate = NULL, certificate_key_name = NULL
WHERE status <> 'enabled' OR deleted_at IS NOT NULL OR fifo IS NOT NULL OR authentication_version > 0
      OR certificate IS NOT NULL;
UPDATE retention SET line = '-infinity'";

const PREFIX: &str = "fanfare_test_";

/// A database used by a single test at a time.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) url: String,
    name: String,
    /// True if another test may use the database afterwards.
    is_kept: bool,
    _room: SemaphorePermit<'static>,
}

impl Database {
    /// A database with the schema, the partitions of the current days, an application and its endpoints. The test must
    /// change neither the schema nor the settings.
    pub(crate) async fn new() -> Self {
        Self::take(true).await
    }

    /// A new database, dropped with the test.
    pub(crate) async fn fresh() -> Self {
        Self::take(false).await
    }

    async fn take(is_kept: bool) -> Self {
        let room = ROOM.acquire().await.expect("room");
        let template = TEMPLATE_NAME.get_or_init(make_template).await;
        let free = if is_kept { FREE.lock().expect("a lock").pop() } else { None };
        let name = match free {
            Some(name) => name,
            None => {
                let name = format!("{PREFIX}{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
                copy(template, &name).await;
                name
            }
        };
        let url = url(&name);
        Self { store: store(&url), client: connect(&url).await, url, name, is_kept, _room: room }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (name, url) = (self.name.clone(), self.url.clone());
        // `block_on` panics within the test's runtime: both branches run on a thread of their own.
        if self.is_kept && !std::thread::panicking() {
            apart(async move {
                connect(&url).await.batch_execute(RESET).await.expect("an empty database");
                FREE.lock().expect("a lock").push(name);
            });
        } else {
            let statement = format!("DROP DATABASE {name} WITH (FORCE)");
            apart(async move { connect(&server()).await.batch_execute(&statement).await.expect("a dropped database") });
        }
    }
}

/// Runs `work` on a new thread and runtime, and waits for the end. The runtime's end closes the connections.
fn apart(work: impl Future<Output = ()> + Send + 'static) {
    let work = move || runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
    if std::thread::spawn(work).join().is_err() {
        eprintln!("the test database was not removed; the next run drops it");
    }
}

async fn make_template() -> String {
    let name = format!("{PREFIX}{}_template", std::process::id());
    let made = name.clone();
    apart(async move {
        let admin = connect(&server()).await;
        drop_leftovers(&admin).await;
        admin.batch_execute(&format!("CREATE DATABASE {made}")).await.expect("a template");
        let now = jiff::Timestamp::now();
        store(&url(&made)).migrate(now).await.expect("the schema");
        connect(&url(&made)).await.batch_execute(TEMPLATE).await.expect("the template's load");
    });
    name
}

/// Drops the databases of ended runs.
async fn drop_leftovers(admin: &Client) {
    let found = "SELECT datname::text FROM pg_database WHERE datname LIKE $1 || '%'";
    for row in admin.query(found, &[&PREFIX]).await.expect("databases") {
        let name: &str = row.get(0);
        let process = name.trim_start_matches(PREFIX).split('_').next().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.expect("a drop");
        }
    }
}

/// Copies the template as soon as no session uses the template.
async fn copy(template: &str, name: &str) {
    let admin = connect(&server()).await;
    let statement = format!("CREATE DATABASE {name} TEMPLATE {template}");
    for _ in 0..200 {
        match admin.batch_execute(&statement).await {
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            made => return made.expect("a database"),
        }
    }
    panic!("the template stays in use");
}

fn server() -> String {
    env::var("DATABASE_URL").expect("DATABASE_URL names a PostgreSQL; deploy/dev/with-services starts one")
}

fn url(name: &str) -> String {
    let server = server();
    let (base, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{base}/{name}")
}

pub(super) fn store(url: &str) -> Store {
    Store::new(settings(url)).expect("a store")
}

pub(crate) fn settings(url: &str) -> StoreSettings {
    StoreSettings {
        url: url.parse().expect("a URL"),
        credentials: Credentials::of_url(url),
        connections: 4,
        keyring: format!("test:{}=", "A".repeat(43)).parse().expect("a key"),
    }
}
