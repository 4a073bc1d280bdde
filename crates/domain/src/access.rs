//! Who may do what: API keys and their roles.

use std::{collections::HashMap, fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{ApplicationId, KeyId};

const TOKEN_PREFIX: &str = "fanfare_";

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Publish events of its application.
    Publish,
    /// Publish, and manage its application's endpoints and deliveries.
    Manage,
    /// Everything, in every application.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Manage, Self::Admin];

    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Manage => "manage",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// What a caller shows: the key's id and 32 secret bytes. Known in full only to the caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The key that it belongs to.
    pub key: KeyId,
    secret: [u8; 32],
}

/// What is kept of a token: enough to recognise it, not to make it.
pub type TokenDigest = [u8; 32];

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key of the form fanfare_<id>_<secret>")]
pub struct NotAToken;

impl Token {
    /// A token for a key, from 32 random bytes.
    pub fn from_random(key: KeyId, secret: [u8; 32]) -> Self {
        Self { key, secret }
    }

    /// SHA-256 of the secret part. A slow hash is for passwords; these are 256 random bits.
    pub fn digest(&self) -> TokenDigest {
        Sha256::digest(self.secret).into()
    }

    /// The text that the caller sends. To be shown once, and never logged.
    pub fn reveal(&self) -> String {
        let key = self.key.to_string();
        format!("{TOKEN_PREFIX}{}_{}", &key["key_".len()..], URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (key, secret) = text.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once('_')).ok_or(NotAToken)?;
        let key = format!("key_{key}").parse().map_err(|_| NotAToken)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotAToken)?;
        Ok(Self { key, secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({}, …)", self.key)
    }
}

/// A key as it is kept.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// What it may do.
    pub role: Role,
    /// The application that it is bound to; an admin key is bound to none.
    pub application: Option<ApplicationId>,
    /// What its token is recognised by.
    pub digest: TokenDigest,
    /// From then on it opens nothing.
    pub expires_at: Option<Timestamp>,
}

/// Whoever has shown a valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The key.
    pub key: KeyId,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub application: Option<ApplicationId>,
}

/// All keys that were not revoked, but for some seconds.
#[derive(Debug, Default)]
pub struct Keys(HashMap<KeyId, ApiKey>);

impl FromIterator<ApiKey> for Keys {
    fn from_iter<I: IntoIterator<Item = ApiKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

impl Keys {
    /// Who shows this text as a key; nobody, where it is not a valid one by `now`.
    pub fn authenticate(&self, text: &str, now: Timestamp) -> Option<Caller> {
        let token: Token = text.parse().ok()?;
        let key = self.0.get(&token.key)?;
        let equal: bool = key.digest.ct_eq(&token.digest()).into();
        let is_valid = equal && key.expires_at.is_none_or(|end| now < end);
        is_valid.then_some(Caller { key: key.id, role: key.role, application: key.application })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn only_the_whole_token_opens(id: u128, secret: [u8; 32], other: [u8; 32]) {
            let token = Token::from_random(KeyId(Uuid::from_u128(id)), secret);
            let now = Timestamp::UNIX_EPOCH;
            let key = ApiKey {
                id: token.key,
                role: Role::Manage,
                application: None,
                digest: token.digest(),
                expires_at: None,
            };
            let ended = ApiKey { expires_at: Some(now), ..key.clone() };
            let keys: Keys = [key].into_iter().collect();
            let text = token.reveal();
            prop_assert_eq!(text.parse::<Token>(), Ok(token.clone()));
            prop_assert!(keys.authenticate(&text, now).is_some());
            let ended: Keys = [ended].into_iter().collect();
            prop_assert!(ended.authenticate(&text, now).is_none());
            prop_assert!(ended.authenticate(&text, now - SignedDuration::from_secs(1)).is_some());
            let forged = Token::from_random(token.key, other).reveal();
            prop_assert_eq!(keys.authenticate(&forged, now).is_some(), secret == other);
            prop_assert!(keys.authenticate(&text[..text.len() - 1], now).is_none());
            let shown = format!("{token:?}");
            prop_assert!(!shown.contains(&text[40..]));
        }

        #[test]
        fn never_panics(text in ".{0,100}") {
            prop_assert!(Keys::default().authenticate(&text, Timestamp::UNIX_EPOCH).is_none());
        }
    }
}
