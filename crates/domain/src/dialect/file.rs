//! Parses a dialect's TOML file into a [`Dialect`]. `crates/domain/dialects/README.md` describes the format.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use http::HeaderValue;
use serde::Deserialize;

use super::{
    Body, BodyPlace, DataForm, Dialect, HeaderPlace, SignatureEncoding, SignatureForm, SignatureKey, SignaturePlace,
    SignedPlace, Template, TimeForm,
};
use crate::{
    delivery::{
        outcome::OutcomeRules,
        policy::{Policy, RATES, Schedule, TIMEOUTS},
    },
    endpoint::header,
    event::{
        EventType,
        catalogue::{Catalogue, EventTypeDescription},
        cloud_event::{is_json, is_media_type},
    },
    ids, json,
    time::parse_duration,
};

const BODY_PLACES: [(&str, BodyPlace); 8] = [
    ("event_id", BodyPlace::EventId),
    ("event_type", BodyPlace::EventType),
    ("application_id", BodyPlace::ApplicationId),
    ("data", BodyPlace::Data),
    ("time", BodyPlace::Time),
    ("cloud_event_id", BodyPlace::CloudEventId),
    ("cloud_event_source", BodyPlace::CloudEventSource),
    ("cloud_event_attributes", BodyPlace::CloudEventAttributes),
];

const SIGNATURE_PLACES: [(&str, SignaturePlace); 2] =
    [("signature", SignaturePlace::Signature), ("timestamp", SignaturePlace::Timestamp)];

const SIGNED_PLACES: [(&str, SignedPlace); 3] =
    [("body", SignedPlace::Body), ("event_id", SignedPlace::EventId), ("timestamp", SignedPlace::Timestamp)];

const HEADER_PLACES: [(&str, HeaderPlace); 6] = [
    ("event_id", HeaderPlace::EventId),
    ("event_type", HeaderPlace::EventType),
    ("application_id", HeaderPlace::ApplicationId),
    ("delivery_id", HeaderPlace::DeliveryId),
    ("attempt", HeaderPlace::Attempt),
    ("timestamp", HeaderPlace::Timestamp),
];

/// A fault in a dialect's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key}: {reason}")]
pub struct DialectFault {
    /// Path of the file.
    pub file: String,
    /// Faulty key.
    pub key: String,
    /// Rest of the sentence, after the key.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    description: String,
    body: BodyTable,
    signature: Option<SignatureTable>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    delivery: DeliveryTable,
    #[serde(default)]
    event_types: Vec<EventTypeTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyTable {
    template: String,
    #[serde(default = "as_sent")]
    data: DataForm,
    #[serde(default = "milliseconds")]
    time: TimeForm,
    #[serde(default = "evt")]
    event_id_prefix: String,
    #[serde(default = "application_json")]
    content_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureTable {
    header: String,
    #[serde(default = "the_signature")]
    value: String,
    #[serde(default = "the_body")]
    signs: String,
    #[serde(default = "text")]
    key: SignatureKey,
    #[serde(default = "hex")]
    encoding: SignatureEncoding,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveryTable {
    schedule: Vec<String>,
    #[serde(default)]
    jitter_percent: u8,
    timeout: String,
    rate_per_second: Option<u32>,
    #[serde(default = "any_2xx")]
    success: Vec<String>,
    #[serde(default, rename = "final")]
    rejecting: Vec<String>,
    #[serde(default)]
    disabling: Vec<String>,
    #[serde(default)]
    notify: Notify,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Notify {
    #[default]
    Nobody,
    Owner,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTypeTable {
    name: String,
    category: String,
    description: String,
    sample: String,
}

fn as_sent() -> DataForm {
    DataForm::AsSent
}

fn milliseconds() -> TimeForm {
    TimeForm::Milliseconds
}

fn evt() -> String {
    "evt".to_owned()
}

fn application_json() -> String {
    "application/json".to_owned()
}

fn the_signature() -> String {
    "<signature>".to_owned()
}

fn the_body() -> String {
    "<body>".to_owned()
}

fn text() -> SignatureKey {
    SignatureKey::Text
}

fn hex() -> SignatureEncoding {
    SignatureEncoding::Hex
}

fn any_2xx() -> Vec<String> {
    vec!["2xx".to_owned()]
}

/// A faulty key, and the reason.
pub(super) type Fault = (String, String);

pub(super) fn fault(key: &str, reason: impl ToString) -> Fault {
    (key.to_owned(), reason.to_string())
}

impl Dialect {
    /// Reads the dialect `name` from `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// The first fault, with the key.
    pub fn parse(path: &str, name: &str, text: &str) -> Result<Self, DialectFault> {
        let read = || -> Result<Self, Fault> {
            check_name(name)?;
            let file = toml::Deserializer::parse(text).map_err(|error| fault("the file", syntax(text, &error)))?;
            let file: File = serde_path_to_error::deserialize(file).map_err(|error| {
                let key = match error.path().to_string() {
                    // The path to a key without a name is empty.
                    path if path == "." || path.is_empty() => "the file".to_owned(),
                    path => path,
                };
                fault(&key, error.inner().message())
            })?;
            Self::of_file(name, file)
        };
        read().map_err(|(key, reason)| DialectFault { file: path.to_owned(), key, reason })
    }

    fn of_file(name: &str, file: File) -> Result<Self, Fault> {
        let mut dialect = Self {
            name: name.to_owned(),
            title: visible("title", file.title)?,
            description: visible("description", file.description)?,
            event_id_prefix: prefix(file.body.event_id_prefix)?,
            content_type: content_type(&file.body.content_type)?,
            body: Body {
                template: Template::parse(&file.body.template, &BODY_PLACES)
                    .map_err(|reason| fault("body.template", reason))?,
                data: file.body.data,
                time: file.body.time,
                data_pointer: None,
            },
            signature: file.signature.map(signature).transpose()?,
            headers: headers(file.headers)?,
            policy: Arc::new(policy(&file.delivery)?),
            notifies_owner: matches!(file.delivery.notify, Notify::Owner),
            catalogue: Arc::new(catalogue(file.event_types)?),
        };
        dialect.check_headers()?;
        dialect.check_body()?;
        dialect.body.data_pointer = dialect.find_data();
        Ok(dialect)
    }
}

/// Describes a syntax error, with the line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
    let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("is no TOML{line}: {}", error.message())
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_sound = (1..=40).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if is_sound { Ok(()) } else { Err(fault("the file's name", "is not made of 1 to 40 of a-z, 0-9, - and _")) }
}

fn visible(key: &str, text: String) -> Result<String, Fault> {
    let is_sound = !text.trim().is_empty() && text.len() <= 500 && !text.chars().any(char::is_control);
    if is_sound { Ok(text) } else { Err(fault(key, "must be one line of 1 to 500 bytes")) }
}

fn prefix(text: String) -> Result<String, Fault> {
    let is_sound = ids::is_prefix(&text);
    let reason = "must be 1 to 63 of a-z and _, with no _ at either end";
    if is_sound { Ok(text) } else { Err(fault("body.event_id_prefix", reason)) }
}

/// Checks that a media type promises JSON, as every body is.
fn content_type(text: &str) -> Result<HeaderValue, Fault> {
    let is_sound = is_media_type(text) && is_json(text);
    let value = HeaderValue::from_str(text).ok().filter(|_| is_sound);
    let reason = "must be a media type of JSON, such as \"application/json\" or \"application/cloudevents+json\"";
    value.ok_or_else(|| fault("body.content_type", reason))
}

fn signature(table: SignatureTable) -> Result<SignatureForm, Fault> {
    let value = Template::parse(&table.value, &SIGNATURE_PLACES).map_err(|reason| fault("signature.value", reason))?;
    let signs = Template::parse(&table.signs, &SIGNED_PLACES).map_err(|reason| fault("signature.signs", reason))?;
    if !table.value.contains("<signature>") {
        return Err(fault("signature.value", "has no <signature>"));
    }
    if !table.signs.contains("<body>") {
        return Err(fault("signature.signs", "has no <body>: the signature would not protect the body"));
    }
    let header = header::check_name(&table.header).map_err(|reason| fault("signature.header", sentence(&reason)))?;
    check_text("signature.value", &header, &table.value)?;
    Ok(SignatureForm { header, value, signs, key: table.key, encoding: table.encoding })
}

fn headers(table: BTreeMap<String, String>) -> Result<Vec<(http::HeaderName, Template<HeaderPlace>)>, Fault> {
    let read = |(name, value): (String, String)| {
        let key = format!("headers.{name}");
        let header = header::check_name(&name).map_err(|reason| fault(&key, sentence(&reason)))?;
        check_text(&key, &header, &value)?;
        let template = Template::parse(&value, &HEADER_PLACES).map_err(|reason| fault(&key, reason))?;
        Ok((header, template))
    };
    let read = table.into_iter().map(read).collect::<Result<Vec<_>, Fault>>()?;
    let mut seen = HashSet::new();
    match read.iter().find(|(header, _)| !seen.insert(header)) {
        Some((header, _)) => Err(fault(&format!("headers.{header}"), "is given twice, in other cases")),
        None => Ok(read),
    }
}

/// Checks the text around placeholders. The values of placeholders are always valid.
fn check_text(key: &str, header: &http::HeaderName, text: &str) -> Result<(), Fault> {
    header::check_value(header, text).map(drop).map_err(|reason| fault(key, sentence(&reason)))
}

fn sentence(reason: &header::HeaderFault) -> String {
    format!("cannot be sent: {reason}")
}

fn policy(table: &DeliveryTable) -> Result<Policy, Fault> {
    if table.jitter_percent > 100 {
        return Err(fault("delivery.jitter_percent", "must be between 0 and 100"));
    }
    let timeout = parse_duration(&table.timeout).filter(|timeout| TIMEOUTS.contains(timeout));
    let rules = OutcomeRules::parse(&table.success, &table.rejecting, &table.disabling)
        .map_err(|reason| fault(&format!("delivery.{}", reason.list), reason.to_string()))?;
    if table.rate_per_second.is_some_and(|rate| !RATES.contains(&rate)) {
        return Err(fault("delivery.rate_per_second", "must be between 1 and 10000"));
    }
    if table.success.is_empty() {
        return Err(fault("delivery.success", "is empty: nothing could ever be delivered"));
    }
    Ok(Policy {
        schedule: Schedule::parse(&table.schedule).map_err(|reason| fault("delivery.schedule", reason))?,
        jitter_percent: table.jitter_percent,
        timeout: timeout.ok_or_else(|| fault("delivery.timeout", "must be between 100ms and 60s, such as \"10s\""))?,
        rate_per_second: table.rate_per_second,
        rules,
    })
}

fn catalogue(tables: Vec<EventTypeTable>) -> Result<Catalogue, Fault> {
    let mut described: Vec<EventTypeDescription> = Vec::new();
    for (position, table) in tables.into_iter().enumerate() {
        let key = |member: &str| format!("event_types[{position}].{member}");
        let name = EventType::parse(&table.name).map_err(|reason| fault(&key("name"), reason.message))?;
        if described.iter().any(|other| other.name == name) {
            return Err(fault(&key("name"), format!("is {name} a second time")));
        }
        json::check(&table.sample).map_err(|reason| fault(&key("sample"), format!("cannot be sent: {reason}")))?;
        described.push(EventTypeDescription {
            name,
            category: Some(visible(&key("category"), table.category)?),
            description: Some(visible(&key("description"), table.description)?),
            sample: json::compact(&table.sample),
            schema_version: None,
        });
    }
    Ok(Catalogue::new(described))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Event, cloud_event::CloudEvent};

    const WHOLE: &str = r#"
title = "Acme"
description = "What acme sent"

[body]
template = '{"meta":{"id":<event_id>,"v":1},"at":<time>,"payload":<data>}'
time = "unix_seconds"
event_id_prefix = "acme"

[signature]
header = "X-Acme-Signature"
value = "t=<timestamp>,v1=<signature>"
signs = "<timestamp>.<body>"
key = "bytes"
encoding = "base64"

[headers]
X-Acme-Event = "<event_type>"

[delivery]
schedule = ["10s", "2h"]
jitter_percent = 5
timeout = "2500ms"
rate_per_second = 5
success = ["200", "202"]
final = ["4xx", "tls_failed"]
disabling = ["410"]
notify = "owner"

[[event_types]]
name = "order.created"
category = "Orders"
description = "An order was placed"
sample = '{ "total": 1.50 }'
"#;

    fn parse(text: &str) -> Result<Dialect, DialectFault> {
        Dialect::parse("/etc/acme.toml", "acme", text)
    }

    #[test]
    fn finds_the_data_in_the_body() {
        let of = |payload: &str| {
            let dialect = parse(&WHOLE.replacen("\"payload\":<data>", payload, 1));
            dialect.map(|dialect| dialect.data_pointer().map(str::to_owned)).ok()
        };
        assert_eq!(of("\"a/b\":[1,{\"c~\":<data>}]"), Some(Some("/a~1b/1/c~0".to_owned())));
        assert_eq!(of("\"payload\":1"), Some(None), "a body without the data");
    }

    #[test]
    fn reads_the_whole_of_a_file() {
        let dialect = parse(WHOLE).expect("a dialect");
        assert_eq!(dialect.data_pointer(), Some("/payload"));
        let body = dialect.example_body().expect("a body");
        assert!(body.starts_with(r#"{"meta":{"id":"acme_0"#), "{body}");
        assert!(body.ends_with(r#","v":1},"at":0,"payload":{"total":1.50}}"#), "{body}");
        assert!(dialect.notifies_owner);
        assert_eq!(dialect.policy.schedule.names(), ["10s", "120m"]);
        assert_eq!(dialect.policy.timeout, Duration::from_millis(2500));
    }

    /// Breaks each line of a complete file. The fault must name the file and the key.
    #[test]
    fn each_fault_has_its_key() {
        for (line, broken, key) in [
            ("title = \"Acme\"", "title = 5", "title"),
            ("title = \"Acme\"", "titel = \"Acme\"", "titel"),
            ("title = \"Acme\"", "title = \"\"", "title"),
            ("title = \"Acme\"", "\"\" = \"Acme\"", "the file"),
            ("[body]", "[body", "the file"),
            ("\"payload\":<data>", "\"payload\":<date>", "body.template"),
            ("\"payload\":<data>", "\"payload\":\"<data>\"", "body.template"),
            ("\"payload\":<data>", "\"payload\":<data", "body.template"),
            ("time = \"unix_seconds\"", "time = \"unix\"", "body.time"),
            ("time = \"unix_seconds\"", "data = \"as_node\"\ntime = \"years\"", "body.time"),
            ("event_id_prefix = \"acme\"", "event_id_prefix = \"_\"", "body.event_id_prefix"),
            ("event_id_prefix", "content_type = \"text/xml\"\nevent_id_prefix", "body.content_type"),
            ("event_id_prefix", "content_type = \"a/json\\n\"\nevent_id_prefix", "body.content_type"),
            ("\"X-Acme-Signature\"", "\"Content-Type\"", "signature.header"),
            ("\"X-Acme-Signature\"", "\"X Acme\"", "signature.header"),
            ("\"X-Acme-Signature\"", "\"X-Acme-Event\"", "headers.x-acme-event"),
            ("v1=<signature>", "v1=", "signature.value"),
            ("<timestamp>.<body>", "<timestamp>", "signature.signs"),
            ("key = \"bytes\"", "key = \"b\"", "signature.key"),
            ("encoding = \"base64\"", "encoding = \"base32\"", "signature.encoding"),
            ("X-Acme-Event = \"<event_type>\"", "X-Acme-Event = \"<type>\"", "headers.X-Acme-Event"),
            ("X-Acme-Event = \"<event_type>\"", "X-Acme-Event = \"a\\nb\"", "headers.X-Acme-Event"),
            ("X-Acme-Event = \"<event_type>\"", "Webhook-Id = \"a\"", "headers.Webhook-Id"),
            ("X-Acme-Event = \"<event_type>\"", "X-Acme-Event = \"a\"\nx-acme-event = \"b\"", "headers.x-acme-event"),
            ("\"2h\"]", "\"2w\"]", "delivery.schedule"),
            ("\"2h\"]", "5]", "delivery.schedule[1]"),
            ("jitter_percent = 5", "jitter_percent = 101", "delivery.jitter_percent"),
            ("timeout = \"2500ms\"", "timeout = \"2m\"", "delivery.timeout"),
            ("timeout = \"2500ms\"", "", "delivery"),
            ("rate_per_second = 5", "rate_per_second = 0", "delivery.rate_per_second"),
            ("rate_per_second = 5", "rate_per_second = -1", "delivery.rate_per_second"),
            ("\"200\", \"202\"", "\"2x\"", "delivery.success"),
            ("\"200\", \"202\"", "", "delivery.success"),
            ("\"200\", \"202\"", "\"timed_out\"", "delivery.success"),
            ("\"4xx\", \"tls_failed\"", "\"unknown\"", "delivery.final"),
            ("[\"410\"]", "[\"1000\"]", "delivery.disabling"),
            ("notify = \"owner\"", "notify = \"all\"", "delivery.notify"),
            ("name = \"order.created\"", "name = \"order created\"", "event_types[0].name"),
            ("category = \"Orders\"", "category = \" \"", "event_types[0].category"),
            ("sample = '{ \"total\": 1.50 }'", "sample = '{'", "event_types[0].sample"),
            ("sample = '{ \"total\": 1.50 }'", "sample = '1e999'", "event_types[0].sample"),
        ] {
            let text = WHOLE.replacen(line, broken, 1);
            assert_ne!(text, WHOLE, "{line}");
            let fault = parse(&text).expect_err(broken);
            assert_eq!(fault.key, key, "{fault}");
            assert!(fault.to_string().starts_with("/etc/acme.toml: "), "{fault}");
        }
        let twice = format!("{WHOLE}{}", &WHOLE[WHOLE.find("[[event_types]]").expect("types")..]);
        assert_eq!(parse(&twice).expect_err("twice").key, "event_types[1].name");
        assert_eq!(Dialect::parse("A.toml", "A", WHOLE).expect_err("name").key, "the file's name");
    }

    #[test]
    fn a_body_that_node_would_print_otherwise_is_refused() {
        let text = WHOLE.replacen("time = ", "data = \"as_node\"\ntime = ", 1);
        assert!(parse(&text).is_ok());
        let spaced = text.replacen("\"v\":1", "\"v\": 1", 1);
        assert_eq!(parse(&spaced).expect_err("space").key, "body.template");
    }

    #[test]
    fn attributes_of_cloud_events_have_a_place() {
        let with = |payload: &str| parse(&WHOLE.replacen("\"payload\":<data>", payload, 1));
        let all = r#""id":<cloud_event_id>,"source":<cloud_event_source>,"type":1,"X":2<cloud_event_attributes>"#;
        let dialect = with(&format!(r#""payload":{{{all}}},"data":<data>"#)).expect("a dialect");
        let attributes = [("7", "true"), ("kind", "\"a\"")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let cloud_event = CloudEvent { id: "\"".to_owned(), source: "/a".to_owned(), attributes: attributes.into() };
        let event = Event { cloud_event: Some(cloud_event), ..Event::example(None, "1".to_owned()) };
        let body = dialect.render_body(&event, Timestamp::UNIX_EPOCH).expect("a body");
        let payload = r#"{"id":"\"","source":"/a","type":1,"X":2,"7":true,"kind":"a"}"#;
        assert!(body.ends_with(&format!(r#""at":0,"payload":{payload},"data":1}}"#)), "{body}");
        for payload in [
            r#""payload":<data><cloud_event_attributes>"#,
            r#""payload":{"id":1,"kind":2<cloud_event_attributes>}"#,
            r#""payload":{<cloud_event_attributes>}"#,
            r#""payload":[1<cloud_event_attributes>]"#,
            r#""payload":[{"id":1<cloud_event_attributes><cloud_event_attributes>}]"#,
        ] {
            assert_eq!(with(payload).expect_err(payload).key, "body.template");
        }
        let text = WHOLE.replacen("<data>}", "[{\"id\":1<cloud_event_attributes>}]}", 1);
        assert!(parse(&text).is_ok());
        let as_node = text.replacen("time = ", "data = \"as_node\"\ntime = ", 1);
        assert_eq!(parse(&as_node).expect_err("as_node").key, "body.template");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}", at in 0usize..1200, noise in "\\PC{0,4}") {
            let _ = parse(&text);
            let mut broken = WHOLE.to_owned();
            if broken.is_char_boundary(at.min(broken.len())) {
                broken.insert_str(at.min(WHOLE.len()), &noise);
            }
            let _ = parse(&broken);
        }
    }
}
