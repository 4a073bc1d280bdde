//! The audit log: author, time, origin and content of each change. An entry is written before the change and is
//! immutable.

use fanfare_domain::ids::AuditId;
use fanfare_tests::{
    clients::api::Client,
    patience::until,
    world::{World, process::try_fanfare},
};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

async fn entries(client: &Client) -> Vec<Value> {
    client.get("audit-log?limit=100").await.data().as_array().expect("a list").clone()
}

/// Action and outcome of an entry.
fn told(entry: &Value) -> (&str, &str) {
    (entry["action"].as_str().unwrap_or_default(), entry["outcome"].as_str().unwrap_or_default())
}

fn key_of(token: &str) -> String {
    format!("key_{}", token.split('_').nth(1).expect("an id"))
}

#[tokio::test]
async fn each_change_is_logged_with_actor_action_and_address() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.start_ingest_with(&[("FANFARE_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let new = json!({
        "url": world.receiver.url("a"), "events": ["order.created"],
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "headers": { "authorization": "Bearer s3cret" },
    });
    let webhook = world.client().post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
    let path = format!("webhooks/{webhook}");
    let forwarded = [("content-type", "application/json"), ("x-forwarded-for", "1.2.3.4, 203.0.113.7")];
    let change = json!({ "name": "new" }).to_string();
    world.client().send(Method::PATCH, &path, &forwarded, change).await.expect("an answer").data();
    assert_eq!(world.client().patch(&path, &json!({ "name": 1 })).await.status, 422);
    assert_eq!(world.client().post(&format!("{path}/rotate-secret"), &json!({})).await.status, 200);
    assert_eq!(world.client().post(&format!("{path}/pause"), &Value::Null).await.status, 200);
    let deleted = world.client().send(Method::DELETE, &path, &[], "").await.expect("an answer");
    assert_eq!(deleted.status, 200);

    let all = entries(world.client()).await;
    let expected = [
        ("delete_webhook", "done"),
        ("pause_webhook", "done"),
        ("rotate_secret", "done"),
        ("change_webhook", "refused"),
        ("change_webhook", "done"),
        ("create_webhook", "done"),
        // Written by `fanfare key create` in the setup of the test.
        ("fanfare key create", "done"),
    ];
    assert_eq!(all.iter().map(told).collect::<Vec<_>>(), expected, "newest first: {all:?}");
    for entry in &all[..6] {
        assert_eq!((&entry["key"], &entry["application"]), (&json!(key_of(&world.key)), &json!(world.application)));
        if entry["outcome"] == "done" {
            assert_eq!(entry["subject"], json!([webhook]), "{entry}");
        }
    }
    assert_eq!((&all[4]["origin"], &all[5]["origin"]), (&json!("203.0.113.7"), &json!("127.0.0.1")));
    assert_eq!(all[4]["request"], json!({ "name": "new" }));
    assert_eq!(all[5]["request"]["headers"], json!({ "authorization": "…" }));
    assert_eq!(all[5]["request"]["secret"], "…");
    assert_eq!(all[6]["subject"], json!([key_of(&world.key)]));
    assert!(all[6]["key"].is_null() && all[6]["origin"].as_str().is_some_and(|origin| origin.contains('@')));
    let kept = "SELECT count(*) FROM audit_log a WHERE a::text LIKE '%s3cret%' OR a::text LIKE '%whsec_%'";
    assert_eq!(world.count(kept).await, 0);
}

#[tokio::test]
async fn each_application_reads_its_own_and_an_administrator_all() {
    let world = World::new().await;
    let (other_application, other) = world.other_application().await;
    let publisher =
        world.client().with_key(&world.create_key(&["--role", "publish", "--application", &world.application]));
    let admin = world.admin().await;
    // A request of a bound key is logged for the key's own application, whichever application the path names.
    let path = format!("applications/{}", world.application);
    assert_eq!(other.patch(&path, &json!({ "name": "taken over" })).await.status, 404);
    let named = format!("event-types?application={}", world.application);
    assert_eq!(other.post(&named, &json!({ "name": "a" })).await.status, 403);
    assert_eq!(publisher.post("event-types", &json!({ "name": "a" })).await.status, 403);
    assert_eq!(world.client().with_key("").post("event-types", &json!({})).await.status, 401);
    admin.patch(&path, &json!({ "name": "renamed" })).await.data();
    admin.post("keys", &json!({ "role": "publish", "application": world.application })).await.data();

    let own: Vec<_> = entries(world.client()).await;
    let own: Vec<_> = own.iter().map(told).collect();
    let command = ("fanfare key create", "done");
    let expected = [("create_key", "done"), ("change_application", "done"), command, command];
    assert_eq!(own, expected);
    // A change is logged for the changed application, whichever application the query names.
    let misled = format!("{path}?application={other_application}");
    admin.patch(&misled, &json!({ "name": "renamed again" })).await.data();
    let newest = entries(world.client()).await.remove(0);
    assert_eq!((told(&newest), &newest["request"]["name"]), (("change_application", "done"), &json!("renamed again")));
    let others: Vec<_> = entries(&other).await;
    let others: Vec<_> = others.iter().map(told).collect();
    assert_eq!(others, [("describe_event_type", "refused"), ("change_application", "refused"), command]);
    let all = entries(&admin).await;
    assert!(all.iter().any(|entry| told(entry) == ("fanfare app create", "done")), "{all:?}");
    let of_other = admin.get(&format!("audit-log?application={other_application}")).await;
    assert_eq!(of_other.data().as_array().map(Vec::len), Some(3));
    assert_eq!(publisher.get("audit-log").await.status, 403);
    assert_eq!(other.get(&format!("audit-log?application={}", world.application)).await.status, 403);
}

#[tokio::test]
async fn entries_are_found_by_action_outcome_object_and_time() {
    let world = World::new().await;
    let webhooks = [world.endpoint("a", &["a"]).await.id, world.endpoint("b", &["b"]).await.id];
    for webhook in &webhooks {
        world.client().post(&format!("webhooks/{webhook}/pause"), &Value::Null).await.data();
        assert_eq!(world.client().patch(&format!("webhooks/{webhook}"), &json!({ "name": 1 })).await.status, 422);
    }
    // The process of a request died before the answer.
    let lost = "INSERT INTO audit_log (id, application_id, origin, action)
                SELECT $1, application_id, '127.0.0.1', 'pause_webhook' FROM audit_log
                WHERE application_id IS NOT NULL LIMIT 1";
    let id = AuditId::new(Timestamp::now(), [7; 10]).0;
    world.database().await.execute(lost, &[&id]).await.expect("an entry");
    let all = entries(world.client()).await;
    let expect = async |query: &str, is_expected: &dyn Fn(&Value) -> bool| {
        let found = world.client().get(&format!("audit-log?{query}")).await.data().clone();
        let expected: Vec<&Value> = all.iter().filter(|entry| is_expected(entry)).collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{query} tests nothing");
        assert_eq!(found.as_array().expect("a list").iter().collect::<Vec<_>>(), expected, "{query}");
    };
    expect("action=pause_webhook", &|entry| entry["action"] == "pause_webhook").await;
    expect("action=pause_webhook,change_webhook&outcome=refused", &|entry| entry["outcome"] == "refused").await;
    let about = |entry: &Value| entry.to_string().contains(&webhooks[0]);
    expect(&format!("subject={}", webhooks[0]), &about).await;
    let done = |entry: &Value| about(entry) && entry["outcome"] == "done";
    expect(&format!("subject={}&outcome=done", webhooks[0]), &done).await;
    expect("outcome=unknown", &|entry| entry["outcome"].is_null()).await;
    let since = all[1]["at"].as_str().expect("a time").to_owned();
    expect(&format!("since={since}"), &|entry| entry["at"].as_str() >= Some(since.as_str())).await;
    let before = all[2]["id"].as_str().expect("an id");
    let first = all[4]["at"].as_str().expect("a time");
    let within = |entry: &Value| entry["at"].as_str() >= Some(first) && entry["id"].as_str() < Some(before);
    expect(&format!("since={first}&before={before}"), &within).await;
    // PostgreSQL has no time before 4714 BC.
    let ancient = world.client().get("audit-log?since=-004800-01-01T00:00:00Z").await;
    assert_eq!(ancient.data().as_array().map(Vec::len), Some(all.len()));
    for query in ["attempts?until=-004800-01-01T00:00:00Z", "events?until=-004800-01-01T00:00:00Z"] {
        assert_eq!(world.client().get(query).await.data(), &json!([]), "{query}");
    }
    let place = format!("attempts?before=-300000000000000000.dlv_{}.1", "0".repeat(26));
    let refused = world.client().get(&place).await;
    assert_eq!((refused.status, refused.field()), (422, "before"), "{}", refused.body);
    // Over all applications.
    let of_admin = world.admin().await.get(&format!("audit-log?subject={}", webhooks[1])).await;
    let of_second = all.iter().filter(|entry| entry.to_string().contains(&webhooks[1]));
    assert_eq!(of_admin.data().as_array().expect("a list").iter().collect::<Vec<_>>(), of_second.collect::<Vec<_>>());
    for (query, field) in
        [("outcome=lost", "outcome"), ("action=%00", "action"), ("since=today", "since"), ("subject=x", "subject")]
    {
        let refused = world.client().get(&format!("audit-log?{query}")).await;
        assert_eq!((refused.status, refused.field()), (422, field), "{query}");
    }
}

/// A client cannot hide the outcome of a request by closing the connection early.
#[tokio::test]
async fn a_request_of_a_disconnected_client_is_logged_with_its_outcome() {
    let world = World::new().await;
    let address = world.ingest().address("serving the API").await;
    let body = json!({ "url": world.receiver.url("a"), "events": ["order.created"] }).to_string();
    let request = format!(
        "POST /api/v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        world.key,
        body.len()
    );
    // The table lock delays the request until the client has closed the connection.
    let mut database = world.database().await;
    let transaction = database.transaction().await.expect("a transaction");
    transaction.batch_execute("LOCK TABLE endpoints").await.expect("locked");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("sent");
    let begun = "SELECT count(*) FROM audit_log WHERE action = 'create_webhook'";
    until("the audit entry of the request", async || (world.count(begun).await == 1).then_some(())).await;
    drop(stream);
    transaction.rollback().await.expect("let go");
    let done = until("the outcome of the request in the audit log", async || {
        let newest = entries(world.client()).await.remove(0);
        (!newest["outcome"].is_null()).then_some(newest)
    })
    .await;
    assert_eq!(told(&done), ("create_webhook", "done"));
    assert_eq!(done["subject"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn audit_entries_cannot_be_changed_or_deleted_before_90_days() {
    let world = World::new().await;
    let database = world.database().await;
    for statement in [
        "UPDATE audit_log SET origin = 'somebody else'",
        "UPDATE audit_log SET outcome = 'refused'",
        "UPDATE audit_log SET outcome = NULL",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ] {
        let error = database.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{statement}: {error}");
    }
    let old = "INSERT INTO audit_log (id, at, origin, action)
               SELECT gen_random_uuid(), now() - age, 'test', 'test'
               FROM unnest(ARRAY[interval '100 days', interval '500 days']) AS age";
    database.batch_execute(old).await.expect("entries of the past");
    let before = world.count("SELECT count(*) FROM audit_log").await;
    let deleted = database.execute("DELETE FROM audit_log WHERE at < now() - interval '90 days'", &[]).await;
    assert_eq!(deleted.expect("entries older than 90 days may be deleted"), 2);
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, before - 2);
}

/// A change that cannot be logged is refused.
#[tokio::test]
async fn a_change_is_refused_while_the_audit_log_is_unavailable() {
    let world = World::new().await;
    let database = world.database().await;
    database.batch_execute("ALTER TABLE audit_log RENAME TO elsewhere").await.expect("renamed");
    let new = json!({ "url": world.receiver.url("a"), "events": ["order.created"] });
    let refused = world.client().post("webhooks", &new).await;
    assert_eq!(refused.status, 500, "{}", refused.body);
    let (_, error) = try_fanfare(&world.variables, &["key", "create", "--role", "admin"]);
    assert!(error.is_some_and(|error| error.contains("audit log")));
    assert_eq!(world.count("SELECT (SELECT count(*) FROM endpoints) + (SELECT count(*) FROM api_keys)").await, 1);
    assert_eq!(world.client().get("webhooks").await.status, 200, "reads are served without the log");
    assert_eq!(world.client().post("events", &json!({ "type": "a", "data": 1 })).await.status, 202);
}
