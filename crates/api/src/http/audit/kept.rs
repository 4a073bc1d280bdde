//! Members of requests whose values the audit log keeps.
//!
//! The OpenAPI document decides. A described member is kept if it holds texts, numbers, booleans or lists of these. A
//! `writeOnly` member is hidden: secrets, event keys, and payloads that are texts. All other values are hidden, such as
//! payloads of any JSON type.

use std::collections::HashSet;

use serde_json::Value;

/// The longest request in an entry, in bytes.
const MAX_KEPT: usize = 8 * 1024;

/// Replaces a hidden value.
const HIDDEN: &str = "…";

/// The headers of an endpoint: the log keeps their names, as the API does, and hides their values.
const HEADERS: &str = "headers";

/// The labels of an application: the log keeps keys and values, which operators choose.
const LABELS: &str = "labels";

/// Names of the kept members of an operation's request.
#[derive(Debug, Default)]
pub(super) struct KeptMembers(HashSet<String>);

impl KeptMembers {
    /// Reads the kept members from an operation of an OpenAPI document.
    pub(super) fn of_request(document: &Value, operation: &Value) -> Self {
        let mut kept = HashSet::new();
        add_members(document, &operation["requestBody"]["content"]["application/json"]["schema"], &mut kept);
        Self(kept)
    }

    /// The request as JSON text without hidden values. A text above [`MAX_KEPT`] is replaced by its length.
    pub(super) fn text(&self, asked: Value) -> String {
        let text = self.kept(asked).to_string();
        if text.len() <= MAX_KEPT { text } else { Value::from(format!("({} bytes)", text.len())).to_string() }
    }

    /// Hides all values that are not kept, in an object or in each object of a list.
    fn kept(&self, asked: Value) -> Value {
        match asked {
            Value::Object(members) => members.into_iter().map(|(name, value)| self.member(name, value)).collect(),
            Value::Array(items) => items.into_iter().map(|item| self.kept(item)).collect(),
            Value::Null => Value::Null,
            _ => Value::from(HIDDEN),
        }
    }

    fn member(&self, name: String, value: Value) -> (String, Value) {
        let is_plain = |value: &Value| !value.is_object() && !value.is_array();
        let is_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(is_plain));
        if self.0.contains(&name) && (is_plain(&value) || is_list(&value)) {
            return (name, value);
        }
        let value = match value {
            Value::Object(headers) if name == HEADERS => {
                headers.into_iter().map(|(name, _)| (name, Value::from(HIDDEN))).collect()
            }
            Value::Object(labels) if name == LABELS => {
                let kept = |(key, value): (String, Value)| {
                    let is_text = value.is_string();
                    (key, if is_text { value } else { Value::from(HIDDEN) })
                };
                labels.into_iter().map(kept).collect()
            }
            _ => Value::from(HIDDEN),
        };
        (name, value)
    }
}

/// Adds the kept members of a schema: an object, a list of objects, or alternatives.
fn add_members(document: &Value, schema: &Value, kept: &mut HashSet<String>) {
    let schema = resolve(document, schema);
    for alternative in ["oneOf", "anyOf", "allOf"].iter().filter_map(|name| schema[name].as_array()).flatten() {
        add_members(document, alternative, kept);
    }
    if schema["items"].is_object() {
        add_members(document, &schema["items"], kept);
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        if is_plain(document, member) {
            kept.insert(name.clone());
        }
    }
}

/// True for a schema of texts, numbers, booleans, or lists of these. False for `writeOnly`.
fn is_plain(document: &Value, schema: &Value) -> bool {
    let is_hidden = schema["writeOnly"] == true;
    let schema = resolve(document, schema);
    if is_hidden || schema["writeOnly"] == true {
        return false;
    }
    let kind = &schema["type"];
    let of_kind =
        |name: &str| kind == name || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == name));
    of_kind("array") && is_plain(document, &schema["items"])
        || ["string", "integer", "number", "boolean"].into_iter().any(of_kind)
}

/// Follows a reference within the document.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|reference| document.pointer(reference.strip_prefix('#')?));
    target.unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept_members() -> KeptMembers {
        let document = json!({ "components": { "schemas": {
            "New": { "type": "object", "properties": {
                "url": { "type": "string" }, "events": { "type": "array", "items": { "type": "string" } },
                "secret": { "type": ["string", "null"], "writeOnly": true }, "data": {},
                "headers": { "type": ["object", "null"] }, "name": { "type": ["string", "null"] },
                "parts": { "type": "array", "items": { "type": "object" } },
            } },
        } } });
        let new = json!({ "$ref": "#/components/schemas/New" });
        let schema = json!({ "oneOf": [new, { "type": "array", "items": new }] });
        let operation = json!({ "requestBody": { "content": { "application/json": { "schema": schema } } } });
        KeptMembers::of_request(&document, &operation)
    }

    #[test]
    fn keeps_only_plain_members_that_are_described() {
        let asked = json!({
            "url": "https://a.example", "events": ["a"], "secret": "whsec_x", "data": { "password": "x" },
            "headers": { "authorization": "Bearer x" }, "Secret": "whsec_x", "name": { "secret": "x" }, "parts": ["x"],
        });
        let kept = json!({
            "url": "https://a.example", "events": ["a"], "secret": "…", "data": "…",
            "headers": { "authorization": "…" }, "Secret": "…", "name": "…", "parts": "…",
        });
        let members = kept_members();
        assert_eq!(members.text(asked.clone()), kept.to_string());
        assert_eq!(members.text(json!([asked.clone(), asked])), json!([kept.clone(), kept]).to_string());
        let labels = json!({ "labels": { "region": "eu", "odd": { "secret": "x" } } });
        assert_eq!(members.text(labels), r#"{"labels":{"odd":"…","region":"eu"}}"#);
        let odd = json!({ "headers": ["x"], "events": [{ "x": 1 }] });
        assert_eq!(members.text(odd), r#"{"events":"…","headers":"…"}"#);
        assert_eq!(members.text(json!("whsec_x")), r#""…""#);
        assert_eq!(KeptMembers::default().text(json!({ "url": "x" })), r#"{"url":"…"}"#);
    }

    /// Before you add a member, make sure that it never holds a secret, or the payload or key of an event.
    #[test]
    fn the_kept_members_of_the_api_are_these() {
        let api = crate::routes().merge(crate::nudj_routes()).split_for_parts().1;
        let document = serde_json::to_value(api).expect("JSON");
        let items = document["paths"].as_object().into_iter().flatten();
        let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten());
        let members = operations.map(|(_, operation)| KeptMembers::of_request(&document, operation).0);
        let mut kept: Vec<String> = members.flatten().collect::<HashSet<_>>().into_iter().collect();
        kept.sort_unstable();
        let expected = "after application asymmetric back before category count_only deliveries description dialect \
                        digest email enabled event event_ids event_types events events_per_day expires_in_seconds feed \
                        fifo filter id ids limit max_webhooks name outcome overlap_seconds plan public_key \
                        publish_rate_per_second rate_per_second reason received_at redacted rights role routing_key \
                        schedule since state states status stored_bytes strict temporary timeout_ms trace_context type \
                        types until url webhook without_routing_key";
        assert_eq!(kept.join(" "), expected);
    }

    #[test]
    fn replaces_a_long_request_by_its_length() {
        assert_eq!(kept_members().text(json!({ "name": "x".repeat(10_000) })), r#""(10011 bytes)""#);
    }
}
