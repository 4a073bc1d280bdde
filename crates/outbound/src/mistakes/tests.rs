use std::{str::FromStr, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use fanfare_domain::{
    application::signing_key::{ApplicationKey, SigningKey, SigningKeys},
    dialect::{Dialects, Sending},
    endpoint::{EndpointSecret, EndpointStatus, Feed, secret::SigningSecret},
    event::EventType,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use proptest::{prelude::*, sample::select};

use super::*;
use crate::sign::{delivery_headers, hmac_sha256};

const AT: i64 = 1_700_000_000;
const BODY: &str = r#"{"event":"a.b","data":{"b":"ü/<1>","a":[1,2]}}"#;

fn id<T: FromStr>(prefix: &str) -> T {
    format!("{prefix}_01h455vb4pex5vsknk084sn02q").parse().unwrap_or_else(|_| panic!("an id"))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(AT + seconds).expect("timestamp")
}

fn endpoint(dialect: &str, secrets: &[(&SigningSecret, Option<i64>)]) -> Endpoint {
    let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
    let dialect = Arc::clone(dialects.get(dialect).expect("a dialect"));
    let secret = |&(secret, end): &(&SigningSecret, Option<i64>)| EndpointSecret {
        secret: secret.clone(),
        created_at: at(-1000),
        expires_at: end.map(at),
    };
    Endpoint {
        id: id::<EndpointId>("wh"),
        application: id::<ApplicationId>("app"),
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
        signing_keys: None,
        headers: HeaderMap::new(),
        policy: Arc::clone(&dialect.policy),
        redaction: Arc::default(),
        sends_trace: false,
        notifies_owner: false,
        dialect,
    }
}

fn sent(endpoint: &Endpoint, body: &str) -> HeaderMap {
    let sending = Sending {
        event: id::<EventId>("evt"),
        event_type: &EventType::parse("a.b").expect("type"),
        application: endpoint.application,
        delivery: id::<DeliveryId>("dlv"),
        attempt: 1,
        replay: None,
        sequence: None,
        trace: None,
        at: at(0),
    };
    delivery_headers(endpoint, &sending, body.as_bytes())
}

fn look(endpoint: &Endpoint, headers: &HeaderMap, body: &str, computed: Option<&str>) -> Diagnosis {
    let arrived = Arrived { headers, body: body.as_bytes(), sent: None, computed, public_key: None, at: at(2) };
    diagnose(endpoint, endpoint.signing_keys.as_deref(), &arrived, at(0))
}

fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secrets() -> impl Strategy<Value = SigningSecret> {
    any::<[u8; 32]>().prop_map(SigningSecret::from_random)
}

/// Bodies as Fanfare prints them, which differ from all other printings.
fn bodies() -> impl Strategy<Value = String> {
    let members = ("[a-zü]{1,8}", "[a-z/<ü ]{0,20}", any::<i32>());
    members.prop_map(|(key, text, number)| {
        format!(r#"{{"z":{number},"event":"a.b","data":{{"{key}":"{text}/","n":[1,{number}]}}}}"#)
    })
}

const DIALECTS: [&str; 7] = ["cloudevents", "incenta", "incentable", "nudj", "ploints", "reward", "standard"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_genuine_request_verifies(secret in secrets(), body in bodies(), dialect in select(&DIALECTS[..])) {
        let endpoint = endpoint(dialect, &[(&secret, None)]);
        let headers = sent(&endpoint, &body);
        let found = look(&endpoint, &headers, &body, None);
        let header = HeaderName::from_static("webhook-signature");
        prop_assert_eq!(&found.verified, &Some(Verified { header, by: Signer::Secret(SecretInForce::Current) }));
        prop_assert_eq!((found.timestamp, found.age), (Some(at(0)), Some(SignedDuration::from_secs(2))));
        for name in ["webhook-signature", "x-webhook-signature", "x-nudj-signature"] {
            let Some(value) = headers.get(name).map(|value| value.to_str().expect("ASCII")) else { continue };
            let found = look(&endpoint, &headers, &body, Some(value));
            prop_assert_eq!(found.computed, Some(Computed::Right(HeaderName::from_static(name))));
        }
    }

    /// The body that the receiver's framework hands over differs from the sent body.
    #[test]
    fn a_changed_body_is_named(secret in secrets(), body in bodies(), dialect in select(&DIALECTS[..])) {
        let endpoint = endpoint(dialect, &[(&secret, None)]);
        let headers = sent(&endpoint, &body);
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let lines = serde_json::to_string_pretty(&value).expect("JSON");
        let spaced = body.replace("\":", "\": ");
        for (given, mistake) in [
            (format!("{body}\n"), Mistake::BodyWithNewline),
            (format!("{body}\r\n"), Mistake::BodyWithNewline),
            (spaced, Mistake::BodyPrinted),
            (lines.clone(), Mistake::BodyChanged),
            (body.replacen("a.b", "a.c", 1), Mistake::BodyChanged),
        ] {
            let arrived = Arrived { headers: &headers, body: given.as_bytes(), sent: Some(body.as_bytes()), computed: None, public_key: None, at: at(2) };
            let found = diagnose(&endpoint, endpoint.signing_keys.as_deref(), &arrived, at(0));
            prop_assert_eq!((found.verified, found.received), (None, vec![mistake]), "{}", given);
        }
        prop_assert_eq!(look(&endpoint, &headers, &lines, None).received, vec![]);
    }

    #[test]
    fn each_mistake_of_a_standard_verifier_is_named(secret in secrets(), body in bodies()) {
        let endpoint = endpoint("standard", &[(&secret, None)]);
        let headers = sent(&endpoint, &body);
        let (text, key) = (secret.text().as_bytes(), secret.key());
        let id = headers["webhook-id"].to_str().expect("ASCII");
        let signed = |body: &str| format!("{id}.{AT}.{body}");
        let base64 = |key: &[u8], signed: &str| STANDARD.encode(hmac_sha256(key, &[signed.as_bytes()]));
        let right = hmac_sha256(&key, &[signed(&body).as_bytes()]);
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        // Node: Buffer.from(secret, "base64").
        let node = super::decoding::lenient(&secret.text().trim_end_matches('=').replace('+', "-").replace('/', "_"));
        for (computed, mistakes) in [
            (base64(text, &signed(&body)), vec![Mistake::SecretAsText]),
            (base64(&text[6..], &signed(&body)), vec![Mistake::SecretWithoutPrefix]),
            (base64(&node.expect("a key"), &signed(&body)), vec![Mistake::PrefixDecoded]),
            (base64(&key, &body), vec![Mistake::BodyAlone]),
            (base64(&key, &format!("{AT}.{body}")), vec![Mistake::IdLeftOut]),
            (base64(&key, &format!("{id}.{body}")), vec![Mistake::TimestampLeftOut]),
            (base64(&key, &signed(&format!("{body}\n"))), vec![Mistake::BodyWithNewline]),
            (base64(&key, &signed(&value.to_string())), vec![Mistake::BodyPrinted]),
            (hex(right), vec![Mistake::HexForBase64]),
            (URL_SAFE_NO_PAD.encode(right), vec![Mistake::OtherAlphabet]),
            (STANDARD.encode(hex(right)), vec![Mistake::HexInBase64]),
            (hex(hmac_sha256(text, &[body.as_bytes()])), vec![Mistake::SecretAsText, Mistake::BodyAlone, Mistake::HexForBase64]),
        ] {
            let found = look(&endpoint, &headers, &body, Some(&computed)).computed;
            prop_assert_eq!(found, Some(Computed::Mistaken(HeaderName::from_static("webhook-signature"), mistakes)));
        }
        let trimmed = look(&endpoint, &headers, &format!("{body} "), Some(&base64(&key, &signed(&body)))).computed;
        prop_assert_eq!(trimmed, Some(Computed::Mistaken(HeaderName::from_static("webhook-signature"), vec![Mistake::BodyTrimmed])));
        let unknown = look(&endpoint, &headers, &body, Some(&base64(b"another key", &body))).computed;
        prop_assert_eq!(unknown, Some(Computed::Unknown));
    }

    #[test]
    fn each_mistake_with_a_dialects_header_is_named(secret in secrets(), body in bodies()) {
        let endpoint = endpoint("nudj", &[(&secret, None)]);
        let headers = sent(&endpoint, &body);
        let (text, key) = (secret.text().as_bytes(), secret.key());
        let of = |key: &[u8], signed: &str| hmac_sha256(key, &[signed.as_bytes()]);
        let lines = serde_json::from_str::<serde_json::Value>(&body).map(|value| value.to_string()).expect("JSON");
        for (computed, mistake) in [
            (hex(of(&key, &body)), Mistake::SecretAsBytes),
            (hex(of(&text[6..], &body)), Mistake::SecretWithoutPrefix),
            (hex(of(text, &lines)), Mistake::BodyPrinted),
            (STANDARD.encode(of(text, &body)), Mistake::Base64ForHex),
            (hex(of(text, &body)).to_uppercase(), Mistake::OtherAlphabet),
            (hex(of(text, &format!("{AT}.{body}"))), Mistake::PartsAdded),
        ] {
            for value in [computed.clone(), format!("sha256={computed}")] {
                let found = look(&endpoint, &headers, &body, Some(&value)).computed;
                prop_assert_eq!(found, Some(Computed::Mistaken(HeaderName::from_static("x-nudj-signature"), vec![mistake])));
            }
        }
    }

    #[test]
    fn the_secrets_of_a_rotation_are_told_apart(new in secrets(), old in secrets(), body in bodies()) {
        let before = endpoint("nudj", &[(&old, None)]);
        let rotating = endpoint("nudj", &[(&new, None), (&old, Some(100))]);
        let previous = look(&rotating, &sent(&before, &body), &body, None).verified;
        prop_assert_eq!(previous.map(|verified| verified.by), Some(Signer::Secret(SecretInForce::Previous)));
        let headers = sent(&rotating, &body);
        let current = look(&rotating, &headers, &body, None).verified;
        prop_assert_eq!(current.map(|verified| verified.by), Some(Signer::Secret(SecretInForce::Current)));
        // The dialect's header has only the signature by the previous secret.
        let own = hex(hmac_sha256(new.text().as_bytes(), &[body.as_bytes()]));
        let header = HeaderName::from_static("x-nudj-signature");
        let found = look(&rotating, &headers, &body, Some(&own)).computed;
        prop_assert_eq!(found, Some(Computed::Mistaken(header.clone(), vec![Mistake::NewSecret])));
        // A request signed after the rotation, and code with the previous secret.
        let after = sent(&endpoint("nudj", &[(&new, None)]), &body);
        let own = hex(hmac_sha256(old.text().as_bytes(), &[body.as_bytes()]));
        let found = look(&rotating, &after, &body, Some(&own)).computed;
        prop_assert_eq!(found, Some(Computed::Mistaken(header, vec![Mistake::PreviousSecret])));
        let ended = look(&endpoint("nudj", &[(&new, None)]), &sent(&before, &body), &body, None);
        prop_assert_eq!((ended.verified, ended.received), (None, vec![]));
    }

    #[test]
    fn nothing_panics_and_no_secret_leaves(secret in secrets(), body: Vec<u8>, value in "\\PC{0,80}", id in "[ -~]{0,40}") {
        let endpoint = endpoint("nudj", &[(&secret, None)]);
        let mut headers = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature", "x-nudj-signature"] {
            headers.insert(name, id.parse().expect("a value"));
        }
        let arrived = Arrived { headers: &headers, body: &body, sent: Some(&body), computed: Some(&value), public_key: Some(&value), at: at(0) };
        let found = format!("{:?}", diagnose(&endpoint, endpoint.signing_keys.as_deref(), &arrived, at(0)));
        prop_assert!(!found.contains(&secret.text()[6..]));
    }
}

#[test]
fn a_request_without_the_headers_is_told_so() {
    let secret = SigningSecret::from_random([7; 32]);
    let endpoint = endpoint("nudj", &[(&secret, None)]);
    let found = look(&endpoint, &HeaderMap::new(), BODY, None);
    assert_eq!((found.verified, found.received, found.age), (None, vec![Mistake::HeaderMissing], None));
    let mut headers = sent(&endpoint, BODY);
    headers.remove("webhook-id");
    headers.remove("x-nudj-signature");
    assert_eq!(look(&endpoint, &headers, BODY, None).received, [Mistake::HeaderMissing]);
}

/// Keys of these seeds, newest first.
fn with_keys(endpoint: Endpoint, seeds: &[u8]) -> Endpoint {
    let key = |seed: &u8| ApplicationKey { key: Arc::new(SigningKey::from_seed(&[*seed; 32])), expires_at: None };
    Endpoint { signing_keys: Some(Arc::new(SigningKeys::new(seeds.iter().map(key).collect()))), ..endpoint }
}

fn asymmetric(headers: &HeaderMap) -> String {
    let value = headers["webhook-signature"].to_str().expect("ASCII");
    value.split(' ').find(|part| part.starts_with("v1a,")).expect("v1a").to_owned()
}

#[test]
fn the_keys_of_asymmetric_signatures_are_named() {
    let secret = SigningSecret::from_random([7; 32]);
    let rotating = with_keys(endpoint("nudj", &[(&secret, None)]), &[2, 1]);
    let before = with_keys(endpoint("nudj", &[(&secret, None)]), &[1]);
    let public = |seed| SigningKey::from_seed(&[seed; 32]).public();
    let headers = sent(&rotating, BODY);
    assert_eq!(look(&rotating, &headers, BODY, None).keys, [public(2), public(1)]);
    let mut headers = sent(&before, BODY);
    assert_eq!(look(&rotating, &headers, BODY, None).keys, [public(1)]);
    // A receiver may hand over the asymmetric signature alone.
    headers.insert("webhook-signature", asymmetric(&headers).parse().expect("a value"));
    headers.remove("x-nudj-signature");
    let found = look(&rotating, &headers, BODY, None);
    assert_eq!(found.verified.map(|verified| verified.by), Some(Signer::Key(public(1))));
    let trailing = format!("{BODY}\n");
    assert_eq!(look(&rotating, &headers, &trailing, None).received, [Mistake::BodyWithNewline]);
    let printed = BODY.replace("\":", "\": ");
    assert_eq!(look(&rotating, &headers, &printed, None).received, [Mistake::BodyPrinted]);
    let ended = look(&with_keys(endpoint("nudj", &[(&secret, None)]), &[2]), &headers, BODY, None);
    assert_eq!((ended.verified, ended.received, ended.keys), (None, vec![], vec![]));

    let given = |text: &str| {
        let arrived = Arrived {
            headers: &headers,
            body: BODY.as_bytes(),
            sent: None,
            computed: None,
            public_key: Some(text),
            at: at(0),
        };
        diagnose(&rotating, rotating.signing_keys.as_deref(), &arrived, at(0)).public_key
    };
    let key = public(1);
    for text in [key.text(), key.text()[5..].to_owned(), URL_SAFE_NO_PAD.encode(key.0), hex(key.0)] {
        assert_eq!(given(&text), Some(GivenKey::Signs(key)), "{text}");
    }
    assert_eq!(given(&public(2).text()), Some(GivenKey::SignsNot(public(2))));
    assert_eq!(given(&public(3).text()), Some(GivenKey::Unknown));
    assert_eq!(given("whpk_"), Some(GivenKey::Unknown));

    // Without `asymmetric`, the keys of the application are known all the same.
    let plain = endpoint("nudj", &[(&secret, None)]);
    let (headers, text) = (sent(&plain, BODY), key.text());
    let arrived = Arrived {
        headers: &headers,
        body: BODY.as_bytes(),
        sent: None,
        computed: None,
        public_key: Some(&text),
        at: at(0),
    };
    let found = diagnose(&plain, rotating.signing_keys.as_deref(), &arrived, at(0));
    assert_eq!((found.public_key, found.keys), (Some(GivenKey::SignsNot(key)), vec![]));
}

#[test]
fn encodings_of_asymmetric_signatures_are_named() {
    let secret = SigningSecret::from_random([7; 32]);
    let endpoint = with_keys(endpoint("standard", &[(&secret, None)]), &[1]);
    let headers = sent(&endpoint, BODY);
    let right = asymmetric(&headers);
    let header = HeaderName::from_static("webhook-signature");
    let bytes = STANDARD.decode(&right[4..]).expect("base64");
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let of = |value: &str| look(&endpoint, &headers, BODY, Some(value)).computed;
    for value in [right.as_str(), &right[4..]] {
        assert_eq!(of(value), Some(Computed::Right(header.clone())));
    }
    for (value, mistake) in [
        (digits.clone(), Mistake::HexForBase64),
        (URL_SAFE_NO_PAD.encode(&bytes), Mistake::OtherAlphabet),
        (STANDARD.encode(&digits), Mistake::HexInBase64),
    ] {
        assert_eq!(of(&value), Some(Computed::Mistaken(header.clone(), vec![mistake])), "{value}");
    }
    let other = with_keys(endpoint.clone(), &[2]);
    assert_eq!(of(&asymmetric(&sent(&other, BODY))), Some(Computed::Unknown));
}
