//! Examples of an operation for curl. The page's script makes the examples for TypeScript and Python from them.

use serde_json::{Map, Value, json};

use crate::reference::document::{ROOT, entries, members, reference};

/// Methods of the SDKs, as TypeScript names them. Python writes `event_types.remove` for `eventTypes.remove`.
const METHODS: [(&str, &str); 41] = [
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
    ("read_feed", "webhooks.feed"),
    ("show_digest", "webhooks.digest"),
    ("test_filter", "webhooks.testFilter"),
    ("test_template", "webhooks.testTemplate"),
    ("list_webhook_templates", "webhooks.templates"),
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

/// The method of the SDKs for an operation.
pub(super) fn call(operation_id: &str) -> Option<&'static str> {
    METHODS.iter().find(|(id, _)| *id == operation_id).map(|(_, call)| *call)
}

/// Makes the example of an operation.
pub(super) fn curl(path: &str, method: &str, operation: &Value, body: Option<&Value>, schemas: &Value) -> String {
    let names = path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let value = |index| if index == 0 { id_at(path) } else { "1" };
    let filled = names
        .enumerate()
        .fold(path.to_owned(), |filled, (index, name)| filled.replace(&format!("{{{name}}}"), value(index)));
    let required = entries(&operation["parameters"])
        .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let query = required.filter_map(|parameter| {
        let name = parameter["name"].as_str()?;
        Some(format!("{name}={}", plain(&sample(&parameter["schema"], name, schemas))))
    });
    let query: Vec<String> = query.collect();
    let address = filled.strip_prefix(ROOT).map_or(format!("${{API%{ROOT}}}{filled}"), |path| format!("$API{path}"));
    let address = if query.is_empty() { address } else { format!("\"{address}?{}\"", query.join("&")) };
    let method = match (method.to_uppercase().as_str(), body) {
        ("GET", _) | ("POST", Some(_)) => String::new(),
        (method, _) => format!("-X {method} "),
    };
    let body = body.map(|schema| sample(schema, "", schemas).to_string().replace('\'', "'\\''"));
    let body = body.map(|body| format!(" --json '{body}'"));
    format!("curl {method}-H \"$AUTH\" {address}{}", body.unwrap_or_default())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
