//! Endpoints: create, change, disable, delete, list.

use std::{collections::BTreeMap, time::Duration};

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    delivery::policy::{InvalidSchedule, Schedule},
    endpoint::{
        EndpointStatus, Feed,
        authentication::{Authentication, ClientCertificate, ShownAuthentication, ShownCertificate},
        fifo::Fifo,
        secret::SigningSecret,
    },
    ids::{ApplicationId, AuditId, EndpointId, SecretId},
};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Store, StoreError,
    configuration::{
        applications::{LOCK_OWNER, OWNER},
        credentials,
        secrets::seal_headers,
    },
    connection::store::{milliseconds, row_count},
};

/// Checked names and values of an endpoint's custom headers.
pub type OwnHeaders = BTreeMap<String, String>;

/// An endpoint to create.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Id of the new endpoint.
    pub id: EndpointId,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Values of the endpoint, with the usual value for `None`. `url` and `event_types` are required.
    pub settings: EndpointSettings,
    /// Id of the secret's row.
    pub secret_id: SecretId,
    /// Signing secret.
    pub secret: SigningSecret,
}

/// Values to set or change; `None` leaves a value unchanged. `Some(None)` removes a value that may be absent.
#[derive(Debug, Clone, Default)]
pub struct EndpointSettings {
    /// Display name.
    pub name: Option<Option<String>>,
    /// Checked and normalised URL.
    pub url: Option<String>,
    /// Checked subscriptions.
    pub event_types: Option<Vec<String>>,
    /// Status of the endpoint.
    pub status: Option<EndpointStatus>,
    /// True if the status `enabled` does not resume a paused endpoint. A client that has only the states enabled and
    /// disabled must not resume.
    pub keeps_pause: bool,
    /// Deadline of an attempt; `Some(None)` for the dialect's.
    pub timeout: Option<Option<Duration>>,
    /// Retry schedule; `Some(None)` for the dialect's.
    pub schedule: Option<Option<Schedule>>,
    /// Attempts a second; `Some(None)` for the dialect's.
    pub rate: Option<Option<u32>>,
    /// Address for mails to the owner; `Some(None)` for the application's.
    pub email: Option<Option<String>>,
    /// Custom headers of deliveries, which replace all earlier custom headers.
    pub headers: Option<OwnHeaders>,
    /// True if attempts carry the event's trace context.
    pub sends_trace: Option<bool>,
    /// Checked filter; `Some(None)` for all events of the types.
    pub filter: Option<Option<String>>,
    /// FIFO per ordering key; `Some(None)` for deliveries at the same time.
    pub fifo: Option<Option<Fifo>>,
    /// Checked template, as JSON text; `Some(None)` for the dialect's form.
    pub template: Option<Option<String>>,
    /// Feed of the endpoint. [`Feed::Only`] stays for ever.
    pub feed: Option<Feed>,
    /// True for digests, from the next UTC day on.
    pub has_digest: Option<bool>,
    /// True if the application's Ed25519 keys sign the deliveries, too.
    pub is_asymmetric: Option<bool>,
    /// Time until the deletion of a temporary endpoint.
    pub lifetime: Option<Duration>,
    /// Checked authentication; `Some(None)` for none.
    pub authentication: Option<Option<Authentication>>,
    /// Version of the stored authentication whose secret the change keeps, or that a change of the URL has looked at.
    pub keeps_secret_of: Option<i64>,
    /// Checked client certificate; `Some(None)` for none.
    pub certificate: Option<Option<ClientCertificate>>,
}

impl EndpointSettings {
    /// True if the change depends on credentials, or changes them.
    pub(crate) fn has_credentials(&self) -> bool {
        self.authentication.is_some() || self.certificate.is_some() || self.keeps_secret_of.is_some()
    }
}

/// Selects the endpoints of a list. An endpoint must meet all conditions.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    /// Endpoints with this status.
    pub status: Option<EndpointStatus>,
    /// Endpoints with this text in name or URL, in any case.
    pub contains: Option<String>,
    /// Last endpoint of the previous page.
    pub before: Option<EndpointId>,
    /// Size of the page.
    pub limit: usize,
}

/// An endpoint without its secret.
#[derive(Debug, Clone)]
pub struct EndpointRow {
    /// Id of the endpoint.
    pub id: EndpointId,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Display name.
    pub name: Option<String>,
    /// URL of the endpoint.
    pub url: String,
    /// Subscriptions.
    pub event_types: Vec<String>,
    /// Status of the endpoint.
    pub status: EndpointStatus,
    /// Reason of a status set by Fanfare; `None` after a change by hand.
    pub status_reason: Option<String>,
    /// Deadline of an attempt; `None` for the dialect's.
    pub timeout: Option<Duration>,
    /// Retry schedule; `None` for the dialect's.
    pub schedule: Option<Schedule>,
    /// Attempts a second; `None` for the dialect's.
    pub rate: Option<u32>,
    /// Address for mails to the owner; `None` for the application's.
    pub email: Option<String>,
    /// Names of the custom headers.
    pub header_names: Vec<String>,
    /// True if attempts carry the event's trace context.
    pub sends_trace: bool,
    /// Filter; `None` for all events of the types.
    pub filter: Option<String>,
    /// FIFO per ordering key.
    pub fifo: Option<Fifo>,
    /// Template, as JSON text; `None` for the dialect's form.
    pub template: Option<String>,
    /// Feed of the endpoint.
    pub feed: Feed,
    /// First day of the daily digests; `None` without digests.
    pub digest_from: Option<Date>,
    /// True if the application's Ed25519 keys sign the deliveries, too.
    pub is_asymmetric: bool,
    /// Deletion of a temporary endpoint, unless its feed is read.
    pub expires_at: Option<Timestamp>,
    /// Authentication, without secrets.
    pub authentication: Option<ShownAuthentication>,
    /// Number of the authentication. Grows with each change.
    pub authentication_version: i64,
    /// Client certificate, without the private key.
    pub certificate: Option<ShownCertificate>,
    /// Until then the previous secret signs, too.
    pub rotation_ends_at: Option<Timestamp>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, application_id, name, url, event_types, status, status_reason, timeout_ms, schedule, \
                       rate_per_second, email, header_names, trace_context, filter, template, fifo, feed, digest_from, \
                       signed_by_keys, expires_at, authentication, authentication_version, certificate, \
                       created_at, updated_at, \
                       (SELECT max(expires_at) FROM endpoint_secrets s \
                        WHERE s.endpoint_id = endpoints.id AND s.expires_at > now()) AS rotation_ends_at";

/// Condition on an endpoint `p` to which deliveries can be sent, now or after a pause.
pub(crate) const TAKES_DELIVERIES: &str = "p.deleted_at IS NULL AND p.status <> 'disabled' AND p.feed <> 'only'";

/// Result of the creation of an endpoint.
#[derive(Debug, Clone)]
pub enum EndpointCreation {
    /// The endpoint was created.
    Created(Box<EndpointRow>),
    /// An endpoint has the id already: the same request arrived before.
    IdTaken,
    /// The application has the maximum of endpoints.
    TooMany,
}

/// Deliveries held for a paused endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Number of deliveries, counted up to a bound.
    pub deliveries: i64,
    /// Acceptance of the oldest delivery's event.
    pub oldest_accepted_at: Option<Timestamp>,
}

impl Store {
    /// Creates an endpoint with its secret, unless the application has `most` endpoints.
    ///
    /// # Errors
    /// [`StoreError::Data`] for an unknown application.
    pub async fn create_endpoint(&self, new: &NewEndpoint, most: usize) -> Result<EndpointCreation, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // Two concurrent requests must not both create the last permitted endpoint.
        transaction.execute(LOCK_OWNER, &[&new.application.0]).await?;
        if transaction.query_opt("SELECT FROM endpoints WHERE id = $1", &[&new.id.0]).await?.is_some() {
            return Ok(EndpointCreation::IdTaken);
        }
        if count_endpoints(&transaction, new.application).await? >= row_count(most) {
            return Ok(EndpointCreation::TooMany);
        }
        let row = self.create_endpoint_in(&transaction, new).await?;
        transaction.commit().await?;
        Ok(EndpointCreation::Created(Box::new(row)))
    }

    pub(crate) async fn create_endpoint_in(
        &self,
        client: &impl GenericClient,
        new: &NewEndpoint,
    ) -> Result<EndpointRow, StoreError> {
        let statement = "INSERT INTO endpoints (id, application_id, url, event_types) VALUES ($1, $2, $3, $4)";
        let (url, event_types) = (&new.settings.url, &new.settings.event_types);
        client.execute(statement, &[&new.id.0, &new.application.0, url, event_types]).await?;
        self.add_secret(client, new.id, new.secret_id, &new.secret).await?;
        let changed = self.change_endpoint_in(client, new.application, new.id, &new.settings).await?;
        changed.ok_or_else(|| StoreError::corrupt("endpoints", format!("{} is not there after its insert", new.id)))
    }

    /// Finds an endpoint of an application.
    pub async fn endpoint(
        &self,
        application: ApplicationId,
        id: EndpointId,
    ) -> Result<Option<EndpointRow>, StoreError> {
        let statement =
            format!("SELECT {COLUMNS} FROM endpoints WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL");
        let row = self.connection().await?.query_opt(&statement, &[&id.0, &application.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Lists an application's endpoints, newest first.
    pub async fn endpoints(
        &self,
        application: ApplicationId,
        filter: &EndpointFilter,
    ) -> Result<Vec<EndpointRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM endpoints
             WHERE application_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
               AND ($4::text IS NULL OR status = $4)
               AND ($5::text IS NULL OR strpos(lower(url), lower($5)) > 0
                    OR strpos(lower(coalesce(name, '')), lower($5)) > 0)
             ORDER BY id DESC LIMIT $3"
        );
        let (before, limit) = (filter.before.map(|id| id.0), row_count(filter.limit));
        let status = filter.status.map(EndpointStatus::as_str);
        let parameters: [&(dyn ToSql + Sync); 5] = [&application.0, &before, &limit, &status, &filter.contains];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        rows.iter().map(read).collect()
    }

    /// Counts the queued deliveries of a paused endpoint, up to `most`.
    pub async fn held(&self, endpoint: EndpointId, most: usize) -> Result<Held, StoreError> {
        let oldest = "SELECT id FROM open_deliveries WHERE endpoint_id = $1 AND state = 'queued' AND class =";
        let statement = format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM open_deliveries
                                           WHERE endpoint_id = $1 AND state = 'queued' LIMIT $2) q),
                    delivery_accepted_at(least(({oldest} 0 ORDER BY id LIMIT 1), ({oldest} 1 ORDER BY id LIMIT 1),
                                               ({oldest} 2 ORDER BY id LIMIT 1)))"
        );
        let row = self.connection().await?.query_one(&statement, &[&endpoint.0, &row_count(most)]).await?;
        Ok(Held { deliveries: row.get(0), oldest_accepted_at: row.get(1) })
    }

    /// Changes an endpoint; `None` if the endpoint does not exist, or if the change keeps a secret that was changed
    /// meanwhile. After a change of status a dispatcher looks at the endpoint's backlog at once.
    pub async fn change_endpoint(
        &self,
        application: ApplicationId,
        id: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<Option<EndpointRow>, StoreError> {
        let mut connection = self.connection().await?;
        if !settings.has_credentials() && settings.is_asymmetric != Some(true) {
            return self.change_endpoint_in(&*connection, application, id, settings).await;
        }
        let transaction = connection.transaction().await?;
        transaction.execute(LOCK_OWNER, &[&application.0]).await?;
        let changed = self.change_endpoint_in(&transaction, application, id, settings).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    pub(crate) async fn change_endpoint_in(
        &self,
        client: &impl GenericClient,
        application: ApplicationId,
        id: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<Option<EndpointRow>, StoreError> {
        if !self.change_credentials_in(client, (application, id), settings).await? {
            return Ok(None);
        }
        let EndpointSettings { name, url, event_types, status, keeps_pause, timeout, schedule, rate, .. } = settings;
        let EndpointSettings { email, headers, sends_trace, filter, template, fifo, feed, .. } = settings;
        let EndpointSettings { has_digest, is_asymmetric, lifetime, .. } = settings;
        let timeout_ms = timeout.flatten().map(|timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        let sealed = headers.as_ref().map(|headers| seal_headers(&self.keyring, id, headers)).transpose()?.flatten();
        let (key_name, ciphertext) = sealed.map(|sealed| (sealed.key_name, sealed.ciphertext)).unzip();
        let row = client
            .query_opt(
                &change_statement(),
                &[
                    &id.0,
                    &application.0,
                    url,
                    event_types,
                    &status.map(EndpointStatus::as_str),
                    &name.is_some(),
                    &name.as_ref().and_then(Option::as_deref),
                    &timeout.is_some(),
                    &timeout_ms,
                    &schedule.is_some(),
                    &schedule.as_ref().and_then(Option::as_ref).map(Schedule::names),
                    &email.is_some(),
                    &email.as_ref().and_then(Option::as_deref),
                    &headers.as_ref().map(|headers| headers.keys().collect::<Vec<_>>()),
                    &key_name,
                    &ciphertext,
                    &rate.is_some(),
                    &rate.flatten().map(u32::cast_signed),
                    keeps_pause,
                    sends_trace,
                    &feed.map(Feed::as_str),
                    &lifetime.map(milliseconds),
                    &filter.is_some(),
                    &filter.as_ref().and_then(Option::as_deref),
                    &fifo.is_some(),
                    &fifo.flatten().map(|fifo| fifo.to_string()),
                    has_digest,
                    &template.is_some(),
                    &template.as_ref().and_then(Option::as_deref),
                    is_asymmetric,
                ],
            )
            .await?;
        if row.is_some() && *is_asymmetric == Some(true) {
            self.ensure_signing_key(client, application).await?;
        }
        row.as_ref().map(read).transpose()
    }

    /// Disables an endpoint whose answer to an attempt at `asked_at` refuses all further deliveries. False if the
    /// endpoint was changed since.
    pub async fn disable_endpoint(
        &self,
        endpoint: EndpointId,
        reason: &str,
        asked_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let statement = "WITH owner AS MATERIALIZED (
                             SELECT a.id AS application FROM applications a JOIN endpoints e ON e.application_id = a.id
                             WHERE e.id = $1 FOR NO KEY UPDATE OF a
                         )
                         , disabled AS (
                             UPDATE endpoints SET status = 'disabled', status_reason = $2, updated_at = now()
                             FROM owner
                             WHERE id = $1 AND application_id = owner.application AND status <> 'disabled'
                               AND deleted_at IS NULL AND updated_at < $3 RETURNING id, application_id
                         ), looked AS (
                             UPDATE endpoint_backlogs b SET next_look = now()
                             FROM disabled WHERE b.endpoint_id = disabled.id
                         )
                         INSERT INTO audit_log (id, application_id, origin, action, request, subject, outcome)
                         SELECT $4, application_id, 'fanfare', 'disable_webhook', $5, $6, 'done' FROM disabled";
        let entry = AuditId::new(self.now(), rand::random());
        let (why, subject) = (serde_json::json!({ "reason": reason }).to_string(), endpoint.to_string());
        let parameters: [&(dyn ToSql + Sync); 6] = [&endpoint.0, &reason, &asked_at, &entry.0, &why, &subject];
        Ok(self.connection().await?.execute(statement, &parameters).await? == 1)
    }

    /// Deletes an endpoint with its secrets; false if the endpoint does not exist. The row stays for its deliveries.
    pub async fn delete_endpoint(&self, application: ApplicationId, id: EndpointId) -> Result<bool, StoreError> {
        self.delete_unless_read(application, id, false).await
    }

    /// Deletes a temporary endpoint behind its expiry, with an entry in the audit log; false if the expiry was deferred
    /// meanwhile.
    pub async fn delete_expired_endpoint(
        &self,
        application: ApplicationId,
        id: EndpointId,
    ) -> Result<bool, StoreError> {
        self.delete_unless_read(application, id, true).await
    }

    /// Deletes the numbers of deleted endpoints, at most `limit`. Returns the number of deleted rows. Only
    /// endpoints deleted within 60 days are looked at: by then, none has rows any more.
    pub async fn forget_ordering_keys(&self, limit: usize) -> Result<u64, StoreError> {
        let statement = "DELETE FROM ordering_keys k USING (
                             SELECT k.endpoint_id, k.key FROM endpoints e JOIN ordering_keys k ON k.endpoint_id = e.id
                             WHERE e.deleted_at > now() - interval '60 days'
                             ORDER BY k.endpoint_id, k.key LIMIT $1 FOR UPDATE OF k SKIP LOCKED) gone
                         WHERE k.endpoint_id = gone.endpoint_id AND k.key = gone.key";
        Ok(self.connection().await?.execute(statement, &[&row_count(limit)]).await?)
    }

    async fn delete_unless_read(
        &self,
        application: ApplicationId,
        id: EndpointId,
        only_expired: bool,
    ) -> Result<bool, StoreError> {
        let statement = format!(
            "{OWNER}, endpoint AS (
                 UPDATE endpoints
                 SET deleted_at = now(), updated_at = now(), header_names = '{{}}', headers_key_name = NULL,
                     headers_ciphertext = NULL, authentication = NULL, authentication_key_name = NULL,
                     authentication_ciphertext = NULL, certificate = NULL, certificate_key_name = NULL,
                     certificate_ciphertext = NULL, certificate_ends_at = NULL
                 FROM owner
                 WHERE id = $1 AND application_id = owner.application AND deleted_at IS NULL
                   AND (NOT $3 OR expires_at < now()) RETURNING id, application_id
             ), logged AS (
                 INSERT INTO audit_log (id, application_id, origin, action, request, subject, outcome)
                 SELECT $4, application_id, 'fanfare', 'delete_webhook', $5, $6, 'done' FROM endpoint WHERE $3
             ), secrets AS (
                 DELETE FROM endpoint_secrets WHERE endpoint_id IN (SELECT id FROM endpoint)
             ), tokens AS (
                 DELETE FROM endpoint_tokens WHERE endpoint_id IN (SELECT id FROM endpoint)
             ), looked AS (
                 UPDATE endpoint_backlogs b SET next_look = now() FROM endpoint WHERE b.endpoint_id = endpoint.id
             )
             SELECT id FROM endpoint"
        );
        let entry = AuditId::new(self.now(), rand::random());
        let why = serde_json::json!({ "reason": "a temporary webhook whose feed is no longer read" }).to_string();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&id.0, &application.0, &only_expired, &entry.0, &why, &id.to_string()];
        Ok(self.connection().await?.query_opt(&statement, &parameters).await?.is_some())
    }
}

pub(crate) async fn count_endpoints(
    client: &impl GenericClient,
    application: ApplicationId,
) -> Result<i64, StoreError> {
    let statement = "SELECT count(*) FROM endpoints WHERE application_id = $1 AND deleted_at IS NULL";
    Ok(client.query_one(statement, &[&application.0]).await?.get(0))
}

/// The first complete day with digests. Each process knows the setting within the minute.
const NEXT_DAY: &str = "((now() + interval '1 minute') AT TIME ZONE 'UTC')::date + 1";

/// Changes an endpoint under the lock of its application.
fn change_statement() -> String {
    format!(
        "{OWNER}, before AS MATERIALIZED (
             SELECT e.id AS endpoint, e.status AS was, e.fifo AS was_fifo FROM owner JOIN endpoints e ON e.application_id = owner.application
             WHERE e.id = $1 AND e.deleted_at IS NULL FOR NO KEY UPDATE OF e
         ), changed AS (
         UPDATE endpoints
         SET url = coalesce($3, url), event_types = coalesce($4, event_types),
             status = CASE WHEN $19 AND $5 = 'enabled' AND status = 'paused' THEN status ELSE coalesce($5, status) END,
             status_reason = CASE WHEN $5 IS NULL THEN status_reason END,
             name = CASE WHEN $6 THEN $7 ELSE name END,
             timeout_ms = CASE WHEN $8 THEN $9 ELSE timeout_ms END,
             schedule = CASE WHEN $10 THEN $11 ELSE schedule END,
             email = CASE WHEN $12 THEN $13 ELSE email END,
             header_names = coalesce($14, header_names),
             headers_key_name = CASE WHEN $14 IS NULL THEN headers_key_name ELSE $15 END,
             headers_ciphertext = CASE WHEN $14 IS NULL THEN headers_ciphertext ELSE $16 END,
             rate_per_second = CASE WHEN $17 THEN $18 ELSE rate_per_second END,
             trace_context = coalesce($20, trace_context), feed = coalesce($21, feed),
             filter = CASE WHEN $23 THEN $24 ELSE filter END, fifo = CASE WHEN $25 THEN $26 ELSE fifo END,
             digest_from = CASE WHEN $27::bool IS NULL THEN digest_from
                                WHEN $27 THEN coalesce(digest_from, {NEXT_DAY}) END,
             template = CASE WHEN $28 THEN $29 ELSE template END, had_template = had_template OR $29 IS NOT NULL,
             signed_by_keys = coalesce($30, signed_by_keys),
             expires_at = coalesce(now() + $22::bigint * interval '1 millisecond', expires_at), updated_at = now()
         FROM before WHERE id = before.endpoint RETURNING {COLUMNS}, before.was, before.was_fifo
         ), looked AS (
             UPDATE endpoint_backlogs b
             SET next_look = now(),
                 resumed_at = CASE WHEN c.was = 'paused' AND c.status <> 'paused' THEN now() ELSE b.resumed_at END
             FROM changed c WHERE b.endpoint_id = c.id AND c.was <> c.status
         ), signalled AS (
             -- The first 1000 keys, and all parked keys. The sweep finds the others.
             INSERT INTO ordering_signals (endpoint_id, key)
             SELECT c.id, waiting.key FROM changed c CROSS JOIN LATERAL (
                 WITH RECURSIVE step (key, n) AS (
                     SELECT '', 0
                     UNION ALL
                     SELECT (SELECT min(o.ordering_key) FROM open_deliveries o
                             WHERE o.endpoint_id = c.id AND o.ordering_key IS NOT NULL AND o.ordering_key > s.key), s.n + 1
                     FROM step s WHERE s.key IS NOT NULL AND s.n < 1000
                 )
                 SELECT key FROM step WHERE key <> ''
                 UNION SELECT key FROM ordering_keys k WHERE k.endpoint_id = c.id AND k.parked_at IS NOT NULL) waiting
             WHERE c.fifo IS DISTINCT FROM c.was_fifo OR c.status <> c.was
         )
         SELECT * FROM changed"
    )
}

fn read(row: &Row) -> Result<EndpointRow, StoreError> {
    let id = EndpointId(row.get("id"));
    Ok(EndpointRow {
        id,
        application: ApplicationId(row.get("application_id")),
        name: row.get("name"),
        url: row.get("url"),
        event_types: row.get("event_types"),
        status: status(row)?,
        status_reason: row.get("status_reason"),
        timeout: timeout(row),
        schedule: schedule(row).map_err(|fault| StoreError::corrupt("endpoints", format!("{id}: {fault}")))?,
        rate: rate(row),
        email: row.get("email"),
        header_names: row.get("header_names"),
        sends_trace: row.get("trace_context"),
        filter: row.get("filter"),
        fifo: fifo(row)?,
        template: row.get("template"),
        feed: feed(row)?,
        digest_from: row.get("digest_from"),
        is_asymmetric: row.get("signed_by_keys"),
        expires_at: row.get("expires_at"),
        authentication: credentials::shown_authentication(id, row)?,
        authentication_version: row.get("authentication_version"),
        certificate: credentials::shown_certificate(id, row)?,
        rotation_ends_at: row.get("rotation_ends_at"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

pub(crate) fn status(row: &Row) -> Result<EndpointStatus, StoreError> {
    let status: &str = row.get("status");
    EndpointStatus::parse(status).ok_or_else(|| StoreError::corrupt("endpoints", format!("status {status:?}")))
}

pub(crate) fn feed(row: &Row) -> Result<Feed, StoreError> {
    let feed: &str = row.get("feed");
    Feed::parse(feed).ok_or_else(|| StoreError::corrupt("endpoints", format!("feed {feed:?}")))
}

pub(crate) fn fifo(row: &Row) -> Result<Option<Fifo>, StoreError> {
    let parse = |text: &str| Fifo::parse(text).map_err(|_| StoreError::corrupt("endpoints", format!("fifo {text:?}")));
    row.get::<_, Option<&str>>("fifo").map(parse).transpose()
}

pub(crate) fn timeout(row: &Row) -> Option<Duration> {
    let milliseconds: Option<i32> = row.get("timeout_ms");
    milliseconds.map(|timeout| Duration::from_millis(u64::from(timeout.cast_unsigned())))
}

pub(crate) fn rate(row: &Row) -> Option<u32> {
    row.get::<_, Option<i32>>("rate_per_second").map(i32::cast_unsigned)
}

pub(crate) fn schedule(row: &Row) -> Result<Option<Schedule>, InvalidSchedule> {
    row.get::<_, Option<Vec<String>>>("schedule").map(|waits| Schedule::parse(&waits)).transpose()
}
