//! Reads the OpenAPI document into the parts of the page.

use std::collections::HashMap;

use fanfare_api::ErrorCode;
use serde_json::Value;

use crate::reference::examples;

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
    /// Summary and description.
    pub(super) about: Vec<String>,
    /// Parameters, the body, and the successful answers by their status.
    pub(super) members: Vec<Member>,
    /// Method of the SDKs, as TypeScript names it.
    pub(super) call: Option<&'static str>,
    /// Example for curl.
    pub(super) example: String,
}

/// A parameter of an operation, a member of a type, or another name with a type.
pub(super) struct Member {
    name: String,
    /// The type in words.
    kind: String,
    is_required: bool,
    about: String,
}

impl Member {
    fn new(name: String, kind: String, about: &str) -> Self {
        Self { name, kind, is_required: true, about: about.to_owned() }
    }

    /// The member as a line: `name? type: description`. The page explains that a member without a type is a string, and
    /// that `?` permits null.
    pub(super) fn line(&self) -> String {
        let (mark, kind) = if self.is_required { ("", self.kind.as_str()) } else { ("?", not_null(&self.kind)) };
        let kind = if matches!(kind, "" | "string") { String::new() } else { format!(" {kind}") };
        let about = if self.about.is_empty() { String::new() } else { format!(": {}", self.about) };
        format!("{}{mark}{kind}{about}", self.name)
    }
}

fn not_null(kind: &str) -> &str {
    kind.trim_end_matches(" or null")
}

/// A described type.
pub(super) struct Type {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) members: Vec<Member>,
    /// Values of a type of words.
    pub(super) words: Vec<String>,
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
    let mut groups: Vec<Group> = groups.collect();
    let is_enveloped = |name: &str| ENVELOPES.iter().any(|envelope| name.starts_with(envelope));
    let types = members(schemas).filter(|(name, _)| !is_enveloped(name) && *name != "ErrorCode");
    let mut types: Vec<Type> = types.map(|(name, schema)| described(name, schema)).collect();
    let of_operations = groups.iter_mut().flat_map(|group| &mut group.operations).map(|of| (&of.id, &mut of.members));
    let of_types = types.iter_mut().map(|of| (&of.name, &mut of.members));
    refer(of_operations.chain(of_types));
    (groups, types)
}

/// Replaces each description that repeats by `see part`, if that is shorter. The part has a member with the same name.
fn refer<'a>(parts: impl Iterator<Item = (&'a String, &'a mut Vec<Member>)>) {
    let mut first: HashMap<(String, String), &str> = HashMap::new();
    for (part, members) in parts {
        for member in members {
            let described = (member.name.clone(), member.about.clone());
            let there = *first.entry(described).or_insert(part);
            let reference = format!("see {there}");
            if there != part && reference.len() < member.about.len() {
                member.about = reference;
            }
        }
    }
}

/// All error codes, each with its status.
pub(super) fn codes() -> Vec<Member> {
    let code = |code: &ErrorCode| {
        let (status, meaning) = code.meaning();
        let name = serde_json::to_value(code).ok().and_then(|name| name.as_str().map(str::to_owned));
        Member::new(name.unwrap_or_default(), status.to_string(), meaning)
    };
    ErrorCode::ALL.iter().map(code).collect()
}

fn operation(path: &str, method: &str, operation: &Value, schemas: &Value) -> Operation {
    let parameters = entries(&operation["parameters"]).filter(|parameter| {
        // Each operation of one application has the parameter; the page explains it once.
        parameter["name"] != "application" && parameter["in"] != "path"
    });
    let parameter = |parameter: &Value| Member {
        name: text(parameter, "name"),
        kind: shape(&parameter["schema"]),
        is_required: parameter["required"] == true,
        about: text(parameter, "description"),
    };
    let is_paging = |member: &Member| PAGING.contains(&(member.name.as_str(), member.about.as_str()));
    // Fanfare's own form before others, such as CloudEvents.
    let schema_of = |content: &Value| {
        let own = content["content"].get("application/json");
        own.or_else(|| members(&content["content"]).next().map(|(_, content)| content)).map(|own| own["schema"].clone())
    };
    let body = schema_of(&operation["requestBody"]);
    let successes = members(&operation["responses"]).filter(|(status, _)| status.starts_with('2'));
    let answers = successes.map(|(status, answer)| {
        let kind = schema_of(answer).map(|schema| shape(&schema));
        Member::new(status.to_owned(), kind.unwrap_or_default(), "")
    });
    let parameters = parameters.map(parameter).filter(|member| !is_paging(member));
    let members = parameters.chain(body.iter().map(|schema| Member::new("Body".to_owned(), shape(schema), "")));
    let id = text(operation, "operationId");
    Operation {
        method: method.to_uppercase(),
        path: path.strip_prefix(ROOT).map_or_else(|| format!("HOST{path}"), str::to_owned),
        about: [text(operation, "summary"), text(operation, "description")]
            .into_iter()
            .filter(|paragraph| !paragraph.is_empty())
            .collect(),
        members: members.chain(answers).collect(),
        call: examples::call(&id),
        example: examples::curl(path, method, operation, body.as_ref(), schemas),
        id,
    }
}

/// A type by its name. Of an envelope, its content: the document names an envelope by the content.
fn named(name: &str) -> String {
    let envelope = ENVELOPES.iter().find_map(|envelope| Some((*envelope, name.strip_prefix(envelope)?)));
    let (envelope, content) = envelope.unwrap_or(("", name));
    let before = match envelope {
        "Page_" => "page of ",
        _ if content.starts_with("Vec_") => "list of ",
        _ => "",
    };
    let or_null = if content.starts_with("Option_") { " or null" } else { "" };
    format!("{before}{}{or_null}", content.trim_start_matches("Vec_").trim_start_matches("Option_"))
}

fn described(name: &str, schema: &Value) -> Type {
    // A flattened type is a part of `allOf`.
    let parts: Vec<&Value> = [schema].into_iter().chain(entries(&schema["allOf"])).collect();
    let required: Vec<&str> =
        parts.iter().flat_map(|part| entries(&part["required"])).filter_map(Value::as_str).collect();
    let member = |(name, member): (&str, &Value)| Member {
        name: name.to_owned(),
        kind: shape(member),
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
            let kind = shape(part);
            let is_named = kind.contains(|letter: char| letter.is_ascii_uppercase());
            is_named.then(|| Member::new("…".to_owned(), kind, ""))
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

/// Describes a schema in words. Only names of types have capital letters.
fn shape(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return named(name);
    }
    let alternatives: Vec<&Value> = entries(&schema["oneOf"]).chain(entries(&schema["anyOf"])).collect();
    if let Some(first) = alternatives.iter().find(|alternative| alternative["type"] != "null") {
        let is_nullable = alternatives.iter().any(|alternative| alternative["type"] == "null");
        return shape(first) + if is_nullable { " or null" } else { "" };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        kinds => entries(kinds).filter_map(Value::as_str).collect(),
    };
    let kind = match kinds.iter().find(|kind| **kind != "null").copied().unwrap_or("any") {
        "array" => format!("list of {}", shape(&schema["items"])),
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "integer" => "int".to_owned(),
        "boolean" => "bool".to_owned(),
        kind => kind.to_owned(),
    };
    kind + if kinds.contains(&"null") { " or null" } else { "" }
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
        assert_eq!(shape(&json!({ "type": "string", "format": "date-time" })), "time");
        assert_eq!(shape(&json!({ "type": ["integer", "null"] })), "int or null");
        assert_eq!(shape(&json!({ "$ref": "#/components/schemas/Event" })), "Event");
        assert_eq!(shape(&json!({ "type": "array", "items": { "$ref": "#/a/Event" } })), "list of Event");
        let either = json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/a/Event" }] });
        assert_eq!(shape(&either), "Event or null");
        assert_eq!(shape(&json!({})), "any");
    }

    #[test]
    fn an_envelope_is_left_out() {
        assert_eq!(named("Page_Event"), "page of Event");
        assert_eq!(named("Answer_Event"), "Event");
        assert_eq!(named("Answer_Vec_Event"), "list of Event");
        assert_eq!(named("Answer_Option_Event"), "Event or null");
        assert_eq!(named("Event"), "Event");
    }

    #[test]
    fn a_repeated_description_is_a_reference() {
        let member = |name: &str, about: &str| Member::new(name.to_owned(), "string".to_owned(), about);
        let (long, names) = ("The id of the publisher.", ["Event", "Delivery", "Attempt"].map(str::to_owned));
        let mut members = [
            vec![member("key", long), member("id", "An id.")],
            vec![member("key", long), member("id", "An id."), member("of", long)],
            vec![member("key", long)],
        ];
        refer(names.iter().zip(&mut members));
        let abouts = members.map(|members| members.into_iter().map(|member| member.about).collect::<Vec<_>>());
        assert_eq!(abouts, [vec![long, "An id."], vec!["see Event", "An id.", long], vec!["see Event"]]);
    }

    /// The script links each name of a type, and looks up each reference.
    #[test]
    fn each_named_type_and_part_is_on_the_page() {
        let document: Value = serde_json::from_str(include_str!("../../../../proto/openapi.json")).expect("JSON");
        let (groups, types) = read(&document);
        let operations = groups.iter().flat_map(|group| &group.operations).map(|of| (&of.id, &of.members));
        let mut told: HashMap<&str, Vec<&str>> = HashMap::new();
        for (part, members) in operations.chain(types.iter().map(|of| (&of.name, &of.members))) {
            for Member { name, kind, about, .. } in members {
                let mut named = kind.split(' ').filter(|word| word.starts_with(|letter: char| letter.is_uppercase()));
                let is_described =
                    |word: &str| word == "ErrorCode" || types.iter().any(|described| described.name == word);
                assert!(named.all(is_described), "{part}: {kind}");
                assert!(!name.contains([' ', ':']) && !kind.contains(':'), "{part}: {name} {kind}");
                let there = about.strip_prefix("see ");
                assert!(there.is_none_or(|there| told[there].contains(&name.as_str())), "{part}: {about}");
            }
            told.insert(part, members.iter().map(|member| member.name.as_str()).collect());
        }
    }

    #[test]
    fn a_member_is_a_line() {
        let line = |is_required, kind: &str, about: &str| {
            let (name, kind, about) = ("key".to_owned(), kind.to_owned(), about.to_owned());
            Member { name, kind, is_required, about }.line()
        };
        assert_eq!(line(true, "string", ""), "key");
        assert_eq!(line(true, "string", "A key: short."), "key: A key: short.");
        assert_eq!(line(false, "string or null", ""), "key?");
        assert_eq!(line(true, "string or null", ""), "key string or null");
        assert_eq!(line(false, "list of Event", "All events."), "key? list of Event: All events.");
    }
}
