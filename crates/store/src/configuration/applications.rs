//! Applications: create, change, list.

use fanfare_domain::ids::ApplicationId;
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// An application to create.
#[derive(Debug, Clone)]
pub struct NewApplication {
    /// Id of the new application.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// Name of a known dialect.
    pub dialect: String,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Address for failure mails.
    pub email: Option<String>,
}

/// Changes of an application; `None` leaves a value unchanged.
#[derive(Debug, Clone, Default)]
pub struct ApplicationChange {
    /// New display name.
    pub name: Option<String>,
    /// New dialect, by the name of a known dialect.
    pub dialect: Option<String>,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: Option<bool>,
    /// New address for failure mails; `Some(None)` removes the address.
    pub email: Option<Option<String>>,
    /// New limit of events a second; `Some(None)` for the deployment's limit.
    pub publish_rate: Option<Option<u32>>,
    /// Paths of the redacted members.
    pub redacted: Option<Vec<String>>,
}

/// An application.
#[derive(Debug, Clone)]
pub struct ApplicationRow {
    /// Id of the application.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// Name of the dialect.
    pub dialect: String,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Address for failure mails.
    pub email: Option<String>,
    /// Events a second over HTTP, at each ingest; `None` for the deployment's limit.
    pub publish_rate: Option<u32>,
    /// Paths of the redacted members.
    pub redacted: Vec<String>,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// A page of applications.
#[derive(Debug, Clone)]
pub struct ApplicationPage {
    /// Applications, newest first.
    pub applications: Vec<ApplicationRow>,
    /// Last application that a list by name looked at, if its bound ended the page early.
    pub passed: Option<ApplicationId>,
}

/// Applications that a page by name looks through.
const MAX_WALKED: usize = 10_000;

const COLUMNS: &str = "id, name, dialect, strict, email, publish_rate, redacted, created_at";

/// Locks application $2. Each change of an application's configuration takes this lock first, since the change raises
/// the application's version last. Two changes with another order of locks could deadlock.
pub(crate) const OWNER: &str = "WITH owner AS MATERIALIZED (
    SELECT id AS application FROM applications WHERE id = $2 FOR NO KEY UPDATE
)";

/// Locks application $1, as [`OWNER`] does.
pub(crate) const LOCK_OWNER: &str = "SELECT FROM applications WHERE id = $1 FOR NO KEY UPDATE";

impl Store {
    /// Creates an application.
    pub async fn create_application(&self, new: &NewApplication) -> Result<ApplicationRow, StoreError> {
        let statement = format!(
            "INSERT INTO applications (id, name, dialect, strict, email) VALUES ($1, $2, $3, $4, $5) RETURNING {COLUMNS}"
        );
        let connection = self.connection().await?;
        let row =
            connection.query_one(&statement, &[&new.id.0, &new.name, &new.dialect, &new.is_strict, &new.email]).await?;
        Ok(read(&row))
    }

    /// Finds an application.
    pub async fn application(&self, id: ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM applications WHERE id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        Ok(row.as_ref().map(read))
    }

    /// Changes an application; `None` if the application does not exist.
    pub async fn change_application(
        &self,
        id: ApplicationId,
        change: &ApplicationChange,
    ) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = format!(
            "UPDATE applications
             SET name = coalesce($2, name), dialect = coalesce($3, dialect), strict = coalesce($4, strict),
                 email = CASE WHEN $5 THEN $6 ELSE email END,
                 publish_rate = CASE WHEN $7 THEN $8 ELSE publish_rate END, redacted = coalesce($9, redacted), version = version + 1
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let email = change.email.clone().flatten();
        let rate = change.publish_rate.flatten().map(u32::cast_signed);
        let row = self
            .connection()
            .await?
            .query_opt(
                &statement,
                &[
                    &id.0,
                    &change.name,
                    &change.dialect,
                    &change.is_strict,
                    &change.email.is_some(),
                    &email,
                    &change.publish_rate.is_some(),
                    &rate,
                    &change.redacted,
                ],
            )
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Lists all applications, newest first: one page of applications older than `before`, with `name` in their names.
    /// A page by name looks through a bounded number of applications.
    pub async fn applications(
        &self,
        before: Option<ApplicationId>,
        name: Option<&str>,
        limit: usize,
    ) -> Result<ApplicationPage, StoreError> {
        let walked = if name.is_some() { MAX_WALKED } else { limit };
        let statement = format!(
            "WITH walked AS MATERIALIZED (
                 SELECT {COLUMNS} FROM applications WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2),
             page AS MATERIALIZED (
                 SELECT * FROM walked WHERE $3::text IS NULL OR strpos(lower(name), lower($3)) > 0
                 ORDER BY id DESC LIMIT $4)
             SELECT last.id AS passed, page.*
             FROM (VALUES (true)) AS one
             LEFT JOIN (SELECT id FROM walked ORDER BY id DESC OFFSET $2 - 1 LIMIT 1) last
                 ON $3::text IS NOT NULL AND (SELECT count(*) FROM page) < $4
             LEFT JOIN page ON true ORDER BY page.id DESC"
        );
        let (walked, limit) = (row_count(walked), row_count(limit));
        let parameters: [&(dyn ToSql + Sync); 4] = [&before.map(|id| id.0), &walked, &name, &limit];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        let passed = rows.first().and_then(|row| row.get::<_, Option<Uuid>>("passed")).map(ApplicationId);
        let found = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some());
        Ok(ApplicationPage { applications: found.map(read).collect(), passed })
    }
}

fn read(row: &Row) -> ApplicationRow {
    ApplicationRow {
        id: ApplicationId(row.get("id")),
        name: row.get("name"),
        dialect: row.get("dialect"),
        is_strict: row.get("strict"),
        email: row.get("email"),
        publish_rate: row.get::<_, Option<i32>>("publish_rate").map(i32::cast_unsigned),
        redacted: row.get("redacted"),
        created_at: row.get("created_at"),
    }
}
