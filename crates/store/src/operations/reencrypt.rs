//! Re-encryption of all encrypted values with the keyring's first key, during operation.

use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId, SecretId};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Keyring, Store, StoreError,
    configuration::{
        applications::LOCK_OWNER,
        credentials::{authentication_identity, certificate_identity},
        secrets::{headers_identity, identity},
        signing_keys,
    },
    connection::keyring::Sealed,
    pipeline::{access_tokens::token_identity, bodies},
};

/// Numbers of re-encrypted values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reencrypted {
    /// Signing secrets of endpoints, and signing keys of applications.
    pub secrets: u64,
    /// Header sets of endpoints.
    pub headers: u64,
    /// Authentications, client certificates and tokens of endpoints.
    pub credentials: u64,
    /// Bodies of events, and of deliveries by a template.
    pub bodies: u64,
}

const SECRETS: &str = "
SELECT s.id, s.endpoint_id, s.key_name, s.ciphertext FROM endpoint_secrets s
JOIN endpoints e ON e.id = s.endpoint_id WHERE e.application_id = $1 AND s.key_name <> $2";

const SIGNING_KEYS: &str = "
SELECT public_key, key_name, ciphertext FROM signing_keys WHERE application_id = $1 AND key_name <> $2";

const HEADERS: &str = "
SELECT id, headers_key_name AS key_name, headers_ciphertext AS ciphertext FROM endpoints
WHERE application_id = $1 AND headers_key_name <> $2";

const AUTHENTICATIONS: &str = "
SELECT id, authentication_key_name AS key_name, authentication_ciphertext AS ciphertext FROM endpoints
WHERE application_id = $1 AND authentication_key_name <> $2";

const CERTIFICATES: &str = "
SELECT id, certificate_key_name AS key_name, certificate_ciphertext AS ciphertext FROM endpoints
WHERE application_id = $1 AND certificate_key_name <> $2";

const TOKENS: &str = "
SELECT t.endpoint_id AS id, t.key_name, t.ciphertext FROM endpoint_tokens t JOIN endpoints e ON e.id = t.endpoint_id
WHERE e.application_id = $1 AND t.key_name <> $2 FOR UPDATE OF t";

/// Encrypted values of an application's endpoints: the rows, their identity, and the change of a row.
type OfEndpoints = (&'static str, fn(EndpointId) -> Vec<u8>, &'static str);

/// Encrypted credentials of endpoints.
const CREDENTIALS: [OfEndpoints; 3] = [
    (
        AUTHENTICATIONS,
        authentication_identity,
        "UPDATE endpoints SET authentication_key_name = $2, authentication_ciphertext = $3 WHERE id = $1",
    ),
    (
        CERTIFICATES,
        certificate_identity,
        "UPDATE endpoints SET certificate_key_name = $2, certificate_ciphertext = $3 WHERE id = $1",
    ),
    (TOKENS, token_identity, "UPDATE endpoint_tokens SET key_name = $2, ciphertext = $3 WHERE endpoint_id = $1"),
];

const BODIES: &str = "
SELECT application_id, id, accepted_at, body_key_name AS key_name, body_ciphertext AS ciphertext FROM events
WHERE body_key_name = ANY($1) LIMIT 500";

const DELIVERY_BODIES: &str = "
SELECT id, body_key_name AS key_name, body_ciphertext AS ciphertext FROM delivery_bodies
WHERE body_key_name = ANY($1) LIMIT 500";

impl Store {
    /// Re-encrypts with the first key all values encrypted with another key. Each process must have the whole keyring
    /// before. A process may still write with another first key: repeat the call until all processes have the same.
    ///
    /// # Errors
    /// [`StoreError::Keyring`] if a key in use is missing in the keyring. Finished re-encryptions stay.
    pub async fn reencrypt(&self) -> Result<Reencrypted, StoreError> {
        let mut done = Reencrypted::default();
        let current = self.keyring.current()?.to_owned();
        let statement = "SELECT e.application_id FROM endpoints e
                         WHERE e.headers_key_name <> $1 OR e.authentication_key_name <> $1 OR e.certificate_key_name <> $1
                         UNION
                         SELECT e.application_id FROM endpoints e JOIN endpoint_tokens t ON t.endpoint_id = e.id
                         WHERE t.key_name <> $1
                         UNION
                         SELECT e.application_id FROM endpoints e JOIN endpoint_secrets s ON s.endpoint_id = e.id
                         WHERE s.key_name <> $1
                         UNION SELECT application_id FROM signing_keys WHERE key_name <> $1";
        let applications = self.connection().await?.query(statement, &[&current]).await?;
        for row in applications {
            let of_application = self.reencrypt_configuration(ApplicationId(row.get(0)), &current).await?;
            done.secrets += of_application.secrets;
            done.headers += of_application.headers;
            done.credentials += of_application.credentials;
        }
        done.bodies = self.reencrypt_bodies(&current).await? + self.reencrypt_delivery_bodies(&current).await?;
        Ok(done)
    }

    async fn reencrypt_configuration(
        &self,
        application: ApplicationId,
        current: &str,
    ) -> Result<Reencrypted, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        transaction.execute(LOCK_OWNER, &[&application.0]).await?;
        let mut done = Reencrypted::default();
        for row in transaction.query(SECRETS, &[&application.0, &current]).await? {
            let id: Uuid = row.get("id");
            let sealed = anew(&self.keyring, &row, &identity(EndpointId(row.get("endpoint_id")), SecretId(id)))?;
            let statement = "UPDATE endpoint_secrets SET key_name = $2, ciphertext = $3 WHERE id = $1";
            done.secrets += transaction.execute(statement, &[&id, &sealed.key_name, &sealed.ciphertext]).await?;
        }
        for row in transaction.query(SIGNING_KEYS, &[&application.0, &current]).await? {
            let public = signing_keys::public(application, &row)?;
            let sealed = anew(&self.keyring, &row, &signing_keys::identity(application, public))?;
            let statement = "UPDATE signing_keys SET key_name = $3, ciphertext = $4
                             WHERE application_id = $1 AND public_key = $2";
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&application.0, &public.0.as_slice(), &sealed.key_name, &sealed.ciphertext];
            done.secrets += transaction.execute(statement, &parameters).await?;
        }
        for row in transaction.query(HEADERS, &[&application.0, &current]).await? {
            let id: Uuid = row.get("id");
            let sealed = anew(&self.keyring, &row, &headers_identity(EndpointId(id)))?;
            let statement = "UPDATE endpoints SET headers_key_name = $2, headers_ciphertext = $3 WHERE id = $1";
            done.headers += transaction.execute(statement, &[&id, &sealed.key_name, &sealed.ciphertext]).await?;
        }
        for (rows, identity, change) in CREDENTIALS {
            for row in transaction.query(rows, &[&application.0, &current]).await? {
                let id: Uuid = row.get("id");
                let sealed = anew(&self.keyring, &row, &identity(EndpointId(id)))?;
                done.credentials += transaction.execute(change, &[&id, &sealed.key_name, &sealed.ciphertext]).await?;
            }
        }
        transaction.commit().await?;
        Ok(done)
    }

    /// Uses short statements: a statement that holds a table for long would block its partitions' creation and removal.
    async fn reencrypt_bodies(&self, current: &str) -> Result<u64, StoreError> {
        let in_use = "SELECT DISTINCT body_key_name FROM events WHERE body_key_name IS NOT NULL";
        let in_use = self.connection().await?.query(in_use, &[]).await?;
        let others: Vec<String> = in_use.iter().map(|row| row.get(0)).filter(|name| name != current).collect();
        let mut done = 0;
        loop {
            let rows = self.connection().await?.query(BODIES, &[&others]).await?;
            if rows.is_empty() {
                return Ok(done);
            }
            for row in rows {
                let (application, id): (Uuid, Uuid) = (row.get("application_id"), row.get("id"));
                let accepted_at: Timestamp = row.get("accepted_at");
                let sealed = anew(&self.keyring, &row, &bodies::identity(EventId(id)))?;
                // An event erased meanwhile stays erased.
                let statement = "UPDATE events SET body_key_name = $4, body_ciphertext = $5
                                 WHERE application_id = $1 AND accepted_at = $2 AND id = $3 AND body_key_name = $6";
                let known: &str = row.get("key_name");
                let parameters: [&(dyn ToSql + Sync); 6] =
                    [&application, &accepted_at, &id, &sealed.key_name, &sealed.ciphertext, &known];
                done += self.connection().await?.execute(statement, &parameters).await?;
            }
        }
    }
}

impl Store {
    /// Uses short statements, as for events.
    async fn reencrypt_delivery_bodies(&self, current: &str) -> Result<u64, StoreError> {
        let in_use = "SELECT DISTINCT body_key_name FROM delivery_bodies WHERE body_key_name IS NOT NULL";
        let in_use = self.connection().await?.query(in_use, &[]).await?;
        let others: Vec<String> = in_use.iter().map(|row| row.get(0)).filter(|name| name != current).collect();
        let mut done = 0;
        loop {
            let rows = self.connection().await?.query(DELIVERY_BODIES, &[&others]).await?;
            if rows.is_empty() {
                return Ok(done);
            }
            for row in rows {
                let id: Uuid = row.get("id");
                let sealed = anew(&self.keyring, &row, &bodies::delivery_identity(DeliveryId(id)))?;
                let statement = "UPDATE delivery_bodies SET body_key_name = $2, body_ciphertext = $3
                                 WHERE id = $1 AND body_key_name = $4";
                let known: &str = row.get("key_name");
                let parameters: [&(dyn ToSql + Sync); 4] = [&id, &sealed.key_name, &sealed.ciphertext, &known];
                done += self.connection().await?.execute(statement, &parameters).await?;
            }
        }
    }
}

fn anew(keyring: &Keyring, row: &Row, identity: &[u8]) -> Result<Sealed, StoreError> {
    let plain = keyring.open(row.get("key_name"), row.get("ciphertext"), identity)?;
    Ok(keyring.seal(&plain, identity)?)
}
