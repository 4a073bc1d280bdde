//! Applications, as they are managed.

use fanfare_domain::ids::ApplicationId;
use jiff::Timestamp;

use crate::{Store, StoreError};

/// An application.
#[derive(Debug, Clone)]
pub struct ApplicationRow {
    /// Its id.
    pub id: ApplicationId,
    /// What people call it.
    pub name: String,
    /// Since when there is it.
    pub created_at: Timestamp,
}

impl Store {
    /// Creates an application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn create_application(&self, id: ApplicationId, name: &str) -> Result<ApplicationRow, StoreError> {
        let statement = "INSERT INTO applications (id, name) VALUES ($1, $2) RETURNING created_at";
        let row = self.connection().await?.query_one(statement, &[&id.0, &name]).await?;
        Ok(ApplicationRow { id, name: name.to_owned(), created_at: row.get(0) })
    }

    /// An application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn application(&self, id: ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = "SELECT name, created_at FROM applications WHERE id = $1";
        let row = self.connection().await?.query_opt(statement, &[&id.0]).await?;
        Ok(row.map(|row| ApplicationRow { id, name: row.get(0), created_at: row.get(1) }))
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
        let statement = "SELECT id, name, created_at FROM applications
                         WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.connection().await?.query(statement, &[&before.map(|id| id.0), &limit]).await?;
        let application = |row: &tokio_postgres::Row| ApplicationRow {
            id: ApplicationId(row.get(0)),
            name: row.get(1),
            created_at: row.get(2),
        };
        Ok(rows.iter().map(application).collect())
    }
}
