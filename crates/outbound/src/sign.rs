//! The headers by which a receiver knows that a delivery is ours and unchanged.

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_domain::{ids::EventId, secret::SigningSecret};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::Sha256;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const X_WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");

/// The signature headers of one attempt, made at the moment `at` with the secrets that are live then.
///
/// `secrets` are ordered from the newest to the oldest; during a rotation there is more than one.
/// - `webhook-signature` (Standard Webhooks 1.0.0) holds a signature by each of them, as its verifiers
///   accept any that matches. It covers the event's id and the time of this attempt, not of the first.
/// - `x-webhook-signature` (the default dialect) holds exactly one, as its published verifiers throw on
///   any other length. It is by the oldest secret: a receiver that has not yet taken over the new one
///   keeps verifying until the old one ends.
///
/// Without secrets there are no signatures, only the id and the time.
pub fn signature_headers(secrets: &[SigningSecret], event: EventId, at: Timestamp, body: &[u8]) -> HeaderMap {
    let (id, seconds) = (event.to_string(), at.as_second());
    let mut headers = HeaderMap::with_capacity(4);
    let signatures: Vec<String> =
        secrets.iter().map(|secret| standard_signature(&secret.key(), &id, seconds, body)).collect();
    if let Some(oldest) = secrets.last() {
        headers.insert(WEBHOOK_SIGNATURE, visible_ascii(signatures.join(" ")));
        headers.insert(X_WEBHOOK_SIGNATURE, visible_ascii(hex_signature(oldest, body)));
    }
    headers.insert(WEBHOOK_ID, visible_ascii(id));
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
    headers
}

/// `v1,` and base64 of the HMAC over `id.seconds.body`.
fn standard_signature(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let prefix = format!("{id}.{seconds}.");
    format!("v1,{}", STANDARD.encode(hmac_sha256(key, &[prefix.as_bytes(), body])))
}

/// The HMAC over the body, keyed with the secret's literal text (`whsec_` included), in hex.
fn hex_signature(secret: &SigningSecret, body: &[u8]) -> String {
    let digest = hmac_sha256(secret.text().as_bytes(), &[body]);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn visible_ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("ids, base64 and hex are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text).expect("secret")
    }

    /// The vectors that the official Standard Webhooks libraries test themselves with.
    #[test]
    fn signs_as_the_official_libraries_do() {
        for (text, id, seconds, body, signature) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1614265330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1649367553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            assert_eq!(standard_signature(&secret(text).key(), id, seconds, body.as_bytes()), signature);
        }
    }

    /// The expected value is that of Node: `createHmac("sha256", secret).update(body).digest("hex")`.
    #[test]
    fn signs_the_default_dialect_with_the_literal_secret() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(
            hex_signature(&secret, br#"{"test":2432232314}"#),
            "78dd34208881d421fa3a5c6234cab4568e4b390c903fc1a2668d1e71c68fb9c9"
        );
    }

    #[test]
    fn during_a_rotation_both_sign_and_the_dialect_keeps_the_oldest() {
        let [old, new] = [[1; 32], [2; 32]].map(SigningSecret::from_random);
        let event: EventId = "evt_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let at: Timestamp = "2026-11-21T10:00:00.999Z".parse().expect("timestamp");
        let only = |secret: &SigningSecret| signature_headers(std::slice::from_ref(secret), event, at, b"{}");
        let both = signature_headers(&[new.clone(), old.clone()], event, at, b"{}");

        assert_eq!(both[WEBHOOK_ID], "evt_01h455vb4pex5vsknk084sn02q");
        assert_eq!(both[WEBHOOK_TIMESTAMP], "1795255200");
        let (newest, oldest) = (only(&new), only(&old));
        let expected =
            [&newest[WEBHOOK_SIGNATURE], &oldest[WEBHOOK_SIGNATURE]].map(|value| value.to_str().expect("ASCII"));
        assert_eq!(both[WEBHOOK_SIGNATURE], expected.join(" "));
        assert_eq!(both[X_WEBHOOK_SIGNATURE], oldest[X_WEBHOOK_SIGNATURE]);
        assert_eq!(both.len(), 4);
    }

    #[test]
    fn without_a_secret_nothing_pretends_to_be_signed() {
        let event: EventId = "evt_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let headers = signature_headers(&[], event, Timestamp::UNIX_EPOCH, b"{}");
        assert!(!headers.contains_key(WEBHOOK_SIGNATURE) && !headers.contains_key(X_WEBHOOK_SIGNATURE));
        assert_eq!(headers.len(), 2);
    }
}
