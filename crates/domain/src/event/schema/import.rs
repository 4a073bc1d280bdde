//! Event types in an OpenAPI or AsyncAPI document: names, descriptions, samples and schemas of the payloads.

mod asyncapi;
mod bundle;
mod openapi;

use serde_json::{Map, Value};

use super::{Schema, SchemaFault, cut};
use crate::{
    event::{EventType, description::MAX_OWN_TYPES},
    json,
};

/// An event type of a document.
#[derive(Debug)]
pub struct ImportedType {
    /// Name in the document.
    pub name: String,
    /// First tag.
    pub category: Option<String>,
    /// Description, else the summary or the title, on one line.
    pub description: Option<String>,
    /// First example, as compact JSON.
    pub sample: Option<String>,
    /// The schema of the data, or the reason why the type cannot be imported.
    pub schema: Result<Schema, String>,
}

/// The fault of a document without readable event types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentFault(String);

/// A payload of a document, before its references are resolved.
struct Payload<'a> {
    name: String,
    category: Option<&'a str>,
    description: Option<&'a str>,
    sample: Option<&'a Value>,
    /// The schema, or the reason why there is none.
    schema: Result<&'a Value, String>,
}

/// Reads the event types of a document: the webhooks of OpenAPI 3.0 or 3.1, or the messages of AsyncAPI 2 or 3.
///
/// A payload that has the members `type` and `data`, with exactly the type's name as `type`, is a whole delivery. The
/// schema of the type is then the schema of `data`.
///
/// # Errors
/// If the document is of another kind, or has no event type, or more than an application may have.
pub fn read(document: &Value) -> Result<Vec<ImportedType>, DocumentFault> {
    let version = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (payloads, is_openapi_30, place) = match (version("openapi"), version("asyncapi")) {
        (openapi, _) if openapi.starts_with("3.") => {
            (openapi::payloads(document), openapi.starts_with("3.0"), "`webhooks` or `x-webhooks`")
        }
        (_, asyncapi) if asyncapi.starts_with("2.") => (asyncapi::payloads_of_2(document), false, "`channels`"),
        (_, asyncapi) if asyncapi.starts_with("3.") => (asyncapi::payloads_of_3(document), false, "`channels`"),
        _ => {
            let message = "is no OpenAPI 3 or AsyncAPI 2 or 3 document: `openapi` or `asyncapi` must name the version";
            return Err(DocumentFault(message.to_owned()));
        }
    };
    if payloads.is_empty() {
        return Err(DocumentFault(format!("describes no event: {place} holds no message")));
    }
    if payloads.len() > MAX_OWN_TYPES {
        return Err(DocumentFault(format!("describes more than {MAX_OWN_TYPES} events")));
    }
    let mut budget = bundle::Budget::new();
    let imported = payloads.into_iter().map(|payload| imported(document, payload, is_openapi_30, &mut budget));
    Ok(merged(imported.collect()))
}

fn imported(document: &Value, payload: Payload<'_>, is_openapi_30: bool, budget: &mut bundle::Budget) -> ImportedType {
    let line = |text: &&str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let category = payload.category.as_ref().map(line).filter(|text| !text.is_empty());
    let description = payload.description.as_ref().map(line).filter(|text| !text.is_empty());
    let is_envelope = payload.schema.as_ref().is_ok_and(|schema| is_envelope(document, schema, &payload.name));
    let sample = payload.sample.map(|sample| if is_envelope { &sample["data"] } else { sample });
    let schema = payload.schema.and_then(|schema| {
        let mut bundled = bundle::bundle(document, schema, is_envelope, budget)?;
        if is_openapi_30 {
            openapi::to_2020_12(&mut bundled);
        }
        Schema::parse(&bundled.to_string()).map_err(|SchemaFault(message)| format!("its schema {message}"))
    });
    ImportedType {
        schema: schema.and_then(|schema| match EventType::parse(&payload.name) {
            Ok(_) => Ok(schema),
            Err(fault) => Err(format!("its name {}", fault.message)),
        }),
        name: cut(&payload.name, 128),
        category: category.map(|text| cut(&text, 100)),
        description: description.map(|text| cut(&text, 200)),
        sample: sample.map(Value::to_string).filter(|sample| json::check(sample).is_ok()),
    }
}

/// Removes repeated types. A document may have the same message in several channels.
fn merged(types: Vec<ImportedType>) -> Vec<ImportedType> {
    let mut merged: Vec<ImportedType> = Vec::new();
    let mut known: std::collections::HashSet<(String, Option<String>)> = std::collections::HashSet::new();
    for imported in types {
        let schema = imported.schema.as_ref().ok().map(|schema| schema.text().to_owned());
        if known.insert((imported.name.clone(), schema)) {
            merged.push(imported);
        }
    }
    merged
}

/// True if a payload is a whole delivery of the type.
fn is_envelope(document: &Value, schema: &Value, name: &str) -> bool {
    let schema = resolved(document, schema);
    let of_type = resolved(document, &schema["properties"]["type"]);
    let is_named = of_type["const"] == name || of_type["enum"] == Value::from(vec![name]);
    is_named && !schema["properties"]["data"].is_null()
}

/// Follows references within the document, at most a few.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    const MOST: usize = 10;
    let mut value = value;
    for _ in 0..MOST {
        let Some(target) = value.get("$ref").and_then(Value::as_str).and_then(|text| target(document, text)) else {
            break;
        };
        value = target;
    }
    value
}

/// The value that a reference within the document names.
fn target<'a>(document: &'a Value, reference: &str) -> Option<&'a Value> {
    document.pointer(reference.strip_prefix('#')?)
}

/// Members of an object; none for another value.
fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The last part of a reference or path.
fn last_part(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// The first of some texts.
fn first_text<'a>(value: &'a Value, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| value.get(name)?.as_str())
}

#[cfg(test)]
mod tests;
