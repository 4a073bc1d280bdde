//! Finds the mistake in a receiver's check of signatures: tries the secrets and keys in force, and the
//! known mistakes.
//!
//! The result names mistakes, and holds no secret and no signature.

mod asymmetric;
mod bodies;
mod decoding;
#[cfg(test)]
mod tests;
mod trial;

use fanfare_domain::{
    application::signing_key::{PublicKey, SigningKeys},
    endpoint::Endpoint,
};
use http::{HeaderMap, HeaderName};
use jiff::{SignedDuration, Timestamp};

use crate::mistakes::trial::Trial;

/// Difference of clocks that the libraries of Standard Webhooks permit.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(300);

/// A request as it came to a receiver.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Headers of the request.
    pub headers: &'a HeaderMap,
    /// Body of the request.
    pub body: &'a [u8],
    /// Body that Fanfare sent, if known.
    pub sent: Option<&'a [u8]>,
    /// Signature that the receiver's code computed, if known.
    pub computed: Option<&'a str>,
    /// Public key that the receiver's code verifies with, if known.
    pub public_key: Option<&'a str>,
    /// Time at which the receiver checked the request.
    pub at: Timestamp,
}

/// Result of the trials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// A header with a right signature.
    pub verified: Option<Verified>,
    /// Keys of the application with a right asymmetric signature in the request, newest first.
    pub keys: Vec<PublicKey>,
    /// The receiver's public key, if given.
    pub public_key: Option<GivenKey>,
    /// Reasons why no header has a right signature; empty if none is known.
    pub received: Vec<Mistake>,
    /// The receiver's own value, if given.
    pub computed: Option<Computed>,
    /// Time in `webhook-timestamp`.
    pub timestamp: Option<Timestamp>,
    /// Time from `webhook-timestamp` to the check; negative if the receiver's clock is behind.
    pub age: Option<SignedDuration>,
}

/// A header with a right signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Name of the header.
    pub header: HeaderName,
    /// Secret or key of the signature.
    pub by: Signer,
}

/// The secret or the key of a right signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// A signing secret of the webhook.
    Secret(SecretInForce),
    /// An Ed25519 key of the application.
    Key(PublicKey),
}

/// The public key that a receiver's code verifies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenKey {
    /// A key in force, with a right signature in the request.
    Signs(PublicKey),
    /// A key in force, without a right signature in the request.
    SignsNot(PublicKey),
    /// No key of the application that is in force.
    Unknown,
}

/// A signing secret in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretInForce {
    /// The newest secret.
    Current,
    /// The secret before a rotation whose overlap has not ended.
    Previous,
}

impl SecretInForce {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }

    fn at(place: usize) -> Self {
        if place == 0 { Self::Current } else { Self::Previous }
    }
}

/// The value that a receiver's code computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Computed {
    /// The right value for this header of the request: only the comparison can be at fault.
    Right(HeaderName),
    /// The value for this header, with mistakes. Without a mistake, the request holds another value.
    Mistaken(HeaderName, Vec<Mistake>),
    /// No known mistake yields the value.
    Unknown,
}

/// A known mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The key is the text of the secret instead of the decoded bytes.
    SecretAsText,
    /// The key is the decoded bytes instead of the text of the secret.
    SecretAsBytes,
    /// The key is the text of the secret without `whsec_`.
    SecretWithoutPrefix,
    /// The decoder of base64 got `whsec_`, too.
    PrefixDecoded,
    /// The key is the previous secret.
    PreviousSecret,
    /// The key is the new secret, and the request was signed by the previous secret.
    NewSecret,
    /// The body was parsed and printed again.
    BodyPrinted,
    /// White space at the ends of the body was removed.
    BodyTrimmed,
    /// A line end was added to the body.
    BodyWithNewline,
    /// The body differs from the body that Fanfare sent.
    BodyChanged,
    /// The body alone was signed, without id and time.
    BodyAlone,
    /// The id was left out of the signed text.
    IdLeftOut,
    /// The time was left out of the signed text.
    TimestampLeftOut,
    /// Id and time were added to a text that lacks them.
    PartsAdded,
    /// Hexadecimal digits instead of base64.
    HexForBase64,
    /// Base64 instead of hexadecimal digits.
    Base64ForHex,
    /// Another alphabet or padding of base64, or upper-case digits.
    OtherAlphabet,
    /// Base64 of the hexadecimal digits instead of the bytes.
    HexInBase64,
    /// A header that the check needs is missing.
    HeaderMissing,
}

impl Mistake {
    /// Code for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::SecretAsText => "secret_as_text",
            Self::SecretAsBytes => "secret_as_bytes",
            Self::SecretWithoutPrefix => "secret_without_prefix",
            Self::PrefixDecoded => "prefix_decoded",
            Self::PreviousSecret => "previous_secret",
            Self::NewSecret => "new_secret",
            Self::BodyPrinted => "body_printed_again",
            Self::BodyTrimmed => "body_trimmed",
            Self::BodyWithNewline => "body_with_newline",
            Self::BodyChanged => "body_changed",
            Self::BodyAlone => "body_alone",
            Self::IdLeftOut => "id_left_out",
            Self::TimestampLeftOut => "timestamp_left_out",
            Self::PartsAdded => "parts_added",
            Self::HexForBase64 => "hex_for_base64",
            Self::Base64ForHex => "base64_for_hex",
            Self::OtherAlphabet => "other_alphabet",
            Self::HexInBase64 => "hex_in_base64",
            Self::HeaderMissing => "header_missing",
        }
    }

    /// The remedy, in a sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::SecretAsText => "Decode the base64 behind `whsec_`, and take the bytes as the key.",
            Self::SecretAsBytes => "Take the whole text of the secret as the key, without decoding.",
            Self::SecretWithoutPrefix => {
                "For `webhook-signature`, decode the base64 behind `whsec_`. For the other \
                                          header, take the whole text of the secret, with `whsec_`."
            }
            Self::PrefixDecoded => "Remove `whsec_` before decoding the base64 of the secret.",
            Self::PreviousSecret => "Take the new secret: the code still has the previous secret.",
            Self::NewSecret => {
                "Take the previous secret until the overlap of the rotation ends, or verify \
                                `webhook-signature`, which holds a signature by each secret."
            }
            Self::BodyPrinted => "Verify the bytes as received, before any parser of JSON.",
            Self::BodyTrimmed => "Verify the bytes as received, without removing white space.",
            Self::BodyWithNewline => "Verify the bytes as received, without an added line end.",
            Self::BodyChanged => "Verify the bytes as received: a proxy or a framework changed the body.",
            Self::BodyAlone => "Sign `<webhook-id>.<webhook-timestamp>.<body>` for `webhook-signature`.",
            Self::IdLeftOut => "Put `<webhook-id>.` before the time in the signed text.",
            Self::TimestampLeftOut => "Put the time between the id and the body in the signed text.",
            Self::PartsAdded => "Sign only the parts that the header covers; in most dialects the body alone.",
            Self::HexForBase64 => "Encode the HMAC in base64, not in hexadecimal digits.",
            Self::Base64ForHex => "Encode the HMAC in lower-case hexadecimal digits, not in base64.",
            Self::OtherAlphabet => "Take the usual alphabet: base64 with `+`, `/` and padding, or lower-case digits.",
            Self::HexInBase64 => "Encode the bytes of the HMAC in base64, not the text of the hexadecimal digits.",
            Self::HeaderMissing => {
                "Give `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the signature \
                                    header of the application, as received."
            }
        }
    }
}

/// Tries the secrets and keys that are in force at `now`, and the known mistakes. `keys` are the application's, also if
/// they do not sign deliveries to the endpoint: a receiver may hold a right key before the endpoint asks for
/// signatures.
pub fn diagnose(endpoint: &Endpoint, keys: Option<&SigningKeys>, arrived: &Arrived<'_>, now: Timestamp) -> Diagnosis {
    let trial = Trial::new(endpoint, keys, arrived, now);
    let timestamp = trial.timestamp();
    let verified = trial.verified(arrived.body);
    let received = if verified.is_some() { Vec::new() } else { trial.received(arrived) };
    Diagnosis {
        keys: trial.asymmetric.keys_of(arrived.body),
        public_key: arrived.public_key.map(|text| trial.asymmetric.given_key(text.trim(), arrived.body)),
        computed: arrived.computed.map(|value| trial.computed(value, arrived.body)),
        verified,
        received,
        timestamp,
        age: timestamp.map(|timestamp| arrived.at.duration_since(timestamp)),
    }
}
