//! API keys: create, list, rotate, revoke. Only the digest of a token is stored.

use std::time::Duration;

use fanfare_domain::{
    access::api_key::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
};

/// An API key without its secret.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// Id of the key.
    pub id: KeyId,
    /// Permissions of the key.
    pub role: Role,
    /// Application of the key; `None` for an admin key.
    pub application: Option<ApplicationId>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of expiry.
    pub expires_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
    /// Time of the last use, within some seconds.
    pub last_used_at: Option<Timestamp>,
}

const SELECT: &str = "SELECT k.id, k.role, k.application_id, k.created_at, k.expires_at, k.revoked_at, u.last_used_at
                      FROM api_keys k LEFT JOIN key_uses u ON u.key_id = k.id";

/// Columns of [`SELECT`], for a key without a use.
const MADE: &str = "RETURNING id, role, application_id, created_at, expires_at, revoked_at,
                              NULL::timestamptz AS last_used_at";

impl Store {
    /// Stores the digest of a token. An admin key has no application, every other key has an application. A key with a
    /// `lifetime` expires after the lifetime.
    ///
    /// # Errors
    /// [`StoreError::Data`] if role and application do not fit, or for an unknown application.
    pub async fn create_key(
        &self,
        token: &Token,
        role: Role,
        application: Option<ApplicationId>,
        lifetime: Option<Duration>,
    ) -> Result<KeyRow, StoreError> {
        let statement = format!(
            "INSERT INTO api_keys (id, application_id, role, digest, expires_at)
                         VALUES ($1, $2, $3, $4, now() + $5::bigint * interval '1 millisecond')
                         {MADE}"
        );
        let (digest, lifetime) = (token.digest(), lifetime.map(milliseconds));
        let application = application.map(|id| id.0);
        let connection = self.connection().await?;
        let row = connection
            .query_one(&statement, &[&token.key.0, &application, &role.as_str(), &digest.as_slice(), &lifetime])
            .await?;
        read(&row)
    }

    /// Finds a key, ended or not.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyRow>, StoreError> {
        let statement = format!("{SELECT} WHERE k.id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Lists keys, newest first: one page of keys older than `before`, of `application` if given.
    pub async fn keys(
        &self,
        application: Option<ApplicationId>,
        before: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<KeyRow>, StoreError> {
        let statement = format!(
            "{SELECT} WHERE ($1::uuid IS NULL OR k.application_id = $1) AND ($2::uuid IS NULL OR k.id < $2)
             ORDER BY k.id DESC LIMIT $3"
        );
        let (application, before) = (application.map(|id| id.0), before.map(|id| id.0));
        let rows = self.connection().await?.query(&statement, &[&application, &before, &row_count(limit)]).await?;
        rows.iter().map(read).collect()
    }

    /// Lets a key expire after `overlap`, or at its own earlier expiry, and creates a key with the same role and
    /// application. `None` if the key is unknown or has ended.
    pub async fn rotate_key(&self, key: KeyId, token: &Token, overlap: Duration) -> Result<Option<KeyRow>, StoreError> {
        let statement = format!(
            "WITH old AS (
                             UPDATE api_keys
                             SET expires_at = least(expires_at, now() + $2::bigint * interval '1 millisecond')
                             WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
                             RETURNING role, application_id
                         )
                         INSERT INTO api_keys (id, application_id, role, digest)
                         SELECT $3, application_id, role, $4 FROM old
                         {MADE}"
        );
        let digest = token.digest();
        let connection = self.connection().await?;
        let row = connection
            .query_opt(&statement, &[&key.0, &milliseconds(overlap), &token.key.0, &digest.as_slice()])
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Revokes a key at once. `None` if the key is unknown; a revoked key stays unchanged.
    pub async fn revoke_key(&self, key: KeyId) -> Result<Option<KeyRow>, StoreError> {
        let connection = self.connection().await?;
        let revoke = "UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL";
        connection.execute(revoke, &[&key.0]).await?;
        let row = connection.query_opt(&format!("{SELECT} WHERE k.id = $1"), &[&key.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Stores times of last use.
    pub(crate) async fn note_key_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        let keys: Vec<Uuid> = uses.iter().map(|(key, _)| key.0).collect();
        let times: Vec<Timestamp> = uses.iter().map(|(_, at)| *at).collect();
        // Sorted by key, or two processes could deadlock.
        let statement = "INSERT INTO key_uses (key_id, last_used_at)
                         SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS u(key_id, at) ORDER BY key_id
                         ON CONFLICT (key_id) DO UPDATE
                         SET last_used_at = greatest(key_uses.last_used_at, excluded.last_used_at)";
        self.connection().await?.execute(statement, &[&keys, &times]).await?;
        Ok(())
    }
}

fn read(row: &Row) -> Result<KeyRow, StoreError> {
    let id = KeyId(row.get("id"));
    let role = Role::parse(row.get("role")).ok_or_else(|| StoreError::corrupt("api_keys", format!("{id}: role")))?;
    Ok(KeyRow {
        id,
        role,
        application: row.get::<_, Option<Uuid>>("application_id").map(ApplicationId),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        revoked_at: row.get("revoked_at"),
        last_used_at: row.get("last_used_at"),
    })
}
