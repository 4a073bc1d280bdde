//! Examples of an operation: curl, TypeScript and Python.

use serde_json::{Map, Value, json};

use crate::reference::document::{ROOT, entries, members, reference};

/// An operation in three languages.
pub(super) struct Examples {
    pub(super) curl: String,
    pub(super) typescript: String,
    pub(super) python: String,
}

/// Methods of the SDKs, as TypeScript names them. Python writes `event_types.remove` for `eventTypes.remove`.
const METHODS: [(&str, &str); 36] = [
    ("create_webhook", "webhooks.create"),
    ("list_webhooks", "webhooks.list"),
    ("show_webhook", "webhooks.get"),
    ("change_webhook", "webhooks.change"),
    ("delete_webhook", "webhooks.delete"),
    ("enable_webhook", "webhooks.enable"),
    ("disable_webhook", "webhooks.disable"),
    ("pause_webhook", "webhooks.pause"),
    ("test_webhook", "webhooks.test"),
    ("rotate_secret", "webhooks.rotateSecret"),
    ("end_rotation", "webhooks.endRotation"),
    ("list_ordering_keys", "webhooks.orderingKeys"),
    ("list_events", "events.list"),
    ("show_event", "events.get"),
    ("explain_event", "events.why"),
    ("explain_event_by_key", "events.whyByKey"),
    ("cancel_event", "events.cancel"),
    ("cancel_event_by_key", "events.cancelByKey"),
    ("list_deliveries", "deliveries.list"),
    ("show_delivery", "deliveries.get"),
    ("resend_delivery", "deliveries.resend"),
    ("resend_deliveries", "deliveries.resendMany"),
    ("list_attempts", "attempts.list"),
    ("create_replay", "replays.create"),
    ("count_replay", "replays.dryRun"),
    ("list_replays", "replays.list"),
    ("show_replay", "replays.get"),
    ("pause_replay", "replays.pause"),
    ("resume_replay", "replays.resume"),
    ("cancel_replay", "replays.cancel"),
    ("list_event_types", "eventTypes.list"),
    ("describe_event_type", "eventTypes.describe"),
    ("show_event_type", "eventTypes.get"),
    ("remove_event_type", "eventTypes.remove"),
    ("publish_event", "publish"),
    ("publish_events", "publishBatch"),
];

/// Members that tell most, of types without a required member.
const TELLING: [&str; 6] = ["events", "state", "deliveries", "ids", "name", "message_id"];

/// A time in examples.
const MOMENT: &str = "2026-06-18T12:00:00Z";

/// An example request.
struct Example<'a> {
    /// Path with an id.
    path: String,
    /// Path as the document has it.
    template: &'a str,
    method: String,
    /// Names and values in the path.
    ids: Vec<(&'a str, Value)>,
    /// Required parameters of the query.
    query: Vec<(&'a str, Value)>,
    body: Option<Value>,
    /// Name of the body's type.
    type_name: Option<&'a str>,
}

/// Makes the examples of an operation.
pub(super) fn of(path: &str, method: &str, operation: &Value, body: Option<&Value>, schemas: &Value) -> Examples {
    let names = path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let value = |(index, name)| (name, if index == 0 { Value::from(id_at(path)) } else { Value::from(1) });
    let ids: Vec<(&str, Value)> = names.enumerate().map(value).collect();
    let required = entries(&operation["parameters"])
        .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let example = Example {
        path: ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), &plain(id))),
        template: path,
        method: method.to_uppercase(),
        ids,
        query: required
            .filter_map(|parameter| {
                Some((parameter["name"].as_str()?, sample(&parameter["schema"], parameter["name"].as_str()?, schemas)))
            })
            .collect(),
        body: body.map(|schema| sample(schema, "", schemas)),
        // An optional body is a type or null.
        type_name: body.and_then(|schema| reference(schema).or_else(|| entries(&schema["oneOf"]).find_map(reference))),
    };
    let operation_id = operation["operationId"].as_str().unwrap_or_default();
    let call = METHODS.iter().find(|(id, _)| *id == operation_id).map(|(_, call)| *call);
    Examples { curl: curl(&example), typescript: typescript(&example, call), python: python(&example, call) }
}

/// An id for a path.
fn id_at(path: &str) -> &'static str {
    match path.trim_start_matches("/api/v1/").split('/').next().unwrap_or_default() {
        "applications" => "app_…",
        "webhooks" | "webhook-configs" => "wh_…",
        "deliveries" => "dlv_…",
        "events" => "evt_…",
        "event-types" => "order.created",
        "parked" => "prk_…",
        "replays" => "rpl_…",
        "keys" => "key_…",
        "sessions" => "ses_…",
        _ => "…",
    }
}

/// A value for a schema: its example, or the required members, or the first member.
fn sample(schema: &Value, name: &str, schemas: &Value) -> Value {
    if let Some(of_type) = reference(schema) {
        return sample(&schemas[of_type], name, schemas);
    }
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    let alternative = entries(&schema["oneOf"]).chain(entries(&schema["allOf"])).find(|part| part["type"] != "null");
    if let Some(part) = alternative {
        return sample(part, name, schemas);
    }
    if let Some(first) = entries(&schema["enum"]).next() {
        return first.clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
    match (kind, name) {
        (_, "data") => json!({ "order": 1001 }),
        (_, "overlap_seconds") => Value::from(86_400),
        (_, "message_id") => Value::from("order-1001-created"),
        (_, "state") => Value::from("failed"),
        ("array", _) => Value::from(vec![sample(&schema["items"], name, schemas)]),
        ("object", _) if schema["properties"].is_object() => object(schema, schemas),
        ("object", _) | ("", _) => Value::Object(Map::new()),
        ("integer" | "number", _) => Value::from(1),
        ("boolean", _) => Value::from(true),
        (_, "url") => Value::from("https://example.com/hooks"),
        (_, "webhook") => Value::from("wh_…"),
        (_, "application") => Value::from("app_…"),
        (_, "deliveries") => Value::from("dlv_…"),
        (_, "key") => Value::from("order-1001-created"),
        (_, "role") => Value::from("manage"),
        (_, "name" | "q") => Value::from("shop"),
        (_, "since" | "until") => Value::from(MOMENT),
        (_, "ids") => Value::from("prk_…"),
        (_, "events" | "types") => Value::from("order.*"),
        (_, "schedule") => Value::from("60s"),
        (_, "from") => Value::from(MOMENT),
        (_, name) => Value::from(name),
    }
}

fn object(schema: &Value, schemas: &Value) -> Value {
    let required: Vec<&str> = entries(&schema["required"]).filter_map(Value::as_str).collect();
    let properties = &schema["properties"];
    let is_webhook = !properties["url"].is_null() && !properties["events"].is_null();
    let chosen: Vec<(&str, &Value)> = if required.is_empty() {
        let telling = TELLING.iter().find_map(|name| members(properties).find(|(member, _)| member == name));
        telling.or_else(|| members(properties).next()).into_iter().collect()
    } else {
        // A webhook without a URL is the exception.
        members(properties).filter(|(name, _)| required.contains(name) || is_webhook && *name == "url").collect()
    };
    Value::Object(chosen.into_iter().map(|(name, schema)| (name.to_owned(), sample(schema, name, schemas))).collect())
}

fn curl(example: &Example<'_>) -> String {
    let query: Vec<String> = example.query.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let beginning = if example.path.starts_with(ROOT) { "$API" } else { "${API%/api/v1}" };
    let address = format!("{beginning}{}{mark}{}", example.path.trim_start_matches(ROOT), query.join("&"));
    let address = if query.is_empty() { address } else { format!("\"{address}\"") };
    let method = match (example.method.as_str(), &example.body) {
        ("GET", _) | ("POST", Some(_)) => String::new(),
        (method, _) => format!("-X {method} "),
    };
    let body = example.body.as_ref().map(|body| format!(" --json '{}'", body.to_string().replace('\'', "'\\''")));
    format!("curl {method}-H \"$AUTH\" {address}{}", body.unwrap_or_default())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Single quotes, and names without quotes.
fn typescript_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(entries) => {
            format!("[{}]", entries.iter().map(typescript_value).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let member = |(name, value): (&String, &Value)| {
                let name = if is_name(name) { name.clone() } else { format!("'{name}'") };
                format!("{name}: {}", typescript_value(value))
            };
            format!("{{ {} }}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn python_value(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        Value::Array(entries) => format!("[{}]", entries.iter().map(python_value).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("\"{name}\": {}", python_value(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

fn typescript(example: &Example<'_>, call: Option<&str>) -> String {
    let ids = example.ids.iter().map(|(_, id)| typescript_value(id));
    let body = example.body.as_ref().map(typescript_value);
    if let Some(call) = call {
        let query = example.query.iter().map(|(_, value)| typescript_value(value));
        let arguments: Vec<String> = ids.chain(query).chain(body).collect();
        // A list is read by `for await`.
        let awaits = if call.ends_with(".list") { "" } else { "await " };
        return format!("{awaits}fanfare.{call}({})", arguments.join(", "));
    }
    let mut parts = Vec::new();
    let mut parameters = Vec::new();
    if !example.ids.is_empty() {
        let ids = example.ids.iter().map(|(name, id)| format!("{name}: {}", typescript_value(id)));
        parameters.push(format!("path: {{ {} }}", ids.collect::<Vec<_>>().join(", ")));
    }
    if !example.query.is_empty() {
        let query: Vec<String> =
            example.query.iter().map(|(name, value)| format!("{name}: {}", typescript_value(value))).collect();
        parameters.push(format!("query: {{ {} }}", query.join(", ")));
    }
    if !parameters.is_empty() {
        parts.push(format!("params: {{ {} }}", parameters.join(", ")));
    }
    if let Some(body) = body {
        parts.push(format!("body: {body}"));
    }
    let options = if parts.is_empty() { String::new() } else { format!(", {{ {} }}", parts.join(", ")) };
    format!("await {}('{}'{options})", example.method, example.template)
}

fn python(example: &Example<'_>, call: Option<&str>) -> String {
    let ids = example.ids.iter().map(|(_, id)| python_value(id));
    if let Some(call) = call {
        let body = example.body.as_ref().map(|body| python_body(call, example.type_name, body));
        let query = example.query.iter().map(|(_, value)| python_value(value));
        let arguments: Vec<String> = ids.chain(query).chain(body).collect();
        return format!("fanfare.{}({})", snake(call), arguments.join(", "));
    }
    let query: Map<String, Value> =
        example.query.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let query =
        if query.is_empty() { String::new() } else { format!(", params={}", python_value(&Value::Object(query))) };
    let body = example.body.as_ref().map(|body| format!(", json={}", python_value(body))).unwrap_or_default();
    let path = example.path.trim_start_matches(ROOT);
    let beginning = if example.path.starts_with(ROOT) { "" } else { "api[:-7] + " };
    format!("http.{}({beginning}\"{path}\"{query}{body})", example.method.to_lowercase())
}

/// The argument of a method: a model, or the members of an event.
fn python_body(call: &str, type_name: Option<&str>, body: &Value) -> String {
    let members = |body: &Value| {
        let python = |value: &Value| match value.as_str() {
            Some(MOMENT) => "datetime(2026, 6, 18, 12, tzinfo=timezone.utc)".to_owned(),
            _ => python_value(value),
        };
        let member = |(name, value): (&str, &Value)| format!("{name}={}", python(value));
        members(body).map(member).collect::<Vec<_>>().join(", ")
    };
    match (call, body) {
        ("publish", body) => format!("{}, {}", python_value(&body["type"]), python_value(&body["data"])),
        ("publishBatch", Value::Array(events)) => {
            let events: Vec<String> =
                events.iter().map(|event| format!("models.NewEvent({})", members(event))).collect();
            format!("[{}]", events.join(", "))
        }
        (_, body) => format!("models.{}({})", type_name.unwrap_or_default(), members(body)),
    }
}

/// `event_types.dry_run` for `eventTypes.dryRun`.
fn snake(call: &str) -> String {
    let mut name = String::new();
    for letter in call.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
