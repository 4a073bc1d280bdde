//! Applications, as they are managed.

use fanfare_domain::ids::ApplicationId;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Store, StoreError, connection::store::row_count};

/// An application that is to be created.
#[derive(Debug, Clone)]
pub struct NewApplication {
    /// Its id.
    pub id: ApplicationId,
    /// What people call it.
    pub name: String,
    /// The name of its dialect, which must be known.
    pub dialect: String,
    /// Whether events of types that are not described are refused.
    pub is_strict: bool,
    /// Who is told of failed deliveries.
    pub email: Option<String>,
}

/// What of an application is to change; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct ApplicationChange {
    /// Another name.
    pub name: Option<String>,
    /// Another dialect, which must be known.
    pub dialect: Option<String>,
    /// Whether events of types that are not described are refused.
    pub is_strict: Option<bool>,
    /// Another address, or none.
    pub email: Option<Option<String>>,
    /// Another limit of events in a second, or that of the deployment.
    pub publish_rate: Option<Option<u32>>,
    /// Other members that are redacted.
    pub redacted: Option<Vec<String>>,
}

/// An application.
#[derive(Debug, Clone)]
pub struct ApplicationRow {
    /// Its id.
    pub id: ApplicationId,
    /// What people call it.
    pub name: String,
    /// The name of its dialect.
    pub dialect: String,
    /// Whether events of types that are not described are refused.
    pub is_strict: bool,
    /// Who is told of failed deliveries.
    pub email: Option<String>,
    /// Events in a second that may be published over HTTP at each ingest, where it has a limit of its own.
    pub publish_rate: Option<u32>,
    /// The members of bodies whose values are not to be read.
    pub redacted: Vec<String>,
    /// Since when there is it.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, name, dialect, strict, email, publish_rate, redacted, created_at";

/// The application $2, locked: whatever changes something of an application's locks it first, because it raises
/// the application's version at last. Two who did so in another order would stand in each other's way.
pub(crate) const OWNER: &str = "WITH owner AS MATERIALIZED (
    SELECT id AS application FROM applications WHERE id = $2 FOR NO KEY UPDATE
)";

/// The application $1, locked as by [`OWNER`].
pub(crate) const LOCK_OWNER: &str = "SELECT FROM applications WHERE id = $1 FOR NO KEY UPDATE";

impl Store {
    /// Creates an application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn create_application(&self, new: &NewApplication) -> Result<ApplicationRow, StoreError> {
        let statement = format!(
            "INSERT INTO applications (id, name, dialect, strict, email) VALUES ($1, $2, $3, $4, $5) RETURNING {COLUMNS}"
        );
        let connection = self.connection().await?;
        let row =
            connection.query_one(&statement, &[&new.id.0, &new.name, &new.dialect, &new.is_strict, &new.email]).await?;
        Ok(read(&row))
    }

    /// An application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn application(&self, id: ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM applications WHERE id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        Ok(row.as_ref().map(read))
    }

    /// Changes an application; none where there is none.
    ///
    /// # Errors
    /// When the database is away.
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

    /// A page of all applications, newest first, older than `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn applications(
        &self,
        before: Option<ApplicationId>,
        limit: usize,
    ) -> Result<Vec<ApplicationRow>, StoreError> {
        let statement =
            format!("SELECT {COLUMNS} FROM applications WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2");
        let limit = row_count(limit);
        let rows = self.connection().await?.query(&statement, &[&before.map(|id| id.0), &limit]).await?;
        Ok(rows.iter().map(read).collect())
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
