//! Reads the OpenAPI document into the parts of the page.

use std::collections::HashMap;

use fanfare_api::ErrorCode;
use serde_json::Value;

use crate::reference::examples::{self, Examples};

/// Operations with the same tag.
pub(super) struct Group {
    pub(super) title: String,
    pub(super) about: String,
    pub(super) operations: Vec<Operation>,
}

/// An operation of the API.
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) path: String,
    /// Description, in paragraphs.
    pub(super) about: Vec<String>,
    pub(super) parameters: Vec<Member>,
    pub(super) body: Option<Shape>,
    /// Status and content of the successful answers.
    pub(super) answers: Vec<(String, Option<Shape>)>,
    pub(super) examples: Examples,
}

/// A parameter of an operation, or a member of a type.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) is_required: bool,
    pub(super) about: String,
}

/// A type as text, with the name of a described type in the middle.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shape {
    pub(super) before: String,
    /// Name of a type that the page describes; empty for none.
    pub(super) link: String,
    pub(super) after: String,
}

impl Shape {
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.link.is_empty()
    }
}

impl Member {
    /// The type in words. The page explains that a member without a type is a string, and that `?` permits null.
    pub(super) fn kind(&self) -> Shape {
        let after = if self.is_required { &self.shape.after } else { self.shape.after.trim_end_matches(" or null") };
        let before = if self.is_required { &self.shape.before } else { self.shape.before.trim_end_matches(" or null") };
        let before = if before == "string" { "" } else { before };
        Shape { before: before.to_owned(), link: self.shape.link.clone(), after: after.to_owned() }
    }
}

/// A described type.
pub(super) struct Type {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) members: Vec<Member>,
    /// Values of a type of words.
    pub(super) words: Vec<String>,
}

/// An error code.
pub(super) struct Code {
    pub(super) name: String,
    pub(super) status: u16,
    pub(super) meaning: &'static str,
}

/// Envelopes of answers, which the page explains once.
const ENVELOPES: [&str; 2] = ["Answer_", "Page_"];

/// Beginning of all paths.
pub(super) const ROOT: &str = "/api/v1";

/// Parameters of lists, which the page explains once.
const PAGING: [(&str, &str); 2] = [("before", "The `next` of the previous page."), ("limit", "1 to 100. Default: 50.")];

/// Reads the groups in the order of the tags, and the types in the order of their names.
pub(super) fn read(document: &Value) -> (Vec<Group>, Vec<Type>) {
    let schemas = &document["components"]["schemas"];
    let mut of_tag: HashMap<&str, Vec<Operation>> = HashMap::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            of_tag.entry(tag).or_default().push(self::operation(path, method, operation, schemas));
        }
    }
    let groups = entries(&document["tags"]).map(|tag| {
        let title = text(tag, "name");
        let operations = of_tag.remove(title.as_str()).unwrap_or_default();
        Group { title, about: text(tag, "description"), operations }
    });
    let groups = groups.collect();
    let is_enveloped = |name: &str| ENVELOPES.iter().any(|envelope| name.starts_with(envelope));
    let types = members(schemas).filter(|(name, _)| !is_enveloped(name) && *name != "ErrorCode");
    (groups, types.map(|(name, schema)| described(name, schema)).collect())
}

/// All error codes.
pub(super) fn codes() -> Vec<Code> {
    let code = |code: &ErrorCode| {
        let (status, meaning) = code.meaning();
        let name = serde_json::to_value(code).ok().and_then(|name| name.as_str().map(str::to_owned));
        Code { name: name.unwrap_or_default(), status, meaning }
    };
    ErrorCode::ALL.iter().map(code).collect()
}

fn operation(path: &str, method: &str, operation: &Value, schemas: &Value) -> Operation {
    let parameters = entries(&operation["parameters"]).filter(|parameter| {
        // Each operation of one application has the parameter; the page explains it once.
        parameter["name"] != "application" && parameter["in"] != "path"
    });
    let parameter = |parameter: &Value| {
        let (name, about) = (text(parameter, "name"), text(parameter, "description"));
        let is_known = PAGING.contains(&(name.as_str(), about.as_str()));
        Member {
            name,
            shape: shape(&parameter["schema"]),
            is_required: parameter["required"] == true,
            about: if is_known { String::new() } else { about },
        }
    };
    // Fanfare's own form before others, such as CloudEvents.
    let schema_of = |content: &Value| {
        let own = content["content"].get("application/json");
        own.or_else(|| members(&content["content"]).next().map(|(_, content)| content)).map(|own| own["schema"].clone())
    };
    let body = schema_of(&operation["requestBody"]);
    let successes = members(&operation["responses"]).filter(|(status, _)| status.starts_with('2'));
    let answers = successes.map(|(status, answer)| (status.to_owned(), schema_of(answer).map(|schema| shape(&schema))));
    Operation {
        id: text(operation, "operationId"),
        method: method.to_uppercase(),
        path: path.strip_prefix(ROOT).map_or_else(|| format!("HOST{path}"), str::to_owned),
        about: [text(operation, "summary"), text(operation, "description")]
            .into_iter()
            .filter(|paragraph| !paragraph.is_empty())
            .collect(),
        parameters: parameters.map(parameter).collect(),
        answers: answers.collect(),
        examples: examples::of(path, method, operation, body.as_ref(), schemas),
        body: body.map(|schema| shape(&schema)),
    }
}

/// A type by its name. Of an envelope, its content: the document names an envelope by the content.
fn named(name: &str) -> Shape {
    let envelope = ENVELOPES.iter().find_map(|envelope| Some((*envelope, name.strip_prefix(envelope)?)));
    let (envelope, content) = envelope.unwrap_or(("", name));
    let before = match envelope {
        "Page_" => "page of ",
        _ if content.starts_with("Vec_") => "list of ",
        _ => "",
    };
    Shape {
        before: before.to_owned(),
        link: content.trim_start_matches("Vec_").trim_start_matches("Option_").to_owned(),
        after: if content.starts_with("Option_") { " or null" } else { "" }.to_owned(),
    }
}

fn described(name: &str, schema: &Value) -> Type {
    // A flattened type is a part of `allOf`.
    let parts: Vec<&Value> = [schema].into_iter().chain(entries(&schema["allOf"])).collect();
    let required: Vec<&str> =
        parts.iter().flat_map(|part| entries(&part["required"])).filter_map(Value::as_str).collect();
    let member = |(name, member): (&str, &Value)| Member {
        name: name.to_owned(),
        shape: shape(member),
        is_required: required.contains(&name),
        about: text(member, "description"),
    };
    let mut members: Vec<Member> =
        parts.iter().flat_map(|part| self::members(&part["properties"])).map(member).collect();
    let whole = parts
        .iter()
        .skip(1)
        .chain(&entries(&schema["oneOf"]).collect::<Vec<_>>())
        .copied()
        .filter_map(|part| {
            let shape = shape(part);
            let is_named = !shape.link.is_empty();
            is_named.then(|| Member { name: "…".to_owned(), shape, is_required: true, about: String::new() })
        })
        .collect::<Vec<_>>();
    members.splice(0..0, whole);
    Type {
        name: name.to_owned(),
        about: text(schema, "description"),
        members,
        words: entries(&schema["enum"]).filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// The name of a referenced type.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// Describes a schema in words.
pub(super) fn shape(schema: &Value) -> Shape {
    if let Some(name) = reference(schema) {
        return named(name);
    }
    let alternatives: Vec<&Value> = entries(&schema["oneOf"]).chain(entries(&schema["anyOf"])).collect();
    if let Some(first) = alternatives.iter().find(|alternative| alternative["type"] != "null") {
        let shape = shape(first);
        let or_null =
            if alternatives.iter().any(|alternative| alternative["type"] == "null") { " or null" } else { "" };
        return Shape { after: format!("{}{or_null}", shape.after), ..shape };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        kinds => entries(kinds).filter_map(Value::as_str).collect(),
    };
    let or_null = if kinds.contains(&"null") { " or null" } else { "" };
    let kind = kinds.iter().find(|kind| **kind != "null").copied().unwrap_or("any");
    match kind {
        "array" => {
            let items = shape(&schema["items"]);
            Shape { before: format!("list of {}", items.before), after: format!("{}{or_null}", items.after), ..items }
        }
        "string" if schema["format"] == "date-time" => plain(&format!("time{or_null}")),
        "integer" => plain(&format!("int{or_null}")),
        "boolean" => plain(&format!("bool{or_null}")),
        kind => plain(&format!("{kind}{or_null}")),
    }
}

fn plain(text: &str) -> Shape {
    Shape { before: text.to_owned(), ..Shape::default() }
}

/// Names and values of an object; none for another value.
pub(super) fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// Entries of a list; none for another value.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_told_in_words() {
        let told = |schema: Value| {
            let Shape { before, link, after } = shape(&schema);
            format!("{before}{link}{after}")
        };
        assert_eq!(told(json!({ "type": "string", "format": "date-time" })), "time");
        assert_eq!(told(json!({ "type": ["integer", "null"] })), "int or null");
        assert_eq!(told(json!({ "$ref": "#/components/schemas/Event" })), "Event");
        assert_eq!(told(json!({ "type": "array", "items": { "$ref": "#/a/Event" } })), "list of Event");
        let either = json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/a/Event" }] });
        assert_eq!(told(either), "Event or null");
        assert_eq!(told(json!({})), "any");
    }

    #[test]
    fn an_envelope_is_left_out() {
        let shape = |before: &str, after: &str| Shape {
            before: before.to_owned(),
            link: "Event".to_owned(),
            after: after.to_owned(),
        };
        assert_eq!(named("Page_Event"), shape("page of ", ""));
        assert_eq!(named("Answer_Event"), shape("", ""));
        assert_eq!(named("Answer_Vec_Event"), shape("list of ", ""));
        assert_eq!(named("Answer_Option_Event"), shape("", " or null"));
        assert_eq!(named("Event"), shape("", ""));
    }
}
