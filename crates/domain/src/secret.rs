//! Secrets, in types that do not show them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

const PREFIX: &str = "whsec_";

/// The secret that an endpoint's deliveries are signed with: `whsec_` and base64 of 24 to 64 bytes.
///
/// A dialect's own header signs with the literal text, `webhook-signature` with the decoded bytes
/// (Standard Webhooks 1.0.0).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(String);

/// Why a text is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret is `whsec_` followed by base64 of 24 to 64 bytes")]
pub struct NotASigningSecret;

impl SigningSecret {
    /// A secret from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(bytes)))
    }

    /// Takes a secret that somebody gives.
    ///
    /// # Errors
    /// When the form or the length is not that of a Standard Webhooks secret.
    pub fn parse(text: &str) -> Result<Self, NotASigningSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(NotASigningSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| NotASigningSecret)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(NotASigningSecret);
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole text, `whsec_` included: the key of a dialect's own header.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The bytes behind the base64: the key of `webhook-signature`.
    pub fn key(&self) -> Vec<u8> {
        // Both constructors have decoded the same text before.
        STANDARD.decode(&self.0[PREFIX.len()..]).unwrap_or_default()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_key() {
        let secret = SigningSecret::from_random([7; 32]);
        assert_eq!(secret.key(), [7; 32]);
        assert_eq!(SigningSecret::parse(secret.text()), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains(&secret.text()[6..]));
    }

    #[test]
    fn refuses_what_a_verifier_would_not_take() {
        for text in ["", "whsec_", "abc", "whsec_%%%", "whsec_c2hvcnQ="] {
            assert_eq!(SigningSecret::parse(text), Err(NotASigningSecret), "{text}");
        }
    }
}
