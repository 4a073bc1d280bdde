//! The OpenAPI document, and checks of answers against the document: status, members, types and error codes.

use std::{fs, sync::LazyLock};

use fanfare_tests::{clients::api::Answer, servers::instance::repository};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{list, text};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = fs::read_to_string(repository().join("proto/openapi.json")).expect("proto/openapi.json");
    serde_json::from_str(&text).expect("JSON")
});

/// The parsed `proto/openapi.json`.
pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// A documented route.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// The path, with parameter names in braces.
    pub(crate) path: &'static str,
    pub(crate) operation: &'static Value,
}

impl Route {
    /// The operation id.
    pub(crate) fn name(&self) -> &'static str {
        text(self.operation, "operationId")
    }

    /// True if the route requires a key with the role `admin`.
    pub(crate) fn takes_admin(&self) -> bool {
        [
            "create_application",
            "list_applications",
            "show_overview",
            "create_key",
            "list_keys",
            "show_key",
            "rotate_key",
            "revoke_key",
            "list_plans",
            "show_plan",
            "put_plan",
            "delete_plan",
            "list_usage",
        ]
        .contains(&self.name())
            || self.is_about_parked()
    }

    /// True if the route is about parked messages.
    pub(crate) fn is_about_parked(&self) -> bool {
        self.name().ends_with("_parked")
    }

    /// The documented success statuses.
    pub(crate) fn successes(&self) -> Vec<u16> {
        let responses = self.operation["responses"].as_object().expect("responses");
        responses.keys().filter_map(|status| status.parse().ok()).collect()
    }

    /// The resolved schema of the request body. `None` for a route without a body.
    pub(crate) fn body(&self) -> Option<&'static Value> {
        let schema = &self.operation["requestBody"]["content"]["application/json"]["schema"];
        let schema = list(&schema["oneOf"]).iter().find(|choice| choice["type"] != "null").unwrap_or(schema);
        (!schema.is_null()).then(|| resolved(schema))
    }

    /// True if the query has this parameter.
    pub(crate) fn has_parameter(&self, name: &str) -> bool {
        list(&self.operation["parameters"])
            .iter()
            .any(|parameter| parameter["in"] == "query" && parameter["name"] == name)
    }

    /// True if the path matches the route.
    fn is_of(&self, path: &str) -> bool {
        let (parts, described) = (path.split('/'), self.path.split('/'));
        parts.clone().count() == described.clone().count()
            && parts.zip(described).all(|(part, described)| described.starts_with('{') || part == described)
    }
}

/// All documented routes.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, operations) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_uppercase().parse().expect("a method");
            routes.push(Route { method, path, operation });
        }
    }
    assert!(routes.len() > 30, "proto/openapi.json has too few routes");
    routes
}

/// Checks an answer against the documentation of its route. Ignores undocumented paths.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    // Routes below the prefix are documented once, without the prefix.
    let path = path.strip_prefix("/api/v2/admin").unwrap_or(path);
    let of_path = routes().into_iter().filter(|route| route.method == method && route.is_of(path));
    let Some(route) = of_path.min_by_key(|route| route.path.matches('{').count()) else { return };
    let responses = &route.operation["responses"];
    let (exact, kind) = (answer.status.to_string(), format!("{}XX", answer.status / 100));
    let response = responses.get(&exact).or_else(|| responses.get(&kind));
    let response = response.unwrap_or_else(|| panic!("{method} {path}: {exact} is not documented: {}", answer.text));
    assert_eq!(answer.headers["content-type"], "application/json", "{method} {path}");
    let found = fault(&response["content"]["application/json"]["schema"], &answer.body, "answer");
    assert_eq!(found, None, "{method} {path}: {exact} {}", answer.text);
    if answer.status >= 400 {
        let row = format!("| `{}` | {exact} | ", answer.code());
        let table = text(&DOCUMENT["info"], "description");
        assert!(table.contains(&row), "{method} {path}: {row:?} is not in the table of errors: {}", answer.text);
    }
}

fn resolved(schema: &'static Value) -> &'static Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema };
    let found = DOCUMENT.pointer(reference.trim_start_matches('#'));
    found.unwrap_or_else(|| panic!("{reference} does not exist"))
}

/// The first difference between a value and a schema. An undocumented member is a difference, too.
fn fault(schema: &'static Value, value: &Value, at: &str) -> Option<String> {
    let schema = resolved(schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let faults: Vec<_> = choices.iter().map(|choice| fault(choice, value, at)).collect();
        return faults.iter().all(Option::is_some).then(|| format!("{at} matches no alternative: {faults:?}"));
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return object_fault(&parts.iter().map(resolved).collect::<Vec<_>>(), value, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    if !types.iter().any(|kind| is_of_type(value, kind)) {
        return Some(format!("{at} is not of {types:?}"));
    }
    match value {
        Value::Object(_) => object_fault(&[schema], value, at),
        Value::Array(items) => {
            let item = |(place, item)| fault(schema.get("items")?, item, &format!("{at}[{place}]"));
            items.iter().enumerate().find_map(item)
        }
        Value::String(text) if schema["format"] == "date-time" && text.parse::<Timestamp>().is_err() => {
            Some(format!("{at} is no timestamp: {text}"))
        }
        Value::String(_) if schema["enum"].is_array() && !list(&schema["enum"]).contains(value) => {
            Some(format!("{at} is not in the enumeration: {value}"))
        }
        _ => None,
    }
}

/// The first difference between an object and several schemas that apply together.
fn object_fault(schemas: &[&'static Value], value: &Value, at: &str) -> Option<String> {
    let Some(members) = value.as_object() else { return Some(format!("{at} is no object")) };
    let required = schemas.iter().flat_map(|schema| list(&schema["required"]));
    if let Some(missing) = required.filter_map(Value::as_str).find(|name| !members.contains_key(*name)) {
        return Some(format!("{at}.{missing} is missing"));
    }
    if schemas.iter().all(|schema| schema["properties"].is_null()) {
        return None;
    }
    members.iter().find_map(|(name, member)| {
        let described = schemas.iter().find_map(|schema| schema["properties"].get(name));
        match described {
            Some(schema) => fault(schema, member, &format!("{at}.{name}")),
            None => Some(format!("{at}.{name} is not documented")),
        }
    })
}

pub(crate) fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

#[test]
fn the_schema_check_finds_deviations() {
    let schema = json!({
        "type": "object", "required": ["id"],
        "properties": { "id": { "type": "string" }, "at": { "type": ["string", "null"], "format": "date-time" } },
    });
    let schema: &'static Value = Box::leak(Box::new(schema));
    for good in
        [json!({ "id": "a" }), json!({ "id": "a", "at": null }), json!({ "id": "a", "at": "2026-06-18T12:00:00Z" })]
    {
        assert_eq!(fault(schema, &good, "it"), None);
    }
    for bad in
        [json!({}), json!([]), json!({ "id": 1 }), json!({ "id": "a", "at": "now" }), json!({ "id": "a", "b": 1 })]
    {
        assert!(fault(schema, &bad, "it").is_some(), "{bad}");
    }
}
