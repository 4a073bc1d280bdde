//! Reads changed parts of the configuration from the database.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::Transaction;
use fanfare_domain::{
    access::api_key::{ApiKey, Keys, Role},
    application::{
        Application, ApplicationSettings,
        plan::Limits,
        signing_key::{ApplicationKey, SigningKeys},
    },
    delivery::policy::{InvalidSchedule, Policy},
    dialect::Dialects,
    endpoint::{Endpoint, EndpointSecret, filter::Filter, redaction::Redaction, template::Template},
    event::{
        EventType,
        schema::{Schema, Schemas},
        subscription::Subscription,
    },
    ids::{ApplicationId, EndpointId, KeyId},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Keyring, Store, StoreError,
    configuration::{credentials, endpoints, plans, secrets, signing_keys},
    directory::{changes::Changes, snapshot::Snapshot},
};

/// Deadline of a step of a refresh.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Applications that are loaded at once.
const AT_ONCE: usize = 1000;

/// Version of an application that was never loaded: less than any version of an endpoint.
const NEVER: i64 = -1;

/// The newest keys and plans, with their versions.
struct Newest {
    keys: Arc<Keys>,
    plans: Arc<HashMap<String, Limits>>,
    versions: (Option<i64>, Option<i64>),
}

/// Source of a snapshot.
pub(super) struct Source {
    pub(super) store: Store,
    pub(super) dialects: Arc<Dialects>,
    /// True if the process authenticates callers. Such a process also needs the plans.
    pub(super) needs_keys: bool,
    /// Versions of the applications as listed at the last look.
    pub(super) listed: HashMap<ApplicationId, i64>,
    /// Version of the loaded keys.
    pub(super) keys: Option<i64>,
    /// Version of the loaded plans.
    pub(super) plans: Option<i64>,
}

/// A loaded application, or the part that has changed.
struct Loaded {
    settings: ApplicationSettings,
    /// Changed endpoints.
    endpoints: Vec<Endpoint>,
    /// Deleted endpoints.
    deleted: Vec<EndpointId>,
    /// True if `endpoints` are all endpoints.
    is_whole: bool,
}

/// The signing keys of applications, or the fault in reading them.
type KeysRead = HashMap<ApplicationId, Result<Vec<ApplicationKey>, StoreError>>;

impl Loaded {
    /// The application with the loaded part. `known` is the application before.
    fn applied(self, known: Option<&Arc<Application>>) -> Application {
        match known {
            Some(known) if !self.is_whole => known.with(self.settings, self.endpoints, &self.deleted),
            _ => Application::new(self.settings, self.endpoints),
        }
    }
}

impl Source {
    /// Loads the changed parts among `changes`.
    pub(super) async fn refresh(&mut self, current: &mut Arc<Snapshot>, changes: &Changes) -> Result<(), StoreError> {
        let listed = self.store.with_deadline(STEP_TIMEOUT, self.versions(changes)).await?;
        let known = |id: &ApplicationId| current.applications.get(id).map_or(NEVER, |application| application.version);
        let changed: Vec<_> = listed
            .iter()
            .map(|(id, version)| (*id, known(id), *version))
            .filter(|(_, known, version)| known != version)
            .collect();
        let mut applications = current.applications.clone();
        let mut unreadable = current.unreadable.clone();
        for chunk in changed.chunks(AT_ONCE) {
            for (id, loaded) in self.store.with_deadline(STEP_TIMEOUT, self.load(chunk, &applications)).await? {
                match loaded {
                    Ok(loaded) => {
                        let application = loaded.applied(applications.get(&id));
                        applications.insert(id, Arc::new(application));
                        unreadable.remove(&id);
                    }
                    Err(error) => {
                        if unreadable.insert(id) {
                            tracing::error!(%error, application = %id, "cannot read an application's settings; others are served");
                        }
                    }
                }
            }
        }
        let newest = self.newest_keys_and_plans(current).await?;
        self.listed.extend(listed);
        let version = self.sum(&applications, &unreadable);
        *current = Arc::new(Snapshot { applications, keys: newest.keys, plans: newest.plans, unreadable, version });
        // Beside the snapshot: after a failed refresh, the next must load the same changes.
        (self.keys, self.plans) = newest.versions;
        Ok(())
    }

    /// Sum of the versions. The versions as listed, read at once before the rows: one application's newer row would
    /// hide another's old row in the sum.
    fn sum(&self, applications: &HashMap<ApplicationId, Arc<Application>>, unreadable: &HashSet<ApplicationId>) -> i64 {
        let version = |(id, listed): (&ApplicationId, &i64)| {
            if unreadable.contains(id) {
                applications.get(id).map_or(0, |application| application.version)
            } else {
                *listed
            }
        };
        self.listed.iter().map(version).sum()
    }

    /// Versions of the applications among `changes`.
    async fn versions(&self, changes: &Changes) -> Result<Vec<(ApplicationId, i64)>, StoreError> {
        let ids: Option<Vec<Uuid>> = (!changes.all).then(|| changes.applications.iter().map(|id| id.0).collect());
        if ids.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let statement = "SELECT id, version FROM applications WHERE $1::uuid[] IS NULL OR id = ANY($1)";
        let rows = self.store.connection().await?.query(statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (ApplicationId(row.get(0)), row.get(1))).collect())
    }

    /// Loads applications by id, known version and listed version. Of an application whose own settings are as known,
    /// loads only the endpoints that have changed since the known version.
    async fn load(
        &self,
        changed: &[(ApplicationId, i64, i64)],
        before: &HashMap<ApplicationId, Arc<Application>>,
    ) -> Result<Vec<(ApplicationId, Result<Loaded, StoreError>)>, StoreError> {
        let (ids, known): (Vec<Uuid>, Vec<i64>) = changed.iter().map(|(id, known, _)| (id.0, *known)).unzip();
        let mut connection = self.store.connection().await?;
        // One snapshot of the database for all rows, so that a version never comes with older endpoints.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await?;
        if known.iter().any(|version| *version != NEVER) {
            transaction.batch_execute(LOOK_UPS_ONLY).await?;
        }
        let applications = transaction.query(APPLICATIONS, &[&ids, &known]).await?;
        let (ids, since): (Vec<Uuid>, Vec<i64>) =
            applications.iter().map(|row| (row.get::<_, Uuid>("id"), row.get::<_, i64>("since"))).unzip();
        let rows = transaction.query(ENDPOINTS, &[&ids, &since]).await?;
        let changed: Vec<Uuid> =
            applications.iter().filter(|row| row.get("has_new_schemas")).map(|row| row.get("id")).collect();
        let mut schemas = if changed.is_empty() {
            HashMap::new()
        } else {
            schemas_by_application(&transaction.query(SCHEMAS, &[&changed]).await?)
        };
        let mut keys = self.new_keys(&transaction, &applications).await?;
        transaction.commit().await?;

        let mut of_application: HashMap<Uuid, Vec<&Row>> = HashMap::new();
        for row in &rows {
            of_application.entry(row.get("application_id")).or_default().push(row);
        }
        let mut loaded = |row: &Row| {
            let mut settings = self.settings(row)?;
            if row.get("has_new_schemas") {
                settings.schemas = Some(schemas.remove(&settings.id).unwrap_or(Ok(Schemas::default()))?);
            }
            let is_whole = row.get::<_, i64>("since") == NEVER;
            settings.signing_keys = if is_whole {
                Self::keys_in_use(keys.remove(&settings.id), of_application.get(&settings.id.0))?
            } else {
                before.get(&settings.id).and_then(|known| known.signing_keys.clone())
            };
            let (rows, deleted): (Vec<&Row>, Vec<&Row>) = of_application
                .get(&settings.id.0)
                .into_iter()
                .flatten()
                .partition(|row| !row.get::<_, bool>("is_deleted"));
            let endpoints = self.endpoints(&rows, &settings, row.get("has_email"))?;
            let deleted = deleted.iter().map(|row| EndpointId(row.get("id"))).collect();
            Ok(Loaded { settings, endpoints, deleted, is_whole })
        };
        Ok(applications.iter().map(|row| (ApplicationId(row.get("id")), loaded(row))).collect())
    }

    /// The newest keys and plans, or the current of those that have not changed. The plans come after the applications,
    /// so that the plan of an application is known.
    async fn newest_keys_and_plans(&self, current: &Snapshot) -> Result<Newest, StoreError> {
        let (mut keys, mut plans) = (Arc::clone(&current.keys), Arc::clone(&current.plans));
        if !self.needs_keys {
            return Ok(Newest { keys, plans, versions: (None, None) });
        }
        // Read before the rows: a change between the two reads is loaded again later.
        let (of_keys, of_plans) = self.store.with_deadline(STEP_TIMEOUT, versions(&self.store)).await?;
        if self.keys != Some(of_keys) {
            keys = Arc::new(self.store.with_deadline(STEP_TIMEOUT, load_keys(&self.store)).await?);
        }
        if self.plans != Some(of_plans) {
            plans = Arc::new(self.store.with_deadline(STEP_TIMEOUT, load_plans(&self.store)).await?);
        }
        Ok(Newest { keys, plans, versions: (Some(of_keys), Some(of_plans)) })
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
            schemas: None,
            limits: plans::limits(row),
            plan: row.get::<_, Option<&str>>("plan").map(Arc::from),
            redaction: Redaction::parse(&row.get::<_, Vec<String>>("redacted"))
                .map(Arc::new)
                .map_err(|fault| corrupt(format!("redacted {fault}")))?,
            signing_keys: None,
        })
    }

    /// The keys of an application. Keys that cannot be read are a fault only if an endpoint uses them.
    fn keys_in_use(
        keys: Option<Result<Vec<ApplicationKey>, StoreError>>,
        endpoints: Option<&Vec<&Row>>,
    ) -> Result<Option<Arc<SigningKeys>>, StoreError> {
        let is_used = |row: &&Row| row.get("signed_by_keys") && !row.get::<_, bool>("is_deleted");
        match keys.transpose() {
            Err(error) if !endpoints.into_iter().flatten().any(is_used) => {
                tracing::error!(%error, "cannot read the signing keys of an application; no webhook uses the keys");
                Ok(None)
            }
            keys => Ok(keys?.map(SigningKeys::new).map(Arc::new)),
        }
    }

    /// The keys of the applications whose keys may be new.
    async fn new_keys(&self, transaction: &Transaction<'_>, applications: &[Row]) -> Result<KeysRead, StoreError> {
        let mut keys = KeysRead::new();
        let with_keys: Vec<Uuid> =
            applications.iter().filter(|row| row.get("has_new_keys")).map(|row| row.get("id")).collect();
        if with_keys.is_empty() {
            return Ok(keys);
        }
        for row in &transaction.query(SIGNING_KEYS, &[&with_keys]).await? {
            let application = ApplicationId(row.get("application_id"));
            let of_application = keys.entry(application).or_insert_with(|| Ok(Vec::new()));
            let Ok(known) = of_application else { continue };
            match signing_keys::open(&self.store.keyring, application, row) {
                Ok(key) => known.push(ApplicationKey { key: Arc::new(key), expires_at: row.get("expires_at") }),
                Err(error) => *of_application = Err(error),
            }
        }
        Ok(keys)
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
    let signing_keys = settings.signing_keys.clone().filter(|_| row.get("signed_by_keys"));
    if signing_keys.is_none() && row.get("signed_by_keys") {
        return Err(corrupt("asks for asymmetric signatures, and the application has no readable key".to_owned()));
    }
    Ok(Endpoint {
        id,
        application: ApplicationId(row.get("application_id")),
        url: row.get::<_, &str>("url").parse().map_err(|_| corrupt("url".to_owned()))?,
        status: endpoints::status(row)?,
        feed: endpoints::feed(row)?,
        fifo: endpoints::fifo(row)?,
        digest_from: row.get("digest_from"),
        subscriptions,
        filter: row.get::<_, Option<String>>("filter").map(|text| Arc::new(Filter::stored(text))),
        template: row.get::<_, Option<String>>("template").map(|text| Arc::new(Template::stored(text))),
        secrets: Vec::new(),
        signing_keys,
        headers: secrets::open_headers(keyring, id, row)?,
        authentication: credentials::open_authentication(keyring, id, row)?.map(Arc::new),
        certificate: credentials::open_certificate(keyring, id, row)?.map(Arc::new),
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

/// Applications by id, with the version since which their endpoints are loaded: the known version, or [`NEVER`] if the
/// application's own settings have changed, or the database was replaced by an older one. Parameters: ids and known
/// versions.
const APPLICATIONS: &str = "
SELECT a.id, a.version, a.dialect, a.strict, a.email IS NOT NULL AS has_email, a.plan, a.publish_rate,
       a.events_per_day, a.stored_bytes, a.max_webhooks, a.redacted,
       ARRAY(SELECT name FROM event_types t WHERE t.application_id = a.id) AS event_types,
       CASE WHEN a.settings_version > k.version OR a.version < k.version THEN -1 ELSE k.version END AS since,
       greatest(a.settings_version, a.schemas_version) > k.version OR a.version < k.version AS has_new_schemas,
       (a.settings_version > k.version OR a.version < k.version)
           AND EXISTS (SELECT FROM signing_keys s WHERE s.application_id = a.id) AS has_new_keys
FROM unnest($1::uuid[], $2::bigint[]) AS k(id, version) JOIN applications a USING (id)";

/// Schemas of strict applications. Other applications check no data.
const SCHEMAS: &str = "
SELECT s.application_id, s.name, s.version, s.schema
FROM event_schemas s JOIN applications a ON a.id = s.application_id
WHERE a.id = ANY($1::uuid[]) AND a.strict";

/// Signing keys in force, newest first.
const SIGNING_KEYS: &str = "
SELECT application_id, public_key, key_name, ciphertext, expires_at FROM signing_keys
WHERE application_id = ANY($1::uuid[]) AND (expires_at IS NULL OR expires_at > now())
ORDER BY expires_at DESC NULLS FIRST";

/// The planner expects a third of the endpoints since a version, and would read the whole table for a few.
const LOOK_UPS_ONLY: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                             SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;";

/// Endpoints of applications since a version, with their secrets in force. Parameters: ids and `since` of
/// [`APPLICATIONS`].
const ENDPOINTS: &str = "
SELECT e.id, e.application_id, e.url, e.event_types, e.filter, e.template, e.status, e.feed, e.fifo, e.digest_from,
       e.timeout_ms, e.schedule, e.rate_per_second, e.headers_key_name, e.headers_ciphertext,
       e.authentication_key_name, e.authentication_ciphertext, e.authentication_version, e.certificate_key_name,
       e.certificate_ciphertext,
       e.email IS NOT NULL AS has_email, e.trace_context, e.signed_by_keys, e.deleted_at IS NOT NULL AS is_deleted,
       s.id AS secret_id, s.key_name, s.ciphertext, s.created_at, s.expires_at
FROM unnest($1::uuid[], $2::bigint[]) AS k(id, since)
JOIN endpoints e ON e.application_id = k.id AND e.version > k.since AND (e.deleted_at IS NULL OR k.since >= 0)
LEFT JOIN endpoint_secrets s ON s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now())
ORDER BY e.application_id, e.id, s.created_at DESC";

fn schemas_by_application(rows: &[Row]) -> HashMap<ApplicationId, Result<Schemas, StoreError>> {
    let mut schemas: HashMap<ApplicationId, Result<Schemas, StoreError>> = HashMap::new();
    for row in rows {
        let application = ApplicationId(row.get("application_id"));
        let of_application = schemas.entry(application).or_insert_with(|| Ok(Schemas::default()));
        let Ok(known) = of_application else { continue };
        let version = row.get::<_, i32>("version").cast_unsigned();
        match EventType::parse(row.get("name")) {
            Ok(name) => known.add(name, version, Arc::new(Schema::stored(row.get("schema")))),
            Err(fault) => {
                *of_application = Err(StoreError::corrupt("event_schemas", format!("{application}: {fault}")));
            }
        }
    }
    schemas
}

/// Versions of all keys and of all plans.
async fn versions(store: &Store) -> Result<(i64, i64), StoreError> {
    let statement = "SELECT k.version, p.version FROM key_version k CROSS JOIN plan_version p";
    let row = store.connection().await?.query_one(statement, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Limits of all plans.
async fn load_plans(store: &Store) -> Result<HashMap<String, Limits>, StoreError> {
    let statement = "SELECT name, publish_rate, events_per_day, stored_bytes, max_webhooks FROM plans";
    let rows = store.connection().await?.query(statement, &[]).await?;
    Ok(rows.iter().map(|row| (row.get("name"), plans::limits(row))).collect())
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
