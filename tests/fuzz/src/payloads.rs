//! JSON and events.

use fanfare_domain::{
    endpoint::redaction::Redaction,
    event::{
        Content, EventFields, EventType,
        schema::{Schema, import},
    },
    json::{JsonFault, check, compact, print_as_node, readable},
};
use serde::de::IgnoredAny;
use serde_json::{Value, json, value::RawValue};

use crate::text;

/// `print_as_node` accepts a text if and only if serde_json does, within the limits on nesting and numbers. The printed
/// text is stable.
pub(crate) fn json(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let _ = readable(text);
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let printed = match print_as_node(text) {
        Ok(printed) => printed,
        Err(JsonFault::Syntax { offset, .. }) => {
            assert!(offset <= text.len() && text.is_char_boundary(offset));
            return assert!(!is_json, "serde_json reads the text");
        }
        Err(JsonFault::TooDeep { offset } | JsonFault::InfiniteNumber { offset }) => {
            return assert!(offset < text.len());
        }
    };
    assert!(is_json, "serde_json does not read the text");
    assert_eq!(print_as_node(&printed).as_ref(), Ok(&printed));
    let short = compact(text);
    assert_eq!(compact(&short), short);
    assert_eq!(print_as_node(&short), Ok(printed));
    // Text for display must be readable by parsers that refuse lone surrogates. serde_json refuses some numbers just
    // below 1.8e308.
    let shown = readable(text);
    let fault = serde_json::from_str::<Value>(&shown)
        .err()
        .filter(|error| !error.to_string().starts_with("number out of range"));
    assert!(fault.is_none(), "{fault:?}: {shown}");
}

/// Redaction removes every redacted member, and leaves a body without such members unchanged.
pub(crate) fn redaction(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let redaction = Redaction::parse(&["a", "b.c"]).expect("names");
    let kept = redaction.redact_response(bytes);
    let Some(text) = text(bytes) else { return assert!(kept.is_some()) };
    let redacted = redaction.redact(text);
    let Ok(shown) = serde_json::from_str::<Value>(redacted.as_deref().unwrap_or(text)) else { return };
    assert!(!holds(&shown, &[], &["a"]) && !holds(&shown, &[], &["b", "c"]), "{shown}");
    if let Some(redacted) = redacted {
        assert_eq!(redaction.redact(&redacted).unwrap_or_else(|| redacted.clone()), redacted);
        assert!(kept.is_some_and(|kept| kept == redacted.as_bytes() || redacted == r#""[redacted]""#));
    }
}

/// True if a member whose path ends with `end` has a value other than the placeholder.
fn holds(value: &Value, path: &[&str], end: &[&str]) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let path = [path, &[name.as_str()]].concat();
            let is_meant = path.len() >= end.len()
                && path.iter().rev().zip(end.iter().rev()).all(|(name, wanted)| name.eq_ignore_ascii_case(wanted));
            is_meant && value != "[redacted]" || holds(value, &path, end)
        }),
        Value::Array(items) => items.iter().any(|item| holds(item, path, end)),
        _ => false,
    }
}

/// An accepted schema is accepted again, and checks its own sample. A document with event types yields only schemas
/// that are accepted.
pub(crate) fn schema(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(schema) = Schema::parse(text) {
        assert!(Schema::parse(schema.text()).is_ok_and(|again| again == schema));
        assert_eq!(check(schema.sample()), Ok(()));
        let _ = schema.check(schema.sample(), true);
        let _ = schema.check(r#"{"a":[1,"b"]}"#, true);
    }
    let Ok(document) = serde_json::from_str::<Value>(text) else { return };
    for imported in import::read(&document).into_iter().flatten() {
        assert!(imported.schema.is_err() || imported.schema.is_ok_and(|schema| Schema::parse(schema.text()).is_ok()));
    }
}

/// A decoded event that is written again decodes to the same event.
pub(crate) fn event(bytes: &[u8]) {
    let Ok(fields) = EventFields::parse(bytes) else { return };
    assert_eq!(check(&fields.data), Ok(()));
    let data = RawValue::from_string(fields.data.clone()).expect("JSON");
    let mut written = format!(r#"{{"data":{data}"#);
    let (cloud_event, trace) = (fields.cloud_event.as_ref(), fields.trace.as_ref());
    let members = [
        ("type", fields.event_type.as_ref().map(ToString::to_string)),
        ("id", cloud_event.map(|cloud_event| cloud_event.id.clone()).or(fields.key.clone())),
        ("time", fields.occurred_at.map(|time| time.to_string())),
        ("specversion", cloud_event.map(|_| "1.0".to_owned())),
        ("source", cloud_event.map(|cloud_event| cloud_event.source.clone())),
        ("traceparent", trace.map(|trace| trace.parent.to_string())),
        ("tracestate", trace.and_then(|trace| Some(trace.state.as_ref()?.to_string()))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            written += &format!(",{}:{}", json!(name), json!(value));
        }
    }
    for (name, value) in cloud_event.iter().flat_map(|cloud_event| &cloud_event.attributes) {
        written += &format!(",{}:{value}", json!(name));
    }
    if let Some(version) = fields.version {
        written += &format!(",\"version\":{version}");
    }
    written.push('}');
    assert_eq!(EventFields::parse(written.as_bytes()), Ok(fields.clone()));
    // Whitespace around the data does not change the content.
    let event_type = EventType::parse("a").expect("a type");
    let sparse = format!(" {} ", fields.data);
    assert_eq!(Content::of(&event_type, &fields.data), Content::of(&event_type, &sparse));
}
