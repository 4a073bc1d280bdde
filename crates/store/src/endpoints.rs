//! Endpoints, as they are managed.

use std::time::Duration;

use fanfare_domain::{
    application::EndpointStatus,
    ids::{ApplicationId, EndpointId, SecretId},
    secret::SigningSecret,
};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Keyring, KeyringError, Store, StoreError, keyring::Sealed};

/// An endpoint that is to be created.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// The application that owns it.
    pub application: ApplicationId,
    /// Its URL, checked and normalised.
    pub url: String,
    /// Its subscriptions, checked.
    pub event_types: Vec<String>,
    /// The id of its secret's row.
    pub secret_id: SecretId,
    /// Its secret.
    pub secret: SigningSecret,
}

/// What of an endpoint is to change; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Another URL, checked and normalised.
    pub url: Option<String>,
    /// Other subscriptions, checked.
    pub event_types: Option<Vec<String>>,
    /// Another status.
    pub status: Option<EndpointStatus>,
    /// Another deadline of an attempt, or the deployment's.
    pub timeout: Option<Option<Duration>>,
}

/// An endpoint without its secret.
#[derive(Debug, Clone)]
pub struct EndpointRow {
    /// Its id.
    pub id: EndpointId,
    /// The application that owns it.
    pub application: ApplicationId,
    /// Where its deliveries go.
    pub url: String,
    /// Its subscriptions.
    pub event_types: Vec<String>,
    /// Whether it gets deliveries.
    pub status: EndpointStatus,
    /// The deadline of one attempt, where it has one of its own.
    pub timeout: Option<Duration>,
    /// Since when there is it.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, application_id, url, event_types, status, timeout_ms, created_at, updated_at";

impl Store {
    /// Creates an endpoint with its secret.
    ///
    /// # Errors
    /// [`StoreError::Data`] when there is no such application.
    pub async fn create_endpoint(&self, new: &NewEndpoint) -> Result<EndpointRow, StoreError> {
        let Sealed { key_name, ciphertext } = seal(&self.keyring, new.id, new.secret_id, &new.secret)?;
        let statement = format!(
            "WITH endpoint AS (
                 INSERT INTO endpoints (id, application_id, url, event_types) VALUES ($1, $2, $3, $4) RETURNING {COLUMNS}
             ), secret AS (
                 INSERT INTO endpoint_secrets (id, endpoint_id, key_name, ciphertext) SELECT $5, id, $6, $7 FROM endpoint
             )
             SELECT * FROM endpoint"
        );
        let row = self
            .connection()
            .await?
            .query_one(
                &statement,
                &[&new.id.0, &new.application.0, &new.url, &new.event_types, &new.secret_id.0, &key_name, &ciphertext],
            )
            .await?;
        read(&row)
    }

    /// An endpoint of an application.
    ///
    /// # Errors
    /// When the database is away.
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

    /// A page of an application's endpoints, newest first, older than `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn endpoints(
        &self,
        application: ApplicationId,
        before: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<EndpointRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM endpoints
             WHERE application_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let before = before.map(|id| id.0);
        let rows = self.connection().await?.query(&statement, &[&application.0, &before, &limit]).await?;
        rows.iter().map(read).collect()
    }

    /// Changes an endpoint; none where there is none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn change_endpoint(
        &self,
        application: ApplicationId,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Option<EndpointRow>, StoreError> {
        let statement = format!(
            "UPDATE endpoints
             SET url = coalesce($3, url), event_types = coalesce($4, event_types), status = coalesce($5, status),
                 timeout_ms = CASE WHEN $6 THEN $7 ELSE timeout_ms END, updated_at = now()
             WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL RETURNING {COLUMNS}"
        );
        let status = change.status.map(EndpointStatus::as_str);
        let timeout = change.timeout.flatten().map(|timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
        let row = self
            .connection()
            .await?
            .query_opt(
                &statement,
                &[
                    &id.0,
                    &application.0,
                    &change.url,
                    &change.event_types,
                    &status,
                    &change.timeout.is_some(),
                    &timeout,
                ],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Deletes an endpoint with its secrets; false where there is none. Its row stays for its deliveries.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_endpoint(&self, application: ApplicationId, id: EndpointId) -> Result<bool, StoreError> {
        let statement = "WITH endpoint AS (
                             UPDATE endpoints SET deleted_at = now(), updated_at = now()
                             WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL RETURNING id
                         ), secrets AS (
                             DELETE FROM endpoint_secrets WHERE endpoint_id IN (SELECT id FROM endpoint)
                         )
                         SELECT id FROM endpoint";
        Ok(self.connection().await?.query_opt(statement, &[&id.0, &application.0]).await?.is_some())
    }
}

fn read(row: &Row) -> Result<EndpointRow, StoreError> {
    Ok(EndpointRow {
        id: EndpointId(row.get("id")),
        application: ApplicationId(row.get("application_id")),
        url: row.get("url"),
        event_types: row.get("event_types"),
        status: status(row)?,
        timeout: timeout(row),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

pub(crate) fn status(row: &Row) -> Result<EndpointStatus, StoreError> {
    let status: &str = row.get("status");
    EndpointStatus::parse(status).ok_or_else(|| StoreError::corrupt("endpoints", format!("status {status:?}")))
}

pub(crate) fn timeout(row: &Row) -> Option<Duration> {
    let milliseconds: Option<i32> = row.get("timeout_ms");
    milliseconds.map(|timeout| Duration::from_millis(u64::from(timeout.cast_unsigned())))
}

fn seal(
    keyring: &Keyring,
    endpoint: EndpointId,
    secret_id: SecretId,
    secret: &SigningSecret,
) -> Result<Sealed, KeyringError> {
    keyring.seal(secret.text().as_bytes(), &identity(endpoint, secret_id))
}

/// Reads a secret of an endpoint.
pub(crate) fn open(keyring: &Keyring, endpoint: EndpointId, row: &Row) -> Result<SigningSecret, StoreError> {
    let secret_id = SecretId(row.get("secret_id"));
    let plain = keyring.open(row.get("key_name"), row.get("ciphertext"), &identity(endpoint, secret_id))?;
    let text = String::from_utf8(plain).ok();
    text.and_then(|text| SigningSecret::parse(&text).ok())
        .ok_or_else(|| StoreError::corrupt("endpoint_secrets", format!("{secret_id} is no signing secret")))
}

/// What binds a ciphertext to its row: it opens nowhere else.
fn identity(endpoint: EndpointId, secret: SecretId) -> Vec<u8> {
    [b"endpoint_secrets".as_slice(), endpoint.0.as_bytes(), secret.0.as_bytes()].concat()
}
