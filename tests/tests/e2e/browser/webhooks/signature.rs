//! Scenario 9: the check of a signature names each mistake in a receiver's code.

use std::collections::HashMap;

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    folder::Folder,
    receiver::Received,
    world::{Endpoint, World},
};
use serde_json::json;
use tokio::process::Command;

use crate::console::visitor::Visitor;

/// A receiver in Node with each mistake: prints the computed values by name.
const MISTAKEN: &str = r#"
import { createHmac } from 'node:crypto'
const { secret, id, time, body } = JSON.parse(process.argv[2])
const base64 = secret.slice('whsec_'.length)
const key = Buffer.from(base64, 'base64')
const signed = (text = body) => `${id}.${time}.${text}`
const hmac = (key, text, encoding = 'base64') => createHmac('sha256', key).update(text).digest(encoding)
const printed = JSON.stringify(JSON.parse(body), null, 2)
console.log(JSON.stringify({
  right: hmac(key, signed()),
  right_of_dialect: hmac(secret, body, 'hex'),
  secret_as_text: hmac(secret, signed()),
  secret_as_bytes: hmac(key, body, 'hex'),
  secret_without_prefix: hmac(base64, signed()),
  prefix_decoded: hmac(Buffer.from(secret, 'base64'), signed()),
  body_printed_again: hmac(key, signed(printed)),
  body_with_newline: hmac(key, signed(`${body}\n`)),
  body_alone: hmac(key, body),
  id_left_out: hmac(key, `${time}.${body}`),
  timestamp_left_out: hmac(key, `${id}.${body}`),
  parts_added: hmac(secret, `${time}.${body}`, 'hex'),
  hex_for_base64: hmac(key, signed(), 'hex'),
  base64_for_hex: hmac(secret, body),
  other_alphabet: hmac(key, signed(), 'base64url'),
  hex_in_base64: Buffer.from(hmac(key, signed(), 'hex')).toString('base64'),
  unknown: hmac('another key', signed()),
}))
"#;

/// Code and words of each mistake in a computed value.
const COMPUTED: [(&str, &str); 15] = [
    ("secret_as_text", "take the bytes as the key"),
    ("secret_as_bytes", "without decoding"),
    ("secret_without_prefix", "decode the base64 behind whsec_"),
    ("prefix_decoded", "Remove whsec_ before decoding"),
    ("body_printed_again", "before any parser of JSON"),
    ("body_with_newline", "without an added line end"),
    ("body_alone", "Sign <webhook-id>.<webhook-timestamp>.<body>"),
    ("id_left_out", "Put <webhook-id>. before the time"),
    ("timestamp_left_out", "between the id and the body"),
    ("parts_added", "in most dialects the body alone"),
    ("hex_for_base64", "not in hexadecimal digits"),
    ("base64_for_hex", "not in base64"),
    ("other_alphabet", "Take the usual alphabet"),
    ("hex_in_base64", "not the text of the hexadecimal digits"),
    ("unknown", "check the secret in the receiver's code"),
];

/// The values that the receiver with the mistakes computes by a secret.
async fn mistaken(secret: &str, received: &Received) -> HashMap<String, String> {
    let folder = Folder::new("mistaken");
    let given = json!({
        "secret": secret, "id": received.event(), "time": received.header("webhook-timestamp"), "body": body(received),
    });
    let program = folder.write("mistaken.mjs", MISTAKEN);
    let output = Command::new("node").arg(program).arg(given.to_string()).output().await.expect("Node");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn body(received: &Received) -> String {
    String::from_utf8(received.body.clone()).expect("UTF-8")
}

/// The headers of a signature as lines.
fn all_headers(received: &Received) -> String {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-signature"];
    names.map(|name| format!("{name}: {}", received.header(name))).join("\n")
}

/// The headers of Standard Webhooks as lines, with this signature.
fn headers_with(received: &Received, signature: &str) -> String {
    let (id, time) = (received.event(), received.header("webhook-timestamp"));
    format!("webhook-id: {id}\nwebhook-timestamp: {time}\nwebhook-signature: v1,{signature}")
}

/// The form of a webhook's signature.
struct Form<'a> {
    visit: &'a Visit,
    secret: String,
}

impl Form<'_> {
    /// Sends the form, and asserts words of the result.
    async fn tells(&self, headers: &str, body: &str, computed: &str, words: &[&str]) {
        self.visit.fill("Headers", headers).await;
        self.visit.fill("Body", body).await;
        self.visit.fill("Value that the code computed", computed).await;
        self.visit.follow("Verify").await;
        self.result_has(words).await;
    }

    async fn result_has(&self, words: &[&str]) {
        let result = self.visit.text("#result").await.replace('`', "");
        for word in words {
            assert!(result.contains(word), "{word}: {result}");
        }
        assert!(!result.contains(self.secret.trim_start_matches("whsec_")), "the secret is shown: {result}");
    }
}

async fn open<'a>(visit: &'a Visit, world: &World, endpoint: &Endpoint) -> Form<'a> {
    visit.open(&format!("/console/{}/webhooks/{}", world.application, endpoint.id)).await;
    visit.follow("Signature").await;
    Form { visit, secret: endpoint.secret.clone() }
}

async fn begin(world: &World, name: &str, manner: Manner) -> Visit {
    let visitor = Visitor::by_key(world, &world.key).await;
    Visit::begin(world, name, &visitor.cookie, manner).await
}

async fn each_mistake_is_named(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.publish(&json!({ "type": "a", "data": { "n": 1, "text": "ü" } })).await;
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    let values = mistaken(&endpoint.secret, &received).await;
    let (all, body) = (all_headers(&received), body(&received));
    let visit = begin(&world, "signature", manner).await;
    let form = open(&visit, &world, &endpoint).await;

    form.tells(&all, &body, "", &["The signature verifies.", "nothing is wrong"]).await;
    for (value, header) in [("right", "webhook-signature"), ("right_of_dialect", "x-webhook-signature")] {
        let told = format!("compare the value with the signature in {header}");
        form.tells(&all, &body, &values[value], &["The computed value is right", &told]).await;
    }
    for (code, words) in COMPUTED {
        let is_known = code != "unknown";
        let told = ["The signature verifies.", "The value is wrong", words, if is_known { code } else { "No known" }];
        form.tells(&all, &body, &values[code], &told).await;
    }
    let spaced = body.replace("\":", "\": ");
    let changed = body.replace("ü", "u");
    for (headers, body, code, words) in [
        (all.as_str(), format!("{body}\n"), "body_with_newline", "without an added line end"),
        (&all, spaced, "body_printed_again", "before any parser of JSON"),
        (&all, changed, "body_changed", "a proxy or a framework changed the body"),
        ("webhook-id: 1\nhost: a", body.clone(), "header_missing", "as received"),
        (
            &headers_with(&received, &values["unknown"]),
            body.clone(),
            "",
            "No secret and no key in force yields the signature",
        ),
    ] {
        form.tells(headers, &body, "", &["The signature does not verify.", code, words]).await;
    }
    // A dialect's template may end with a line end.
    let ended = headers_with(&received, &values["body_with_newline"]);
    form.tells(&ended, &body, "", &["The signature does not verify.", "body_trimmed", "without removing"]).await;

    let script = "document.querySelectorAll('details').forEach(part => { part.open = true })";
    visit.act("run", json!({ "script": script })).await;
    visit.fill("Time of the check", "2100-01-01T00:00:00Z").await;
    form.tells(&all, &body, "", &["The signature verifies, but the time differs by more than 300 s", "beyond"]).await;
    visit.end().await;
}

#[tokio::test]
async fn names_each_mistake() {
    each_mistake_is_named(Manner::USUAL).await;
}

#[tokio::test]
async fn names_each_mistake_without_scripts() {
    each_mistake_is_named(Manner::WITHOUT_SCRIPTS).await;
}

#[tokio::test]
async fn tells_the_secrets_of_a_rotation_apart() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let rotated = world.client().post(&format!("webhooks/{}/rotate-secret", endpoint.id), &json!({})).await;
    let fresh = rotated.data()["secret"].as_str().expect("a secret").to_owned();
    world.known().await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    let (old, new) = (mistaken(&endpoint.secret, &received).await, mistaken(&fresh, &received).await);
    let body = body(&received);
    let visit = begin(&world, "signature-rotation", Manner::USUAL).await;
    let form = open(&visit, &world, &endpoint).await;
    // The dialect's header has only a signature by the previous secret.
    let all = all_headers(&received);
    form.tells(&all, &body, &new["right_of_dialect"], &["new_secret", "until the overlap of the rotation ends"]).await;
    let by_new = headers_with(&received, &new["right"]);
    form.tells(&by_new, &body, &old["right"], &["previous_secret", "the code still has the previous secret"]).await;
    let by_old = headers_with(&received, &old["right"]);
    form.tells(&by_old, &body, "", &["The signature verifies.", "previous"]).await;
    visit.end().await;
}
