//! Encrypted values of endpoints: signing secrets and custom headers.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    endpoint::{header, secret::SigningSecret},
    ids::{ApplicationId, EndpointId, SecretId},
};
use http::HeaderMap;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    Keyring, KeyringError, OwnHeaders, Store, StoreError,
    configuration::applications::{LOCK_OWNER, OWNER},
    connection::{keyring::Sealed, store::milliseconds},
};

/// Result of rotating a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The new secret signs.
    Done,
    /// The endpoint does not exist.
    NoSuchEndpoint,
    /// The overlap of an earlier rotation has not ended.
    UnderWay,
}

impl Store {
    pub(crate) async fn add_secret(
        &self,
        client: &impl GenericClient,
        endpoint: EndpointId,
        id: SecretId,
        secret: &SigningSecret,
    ) -> Result<(), StoreError> {
        let Sealed { key_name, ciphertext } = self.keyring.seal(secret.text().as_bytes(), &identity(endpoint, id))?;
        let statement = "INSERT INTO endpoint_secrets (id, endpoint_id, key_name, ciphertext) VALUES ($1, $2, $3, $4)";
        client.execute(statement, &[&id.0, &endpoint.0, &key_name, &ciphertext]).await?;
        Ok(())
    }

    /// Gives an endpoint a new secret. The current secret signs, too, until the end of `overlap`.
    pub async fn rotate_secret(
        &self,
        application: ApplicationId,
        endpoint: EndpointId,
        (id, secret): (SecretId, &SigningSecret),
        overlap: Duration,
    ) -> Result<Rotation, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        transaction.execute(LOCK_OWNER, &[&application.0]).await?;
        let statement = "SELECT FROM endpoints WHERE id = $1 AND application_id = $2 AND deleted_at IS NULL FOR UPDATE";
        if transaction.query_opt(statement, &[&endpoint.0, &application.0]).await?.is_none() {
            return Ok(Rotation::NoSuchEndpoint);
        }
        let statement = "SELECT FROM endpoint_secrets WHERE endpoint_id = $1 AND expires_at > now()";
        if !transaction.query(statement, &[&endpoint.0]).await?.is_empty() {
            return Ok(Rotation::UnderWay);
        }
        let statement = "UPDATE endpoint_secrets SET expires_at = now() + $2::bigint * interval '1 millisecond'
                         WHERE endpoint_id = $1 AND expires_at IS NULL";
        transaction.execute(statement, &[&endpoint.0, &milliseconds(overlap)]).await?;
        let statement = "DELETE FROM endpoint_secrets WHERE endpoint_id = $1 AND expires_at <= now()";
        transaction.execute(statement, &[&endpoint.0]).await?;
        self.add_secret(&transaction, endpoint, id, secret).await?;
        transaction.commit().await?;
        Ok(Rotation::Done)
    }

    /// End of the last secret before the secrets in force; `None` if no row is left.
    pub async fn previous_secret_end(&self, endpoint: EndpointId) -> Result<Option<Timestamp>, StoreError> {
        let statement = "SELECT max(expires_at) FROM endpoint_secrets WHERE endpoint_id = $1 AND expires_at <= now()";
        Ok(self.connection().await?.query_one(statement, &[&endpoint.0]).await?.get(0))
    }

    /// Ends the overlap of a rotation now: only the current secret signs from here on. False if the endpoint does not
    /// exist.
    pub async fn end_rotation(&self, application: ApplicationId, endpoint: EndpointId) -> Result<bool, StoreError> {
        let statement = format!(
            "{OWNER}, endpoint AS (
                 SELECT id FROM endpoints, owner
                 WHERE id = $1 AND application_id = owner.application AND deleted_at IS NULL
             ), ended AS (
                 DELETE FROM endpoint_secrets
                 WHERE endpoint_id IN (SELECT id FROM endpoint) AND expires_at IS NOT NULL
             )
             SELECT FROM endpoint"
        );
        Ok(self.connection().await?.query_opt(&statement, &[&endpoint.0, &application.0]).await?.is_some())
    }
}

/// Decrypts a signing secret of an endpoint.
pub(crate) fn open(keyring: &Keyring, endpoint: EndpointId, row: &Row) -> Result<SigningSecret, StoreError> {
    let secret_id = SecretId(row.get("secret_id"));
    let plain = keyring.open(row.get("key_name"), row.get("ciphertext"), &identity(endpoint, secret_id))?;
    let text = String::from_utf8(plain).ok();
    text.and_then(|text| SigningSecret::parse(&text).ok())
        .ok_or_else(|| StoreError::corrupt("endpoint_secrets", format!("{secret_id} is no signing secret")))
}

/// Encrypts the headers of an endpoint; `None` without headers.
pub(crate) fn seal_headers(
    keyring: &Keyring,
    endpoint: EndpointId,
    headers: &OwnHeaders,
) -> Result<Option<Sealed>, KeyringError> {
    if headers.is_empty() {
        return Ok(None);
    }
    let plain = serde_json::json!(headers).to_string();
    keyring.seal(plain.as_bytes(), &headers_identity(endpoint)).map(Some)
}

/// Decrypts the custom headers of an endpoint.
pub(crate) fn open_headers(keyring: &Keyring, endpoint: EndpointId, row: &Row) -> Result<HeaderMap, StoreError> {
    let Some(key_name) = row.get::<_, Option<&str>>("headers_key_name") else { return Ok(HeaderMap::new()) };
    let plain = keyring.open(key_name, row.get("headers_ciphertext"), &headers_identity(endpoint))?;
    let corrupt = || StoreError::corrupt("endpoints", format!("{endpoint}: headers"));
    let headers: OwnHeaders = serde_json::from_slice(&plain).map_err(|_| corrupt())?;
    let checked = |(name, value): (&String, &String)| {
        let name = header::check_name(name)?;
        let value = header::check_value(&name, value)?;
        Ok((name, value))
    };
    headers.iter().map(checked).collect::<Result<_, header::HeaderFault>>().map_err(|_| corrupt())
}

/// Associated data of a secret: binds the ciphertext to its row.
pub(crate) fn identity(endpoint: EndpointId, secret: SecretId) -> Vec<u8> {
    [b"endpoint_secrets".as_slice(), endpoint.0.as_bytes(), secret.0.as_bytes()].concat()
}

pub(crate) fn headers_identity(endpoint: EndpointId) -> Vec<u8> {
    [b"endpoints.headers".as_slice(), endpoint.0.as_bytes()].concat()
}
