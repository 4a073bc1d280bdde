//! Ed25519 keys of applications: create, rotate, list.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    application::signing_key::{PublicKey, SigningKey},
    ids::ApplicationId,
};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    Keyring, Store, StoreError,
    configuration::applications::LOCK_OWNER,
    connection::{keyring::Sealed, store::milliseconds},
};

/// Result of a rotation of signing keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRotation {
    /// The new key signs. All keys in force, newest first.
    Done(Vec<SigningKeyRow>),
    /// The application does not exist.
    NoSuchApplication,
    /// The overlap of an earlier rotation has not ended.
    UnderWay,
}

/// Signing key of an application, without its private part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Public key.
    pub public: PublicKey,
    /// Time of creation.
    pub created_at: Timestamp,
    /// End of the key's use; `None` for the current key.
    pub expires_at: Option<Timestamp>,
}

const IN_FORCE: &str = "
SELECT public_key, created_at, expires_at FROM signing_keys
WHERE application_id = $1 AND (expires_at IS NULL OR expires_at > now())
ORDER BY expires_at DESC NULLS FIRST";

impl Store {
    /// Gives an application its first signing key, in the transaction of `client`. Nothing changes if there is a key.
    pub(crate) async fn ensure_signing_key(
        &self,
        client: &impl GenericClient,
        application: ApplicationId,
    ) -> Result<(), StoreError> {
        client.execute(LOCK_OWNER, &[&application.0]).await?;
        let statement = "SELECT FROM signing_keys WHERE application_id = $1 AND expires_at IS NULL";
        if client.query_opt(statement, &[&application.0]).await?.is_none() {
            self.add_signing_key(client, application, &rand::random()).await?;
        }
        Ok(())
    }

    /// Gives an application a new signing key, the key of `seed`. The current key signs, too, until the end of
    /// `overlap`. Without an overlap, all earlier keys end at once, also during the overlap of an earlier rotation.
    pub async fn rotate_signing_keys(
        &self,
        application: ApplicationId,
        seed: &[u8; 32],
        overlap: Duration,
    ) -> Result<KeyRotation, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        if transaction.execute(LOCK_OWNER, &[&application.0]).await? == 0 {
            return Ok(KeyRotation::NoSuchApplication);
        }
        if !overlap.is_zero() {
            let statement = "SELECT FROM signing_keys WHERE application_id = $1 AND expires_at > now()";
            if !transaction.query(statement, &[&application.0]).await?.is_empty() {
                return Ok(KeyRotation::UnderWay);
            }
        }
        let statement = "DELETE FROM signing_keys WHERE application_id = $1 AND ($2 OR expires_at <= now())";
        transaction.execute(statement, &[&application.0, &overlap.is_zero()]).await?;
        let statement = "UPDATE signing_keys SET expires_at = now() + $2::bigint * interval '1 millisecond'
                         WHERE application_id = $1";
        transaction.execute(statement, &[&application.0, &milliseconds(overlap)]).await?;
        self.add_signing_key(&transaction, application, seed).await?;
        let rows = transaction.query(IN_FORCE, &[&application.0]).await?;
        transaction.commit().await?;
        rows.iter().map(|row| read(application, row)).collect::<Result<_, _>>().map(KeyRotation::Done)
    }

    /// Ends the overlap of a rotation now: only the current key signs from here on. False if the application does not
    /// exist.
    pub async fn end_key_rotation(&self, application: ApplicationId) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        if transaction.execute(LOCK_OWNER, &[&application.0]).await? == 0 {
            return Ok(false);
        }
        let statement = "DELETE FROM signing_keys WHERE application_id = $1 AND expires_at IS NOT NULL";
        transaction.execute(statement, &[&application.0]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Lists the signing keys of an application that are in force, newest first.
    pub async fn signing_keys(&self, application: ApplicationId) -> Result<Vec<SigningKeyRow>, StoreError> {
        let rows = self.connection().await?.query(IN_FORCE, &[&application.0]).await?;
        rows.iter().map(|row| read(application, row)).collect()
    }

    async fn add_signing_key(
        &self,
        client: &impl GenericClient,
        application: ApplicationId,
        seed: &[u8; 32],
    ) -> Result<(), StoreError> {
        let public = SigningKey::from_seed(seed).public();
        let Sealed { key_name, ciphertext } = self.keyring.seal(seed, &identity(application, public))?;
        let statement = "INSERT INTO signing_keys (application_id, public_key, key_name, ciphertext)
                         VALUES ($1, $2, $3, $4)";
        client.execute(statement, &[&application.0, &public.0.as_slice(), &key_name, &ciphertext]).await?;
        Ok(())
    }
}

fn read(application: ApplicationId, row: &Row) -> Result<SigningKeyRow, StoreError> {
    let (created_at, expires_at) = (row.get("created_at"), row.get("expires_at"));
    Ok(SigningKeyRow { public: public(application, row)?, created_at, expires_at })
}

pub(crate) fn public(application: ApplicationId, row: &Row) -> Result<PublicKey, StoreError> {
    row.get::<_, &[u8]>("public_key").try_into().map(PublicKey).map_err(|_| corrupt(application))
}

/// Decrypts a private key.
pub(crate) fn open(keyring: &Keyring, application: ApplicationId, row: &Row) -> Result<SigningKey, StoreError> {
    let public = public(application, row)?;
    let seed = keyring.open(row.get("key_name"), row.get("ciphertext"), &identity(application, public))?;
    let key = <&[u8; 32]>::try_from(seed.as_slice()).map(SigningKey::from_seed).map_err(|_| corrupt(application))?;
    if key.public() == public { Ok(key) } else { Err(corrupt(application)) }
}

fn corrupt(application: ApplicationId) -> StoreError {
    StoreError::corrupt("signing_keys", format!("{application}: no Ed25519 key, or of another public key"))
}

/// Associated data of a private key: binds the ciphertext to its row.
pub(crate) fn identity(application: ApplicationId, public: PublicKey) -> Vec<u8> {
    [b"signing_keys".as_slice(), application.0.as_bytes(), &public.0].concat()
}
