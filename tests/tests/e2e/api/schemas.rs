//! Schemas of event types: versions, strict applications, samples and imports.

use fanfare_tests::{
    patience::until,
    world::{World, process::try_fanfare},
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::JSON, list, text};

fn order(rule: &Value) -> Value {
    json!({ "name": "order.created", "schema": { "type": "object", "required": ["items"], "properties": {
        "items": { "type": "array", "items": { "type": "object", "properties": { "price": rule } } } } } })
}

async fn make_strict(world: &World) {
    let path = format!("applications/{}", world.application);
    world.client().patch(&path, &json!({ "strict": true })).await.data();
    world.known().await;
}

/// Describes orders with prices that are numbers in version 1, and texts in version 2.
async fn describe_two_versions(world: &World) {
    for kind in ["number", "string"] {
        world.client().post("event-types", &order(&json!({ "type": kind }))).await.data();
    }
}

fn event(version: Option<u32>, price: Value) -> Value {
    let mut event = json!({ "type": "order.created", "data": { "items": [{ "price": price }] } });
    if let Some(version) = version {
        event["version"] = json!(version);
    }
    event
}

/// Adds data, so that the check does not run where the event is read.
fn large(mut event: Value) -> Value {
    event["data"]["note"] = json!("x".repeat(10_000));
    event
}

#[tokio::test]
async fn another_schema_is_the_next_version_and_each_version_is_shown() {
    let world = World::shared().await;
    let (client, (_, other)) = (world.client(), world.other_application().await);
    let numbers = order(&json!({ "type": "number", "minimum": 5 }));
    let made = client.post("event-types", &numbers).await;
    assert_eq!((made.status, &made.data()["schema_version"]), (201, &json!(1)), "{}", made.body);
    assert_eq!(made.data()["sample"], json!({ "items": [{ "price": 5 }] }), "generated from the schema");
    assert_eq!(client.post("event-types", &numbers).await.data()["schema_version"], 1);
    let texts = order(&json!({ "type": "string", "examples": ["7 EUR"] }));
    assert_eq!(client.post("event-types", &texts).await.data()["schema_version"], 2);
    let shown = client.get("event-types/order.created").await;
    assert_eq!((&shown.data()["schema"], &shown.data()["schema_version"]), (&texts["schema"], &json!(2)));
    assert_eq!(shown.data()["sample"], json!({ "items": [{ "price": "7 EUR" }] }));
    let first = client.get("event-types/order.created/schemas/1").await;
    assert_eq!((&first.data()["schema"], &first.data()["version"]), (&numbers["schema"], &json!(1)));
    let listed = client.get("event-types").await;
    let of_name = |described: &&Value| described["name"] == "order.created";
    let listed = list(listed.data()).iter().find(of_name).cloned().expect("the type");
    assert_eq!((&listed["schema_version"], listed.get("schema")), (&json!(2), None));

    // Without the member `schema`, the schemas stay. A sample of the application's own must fit.
    let described = json!({ "name": "order.created", "description": "An order", "sample": { "items": [] } });
    let kept = client.post("event-types", &described).await;
    assert_eq!((&kept.data()["schema_version"], &kept.data()["sample"]), (&json!(2), &json!({ "items": [] })));
    let wrong = json!({ "name": "order.created", "sample": { "items": [{ "price": 1 }] } });
    let refused = client.post("event-types", &wrong).await;
    assert_refused("a sample", &refused, (422, "data_mismatch", "sample"));
    assert!(text(&refused.body["error"], "message").contains("/items/0/price"), "{}", refused.body);

    for path in ["event-types/order.created/schemas/3", "event-types/never.described/schemas/1"] {
        assert_refused(path, &client.get(path).await, (404, "not_found", "version"));
    }
    let foreign = other.get("event-types/order.created/schemas/1").await;
    assert_refused("another's", &foreign, (404, "not_found", "version"));
    let removed = client.post("event-types", &json!({ "name": "order.created", "schema": null })).await;
    assert_eq!((removed.status, &removed.data()["schema_version"]), (201, &Value::Null));
    client.post("event-types", &numbers).await.data();
    client.delete("event-types/order.created").await.data();
    assert_eq!(world.rows("event_schemas", "true").await, 0, "a removed type has no schemas");
}

#[tokio::test]
async fn a_hostile_or_invalid_schema_is_refused() {
    let world = World::shared().await;
    let client = world.client();
    let doubling: serde_json::Map<_, _> = (0..40)
        .map(|nth| {
            let next = json!({ "$ref": format!("#/$defs/{}", (nth + 1) % 41) });
            (nth.to_string(), json!({ "allOf": [next, next] }))
        })
        .chain([("40".to_owned(), json!({}))])
        .collect();
    for (what, schema, part) in [
        ("no object", json!([]), "JSON object"),
        ("no schema", json!({ "type": "text" }), "/type"),
        ("a file", json!({ "$ref": "file:///etc/passwd" }), "$ref"),
        ("the network", json!({ "$ref": format!("{}/schema.json", world.receiver.url("a")) }), "$ref"),
        ("a loop", json!({ "$ref": "#" }), "back to itself"),
        ("growth", json!({ "$ref": "#/$defs/0", "$defs": doubling }), "chain"),
        ("a large pattern", json!({ "pattern": "(((x{100}){100}){100}){100}" }), "states"),
        ("a long schema", json!({ "description": "x".repeat(64 * 1024) }), "bytes"),
        ("another draft", json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "2020-12"),
    ] {
        let refused = client.post("event-types", &json!({ "name": "a", "schema": schema })).await;
        assert_refused(what, &refused, (422, "invalid_field", "schema"));
        let message = text(&refused.body["error"], "message");
        assert!(message.contains(part), "{what}: {message}");
    }
    assert_eq!(world.receiver.received("a").len(), 0, "Fanfare asked for a schema");
}

#[tokio::test]
async fn a_strict_application_refuses_data_that_does_not_fit() {
    let world = World::shared().await;
    let client = world.client();
    describe_two_versions(&world).await;
    world.known().await;
    let lax = client.post("events", &event(Some(7), json!(null))).await;
    assert_eq!(lax.status, 202, "an application that is not strict checks nothing: {}", lax.body);
    make_strict(&world).await;

    let refused = until("ingest to load the strict setting", async || {
        let answer = client.post("events", &event(None, json!(1))).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_refused("a number", &refused, (422, "data_mismatch", "data"));
    let message = text(&refused.body["error"], "message");
    let expected = r#"`data` does not fit version 2 of the schema, at /items/0/price: 1 is not of type "string""#;
    assert_eq!(message, expected);
    for (event, status) in [
        (event(None, json!("1")), 202),
        (event(Some(2), json!("1")), 202),
        (event(Some(1), json!(1)), 202),
        (event(Some(1), json!("1")), 422),
    ] {
        let answer = client.post("events", &event).await;
        assert_eq!(answer.status, status, "{event}: {}", answer.body);
    }
    assert_refused(
        "no version",
        &client.post("events", &event(Some(3), json!(1))).await,
        (422, "invalid_field", "version"),
    );
    for second in [event(None, json!(1)), large(event(None, json!(1)))] {
        let batch = client.post("events/batch", &json!([event(None, json!("1")), second])).await;
        let code = &batch.data()[1]["error"]["code"];
        assert_eq!((batch.status, code), (207, &json!("data_mismatch")), "{}", batch.body);
    }
    let unchecked = client.post("events", &json!({ "type": "invoice.paid", "data": 1 })).await;
    assert_eq!(unchecked.status, 202, "a type without a schema: {}", unchecked.body);
}

#[tokio::test]
async fn a_strict_application_parks_data_that_does_not_fit() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let broker = world.broker().await;
    describe_two_versions(&world).await;
    make_strict(&world).await;
    let key = format!("{}.order.created", world.application);
    let bodies = [
        ("one", event(Some(1), json!(1))),
        ("two", event(None, json!("amqp"))),
        ("large", large(event(None, json!("amqp")))),
        ("bad", event(None, json!(1))),
        ("large-bad", large(event(None, json!(1)))),
    ];
    for (id, body) in &bodies {
        let body = body.to_string();
        assert!(broker.publish(&key, Some(id), &[], &body).await.expect("the broker"));
    }
    let parked = format!(
        "SELECT count(*) FROM parked WHERE reason = 'data_mismatch' AND message_id IN ('bad', 'large-bad')
         AND routing_key = '{key}' AND message LIKE '%/items/0/price%'"
    );
    until("the parked messages", async || (world.count(&parked).await == 2).then_some(())).await;
    for id in ["one", "two", "large"] {
        until(id, async || (world.rows("events", &format!("key = '{id}'")).await == 1).then_some(())).await;
    }
    assert_eq!(world.rows("events", "key IN ('bad', 'large-bad')").await, 0);
    let received = world.receiver.wait_for(&endpoint.path, 3).await;
    let has_version =
        |request: &fanfare_tests::receiver::Received| String::from_utf8_lossy(&request.body).contains("version");
    assert!(!received.iter().any(has_version), "the version is delivered");
}

/// An event with a 202 is not judged by a later schema. A dispatcher reads the newest schema before parking.
#[tokio::test]
async fn an_accepted_event_is_delivered_despite_a_later_schema() {
    let world = World::new().await;
    world.endpoint("a", &["*"]).await;
    let (client, broker) = (world.client(), world.broker().await);
    client.post("event-types", &order(&json!({ "type": "number" }))).await.data();
    make_strict(&world).await;
    let of = |price: Value| json!({ "type": "order.created", "data": { "items": [{ "price": price }] } });
    let accepted = world.publish(&of(json!(1))).await;
    client.post("event-types", &order(&json!({ "type": "string" }))).await.data();
    let key = format!("{}.order.created", world.application);
    assert!(broker.publish(&key, Some("amqp"), &[], &of(json!(1)).to_string()).await.expect("the broker"));
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries(&format!("event={accepted}&state=delivered"), 1).await;
    let parked = "SELECT count(*) FROM parked WHERE reason = 'data_mismatch' AND message_id = 'amqp'";
    until("the parked message", async || (world.count(parked).await == 1).then_some(())).await;

    let no_notices = "ALTER TABLE applications DISABLE TRIGGER announce";
    world.database().await.batch_execute(no_notices).await.expect("the database answers");
    client.post("event-types", &order(&json!({ "type": "boolean" }))).await.data();
    assert!(broker.publish(&key, Some("newest"), &[], &of(json!(true)).to_string()).await.expect("the broker"));
    world.receiver.wait_for("a", 2).await;
}

/// A document of a shop, as OpenAPI 3.1.
const OPENAPI: &str = include_str!("schemas/shop.openapi.yaml");

/// A document of a factory, as AsyncAPI 3.
const ASYNCAPI: &str = include_str!("schemas/factory.asyncapi.json");

#[tokio::test]
async fn a_document_is_imported_whole_or_not_at_all() {
    let world = World::shared().await;
    let client = world.client();
    let document: Value = serde_json::from_str(ASYNCAPI).expect("JSON");
    let import =
        async |query: &str, document: &Value| client.post(&format!("event-types/import{query}"), document).await;
    let results = |answer: &Value| -> Vec<(String, String)> {
        let types = list(&answer["types"]).iter();
        let mut results: Vec<_> =
            types.map(|of| (text(of, "name").to_owned(), text(of, "result").to_owned())).collect();
        results.sort();
        results
    };
    let with = |result: &str| {
        [("machine.failed".to_owned(), result.to_owned()), ("machine.started".to_owned(), result.to_owned())]
    };
    let dry = import("?dry_run=true", &document).await;
    assert_eq!((results(dry.data()), &dry.data()["imported"]), (with("created").to_vec(), &json!(false)));
    assert_eq!(world.rows("event_types", "true").await, 0);
    let done = import("", &document).await;
    assert_eq!((results(done.data()), &done.data()["imported"]), (with("created").to_vec(), &json!(true)));
    let shown = client.get("event-types/machine.failed").await.data().clone();
    assert_eq!((text(&shown, "description"), &shown["schema_version"]), ("A machine stopped by itself", &json!(1)));
    assert_eq!(shown["sample"], json!({ "machine": "m-1", "error": { "code": 7 } }), "the document's example");
    let mut changed = import("", &document).await;
    assert_eq!(results(changed.data()), with("unchanged"));

    let mut broken = document.clone();
    broken["components"]["schemas"]["Error"]["properties"]["code"] = json!({ "type": "string" });
    broken["components"]["messages"]["started"]["payload"] = json!({ "$ref": "https://example.com/other.json" });
    changed = import("", &broken).await;
    let expected =
        vec![("machine.failed".to_owned(), "refused".to_owned()), ("machine.started".to_owned(), "refused".to_owned())];
    assert_eq!((results(changed.data()), &changed.data()["imported"]), (expected, &json!(false)), "{}", changed.body);
    broken["components"]["messages"]["failed"]["examples"] = json!([]);
    changed = import("", &broken).await;
    assert_eq!(changed.data()["imported"], false);
    assert_eq!(client.get("event-types/machine.failed").await.data()["schema_version"], 1, "nothing is imported");
    changed = import("?skip_refused=true", &broken).await;
    assert_eq!(changed.data()["imported"], true);
    let shown = client.get("event-types/machine.failed").await.data().clone();
    assert_eq!(shown["schema_version"], 2);
    assert_eq!(shown["sample"]["error"]["code"], "text", "the sample that no longer fits is dropped");

    for (what, body, code) in [
        ("no JSON", "{", (400, "malformed_json")),
        ("another document", "{\"swagger\":\"2.0\"}", (422, "invalid_field")),
        ("no events", "{\"openapi\":\"3.1.0\"}", (422, "invalid_field")),
    ] {
        let refused =
            client.send(Method::POST, "event-types/import", &[JSON], body.to_owned()).await.expect("an answer");
        assert_eq!((refused.status, text(&refused.body["error"], "code")), code, "{what}: {}", refused.body);
    }
    let entry = client.get("audit-log?action=import_event_types").await;
    assert_eq!(entry.status, 200, "{}", entry.body);
    assert!(!entry.body.to_string().contains("machine"), "the audit log keeps no document: {}", entry.body);
}

#[tokio::test]
async fn the_command_imports_yaml() {
    let world = World::new().await;
    let address = world.ingest().address("serving the API").await;
    let key = world.create_key(&["--role", "manage", "--application", &world.application]);
    let variables = [("FANFARE_API", format!("http://{address}")), ("FANFARE_KEY", key.trim().to_owned())];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    let folder = std::env::temp_dir().join(format!("fanfare-import-{}", world.application));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("shop.yaml");
    std::fs::write(&file, OPENAPI).expect("a file");
    let file = file.to_str().expect("a path");
    let run = |arguments: &[&str]| try_fanfare(&variables, &[&["event-types", "import", file], arguments].concat());
    let (printed, failed) = run(&[]);
    let failed = failed.expect("a refused type");
    assert!(failed.contains("1 types are refused") && printed.contains("order.lost"), "{printed} {failed}");
    let (printed, failed) = run(&["--skip-refused", "--json"]);
    assert_eq!(failed, None);
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{printed}");
    let shown = world.client().get("event-types/order.created").await.data().clone();
    assert_eq!((text(&shown, "category"), &shown["schema_version"]), ("Orders", &json!(1)));
    assert_eq!(shown["schema"]["$defs"]["Money"]["properties"]["currency"]["pattern"], "^[A-Z]{3}$");
    let (printed, _) = run(&["--dry-run", "--skip-refused"]);
    assert!(printed.contains("unchanged"), "{printed}");
    std::fs::remove_dir_all(&folder).expect("the folder");
}
