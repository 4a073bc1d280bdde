//! Webhooks of OpenAPI 3.0 (`x-webhooks`) and 3.1 (`webhooks`).

use serde_json::{Value, json};

use super::{Payload, first_text, members, resolved};

/// Methods of an operation that carries an event.
const METHODS: [&str; 3] = ["post", "put", "patch"];

/// The payloads of all webhooks.
pub(super) fn payloads(document: &Value) -> Vec<Payload<'_>> {
    let webhooks = ["webhooks", "x-webhooks"].iter().flat_map(|name| members(&document[*name]));
    webhooks.map(|(name, item)| payload(document, name, resolved(document, item))).collect()
}

fn payload<'a>(document: &'a Value, name: &str, item: &'a Value) -> Payload<'a> {
    let operation = METHODS.iter().find_map(|method| item.get(method)).unwrap_or(&Value::Null);
    let body = resolved(document, &operation["requestBody"]);
    let content = || members(&body["content"]);
    let is_json = |kind: &str| kind.contains("json");
    let json = content().find(|(kind, _)| is_json(kind)).map(|(_, content)| content);
    let schema = match json.and_then(|content| content.get("schema")) {
        Some(schema) => Ok(schema),
        None => Err("its POST has no requestBody with a schema for application/json".to_owned()),
    };
    let json = json.unwrap_or(&Value::Null);
    let named = || members(&json["examples"]).next().map(|(_, example)| &resolved(document, example)["value"]);
    Payload {
        name: name.to_owned(),
        category: operation["tags"][0].as_str(),
        description: first_text(operation, &["description", "summary"])
            .or(first_text(item, &["description", "summary"])),
        sample: json.get("example").or_else(named).filter(|sample| !sample.is_null()),
        schema,
    }
}

/// Translates a schema of OpenAPI 3.0: `nullable`, and bounds that are booleans.
pub(super) fn to_2020_12(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(to_2020_12),
        Value::Object(keywords) => {
            for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
                match keywords.get(exclusive) {
                    Some(Value::Bool(true)) => {
                        if let Some(bound) = keywords.remove(bound) {
                            keywords.insert(exclusive.to_owned(), bound);
                        }
                    }
                    Some(Value::Bool(false)) => {
                        keywords.remove(exclusive);
                    }
                    _ => {}
                }
            }
            if keywords.get("nullable") == Some(&Value::Bool(true)) {
                if let Some(kind) = keywords.get("type").and_then(Value::as_str) {
                    let kinds = json!([kind, "null"]);
                    keywords.insert("type".to_owned(), kinds);
                }
                if let Some(Value::Array(allowed)) = keywords.get_mut("enum")
                    && !allowed.contains(&Value::Null)
                {
                    allowed.push(Value::Null);
                }
            }
            if keywords.get("nullable").is_some_and(Value::is_boolean) {
                keywords.remove("nullable");
            }
            let literals = ["const", "enum", "default", "example", "examples"];
            let inner = keywords.iter_mut().filter(|(name, _)| !literals.contains(&name.as_str()));
            inner.for_each(|(_, value)| to_2020_12(value));
        }
        _ => {}
    }
}
