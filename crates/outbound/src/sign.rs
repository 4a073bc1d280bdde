//! Headers by which a receiver recognises a genuine, unchanged delivery.

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_domain::{
    application::signing_key::SigningKey,
    dialect::{Part, Sending, SignatureEncoding, SignatureForm, SignatureKey, SignaturePlace, SignedPlace},
    endpoint::{
        Endpoint,
        header::{DIGEST_DAY, REPLAY},
        secret::SigningSecret,
    },
    event::ordering::Sequence,
};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use sha2::Sha256;

pub(crate) const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub(crate) const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(crate) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Begin of an asymmetric signature in `webhook-signature`.
pub(crate) const ASYMMETRIC: &str = "v1a,";
const WEBHOOK_SEQUENCE: HeaderName = HeaderName::from_static("webhook-sequence");
const WEBHOOK_ORDERING_KEY: HeaderName = HeaderName::from_static("webhook-ordering-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Headers of an attempt: the endpoint's own headers, then the dialect's, then those of Standard Webhooks; later
/// headers replace earlier headers of the same name. Only secrets that are live at the time of the attempt sign.
///
/// - `webhook-signature` (Standard Webhooks 1.0.0) contains a signature by each live secret, as verifiers accept any
///   match. The signature covers the event's id and the time of this attempt, not of the first attempt. An endpoint with
///   asymmetric signatures also gets one by each live key of the application, behind the others.
/// - The dialect's signature header contains exactly one signature, as published verifiers throw on any other length.
///   The oldest secret signs: a receiver without the new secret can verify until the old secret ends.
///
/// Without secrets and keys, the headers have no signatures, only the id and the time.
///
/// Authentication by Basic or a bearer token is in `authorization`. The token of a token server is added by the caller.
///
/// A delivery of an event with an ordering key has the key, and its number for the endpoint and the key.
///
/// A delivery to an endpoint with digests has the day whose digest counts the delivery.
///
/// An endpoint that asks for trace contexts gets `traceparent` and `tracestate` of
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/).
pub(crate) fn delivery_headers(endpoint: &Endpoint, sending: &Sending<'_>, body: &[u8]) -> HeaderMap {
    let dialect = &endpoint.dialect;
    let mut headers = endpoint.headers.clone();
    if let Some(header) = endpoint.authentication.as_ref().and_then(|credentials| credentials.header.as_ref()) {
        headers.insert(AUTHORIZATION, header.clone());
    }
    for (name, template) in &dialect.headers {
        headers.insert(name.clone(), visible_ascii(dialect.header_value(template, sending)));
    }
    let (id, seconds) = (sending.event.to_string(), sending.at.as_second());
    let secrets = endpoint.live_secrets(sending.at);
    let by_secrets = secrets.iter().map(|secret| standard_signature(&secret.key(), &id, seconds, body));
    // The same text for all keys.
    let text = endpoint.signing_keys.as_ref().map(|_| [format!("{id}.{seconds}.").as_bytes(), body].concat());
    let signed = |text: &Vec<u8>| endpoint.live_keys(sending.at).map(|key| asymmetric_signature(key, text)).collect();
    let by_keys: Vec<String> = text.as_ref().map(signed).unwrap_or_default();
    let signatures: Vec<String> = by_secrets.chain(by_keys).collect();
    if !signatures.is_empty() {
        headers.insert(WEBHOOK_SIGNATURE, visible_ascii(signatures.join(" ")));
    }
    if let (Some(oldest), Some(form)) = (secrets.last(), &dialect.signature) {
        let event_id = dialect.event_id(sending.event);
        let value = dialect_signature(form, oldest, &event_id, seconds, body);
        headers.insert(form.header.clone(), visible_ascii(value));
    }
    if let Some(replay) = sending.replay {
        headers.insert(REPLAY, visible_ascii(replay.to_string()));
    }
    if let Some(Sequence { key, number }) = sending.sequence {
        headers.insert(WEBHOOK_SEQUENCE, HeaderValue::from(*number));
        headers.insert(WEBHOOK_ORDERING_KEY, visible_ascii(key.to_string()));
    }
    if let Some(day) = endpoint.digest_day(sending.delivery, sending.event_type) {
        headers.insert(DIGEST_DAY, visible_ascii(day.to_string()));
    }
    if let Some(trace) = sending.trace.filter(|_| endpoint.sends_trace) {
        headers.insert(TRACEPARENT, visible_ascii(trace.parent.to_string()));
        // Without an own state, a state among the endpoint's own headers would belong to another trace.
        headers.remove(TRACESTATE);
        if let Some(state) = &trace.state {
            headers.insert(TRACESTATE, visible_ascii(state.to_string()));
        }
    }
    headers.insert(WEBHOOK_ID, visible_ascii(id));
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
    headers
}

/// Value of a dialect's signature header.
fn dialect_signature(
    form: &SignatureForm,
    secret: &SigningSecret,
    event_id: &str,
    seconds: i64,
    body: &[u8],
) -> String {
    let seconds = seconds.to_string();
    let signed = signed_parts(form, event_id, &seconds, body);
    let digest = match form.key {
        SignatureKey::Text => hmac_sha256(secret.text().as_bytes(), &signed),
        SignatureKey::Bytes => hmac_sha256(&secret.key(), &signed),
    };
    let signature = match form.encoding {
        SignatureEncoding::Hex => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        SignatureEncoding::Base64 => STANDARD.encode(digest),
    };
    form.value.fill(|place, text| {
        text.push_str(match place {
            SignaturePlace::Signature => &signature,
            SignaturePlace::Timestamp => &seconds,
        });
    })
}

/// Parts of the text that a dialect signs.
pub(crate) fn signed_parts<'a>(
    form: &'a SignatureForm,
    event_id: &'a str,
    seconds: &'a str,
    body: &'a [u8],
) -> Vec<&'a [u8]> {
    let part = |part: &'a Part<SignedPlace>| match part {
        Part::Text(text) => text.as_bytes(),
        Part::Place(SignedPlace::Body) => body,
        Part::Place(SignedPlace::EventId) => event_id.as_bytes(),
        Part::Place(SignedPlace::Timestamp) => seconds.as_bytes(),
    };
    form.signs.parts().iter().map(part).collect()
}

/// Standard Webhooks signature: `v1,` and base64 of the HMAC over `id.seconds.body`.
fn standard_signature(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let prefix = format!("{id}.{seconds}.");
    format!("v1,{}", STANDARD.encode(hmac_sha256(key, &[prefix.as_bytes(), body])))
}

/// Asymmetric signature of Standard Webhooks: `v1a,` and base64 of the Ed25519 signature of `text`, `id.seconds.body`.
fn asymmetric_signature(key: &SigningKey, text: &[u8]) -> String {
    format!("{ASYMMETRIC}{}", STANDARD.encode(key.sign(text)))
}

/// True if `webhook-signature` holds the signature of the request by this secret, as Standard Webhooks 1.0.0 defines
/// it. Does not judge the age of the request.
pub fn is_signed(headers: &HeaderMap, body: &[u8], secret: &SigningSecret) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(seconds), Some(signatures)) =
        (text(WEBHOOK_ID), text(WEBHOOK_TIMESTAMP), text(WEBHOOK_SIGNATURE))
    else {
        return false;
    };
    let Ok(seconds) = seconds.parse() else { return false };
    let right = standard_signature(&secret.key(), id, seconds, body);
    signatures.split(' ').any(|signature| signature == right)
}

pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Converts text that cannot break out of a header: ids, event types, base64, hex, and a dialect's own text, checked
/// when the file was read.
fn visible_ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible ASCII")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_domain::{
        application::signing_key::{ApplicationKey, SigningKeys},
        dialect::{Dialect, Dialects},
        endpoint::{EndpointSecret, EndpointStatus, Feed},
        event::EventType,
        ids::{ApplicationId, DeliveryId, EndpointId},
    };
    use jiff::Timestamp;

    use super::*;

    const BODY: &[u8] = br#"{"test":2432232314}"#;

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(text).expect("secret")
    }

    fn dialect(name: &str) -> Arc<Dialect> {
        let dialects = Dialects::read([("acme", "acme", ACME)]).unwrap_or_else(|faults| panic!("{faults:?}"));
        Arc::clone(dialects.get(name).expect("a dialect"))
    }

    const ACME: &str = r#"
        title = "Acme"
        description = "A signature of its own"
        [body]
        template = '<data>'
        event_id_prefix = "acme"
        [signature]
        header = "X-Acme-Signature"
        value = "t=<timestamp>,v1=<signature>"
        signs = "<event_id>.<timestamp>.<body>"
        key = "bytes"
        encoding = "base64"
        [delivery]
        schedule = []
        timeout = "1s"
    "#;

    /// Headers of an attempt with these secrets, newest first, each with an end in seconds.
    fn headers(dialect_name: &str, secrets: &[(&str, Option<i64>)], at: i64) -> HeaderMap {
        headers_with_keys(dialect_name, secrets, None, at)
    }

    fn headers_with_keys(
        dialect_name: &str,
        secrets: &[(&str, Option<i64>)],
        signing_keys: Option<Arc<SigningKeys>>,
        at: i64,
    ) -> HeaderMap {
        let dialect = dialect(dialect_name);
        let id: EndpointId = "wh_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let application: ApplicationId = "app_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let secret = |&(text, end): &(&str, Option<i64>)| EndpointSecret {
            secret: secret(text),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: end.map(|end| Timestamp::from_second(end).expect("timestamp")),
        };
        let endpoint = Endpoint {
            id,
            application,
            url: "https://example.com/".parse().expect("URL"),
            status: EndpointStatus::Enabled,
            feed: Feed::None,
            fifo: None,
            digest_from: None,
            subscriptions: Vec::new(),
            filter: None,
            template: None,
            authentication: None,
            certificate: None,
            secrets: secrets.iter().map(secret).collect(),
            signing_keys,
            headers: [("x-nudj-event", "mine"), ("webhook-id", "mine"), ("x-own", "mine")]
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .into_iter()
                .collect(),
            policy: Arc::clone(&dialect.policy),
            redaction: Arc::default(),
            sends_trace: false,
            notifies_owner: false,
            dialect,
        };
        let delivery: DeliveryId = "dlv_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let sending = Sending {
            event: "evt_01h455vb4pex5vsknk084sn02q".parse().expect("id"),
            event_type: &EventType::parse("user.joined").expect("type"),
            application,
            delivery,
            attempt: 2,
            replay: None,
            sequence: None,
            trace: None,
            at: Timestamp::from_second(at).expect("timestamp"),
        };
        delivery_headers(&endpoint, &sending, BODY)
    }

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// Test vectors of the official Standard Webhooks libraries.
    #[test]
    fn signs_as_the_official_libraries_do() {
        for (text, id, seconds, body, signature) in [
            (
                OLD,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1614265330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                NEW,
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1649367553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            assert_eq!(standard_signature(&secret(text).key(), id, seconds, body.as_bytes()), signature);
        }
    }

    /// The expected value comes from Node: `createHmac("sha256", secret).update(body).digest("hex")`.
    #[test]
    fn each_dialects_header_has_its_form() {
        let hex = "78dd34208881d421fa3a5c6234cab4568e4b390c903fc1a2668d1e71c68fb9c9";
        let sent = |dialect, name| headers(dialect, &[(OLD, None)], 5)[name].to_str().expect("ASCII").to_owned();
        assert_eq!(sent("incenta", "x-webhook-signature"), hex);
        assert_eq!(sent("incentable", "x-incentable-signature"), hex);
        assert_eq!(sent("ploints", "x-ploints-signature"), hex);
        assert_eq!(sent("nudj", "x-nudj-signature"), format!("sha256={hex}"));
        assert_eq!(sent("nudj", "x-nudj-event"), "user.joined");
        assert_eq!(sent("nudj", "x-nudj-delivery-id"), "dlv_01h455vb4pex5vsknk084sn02q");
        for without in ["reward", "standard"] {
            // Three headers of Standard Webhooks, and two of the endpoint.
            assert_eq!(headers(without, &[(OLD, None)], 5).len(), 5, "{without}");
        }
    }

    /// The signed text is `id.seconds.body` with the dialect's prefix of the id, and the key is the decoded secret.
    #[test]
    fn a_dialect_may_sign_more_than_the_body() {
        let expected = hmac_sha256(&secret(OLD).key(), &[b"acme_01h455vb4pex5vsknk084sn02q.7.", BODY]);
        let value = format!("t=7,v1={}", STANDARD.encode(expected));
        assert_eq!(headers("acme", &[(OLD, None)], 7)["x-acme-signature"], value);
    }

    #[test]
    fn the_endpoints_own_headers_give_way_to_ours() {
        let headers = headers("nudj", &[(OLD, None)], 5);
        assert_eq!(headers["x-own"], "mine");
        assert_eq!(headers["webhook-id"], "evt_01h455vb4pex5vsknk084sn02q");
        assert_eq!(headers["webhook-timestamp"], "5");
        assert_eq!(headers["x-nudj-event"], "user.joined");
    }

    #[test]
    fn during_a_rotation_both_sign_and_the_dialect_keeps_the_oldest() {
        let signatures = |secrets: &[(&str, Option<i64>)], at| {
            let headers = headers("incenta", secrets, at);
            ["webhook-signature", "x-webhook-signature"].map(|name| headers[name].to_str().expect("ASCII").to_owned())
        };
        let ([new, _], [old, old_hex]) = (signatures(&[(NEW, None)], 99), signatures(&[(OLD, None)], 99));
        let rotating = [(NEW, None), (OLD, Some(100))];
        assert_eq!(signatures(&rotating, 99), [format!("{new} {old}"), old_hex]);
        assert_eq!(signatures(&rotating, 100), signatures(&[(NEW, None)], 100));
    }

    #[test]
    fn without_a_secret_no_signature_header_is_sent() {
        let headers = headers("incenta", &[(OLD, Some(5))], 5);
        assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("x-webhook-signature"));
        assert_eq!(headers["webhook-timestamp"], "5");
    }

    /// Keys 2 and 1; key 1 ends at 10.
    fn rotating_keys() -> Arc<SigningKeys> {
        let key = |seed, end: Option<i64>| ApplicationKey {
            key: Arc::new(SigningKey::from_seed(&[seed; 32])),
            expires_at: end.map(|end| Timestamp::from_second(end).expect("timestamp")),
        };
        Arc::new(SigningKeys::new(vec![key(2, None), key(1, Some(10))]))
    }

    /// The parts of `webhook-signature`.
    fn parts(headers: &HeaderMap) -> Vec<String> {
        headers["webhook-signature"].to_str().expect("ASCII").split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn each_live_key_signs_the_same_text_behind_the_secrets() {
        let verified = |signature: &str, seed, at: i64| {
            let signature = STANDARD.decode(signature.strip_prefix("v1a,").expect("v1a")).expect("base64");
            let public = SigningKey::from_seed(&[seed; 32]).public();
            public.verifies(&[format!("evt_01h455vb4pex5vsknk084sn02q.{at}.").as_bytes(), BODY].concat(), &signature)
        };
        for (at, seeds) in [(9, &[2, 1][..]), (10, &[2])] {
            let signed = headers_with_keys("incenta", &[(NEW, None), (OLD, None)], Some(rotating_keys()), at);
            let parts = parts(&signed);
            assert_eq!(parts[..2], self::parts(&headers("incenta", &[(NEW, None), (OLD, None)], at))[..]);
            assert_eq!(parts.len(), 2 + seeds.len());
            for (part, seed) in parts[2..].iter().zip(seeds) {
                assert!(verified(part, *seed, at) && !verified(part, 3, at), "{part}");
            }
        }
    }

    #[test]
    fn keys_sign_without_a_secret_and_change_no_header_of_a_dialect() {
        let signed = headers_with_keys("incenta", &[(OLD, Some(5))], Some(rotating_keys()), 5);
        assert_eq!(parts(&signed).len(), 2);
        assert!(!signed.contains_key("x-webhook-signature"));
        for dialect in ["incenta", "incentable", "nudj", "ploints", "reward", "standard", "cloudevents"] {
            let mut with = headers_with_keys(dialect, &[(OLD, None)], Some(rotating_keys()), 5);
            let mut without = headers(dialect, &[(OLD, None)], 5);
            let [with_value, value] = [&mut with, &mut without].map(|headers| headers.remove("webhook-signature"));
            assert_eq!(with, without, "{dialect}");
            let [with_value, value] = [with_value, value].map(|value| value.expect("a signature"));
            assert!(with_value.as_bytes().starts_with(value.as_bytes()), "{dialect}");
        }
    }
}
