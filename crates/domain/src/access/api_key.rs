//! API keys and roles.

use std::{collections::HashMap, fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{ApplicationId, KeyId};

const TOKEN_PREFIX: &str = "fanfare_";

/// Permissions of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Publish events of the key's application.
    Publish,
    /// Publish, and manage the endpoints and deliveries of the key's application.
    Manage,
    /// All actions in all applications.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Manage, Self::Admin];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Manage => "manage",
            Self::Admin => "admin",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Credential of a caller: the key's id and 32 secret bytes. Only the caller keeps the whole token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Key of the token.
    pub key: KeyId,
    secret: [u8; 32],
}

/// Stored digest of a token: recognises the token, but cannot recreate the token.
pub type TokenDigest = [u8; 32];

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key of the form fanfare_<id>_<secret>")]
pub struct InvalidToken;

impl Token {
    /// Creates a key's token from 32 random bytes.
    pub fn from_random(key: KeyId, secret: [u8; 32]) -> Self {
        Self { key, secret }
    }

    /// SHA-256 of the secret part. A slow hash is for passwords; the secret has 256 random bits.
    pub fn digest(&self) -> TokenDigest {
        Sha256::digest(self.secret).into()
    }

    /// The text that the caller sends. Show the text once, and never log the text.
    pub fn reveal(&self) -> String {
        let key = self.key.to_string();
        format!("{TOKEN_PREFIX}{}_{}", &key["key_".len()..], URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (key, secret) =
            text.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once('_')).ok_or(InvalidToken)?;
        let key = format!("key_{key}").parse().map_err(|_| InvalidToken)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidToken)?;
        Ok(Self { key, secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({}, …)", self.key)
    }
}

/// A stored API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Key id.
    pub id: KeyId,
    /// Permissions.
    pub role: Role,
    /// Application of the key; `None` for an admin key.
    pub application: Option<ApplicationId>,
    /// Digest of the key's token.
    pub digest: TokenDigest,
    /// End of validity, if limited.
    pub expires_at: Option<Timestamp>,
}

/// An authenticated caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Key of the caller.
    pub key: KeyId,
    /// Permissions.
    pub role: Role,
    /// Application of the key; `None` for an admin key.
    pub application: Option<ApplicationId>,
}

/// All keys that are not revoked. A revoked key may remain for some seconds.
#[derive(Debug, Default)]
pub struct Keys(HashMap<KeyId, ApiKey>);

impl FromIterator<ApiKey> for Keys {
    fn from_iter<I: IntoIterator<Item = ApiKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

impl Keys {
    /// True if the text has the form of a key, and no key has its id.
    pub fn lacks(&self, text: &str) -> bool {
        text.parse::<Token>().is_ok_and(|token| !self.0.contains_key(&token.key))
    }

    /// Authenticates a text as a key. `None` unless the key is valid at `now`.
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
