//! Access tokens of endpoints with OAuth 2.0, shared by all processes: one process fetches, the others wait for the
//! row.
//!
//! A fetch is a lease on the row. All statements of a fetch name the fetch and the version of the settings, so that a
//! late answer changes nothing.

use std::time::Duration;

use fanfare_domain::{
    endpoint::{
        access_token::{AFTER_REFUSAL, BETWEEN_FETCHES, GrantedToken, TokenFault, renew_after, usable_for, wait_after},
        authentication::HiddenText,
    },
    ids::{EndpointId, LeaseId},
    time::saturating_add,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Keyring, Store, StoreError,
    connection::{keyring::Sealed, store::milliseconds},
};

/// Time from which another process may fetch: longer than the deadline of a fetch.
pub const FETCH_LASTS: Duration = Duration::from_secs(15);

/// The token of an endpoint, and the next step of a process that wants a token.
#[derive(Debug, Clone)]
pub struct TokenLook {
    /// The usable token.
    pub token: Option<AccessToken>,
    /// The next step.
    pub turn: TokenTurn,
}

/// The next step of a process that wants a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTurn {
    /// A fetch is due: [`Store::begin_fetch`].
    Due,
    /// Another process fetches.
    Elsewhere,
    /// Nothing is to be fetched before this time: the renewal, or the end of a wait.
    Until(Timestamp),
}

/// A token with its times.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Number of the token.
    pub generation: i64,
    /// Token.
    pub token: HiddenText,
    /// Beginning of the fetch.
    pub fetched_at: Timestamp,
    /// Time from which a used token is renewed.
    pub renew_at: Timestamp,
    /// Time from which the token is no longer sent.
    pub usable_until: Timestamp,
}

/// State of an endpoint's tokens, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    /// End of the present token's use; `None` without a usable token.
    pub usable_until: Option<Timestamp>,
    /// Beginning of the failures; `None` if the last fetch brought a token.
    pub failing_since: Option<Timestamp>,
    /// The last failed fetch.
    pub failed_at: Option<Timestamp>,
    /// Reason of the last failure, behind "the token server".
    pub error: Option<String>,
}

/// Condition on endpoints `p`: OAuth 2.0 without a usable token. Never NULL.
pub(crate) const LACKS_TOKEN: &str = "
    coalesce(p.authentication::jsonb ->> 'type' = 'oauth2', false)
    AND NOT EXISTS (SELECT FROM endpoint_tokens t
                    WHERE t.endpoint_id = p.id AND t.version = p.authentication_version AND t.usable_until > now())";

/// Begins a fetch, if one is due and none is in flight. Other settings begin the row anew. The lock lets no change of
/// the settings commit before the row is there: the change deletes the row.
const BEGIN: &str = "
INSERT INTO endpoint_tokens AS t (endpoint_id, version, fetch_id, fetch_ends_at)
SELECT id, $2, $3, now() + $4::bigint * interval '1 millisecond' FROM endpoints
WHERE id = $1 AND authentication_version = $2 AND deleted_at IS NULL FOR SHARE
ON CONFLICT (endpoint_id) DO UPDATE
SET version = $2, fetch_id = $3, fetch_ends_at = excluded.fetch_ends_at,
    key_name = CASE WHEN t.version = $2 THEN t.key_name END,
    ciphertext = CASE WHEN t.version = $2 THEN t.ciphertext END,
    fetched_at = CASE WHEN t.version = $2 THEN t.fetched_at END,
    renew_at = CASE WHEN t.version = $2 THEN t.renew_at END,
    usable_until = CASE WHEN t.version = $2 THEN t.usable_until END,
    failures = CASE WHEN t.version = $2 THEN t.failures ELSE 0 END,
    failing_since = CASE WHEN t.version = $2 THEN t.failing_since END,
    failed_at = CASE WHEN t.version = $2 THEN t.failed_at END,
    error = CASE WHEN t.version = $2 THEN t.error END
-- Another version may be higher: a restored database counts anew.
WHERE t.version <> $2
   OR t.version = $2 AND (t.renew_at IS NULL OR t.renew_at <= now())
      AND (t.fetch_ends_at IS NULL OR t.fetch_ends_at <= now()) AND t.next_fetch_at <= now()
RETURNING failures";

const LOOK: &str = "
SELECT generation, key_name, ciphertext, fetched_at, renew_at, usable_until,
       coalesce(fetch_ends_at > now(), false) AS is_fetched, greatest(renew_at, next_fetch_at) AS next,
       greatest(renew_at, next_fetch_at) > now() AS is_later
FROM endpoint_tokens WHERE endpoint_id = $1 AND version = $2";

const GRANT: &str = "
UPDATE endpoint_tokens
SET generation = generation + 1, key_name = $4, ciphertext = $5, fetched_at = $6, renew_at = $7, usable_until = $8,
    fetch_id = NULL, fetch_ends_at = NULL, next_fetch_at = now() + $9::bigint * interval '1 millisecond',
    failures = 0, failing_since = NULL, failed_at = NULL, error = NULL
WHERE endpoint_id = $1 AND version = $2 AND fetch_id = $3";

const FAIL: &str = "
UPDATE endpoint_tokens
SET fetch_id = NULL, fetch_ends_at = NULL, failures = failures + 1, failing_since = coalesce(failing_since, now()),
    failed_at = now(), error = $4, next_fetch_at = now() + $5::bigint * interval '1 millisecond'
WHERE endpoint_id = $1 AND version = $2 AND fetch_id = $3";

/// Ends a fetch that asked nobody.
const RELEASE: &str = "
UPDATE endpoint_tokens
SET fetch_id = NULL, fetch_ends_at = NULL, next_fetch_at = now() + $4::bigint * interval '1 millisecond'
WHERE endpoint_id = $1 AND version = $2 AND fetch_id = $3";

const REFUSE: &str = "
UPDATE endpoint_tokens
SET key_name = NULL, ciphertext = NULL, renew_at = NULL, usable_until = NULL,
    next_fetch_at = greatest(next_fetch_at, fetched_at + $4::bigint * interval '1 millisecond')
WHERE endpoint_id = $1 AND version = $2 AND generation = $3 AND ciphertext IS NOT NULL";

impl TokenLook {
    /// No token was fetched with these settings.
    const DUE: Self = Self { token: None, turn: TokenTurn::Due };
}

impl Store {
    /// The token of an endpoint with the settings `version`, and the next step. Discards a token that this process
    /// cannot decrypt.
    pub async fn access_token(&self, endpoint: EndpointId, version: i64) -> Result<TokenLook, StoreError> {
        let connection = self.connection().await?;
        let look = async || connection.query_opt(LOOK, &[&endpoint.0, &version]).await;
        let Some(row) = look().await? else { return Ok(TokenLook::DUE) };
        match self.read_look(endpoint, &row) {
            Ok(look) => Ok(look),
            Err(error) => {
                tracing::warn!(%error, %endpoint, "cannot decrypt the token of an endpoint: fetching another");
                let generation: i64 = row.get("generation");
                let discarded: [&(dyn ToSql + Sync); 4] =
                    [&endpoint.0, &version, &generation, &milliseconds(AFTER_REFUSAL)];
                connection.execute(REFUSE, &discarded).await?;
                look().await?.map_or(Ok(TokenLook::DUE), |row| self.read_look(endpoint, &row))
            }
        }
    }

    fn read_look(&self, endpoint: EndpointId, row: &Row) -> Result<TokenLook, StoreError> {
        let turn = if row.get("is_fetched") {
            TokenTurn::Elsewhere
        } else if row.get("is_later") {
            TokenTurn::Until(row.get("next"))
        } else {
            TokenTurn::Due
        };
        Ok(TokenLook { token: open(&self.keyring, endpoint, self.now(), row)?, turn })
    }

    /// Begins a fetch under the id `fetch`, and returns the number of failures in a row before. `None` if no fetch is
    /// due, another process fetches, or the endpoint has other settings than `version`.
    pub async fn begin_fetch(
        &self,
        endpoint: EndpointId,
        version: i64,
        fetch: LeaseId,
    ) -> Result<Option<u32>, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 4] = [&endpoint.0, &version, &fetch.0, &milliseconds(FETCH_LASTS)];
        let begun = self.connection().await?.query_opt(BEGIN, &parameters).await?;
        Ok(begun.map(|row| row.get::<_, i32>("failures").cast_unsigned()))
    }

    /// Stores the token of a fetch that began at `began`. False if the fetch is no longer this process's.
    pub async fn grant_token(
        &self,
        endpoint: EndpointId,
        (version, fetch): (i64, LeaseId),
        granted: &GrantedToken,
        began: Timestamp,
    ) -> Result<bool, StoreError> {
        let Sealed { key_name, ciphertext } =
            self.keyring.seal(granted.token.reveal().as_bytes(), &token_identity(endpoint))?;
        let renew_at = saturating_add(began, renew_after(granted.life));
        let usable_until = saturating_add(began, usable_for(granted.life));
        let between = milliseconds(BETWEEN_FETCHES);
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&endpoint.0, &version, &fetch.0, &key_name, &ciphertext, &began, &renew_at, &usable_until, &between];
        Ok(self.connection().await?.execute(GRANT, &parameters).await? == 1)
    }

    /// Notes a failed fetch, the last of `failures` in a row, and defers the next. A fetch that made no connection for
    /// a reason of ours is no failure of the token server, and is tried again soon. False if the fetch is no longer
    /// this process's.
    pub async fn fail_token(
        &self,
        endpoint: EndpointId,
        (version, fetch): (i64, LeaseId),
        fault: &TokenFault,
        failures: u32,
    ) -> Result<bool, StoreError> {
        if matches!(fault, TokenFault::EgressUnavailable(_)) {
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&endpoint.0, &version, &fetch.0, &milliseconds(BETWEEN_FETCHES)];
            return Ok(self.connection().await?.execute(RELEASE, &parameters).await? == 1);
        }
        let error = fault.to_string();
        let wait = milliseconds(wait_after(failures, rand::random()));
        let parameters: [&(dyn ToSql + Sync); 5] = [&endpoint.0, &version, &fetch.0, &error, &wait];
        Ok(self.connection().await?.execute(FAIL, &parameters).await? == 1)
    }

    /// Discards a token that the receiver refused, unless a newer token is stored.
    pub async fn refuse_token(&self, endpoint: EndpointId, version: i64, generation: i64) -> Result<(), StoreError> {
        let parameters: [&(dyn ToSql + Sync); 4] = [&endpoint.0, &version, &generation, &milliseconds(AFTER_REFUSAL)];
        self.connection().await?.execute(REFUSE, &parameters).await?;
        Ok(())
    }

    /// State of an endpoint's tokens, for the settings `version`; `None` before the first fetch.
    pub async fn token_state(&self, endpoint: EndpointId, version: i64) -> Result<Option<TokenState>, StoreError> {
        let statement = "SELECT CASE WHEN usable_until > now() THEN usable_until END AS usable_until, failing_since,
                                failed_at, error
                         FROM endpoint_tokens WHERE endpoint_id = $1 AND version = $2";
        let row = self.connection().await?.query_opt(statement, &[&endpoint.0, &version]).await?;
        Ok(row.map(|row| TokenState {
            usable_until: row.get("usable_until"),
            failing_since: row.get("failing_since"),
            failed_at: row.get("failed_at"),
            error: row.get("error"),
        }))
    }
}

/// Decrypts the token of a row; `None` without a usable token.
fn open(keyring: &Keyring, endpoint: EndpointId, now: Timestamp, row: &Row) -> Result<Option<AccessToken>, StoreError> {
    let Some(key_name) = row.get::<_, Option<&str>>("key_name") else { return Ok(None) };
    let (renew_at, usable_until): (Timestamp, Timestamp) = (row.get("renew_at"), row.get("usable_until"));
    if usable_until <= now {
        return Ok(None);
    }
    let plain = keyring.open(key_name, row.get("ciphertext"), &token_identity(endpoint))?;
    let corrupt = |_| StoreError::corrupt("endpoint_tokens", endpoint.to_string());
    let token = String::from_utf8(plain).map_err(corrupt)?.into();
    let (generation, fetched_at) = (row.get("generation"), row.get("fetched_at"));
    Ok(Some(AccessToken { generation, token, fetched_at, renew_at, usable_until }))
}

/// Associated data of a token: binds the ciphertext to its row.
pub(crate) fn token_identity(endpoint: EndpointId) -> Vec<u8> {
    [b"endpoint_tokens".as_slice(), endpoint.0.as_bytes()].concat()
}
