//! Authentication and client certificate in the form of a webhook. Fields have the names of the API's members. An empty
//! secret keeps the stored secret. All is pure.

use fanfare_api::routes::webhooks::Webhook;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::frame::form::Fields;

/// The choices of a type: the value of the choice, and its label.
pub(crate) const TYPES: [(&str, &str); 4] = [
    ("", "none"),
    ("basic", "HTTP Basic: user name and password"),
    ("bearer", "a fixed bearer token"),
    ("oauth2", "OAuth 2.0 client credentials: tokens of a token server"),
];

/// The choices of a client's authentication at the token server.
pub(crate) const PLACES: [(&str, &str); 2] =
    [("basic", "in the header authorization"), ("body", "in the form of the body")];

/// The members of `authentication`, and the type of each.
const MEMBERS: [(&str, &str); 9] = [
    ("username", "basic"),
    ("password", "basic"),
    ("token", "bearer"),
    ("token_url", "oauth2"),
    ("client_id", "oauth2"),
    ("client_secret", "oauth2"),
    ("scope", "oauth2"),
    ("audience", "oauth2"),
    ("client_authentication", "oauth2"),
];

const TYPE: &str = "authentication.type";
const CHAIN: &str = "client_certificate.certificate_chain";
const KEY: &str = "client_certificate.private_key";
const NO_CERTIFICATE: &str = "no_certificate";

/// Fields that open the part of the form. The choice of a place always has a value.
pub(crate) const FIELDS: [&str; 13] = [
    "authentication",
    TYPE,
    "authentication.username",
    "authentication.password",
    "authentication.token",
    "authentication.token_url",
    "authentication.client_id",
    "authentication.client_secret",
    "authentication.scope",
    "authentication.audience",
    CHAIN,
    KEY,
    NO_CERTIFICATE,
];

/// Time before the end of a certificate from which the page tells the end.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Adds the present authentication to the fields, without secrets.
pub(crate) fn with_present(webhook: &Webhook, mut fields: Fields) -> Fields {
    for (member, value) in present(webhook).as_object().into_iter().flatten() {
        fields = fields.with(&format!("authentication.{member}"), value.as_str().unwrap_or_default());
    }
    fields
}

/// The present authentication as the API shows it; null without.
fn present(webhook: &Webhook) -> Value {
    let Some(shown) = &webhook.authentication else { return Value::Null };
    let all = json!({
        "type": shown.r#type, "username": shown.username, "token_url": shown.token_url, "client_id": shown.client_id,
        "scope": shown.scope, "audience": shown.audience, "client_authentication": shown.client_authentication,
    });
    all.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(own).collect()
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// The authentication of the fields; null for none.
pub(crate) fn authentication(fields: &Fields) -> Value {
    let Some(kind) = fields.given(TYPE) else { return Value::Null };
    let mut asked = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    for (member, _) in MEMBERS.iter().filter(|(_, of)| *of == kind) {
        if let Some(value) = fields.given(&format!("authentication.{member}")) {
            asked.insert((*member).to_owned(), Value::from(value));
        }
    }
    Value::Object(asked)
}

/// The authentication, if it differs from the present one.
pub(crate) fn changed_authentication(fields: &Fields, webhook: &Webhook) -> Option<Value> {
    Some(authentication(fields)).filter(|asked| *asked != present(webhook))
}

/// The client certificate of the fields: null to remove it; `None` to keep it.
pub(crate) fn certificate(fields: &Fields) -> Option<Value> {
    if fields.has(NO_CERTIFICATE, "true") {
        return Some(Value::Null);
    }
    if !fields.gives_any(&[CHAIN, KEY]) {
        return None;
    }
    Some(json!({ "certificate_chain": fields.value(CHAIN), "private_key": fields.value(KEY) }))
}

/// An authentication in words, without secrets.
pub(crate) fn in_words(webhook: &Webhook) -> String {
    let Some(shown) = &webhook.authentication else { return "none".to_owned() };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    match shown.r#type.as_str() {
        "basic" => format!("HTTP Basic, user {}, password hidden", text(&shown.username)),
        "bearer" => "bearer token, hidden".to_owned(),
        _ => format!("OAuth 2.0, client {} at {}, secret hidden", text(&shown.client_id), text(&shown.token_url)),
    }
}

/// A requested authentication or client certificate in words, without secrets.
pub(crate) fn asked_in_words(asked: &Value) -> String {
    match (asked["type"].as_str(), asked.is_null()) {
        (Some(kind), _) => TYPES.iter().find(|(value, _)| *value == kind).map_or(kind, |(_, label)| label).to_owned(),
        (None, true) => "none".to_owned(),
        (None, false) => "a new certificate".to_owned(),
    }
}

/// A sentence on a certificate that ends soon, or has ended.
pub(crate) fn ending(webhook: &Webhook, now: Timestamp) -> Option<String> {
    let end = webhook.client_certificate.as_ref()?.not_after;
    if end <= now {
        return Some(format!(
            "The client certificate has ended at {end}: no delivery is sent. Give a renewed certificate."
        ));
    }
    let is_soon = end.duration_since(now) <= ENDS_SOON;
    is_soon.then(|| format!("The client certificate ends at {end}: give a renewed certificate before."))
}

/// A sentence on a token server that gives no token.
pub(crate) fn token_failure(webhook: &Webhook) -> Option<String> {
    let state = webhook.authentication.as_ref()?.state.as_ref()?;
    let (error, since) = (state.error.as_ref()?, state.failing_since?);
    let deliveries = match state.token_until {
        Some(until) => format!("the last token is sent until {until}"),
        None => "deliveries wait, and use up no attempt".to_owned(),
    };
    Some(format!("No new token since {since}: {error}; {deliveries}."))
}
