//! The fields of a webhook's form, and the requests of the API that the fields stand for. All is pure.

use fanfare_api::{
    http::error::ApiError,
    routes::{event_types::DescribedType, webhooks::Webhook},
};
use serde_json::{Map, Value, json};

use crate::{
    application::webhooks::form::{
        credentials,
        picker::{subscriptions, with_subscriptions},
        template,
    },
    frame::form::Fields,
};

/// The fields of a webhook as the form shows them first.
pub(crate) fn fields_of(webhook: &Webhook, described: &[DescribedType]) -> Fields {
    let number = |value: Option<u128>| value.map(|value| value.to_string()).unwrap_or_default();
    let fields = Fields::default()
        .with("url", &webhook.url)
        .with("name", webhook.name.as_deref().unwrap_or_default())
        .with("filter", webhook.filter.as_deref().unwrap_or_default())
        .with("template", webhook.template.as_deref().map(|text| template::shown(text.get())).unwrap_or_default())
        .with("timeout_ms", number(webhook.timeout_ms))
        .with("schedule", webhook.schedule.as_deref().unwrap_or_default().join(", "))
        .with("rate_per_second", number(webhook.rate_per_second.map(u128::from)))
        .with("email", webhook.email.as_deref().unwrap_or_default())
        .with("trace_context", if webhook.trace_context { "true" } else { "" })
        .with("fifo", webhook.fifo.as_deref().unwrap_or_default())
        .with("feed", if webhook.feed == "copy" { "copy" } else { "" })
        .with("digest", if webhook.digest { "true" } else { "" })
        .with("asymmetric", if webhook.asymmetric { "true" } else { "" });
    let fields = credentials::with_present(webhook, fields);
    with_subscriptions(described, &webhook.events, fields)
}

/// The choices of FIFO: the value of the choice, and its label.
pub(crate) const FIFO_CHOICES: [(&str, &str); 6] = [
    ("", "no: at the same time"),
    ("block", "wait until it is delivered or given up"),
    ("skip:1", "wait at most for 1 failed attempt"),
    ("skip:3", "wait at most for 3 failed attempts"),
    ("skip:10", "wait at most for 10 failed attempts"),
    ("park", "wait until it is delivered; if it is given up, park the key"),
];

/// A rule of FIFO in words.
pub(crate) fn fifo_in_words(fifo: &str) -> String {
    match (fifo, fifo.strip_prefix("skip:")) {
        (_, Some(number)) => format!("waits for at most {number} failed attempts"),
        ("park", _) => "waits, and parks the key when a delivery is given up".to_owned(),
        _ => "waits until the delivery before is delivered or given up".to_owned(),
    }
}

/// The body of `POST /webhooks`.
///
/// # Errors
/// For a number or a header that cannot be read.
pub(crate) fn creation(fields: &Fields, described: &[DescribedType]) -> Result<Value, ApiError> {
    let mut asked = Map::new();
    asked.insert("url".to_owned(), Value::from(fields.value("url").trim()));
    asked.insert("events".to_owned(), Value::from(subscriptions(described, fields)));
    for (name, value) in options(fields)? {
        if !value.is_null() {
            asked.insert(name.to_owned(), value);
        }
    }
    if let Some(secret) = fields.given("secret") {
        asked.insert("secret".to_owned(), Value::from(secret));
    }
    if fields.has("paused", "true") {
        asked.insert("status".to_owned(), Value::from("paused"));
    }
    if let Some(headers) = headers(fields)? {
        asked.insert("headers".to_owned(), headers);
    }
    for name in ["trace_context", "digest", "asymmetric"] {
        if fields.has(name, "true") {
            asked.insert(name.to_owned(), Value::from(true));
        }
    }
    if fields.has("feed", "copy") {
        asked.insert("feed".to_owned(), Value::from("copy"));
    }
    let authentication = Some(credentials::authentication(fields)).filter(|asked| !asked.is_null());
    asked.extend(authentication.map(|asked| ("authentication".to_owned(), asked)));
    asked.extend(credentials::certificate(fields).map(|asked| ("client_certificate".to_owned(), asked)));
    Ok(Value::Object(asked))
}

/// The body of `PATCH /webhooks/{id}`: the fields that differ from the webhook.
///
/// # Errors
/// For a number or a header that cannot be read.
pub(crate) fn change(fields: &Fields, webhook: &Webhook, described: &[DescribedType]) -> Result<Value, ApiError> {
    let mut asked = Map::new();
    let mut differs = |name: &str, value: Value, present: Value| {
        if value != present {
            asked.insert(name.to_owned(), value);
        }
    };
    differs("url", Value::from(fields.value("url").trim()), Value::from(webhook.url.as_str()));
    let sorted = |mut events: Vec<String>| {
        events.sort();
        events
    };
    let events = subscriptions(described, fields);
    if sorted(events.clone()) != sorted(webhook.events.clone()) {
        differs("events", Value::from(events), Value::Null);
    }
    let present = json!({
        "name": webhook.name, "filter": webhook.filter, "template": webhook.template,
        "timeout_ms": webhook.timeout_ms.and_then(|value| u64::try_from(value).ok()),
        "schedule": webhook.schedule, "rate_per_second": webhook.rate_per_second, "email": webhook.email, "fifo": webhook.fifo,
    });
    for (name, value) in options(fields)? {
        differs(name, value, present[name].clone());
    }
    differs("trace_context", Value::from(fields.has("trace_context", "true")), Value::from(webhook.trace_context));
    if webhook.feed != "only" {
        differs(
            "feed",
            Value::from(if fields.has("feed", "copy") { "copy" } else { "none" }),
            Value::from(webhook.feed),
        );
    }
    differs("digest", Value::from(fields.has("digest", "true")), Value::from(webhook.digest));
    differs("asymmetric", Value::from(fields.has("asymmetric", "true")), Value::from(webhook.asymmetric));
    if fields.has("no_headers", "true") {
        differs("headers", json!({}), if webhook.headers.is_empty() { json!({}) } else { Value::Null });
    } else if let Some(headers) = headers(fields)? {
        differs("headers", headers, Value::Null);
    }
    asked
        .extend(credentials::changed_authentication(fields, webhook).map(|asked| ("authentication".to_owned(), asked)));
    asked.extend(credentials::certificate(fields).map(|asked| ("client_certificate".to_owned(), asked)));
    Ok(Value::Object(asked))
}

/// Settings that an empty field leaves to the dialect or the application.
fn options(fields: &Fields) -> Result<[(&'static str, Value); 8], ApiError> {
    let text = |name: &str| fields.given(name).map_or(Value::Null, Value::from);
    let waits = fields.value("schedule").split([',', ' ', '\n', '\r']).map(str::trim).filter(|wait| !wait.is_empty());
    let waits: Vec<&str> = waits.collect();
    let schedule = if waits.is_empty() { Value::Null } else { Value::from(waits) };
    Ok([
        ("name", text("name")),
        ("filter", text("filter")),
        ("template", template::value(fields)?.unwrap_or_default()),
        ("timeout_ms", fields.number("timeout_ms")?),
        ("schedule", schedule),
        ("rate_per_second", fields.number("rate_per_second")?),
        ("email", text("email")),
        ("fifo", text("fifo")),
    ])
}

/// The headers of a form, one in each line; `None` for an empty field.
fn headers(fields: &Fields) -> Result<Option<Value>, ApiError> {
    let headers = pairs(fields.value("headers")).map_err(|line| {
        ApiError::invalid("headers", format!("line {line} is no header: write `name: value` in each line"))
    })?;
    if headers.is_empty() { Ok(None) } else { Ok(Some(Value::Object(headers))) }
}

/// Reads lines of `name: value`. The error is the number of the first other line.
pub(crate) fn pairs(text: &str) -> Result<Map<String, Value>, usize> {
    let mut pairs = Map::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or(index + 1)?;
        // A name that is given twice is an error of the line: the later value would replace the earlier.
        if pairs.insert(name.trim().to_owned(), Value::from(value.trim())).is_some() {
            return Err(index + 1);
        }
    }
    Ok(pairs)
}

/// A setting before and after a change.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) label: &'static str,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// The differences of a change, in the order of the form.
pub(crate) fn differences(asked: &Value, webhook: &Webhook) -> Vec<Difference> {
    let default = || "default".to_owned();
    let shown = |value: &Value| match value {
        Value::Null => default(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => {
            let texts: Vec<&str> = entries.iter().filter_map(Value::as_str).collect();
            texts.join(", ")
        }
        // The values of headers are secret.
        Value::Object(headers) => headers.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let number = |value: Option<u128>| value.map_or_else(default, |value| value.to_string());
    let certificate = webhook.client_certificate.as_ref();
    let fields: [(&str, &'static str, String); 17] = [
        ("url", "URL", webhook.url.clone()),
        ("name", "Name", webhook.name.clone().unwrap_or_else(default)),
        ("events", "Events", webhook.events.join(", ")),
        ("filter", "Filter", webhook.filter.clone().unwrap_or_else(default)),
        ("template", "Body template", webhook.template.as_deref().map_or_else(default, |text| text.get().to_owned())),
        ("timeout_ms", "Timeout (ms)", number(webhook.timeout_ms)),
        ("schedule", "Schedule", webhook.schedule.as_ref().map_or_else(default, |waits| waits.join(", "))),
        ("rate_per_second", "Attempts a second", number(webhook.rate_per_second.map(u128::from))),
        ("email", "E-mail", webhook.email.clone().unwrap_or_else(default)),
        ("headers", "Headers", webhook.headers.join(", ")),
        ("trace_context", "Trace context", webhook.trace_context.to_string()),
        ("feed", "Feed", webhook.feed.to_owned()),
        ("fifo", "FIFO", webhook.fifo.clone().unwrap_or_else(default)),
        ("digest", "Daily digest", webhook.digest.to_string()),
        ("asymmetric", "Asymmetric signatures", webhook.asymmetric.to_string()),
        ("authentication", "Authentication", credentials::in_words(webhook)),
        (
            "client_certificate",
            "Client certificate",
            certificate.map_or_else(|| "none".to_owned(), |certificate| certificate.subject.clone()),
        ),
    ];
    let differing = fields.into_iter().filter_map(|(member, label, before)| {
        let after = |after: &Value| match (member, after) {
            ("template", Value::Object(_) | Value::Array(_)) => after.to_string(),
            ("authentication" | "client_certificate", after) => credentials::asked_in_words(after),
            (_, after) => shown(after),
        };
        asked.get(member).map(|value| Difference { label, before, after: after(value) })
    });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use fanfare_api::routes::webhooks::authentication::AuthenticationView;
    use fanfare_domain::ids::EndpointId;
    use jiff::Timestamp;
    use serde_json::value::RawValue;

    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            id: EndpointId::new(Timestamp::UNIX_EPOCH, [0; 10]),
            url: "https://a.example/".to_owned(),
            events: vec!["b".to_owned(), "a".to_owned()],
            filter: Some("data.a == 1".to_owned()),
            template: RawValue::from_string(r#"{"b":1,"a":"{{ type }}"}"#.to_owned()).ok(),
            secret: None,
            name: Some("shop".to_owned()),
            status: "enabled",
            status_reason: None,
            timeout_ms: Some(500),
            schedule: Some(vec!["60s".to_owned(), "5m".to_owned()]),
            rate_per_second: None,
            email: None,
            headers: vec!["x-own".to_owned()],
            trace_context: true,
            feed: "none",
            fifo: None,
            digest: false,
            digest_from: None,
            last_digest: None,
            parked_keys: None,
            asymmetric: false,
            expires_at: None,
            authentication: None,
            client_certificate: None,
            previous_secret_expires_at: None,
            held: None,
            warnings: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_unchanged_form_asks_for_no_change() {
        let webhook = webhook();
        assert_eq!(change(&fields_of(&webhook, &[]), &webhook, &[]).ok(), Some(json!({})));
    }

    #[test]
    fn a_changed_form_asks_for_the_differences() {
        let webhook = webhook();
        let fields = Fields::of_body(
            b"url=https%3A%2F%2Fb.example%2F&name=&which=all&timeout_ms=900&schedule=60s+5m&headers=x-new:+1&filter=data.b\
              &template=%7B%22a%22:1%7D",
        );
        let asked = change(&fields, &webhook, &[]).unwrap_or_default();
        let expected = json!({
            "url": "https://b.example/", "events": ["*"], "name": null, "filter": "data.b", "template": { "a": 1 }, "timeout_ms": 900,
            "trace_context": false, "headers": {"x-new": "1"},
        });
        assert_eq!(asked, expected);
        let labels: Vec<&str> = differences(&asked, &webhook).iter().map(|difference| difference.label).collect();
        assert_eq!(
            labels,
            ["URL", "Name", "Events", "Filter", "Body template", "Timeout (ms)", "Headers", "Trace context"]
        );
        assert!(differences(&asked, &webhook).iter().all(|difference| difference.after != "1"));
    }

    #[test]
    fn a_creation_leaves_empty_fields_out() {
        let fields = Fields::of_body(b"url=https://a.example/&events=a&others=b+c.*&name=&paused=true&timeout_ms=");
        let expected = json!({ "url": "https://a.example/", "events": ["a", "b", "c.*"], "status": "paused" });
        assert_eq!(creation(&fields, &[]).ok(), Some(expected));
        assert!(creation(&Fields::of_body(b"url=x&timeout_ms=ten"), &[]).is_err());
        assert!(creation(&Fields::of_body(b"url=x&headers=nothing"), &[]).is_err());
    }

    #[test]
    fn an_empty_secret_keeps_the_stored_secret() {
        let shown = AuthenticationView {
            r#type: "basic".to_owned(),
            username: Some("shop".to_owned()),
            token_url: None,
            client_id: None,
            scope: None,
            audience: None,
            client_authentication: None,
            state: None,
        };
        let known = Webhook { authentication: Some(shown), ..webhook() };
        let fields = fields_of(&known, &[]);
        assert_eq!(change(&fields, &known, &[]).ok(), Some(json!({})));
        let asked = |body: &str| credentials::changed_authentication(&Fields::of_body(body.as_bytes()), &known);
        let renamed = asked("authentication.type=basic&authentication.username=other&authentication.token=x");
        assert_eq!(renamed, Some(json!({ "type": "basic", "username": "other" })));
        let secret = asked("authentication.type=basic&authentication.username=shop&authentication.password=s3cret");
        assert_eq!(secret, Some(json!({ "type": "basic", "username": "shop", "password": "s3cret" })));
        let told = format!("{:?}", differences(&json!({ "authentication": secret }), &known));
        assert!(told.contains("user shop") && !told.contains("s3cret"), "{told}");
        assert_eq!(asked("authentication.type="), Some(Value::Null));
    }

    #[test]
    fn a_header_is_given_once() {
        assert_eq!(pairs("a: 1\r\n\r\nb:2:3\n").map(Value::Object), Ok(json!({ "a": "1", "b": "2:3" })));
        assert_eq!(pairs("a: 1\na: 2"), Err(2));
    }
}
