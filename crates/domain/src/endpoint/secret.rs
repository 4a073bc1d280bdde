//! Secrets, in types that hide the text from `Debug`.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

const PREFIX: &str = "whsec_";

/// Length of a given secret in characters: hard to guess, and short enough for a form field.
const GIVEN_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// Signing secret of an endpoint. A generated secret is `whsec_` and base64 of 32 bytes; a replaced system brings
/// existing secrets.
///
/// A dialect's own header signs with the literal text, `webhook-signature` with the decoded bytes (Standard Webhooks
/// 1.0.0).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(String);

/// The reason why a text is not a signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningSecret {
    /// The prefix of Standard Webhooks, without a valid secret behind.
    #[error("must be base64 of 24 to 64 bytes behind `whsec_`")]
    Encoding,
    /// Invalid length or characters.
    #[error("must have 8 to 256 characters of ASCII, none of them a control character, and no space at either end")]
    Text,
}

impl SigningSecret {
    /// Creates a secret from 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(bytes)))
    }

    /// Accepts a secret given by a customer.
    ///
    /// # Errors
    /// If the text starts with `whsec_` and is not a Standard Webhooks secret, is too short or too long, or has
    /// characters that cannot be typed.
    pub fn parse(text: &str) -> Result<Self, InvalidSigningSecret> {
        if let Some(encoded) = text.strip_prefix(PREFIX) {
            let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSigningSecret::Encoding)?;
            if !(24..=64).contains(&bytes.len()) {
                return Err(InvalidSigningSecret::Encoding);
            }
        }
        let is_sound = GIVEN_LENGTH.contains(&text.len()) && text.bytes().all(is_printable) && text.trim() == text;
        if is_sound { Ok(Self(text.to_owned())) } else { Err(InvalidSigningSecret::Text) }
    }

    /// The whole text, `whsec_` included: the key of a dialect's own header.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The key of `webhook-signature`: the decoded base64, with or without a leading `whsec_`, as the libraries of
    /// Standard Webhooks read a secret. A text that is not base64 yields the bytes of the text, as in these libraries'
    /// raw mode.
    pub fn key(&self) -> Vec<u8> {
        let encoded = self.0.strip_prefix(PREFIX).unwrap_or(&self.0);
        STANDARD.decode(encoded).unwrap_or_else(|_| self.0.clone().into_bytes())
    }
}

/// Printable ASCII. Programming languages disagree on the bytes of any other text.
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
    fn secrets_of_replaced_systems_are_accepted() {
        let key = |text: &str| SigningSecret::parse(text).expect(text).key();
        assert_eq!(key("not base64!"), b"not base64!");
        assert_eq!(key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }

    #[test]
    fn secrets_that_verifiers_refuse_are_refused() {
        for text in ["whsec_", "whsec_%%%", "whsec_c2hvcnQ="] {
            assert_eq!(SigningSecret::parse(text), Err(InvalidSigningSecret::Encoding), "{text}");
        }
        for text in ["", "short", " spaced around ", "line\nbreak", &"a".repeat(257)] {
            assert_eq!(SigningSecret::parse(text), Err(InvalidSigningSecret::Text), "{text}");
        }
    }
}
