//! The audit log: author, time, origin and content of each change. An entry precedes the change, and gets its outcome
//! afterwards. The database refuses all other changes of an entry, and its deletion within 90 days.

use std::time::Duration;

use fanfare_domain::{
    ids::{ApplicationId, AuditId, KeyId},
    time::saturating_sub,
};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// A change about to be made.
#[derive(Debug, Clone)]
pub struct NewAuditEntry {
    /// Id of the entry.
    pub id: AuditId,
    /// Application concerned, if the change is about a single application.
    pub application: Option<ApplicationId>,
    /// Key of the caller; `None` for the command `fanfare`.
    pub key: Option<KeyId>,
    /// Name of the visitor, for a request of the web pages.
    pub visitor: Option<String>,
    /// Address of the caller, or user and host of the command.
    pub origin: String,
    /// Operation in the API's description, or the command.
    pub action: String,
    /// Path of the request.
    pub path: Option<String>,
    /// The request as JSON, without secrets.
    pub request: Option<String>,
}

/// Outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The change was made.
    Done,
    /// The change was refused by a fault of the caller.
    Refused,
    /// The change failed, or may have failed.
    Failed,
}

impl AuditOutcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A change made, or tried.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// The requested change. Without a key also for Fanfare itself.
    pub of: NewAuditEntry,
    /// Time of the request.
    pub at: Timestamp,
    /// Ids of the changed objects, separated by spaces.
    pub subject: Option<String>,
    /// `done`, `refused` or `failed`; `None` if the process died before the answer.
    pub outcome: Option<String>,
}

/// Selects entries of the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Entries of this application.
    pub application: Option<ApplicationId>,
    /// Entries about the object with this id. A refused change has no subject, but a path with the subject.
    pub subject: Option<String>,
    /// Entries of these operations and commands; all without one.
    pub actions: Vec<String>,
    /// Entries with this outcome. `Some(None)`: entries without an outcome.
    pub outcome: Option<Option<AuditOutcome>>,
    /// Entries from this moment on.
    pub since: Option<Timestamp>,
    /// Entries older than this entry.
    pub before: Option<AuditId>,
    /// Size of the page.
    pub limit: usize,
}

impl AuditFilter {
    /// True for a filter without an index.
    fn is_search(&self) -> bool {
        self.subject.is_some() || !self.actions.is_empty() || self.outcome.is_some()
    }
}

/// An id begins with the time of the request. The entry's `at` is at most this much later.
const BEFORE_ENTRY: Duration = Duration::from_secs(60);

/// Maximum of entries that a page of a search walks.
const MAX_WALKED: usize = 1_000;

/// A page of entries.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// Entries, newest first.
    pub entries: Vec<AuditEntry>,
    /// Last entry passed, if the bound of a search ended the page early. The next page begins behind it.
    pub passed: Option<AuditId>,
}

impl Store {
    /// Writes the entry of a change about to be made.
    ///
    /// # Errors
    /// After any error the caller must not make the change.
    pub async fn begin_audit(&self, entry: &NewAuditEntry) -> Result<(), StoreError> {
        let statement = "INSERT INTO audit_log (id, application_id, key_id, visitor, origin, action, path, request)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let NewAuditEntry { id, application, key, visitor, origin, action, path, request } = entry;
        let (application, key) = (application.map(|id| id.0), key.map(|id| id.0));
        let connection = self.connection().await?;
        connection.execute(statement, &[&id.0, &application, &key, visitor, origin, action, path, request]).await?;
        Ok(())
    }

    /// Writes the outcome of a change, the ids of the changed objects, and the application if only the answer tells it.
    ///
    /// # Errors
    /// After an error the entry stays without an outcome.
    pub async fn end_audit(
        &self,
        id: AuditId,
        outcome: AuditOutcome,
        subject: Option<&str>,
        application: Option<ApplicationId>,
    ) -> Result<(), StoreError> {
        let statement = "UPDATE audit_log SET outcome = $2, subject = $3, application_id = coalesce(application_id, $4)
                         WHERE id = $1";
        let application = application.map(|id| id.0);
        self.connection().await?.execute(statement, &[&id.0, &outcome.as_str(), &subject, &application]).await?;
        Ok(())
    }

    /// Lists the audit log, newest first.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
        let statement = "WITH walked AS MATERIALIZED (
                             SELECT id, at, application_id, key_id, visitor, origin, action, path, request, subject,
                                    outcome
                             FROM audit_log
                             WHERE ($1::uuid IS NULL OR application_id = $1) AND id < $2 AND id >= $3 AND at >= $9
                             ORDER BY id DESC LIMIT $4
                         ), passed AS (SELECT count(*) AS number, min(id::text)::uuid AS last FROM walked)
                         SELECT page.*, passed.number, passed.last
                         FROM passed LEFT JOIN LATERAL (
                             SELECT * FROM walked
                             WHERE ($5::text IS NULL OR position($5 IN subject) > 0 OR position($5 IN path) > 0)
                               AND (cardinality($6::text[]) = 0 OR action = ANY($6))
                               AND ($7::text IS NULL OR coalesce(outcome, 'unknown') = $7)
                             ORDER BY id DESC LIMIT $8
                         ) page ON true ORDER BY page.id DESC";
        let AuditFilter { application, subject, actions, outcome, since, before, limit } = filter;
        let application = application.map(|id| id.0);
        let before = before.map_or(Uuid::max(), |id| id.0);
        let first = since.map_or(Uuid::nil(), |since| AuditId::new(saturating_sub(since, BEFORE_ENTRY), [0; 10]).0);
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let walked = row_count(if filter.is_search() { MAX_WALKED } else { *limit });
        let outcome = outcome.map(|outcome| outcome.map_or("unknown", AuditOutcome::as_str));
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&application, &before, &first, &walked, subject, actions, &outcome, &row_count(*limit), &since];
        let rows = self.connection().await?.query(statement, &parameters).await?;
        let passed = rows.first().filter(|row| filter.is_search() && row.get::<_, i64>("number") == walked);
        Ok(AuditPage {
            passed: passed.and_then(|row| row.get::<_, Option<Uuid>>("last")).map(AuditId),
            entries: rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some()).map(read).collect(),
        })
    }

    /// Deletes up to `limit` entries older than `age`, which must be at least 90 days. Returns the number of deleted
    /// entries.
    pub async fn drop_audit_entries(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        // By the sorted ids.
        let age = SignedDuration::try_from(age + BEFORE_ENTRY).unwrap_or(SignedDuration::MAX);
        let first = AuditId::new(self.now().checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH), [0; 10]);
        let statement = "DELETE FROM audit_log WHERE id IN (
                             SELECT id FROM audit_log WHERE id < $1 ORDER BY id LIMIT $2
                         )";
        Ok(self.connection().await?.execute(statement, &[&first.0, &row_count(limit)]).await?)
    }
}

fn read(row: &Row) -> AuditEntry {
    AuditEntry {
        of: NewAuditEntry {
            id: AuditId(row.get("id")),
            application: row.get::<_, Option<Uuid>>("application_id").map(ApplicationId),
            key: row.get::<_, Option<Uuid>>("key_id").map(KeyId),
            visitor: row.get("visitor"),
            origin: row.get("origin"),
            action: row.get("action"),
            path: row.get("path"),
            request: row.get("request"),
        },
        at: row.get("at"),
        subject: row.get("subject"),
        outcome: row.get("outcome"),
    }
}
