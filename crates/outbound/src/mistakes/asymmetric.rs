//! Trials of asymmetric signatures. A receiver cannot make such a signature, only read it: the mistakes are those of
//! the body, the encoding and the key.

use fanfare_domain::{
    application::signing_key::{PublicKey, SigningKey, SigningKeys},
    dialect::SignatureEncoding,
};
use http::HeaderMap;
use jiff::Timestamp;

use crate::{
    mistakes::{
        Computed, GivenKey,
        bodies::{BodyForm, forms},
        decoding::decode,
    },
    sign::{ASYMMETRIC, WEBHOOK_SIGNATURE},
};

/// The keys of an application, and the asymmetric signatures of a request.
pub(super) struct Asymmetric {
    /// Keys in force, newest first.
    keys: Vec<PublicKey>,
    signatures: Vec<[u8; 64]>,
    /// The signed text before the body.
    prefix: String,
}

impl Asymmetric {
    pub(super) fn new(
        keys: Option<&SigningKeys>,
        headers: &HeaderMap,
        (id, seconds): (&str, &str),
        now: Timestamp,
    ) -> Self {
        let value = headers.get(WEBHOOK_SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let signature = |part: &str| {
            let decoded = decode::<64>(part.strip_prefix(ASYMMETRIC)?)?;
            decoded.is(SignatureEncoding::Base64).then_some(decoded.digest)
        };
        Self {
            keys: keys.iter().flat_map(|keys| keys.live(now)).map(SigningKey::public).collect(),
            signatures: value.split_ascii_whitespace().filter_map(signature).collect(),
            prefix: format!("{id}.{seconds}."),
        }
    }

    pub(super) fn has_signatures(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Keys with a right signature of these bytes.
    pub(super) fn keys_of(&self, body: &[u8]) -> Vec<PublicKey> {
        let signs = |key: &&PublicKey| self.signatures.iter().any(|signature| self.verifies(key, body, signature));
        self.keys.iter().filter(signs).copied().collect()
    }

    /// The explanation of a value that is a right signature, in any encoding. `None` if the value is none.
    pub(super) fn computed(&self, value: &str, body: &[u8]) -> Option<Computed> {
        let decoded = decode::<64>(value.strip_prefix(ASYMMETRIC).unwrap_or(value))?;
        let is_right = |bytes: &[u8]| self.keys.iter().any(|key| self.verifies(key, bytes, &decoded.digest));
        let (form, _) = forms(body).into_iter().find(|(_, bytes)| is_right(bytes))?;
        let is_received = self.signatures.contains(&decoded.digest);
        Some(match decoded.mistake(SignatureEncoding::Base64) {
            None if form == BodyForm::Exact && is_received => Computed::Right(WEBHOOK_SIGNATURE),
            mistake => Computed::Mistaken(WEBHOOK_SIGNATURE, form.mistake().into_iter().chain(mistake).collect()),
        })
    }

    /// The key that a receiver verifies with.
    pub(super) fn given_key(&self, text: &str, body: &[u8]) -> GivenKey {
        let known = |bytes: [u8; 32]| self.keys.iter().copied().find(|key| key.0 == bytes);
        let bare = text.strip_prefix(PublicKey::PREFIX).unwrap_or(text);
        match decode::<32>(bare).and_then(|decoded| known(decoded.digest)) {
            Some(key) if self.keys_of(body).contains(&key) => GivenKey::Signs(key),
            Some(key) => GivenKey::SignsNot(key),
            None => GivenKey::Unknown,
        }
    }

    fn verifies(&self, key: &PublicKey, body: &[u8], signature: &[u8]) -> bool {
        key.verifies(&[self.prefix.as_bytes(), body].concat(), signature)
    }
}
