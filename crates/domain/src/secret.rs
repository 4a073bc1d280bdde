//! Secrets, in types that do not show them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

const PREFIX: &str = "whsec_";

/// Characters that a given secret may have: enough not to be guessed, and no more than a form field holds.
const GIVEN_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// The secret that an endpoint's deliveries are signed with. Those that we make are `whsec_` and base64 of
/// 32 bytes; a system that is replaced brings its own.
///
/// A dialect's own header signs with the literal text, `webhook-signature` with the decoded bytes
/// (Standard Webhooks 1.0.0).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(String);

/// Why a text is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASigningSecret {
    /// It says that it is one of Standard Webhooks, and is not.
    #[error("must be base64 of 24 to 64 bytes behind `whsec_`")]
    Encoding,
    /// Its length or its characters.
    #[error("must have 8 to 256 characters of ASCII, none of them a control character, and no space at either end")]
    Text,
}

impl SigningSecret {
    /// A secret from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(bytes)))
    }

    /// Takes a secret that somebody gives.
    ///
    /// # Errors
    /// When it starts with `whsec_` and is not a Standard Webhooks secret, or is too short, too long, or
    /// not to be typed.
    pub fn parse(text: &str) -> Result<Self, NotASigningSecret> {
        if let Some(encoded) = text.strip_prefix(PREFIX) {
            let bytes = STANDARD.decode(encoded).map_err(|_| NotASigningSecret::Encoding)?;
            if !(24..=64).contains(&bytes.len()) {
                return Err(NotASigningSecret::Encoding);
            }
        }
        let is_sound = GIVEN_LENGTH.contains(&text.len()) && text.bytes().all(is_printable) && text.trim() == text;
        if is_sound { Ok(Self(text.to_owned())) } else { Err(NotASigningSecret::Text) }
    }

    /// The whole text, `whsec_` included: the key of a dialect's own header.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The key of `webhook-signature`: the bytes behind the base64, with or without `whsec_` before it, as
    /// the libraries of Standard Webhooks read a secret. Of a text that is no base64, its own bytes, which
    /// is what they do where they are told that it is raw.
    pub fn key(&self) -> Vec<u8> {
        let encoded = self.0.strip_prefix(PREFIX).unwrap_or(&self.0);
        STANDARD.decode(encoded).unwrap_or_else(|_| self.0.clone().into_bytes())
    }
}

/// Languages do not agree on the bytes of anything else.
fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
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
    fn takes_what_a_system_that_is_replaced_brings() {
        let key = |text: &str| SigningSecret::parse(text).expect(text).key();
        assert_eq!(key("not base64!"), b"not base64!");
        assert_eq!(key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }

    #[test]
    fn refuses_what_a_verifier_would_not_take() {
        for text in ["whsec_", "whsec_%%%", "whsec_c2hvcnQ="] {
            assert_eq!(SigningSecret::parse(text), Err(NotASigningSecret::Encoding), "{text}");
        }
        for text in ["", "short", " spaced around ", "line\nbreak", &"a".repeat(257)] {
            assert_eq!(SigningSecret::parse(text), Err(NotASigningSecret::Text), "{text}");
        }
    }
}
