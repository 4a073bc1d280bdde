//! The audit log: who changed what, when, and from where. An entry is there before the change is made, and gets its outcome
//! afterwards; the database lets nobody change or delete one.

use std::time::Duration;

use fanfare_domain::ids::{ApplicationId, AuditId, KeyId};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// A change that is about to be made.
#[derive(Debug, Clone)]
pub struct NewAuditEntry {
    /// Its id.
    pub id: AuditId,
    /// What it is about, where that is one application.
    pub application: Option<ApplicationId>,
    /// Who asks for it; none for whoever runs the command `fanfare`.
    pub key: Option<KeyId>,
    /// From where.
    pub origin: String,
    /// The name of the operation in the API's description, or the command.
    pub action: String,
    /// The request's path.
    pub path: Option<String>,
    /// What was asked, as JSON, without secrets.
    pub request: Option<String>,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was made.
    Done,
    /// It was refused, for whoever asked for it.
    Refused,
    /// It could not be made, or not be known to have been.
    Failed,
}

impl AuditOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A change that was made, or tried.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// What was asked for; without a key where that was Fanfare itself, too.
    pub of: NewAuditEntry,
    /// When.
    pub at: Timestamp,
    /// What it was done to: ids, separated by spaces.
    pub subject: Option<String>,
    /// `done`, `refused` or `failed`; none where the process did not live to tell.
    pub outcome: Option<String>,
}

impl Store {
    /// Notes a change before it is made.
    ///
    /// # Errors
    /// When the database is away: then the change must not be made.
    pub async fn begin_audit(&self, entry: &NewAuditEntry) -> Result<(), StoreError> {
        let statement = "INSERT INTO audit_log (id, application_id, key_id, origin, action, path, request)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let NewAuditEntry { id, application, key, origin, action, path, request } = entry;
        let (application, key) = (application.map(|id| id.0), key.map(|id| id.0));
        let connection = self.connection().await?;
        connection.execute(statement, &[&id.0, &application, &key, origin, action, path, request]).await?;
        Ok(())
    }

    /// Notes what came of a change, the ids of what it was done to, and the application, where only the answer tells it.
    ///
    /// # Errors
    /// When the database is away: the entry then stays without an outcome.
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

    /// A page of the audit log, newest first: of one application, or of all.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn audit_log(
        &self,
        application: Option<ApplicationId>,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let statement = "SELECT id, at, application_id, key_id, origin, action, path, request, subject, outcome
                         FROM audit_log
                         WHERE ($1::uuid IS NULL OR application_id = $1) AND ($2::uuid IS NULL OR id < $2)
                         ORDER BY id DESC LIMIT $3";
        let (application, before) = (application.map(|id| id.0), before.map(|id| id.0));
        let rows = self.connection().await?.query(statement, &[&application, &before, &row_count(limit)]).await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Deletes entries that are older than `age`, at least 90 days, of which so many at the most; says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn drop_audit_entries(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        // By the time in their ids, which are sorted; a moment more, as that was taken before the row was written.
        let age = SignedDuration::try_from(age + Duration::from_secs(60)).unwrap_or(SignedDuration::MAX);
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
