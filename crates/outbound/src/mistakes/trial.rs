//! Trials of secrets, keys, signed texts and bodies.

use fanfare_domain::{
    application::signing_key::SigningKeys,
    dialect::{Dialect, SignatureEncoding, SignatureForm, SignatureKey, SignaturePlace},
    endpoint::{Endpoint, secret::SigningSecret},
    ids::EventId,
};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use crate::{
    mistakes::{
        Arrived, Computed, Mistake, SecretInForce, Signer, Verified,
        asymmetric::Asymmetric,
        bodies::{BodyForm, forms},
        decoding::{decode, lenient},
    },
    sign::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, hmac_sha256, signed_parts},
};

/// A signature header of the endpoint.
#[derive(Clone, Copy)]
enum Target<'a> {
    Standard,
    Own(&'a SignatureForm),
}

/// Parts of a signed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    /// Text of the target.
    Right,
    Standard,
    Body,
    TimestampAndBody,
    IdAndBody,
}

/// Part of a secret that is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Bytes,
    Text,
    TextWithoutPrefix,
    DecodedWithPrefix,
}

const SIGNED: [Signed; 5] =
    [Signed::Right, Signed::Standard, Signed::Body, Signed::TimestampAndBody, Signed::IdAndBody];
const KEYS: [Key; 4] = [Key::Bytes, Key::Text, Key::TextWithoutPrefix, Key::DecodedWithPrefix];

/// Length in bytes above which only single mistakes are tried: each trial reads the whole body.
const LONG: usize = 64 * 1024;

/// The headers of a request, and the secrets.
pub(super) struct Trial<'a> {
    /// Secrets in force, newest first.
    secrets: Vec<&'a SigningSecret>,
    pub(super) asymmetric: Asymmetric,
    targets: Vec<Target<'a>>,
    headers: &'a HeaderMap,
    id: &'a str,
    /// The id as the dialect writes it.
    own_id: String,
    seconds: &'a str,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        keys: Option<&SigningKeys>,
        arrived: &Arrived<'a>,
        now: Timestamp,
    ) -> Self {
        let text = |name| arrived.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
        let id = text(WEBHOOK_ID);
        let dialect: &Dialect = &endpoint.dialect;
        let own_id = id.parse().map_or_else(|_| id.to_owned(), |event: EventId| dialect.event_id(event));
        let targets = [Target::Standard].into_iter().chain(dialect.signature.as_ref().map(Target::Own)).collect();
        let (secrets, headers) = (endpoint.live_secrets(now), arrived.headers);
        let seconds = text(WEBHOOK_TIMESTAMP);
        let asymmetric = Asymmetric::new(keys, headers, (id, seconds), now);
        Self { secrets, asymmetric, targets, headers, id, own_id, seconds }
    }

    /// Time in `webhook-timestamp`.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        self.seconds.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok())
    }

    /// The signatures in the target's header, decoded.
    fn digests(&self, target: Target<'_>) -> Vec<[u8; 32]> {
        let Some(value) = self.headers.get(target.header()).and_then(|value| value.to_str().ok()) else {
            return Vec::new();
        };
        let signatures: Vec<&str> = match target {
            Target::Standard => value.split_ascii_whitespace().filter_map(|part| part.strip_prefix("v1,")).collect(),
            Target::Own(form) => bare(form, self.seconds, value.trim()).into_iter().collect(),
        };
        let decoded =
            signatures.into_iter().filter_map(|text| decode::<32>(text).filter(|found| found.is(target.encoding())));
        decoded.map(|found| found.digest).collect()
    }

    fn digest(&self, target: Target<'_>, (secret, key): (usize, Key), signed: Signed, body: &[u8]) -> Option<[u8; 32]> {
        let key = key_of(self.secrets[secret], key)?;
        let (id, seconds) = (self.id.as_bytes(), self.seconds.as_bytes());
        let parts = match (signed, target) {
            (Signed::Standard, _) | (Signed::Right, Target::Standard) => vec![id, b".", seconds, b".", body],
            (Signed::Right, Target::Own(form)) => signed_parts(form, &self.own_id, self.seconds, body),
            (Signed::Body, _) => vec![body],
            (Signed::TimestampAndBody, _) => vec![seconds, b".", body],
            (Signed::IdAndBody, _) => vec![id, b".", body],
        };
        Some(hmac_sha256(&key, &parts))
    }

    /// The first header with a signature of these bytes. Secrets come before keys.
    pub(super) fn verified(&self, body: &[u8]) -> Option<Verified> {
        let by_secret = self.targets.iter().find_map(|&target| {
            let digests = self.digests(target);
            let is_right = |&secret: &usize| {
                self.digest(target, (secret, target.key()), Signed::Right, body)
                    .is_some_and(|right| digests.contains(&right))
            };
            let secret = (0..self.secrets.len()).find(is_right)?;
            Some(Verified { header: target.header(), by: Signer::Secret(SecretInForce::at(secret)) })
        });
        let by_key = || self.asymmetric.keys_of(body).into_iter().next();
        by_secret.or_else(|| by_key().map(|key| Verified { header: WEBHOOK_SIGNATURE, by: Signer::Key(key) }))
    }

    /// Reasons why no header has a right signature of the given bytes.
    pub(super) fn received(&self, arrived: &Arrived<'_>) -> Vec<Mistake> {
        let has_signatures = self.targets.iter().any(|target| !self.digests(*target).is_empty());
        if !has_signatures && !self.asymmetric.has_signatures() {
            return vec![Mistake::HeaderMissing];
        }
        let original = forms(arrived.body).into_iter().find(|(_, bytes)| self.verified(bytes).is_some());
        match original {
            // The form leads from the given bytes back to the sent bytes.
            Some((BodyForm::Trimmed, _)) => vec![Mistake::BodyWithNewline],
            Some((BodyForm::WithNewline, _)) => vec![Mistake::BodyTrimmed],
            Some(_) => vec![Mistake::BodyPrinted],
            None if arrived.sent.is_some_and(|sent| self.verified(sent).is_some()) => vec![Mistake::BodyChanged],
            None if self.id.is_empty() || self.seconds.is_empty() => vec![Mistake::HeaderMissing],
            None => Vec::new(),
        }
    }

    /// The fewest mistakes that yield the receiver's value.
    pub(super) fn computed(&self, value: &str, body: &[u8]) -> Computed {
        if let Some(computed) = self.asymmetric.computed(value.trim(), body) {
            return computed;
        }
        let forms = forms(body);
        let most = if body.len() > LONG { 1 } else { 2 };
        let found = self.targets.iter().filter_map(|&target| {
            let decoded = decode::<32>(target.bare(self.seconds, value.trim())?)?;
            let (secret, mut mistakes) = self.trials(target, &decoded.digest, &forms, most)?;
            mistakes.extend(decoded.mistake(target.encoding()));
            mistakes.extend(self.secret_mistake(target, secret, body));
            let is_received = self.digests(target).contains(&decoded.digest);
            Some((target.header(), mistakes, is_received))
        });
        match found.min_by_key(|(_, mistakes, _)| mistakes.len()) {
            Some((header, mistakes, true)) if mistakes.is_empty() => Computed::Right(header),
            Some((header, mistakes, _)) => Computed::Mistaken(header, mistakes),
            None => Computed::Unknown,
        }
    }

    /// The secret and the fewest mistakes, at most `most`, with which the target's signature has this digest.
    fn trials(
        &self,
        target: Target<'_>,
        digest: &[u8; 32],
        forms: &[(BodyForm, Vec<u8>)],
        most: usize,
    ) -> Option<(usize, Vec<Mistake>)> {
        let mut trials = Vec::new();
        for key in KEYS {
            for signed in SIGNED {
                for (form, bytes) in forms {
                    let parts = [target.key_mistake(key), target.signed_mistake(signed), form.mistake()];
                    let mistakes: Vec<Mistake> = parts.into_iter().flatten().collect();
                    trials.push((mistakes, key, signed, bytes));
                }
            }
        }
        trials.retain(|(mistakes, ..)| mistakes.len() <= most);
        trials.sort_by_key(|(mistakes, ..)| mistakes.len());
        trials.into_iter().find_map(|(mistakes, key, signed, bytes)| {
            let yields = |&secret: &usize| self.digest(target, (secret, key), signed, bytes).as_ref() == Some(digest);
            (0..self.secrets.len()).find(yields).map(|secret| (secret, mistakes))
        })
    }

    /// The mistake of taking this secret, if another secret signed the target's header.
    fn secret_mistake(&self, target: Target<'_>, secret: usize, body: &[u8]) -> Option<Mistake> {
        let digests = self.digests(target);
        let signs = |secret: usize| {
            self.digest(target, (secret, target.key()), Signed::Right, body)
                .is_some_and(|right| digests.contains(&right))
        };
        if signs(secret) || !(0..self.secrets.len()).any(signs) {
            return None;
        }
        Some(if secret == 0 { Mistake::NewSecret } else { Mistake::PreviousSecret })
    }
}

impl Target<'_> {
    fn header(self) -> HeaderName {
        match self {
            Self::Standard => WEBHOOK_SIGNATURE,
            Self::Own(form) => form.header.clone(),
        }
    }

    fn key(self) -> Key {
        match self {
            Self::Own(SignatureForm { key: SignatureKey::Text, .. }) => Key::Text,
            _ => Key::Bytes,
        }
    }

    fn encoding(self) -> SignatureEncoding {
        match self {
            Self::Standard => SignatureEncoding::Base64,
            Self::Own(form) => form.encoding,
        }
    }

    /// The signature in a value with or without the frame of the header.
    fn bare<'a>(self, seconds: &str, value: &'a str) -> Option<&'a str> {
        match self {
            Self::Standard => Some(value.strip_prefix("v1,").unwrap_or(value)),
            Self::Own(form) => bare(form, seconds, value).or(Some(value)),
        }
    }

    fn key_mistake(self, key: Key) -> Option<Mistake> {
        match (self.key(), key) {
            (right, key) if right == key => None,
            (_, Key::TextWithoutPrefix) => Some(Mistake::SecretWithoutPrefix),
            (Key::Bytes, Key::DecodedWithPrefix) => Some(Mistake::PrefixDecoded),
            (Key::Bytes, _) => Some(Mistake::SecretAsText),
            _ => Some(Mistake::SecretAsBytes),
        }
    }

    fn signed_mistake(self, signed: Signed) -> Option<Mistake> {
        let is_body_alone = matches!(self, Self::Own(form) if form.signs.parts().len() == 1);
        match signed {
            Signed::Right => None,
            _ if is_body_alone => Some(Mistake::PartsAdded),
            Signed::Body => Some(Mistake::BodyAlone),
            Signed::TimestampAndBody => Some(Mistake::IdLeftOut),
            Signed::IdAndBody => Some(Mistake::TimestampLeftOut),
            Signed::Standard => Some(Mistake::PartsAdded),
        }
    }
}

/// The signature in the value of a dialect's header.
fn bare<'a>(form: &SignatureForm, seconds: &str, value: &'a str) -> Option<&'a str> {
    // No header holds NUL.
    let frame = form.value.fill(|place, text| match place {
        SignaturePlace::Signature => text.push('\0'),
        SignaturePlace::Timestamp => text.push_str(seconds),
    });
    let (before, after) = frame.split_once('\0')?;
    value.strip_prefix(before)?.strip_suffix(after)
}

/// The key made from a secret; `None` if the secret has no such form.
fn key_of(secret: &SigningSecret, key: Key) -> Option<Vec<u8>> {
    let text = secret.text();
    match key {
        Key::Bytes => Some(secret.key()),
        Key::Text => Some(text.as_bytes().to_vec()),
        Key::TextWithoutPrefix => text.strip_prefix("whsec_").map(|rest| rest.as_bytes().to_vec()),
        // Node's decoder reads both alphabets, and stops at the padding.
        Key::DecodedWithPrefix => {
            let read = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
            text.starts_with("whsec_").then(|| lenient(&read)).flatten()
        }
    }
}
