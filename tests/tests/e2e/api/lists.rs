//! Lists: the pages yield each item once, newest first, with the requested number of items. Invalid pages are refused.

mod deliveries;
mod others;
mod search;

use std::collections::BTreeSet;

use fanfare_tests::{patience::until, world::World};
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    assert_refused, checked_client::CheckedClient, conformance::contract, conformance::samples::Things, list, text,
};

/// Number of items of each kind: more than the largest page.
const MANY: usize = 101;

/// Lists without pages: the dialects, the plans, and the last attempts of a webhook.
const WHOLE: [&str; 5] =
    ["list_dialects", "list_plans", "list_signing_keys", "list_webhook_attempts", "list_webhook_templates"];

/// A list: path, default page size, total count if known, and the member that identifies an item.
struct List {
    path: String,
    usual: usize,
    all: Option<usize>,
    key: &'static str,
}

/// Creates many webhooks with a delivery each, a webhook with many deliveries, and many events, applications, parked
/// messages, replays, keys and sessions.
async fn many_of_each(world: &World, administrator: &CheckedClient) -> Things {
    join_all((1..MANY).map(async |number| {
        let url = world.receiver.url(&format!("wide/{number}"));
        let new = json!({ "url": url, "events": ["order.created"] });
        world.client().post("webhooks", &new).await.data();
        administrator.call(Method::POST, "/api/v1/applications", &json!({ "name": "another" })).await.data();
    }))
    .await;
    let busy = world.endpoint("busy", &["a", "order.created"]).await;
    world.publish(&json!({ "type": "order.created", "data": 1 })).await;
    let events: Vec<_> = (1..MANY).map(|number| json!({ "type": "a", "data": number })).collect();
    assert_eq!(world.client().post("events/batch", &json!(events)).await.status, 202);
    let (broker, routing_key) = (world.broker().await, format!("{}.a", world.application));
    for _ in 0..MANY {
        assert!(broker.publish(&routing_key, None, &[], "{}").await.expect("the broker"));
    }
    let parked = "SELECT count(*) FROM parked";
    until("every parked message", async || (world.count(parked).await == MANY as i64).then_some(())).await;
    let replays = format!(
        "INSERT INTO replays (id, application_id, event_types, states, since, until, rate_per_second, state)
         SELECT gen_random_uuid(), id, '{{}}', '{{failed}}', now(), now(), 1, 'done'
         FROM applications, generate_series(1, {MANY}) WHERE name = 'test'"
    );
    world.database().await.batch_execute(&replays).await.expect("replays");
    let keys = format!(
        "INSERT INTO api_keys (id, role, digest)
         SELECT gen_random_uuid(), 'admin', sha256('') FROM generate_series(1, {MANY} - (SELECT count(*) FROM api_keys))"
    );
    world.database().await.batch_execute(&keys).await.expect("keys");
    let sessions = format!(
        "INSERT INTO sessions (id, face, digest, application_id, rights, name, sign_in, lifetime_seconds, idle_seconds)
         SELECT gen_random_uuid(), 'portal', sha256(''), id, '{{view}}', 'ada', 'link', 3600, 3600
         FROM applications, generate_series(1, {MANY}) WHERE name = 'test'"
    );
    world.database().await.batch_execute(&sessions).await.expect("sessions");
    let types = format!(
        "INSERT INTO event_types (application_id, name, category, description, sample)
         SELECT id, 'type.' || n, 'a', 'b', '1' FROM applications, generate_series(1, {MANY}) n WHERE name = 'test'"
    );
    world.database().await.batch_execute(&types).await.expect("event types");
    let ordering_keys = format!(
        "INSERT INTO ordering_keys (endpoint_id, key, last, parked_at)
         SELECT id, 'key.' || n, 1, now() FROM endpoints, generate_series(1, {MANY}) n WHERE url LIKE '%/busy'"
    );
    world.database().await.batch_execute(&ordering_keys).await.expect("ordering keys");
    let usage =
        "INSERT INTO usage_days SELECT id, (now() AT TIME ZONE 'UTC')::date, 1, 1, 1, 0, 0, 1 FROM applications";
    world.database().await.batch_execute(usage).await.expect("usage");
    let made = "SELECT count(*) FROM all_attempts";
    until("every attempt", async || (world.count(made).await == 2 * MANY as i64 - 1).then_some(())).await;
    Things { webhook: busy.id, application: world.application.clone(), ..Things::unknown() }
}

/// All paged lists.
fn lists(things: &Things) -> Vec<List> {
    let mut lists = Vec::new();
    for route in contract::routes().iter().filter(|route| route.has_parameter("before")) {
        let (usual, all, key) = match route.name() {
            "list_applications" | "list_webhooks" | "list_events" | "list_parked" | "list_replays" | "list_keys" => {
                (50, Some(MANY), "id")
            }
            "list_webhook_configs" => (100, Some(MANY), "id"),
            "list_webhook_deliveries" => (50, Some(MANY), "id"),
            "list_deliveries" | "list_webhook_logs" | "list_attempts" => (50, Some(2 * MANY - 1), "id"),
            "list_audit_log" => (50, None, "id"),
            "list_sessions" => (50, Some(MANY), "id"),
            "list_webhook_health" => (50, Some(MANY), "webhook"),
            "list_ordering_keys" => (100, Some(MANY), "key"),
            "list_usage" => (50, Some(MANY), "application"),
            "list_event_types" => (100, None, "name"),
            other => panic!("the size of the list {other} is unknown: add the list to this test"),
        };
        lists.push(List { path: things.path(route), usual, all, key });
    }
    lists
}

#[tokio::test]
async fn page_by_page_each_list_yields_everything_once() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let administrator = CheckedClient::admin(&world).await;
    let things = many_of_each(&world, &administrator).await;
    let manager = CheckedClient::new(&world);
    for List { path, usual, all, key } in lists(&things) {
        let is_of_all = ["/applications", "/parked", "/keys", "/usage"].iter().any(|end| path.ends_with(end));
        let client = if is_of_all { &administrator } else { &manager };
        let first = client.get(&path).await;
        assert_eq!(list(first.data()).len(), usual, "{path} without a limit");
        let largest = client.walk(&path, 100).await;
        let ids: BTreeSet<&str> = largest.iter().map(|item| text(item, key)).collect();
        let all = all.unwrap_or(largest.len());
        assert_eq!((largest.len(), ids.len()), (all, all), "{path}: an item is missing or repeated");
        assert!(all >= MANY, "{path}: {all}");
        // Only ids are compared, because the time of a key's last use changes.
        let ids = |items: &[Value]| items.iter().map(|item| text(item, key).to_owned()).collect::<Vec<_>>();
        for limit in [7, 50] {
            assert_eq!(ids(&client.walk(&path, limit).await), ids(&largest), "{path} by {limit}");
        }
        assert_eq!(ids(&largest[..usual]), ids(list(first.data())), "{path}");
    }
    for (path, count) in [
        (format!("/api/v1/deliveries?state=delivered&webhook={}", things.webhook), MANY),
        ("/api/v1/events?type=a".to_owned(), MANY - 1),
        (format!("/webhooks/logs?config={}", things.webhook), MANY),
        (format!("/api/v1/webhooks/{}/deliveries?state=delivered", things.webhook), MANY),
    ] {
        let found = manager.walk(&path, 9).await;
        let ids: BTreeSet<&str> = found.iter().map(|item| text(item, "id")).collect();
        assert_eq!((found.len(), ids.len()), (count, count), "{path}");
    }
    let attempts = format!("/api/v1/webhooks/{}/attempts", things.webhook);
    for (path, count) in [(attempts.clone(), 5), (format!("{attempts}?limit=100"), 100)] {
        assert_eq!(list(manager.get(&path).await.data()).len(), count, "{path}");
    }
    assert_steady(&world, &manager).await;
}

/// Checks that items created and deleted between two pages do not shift the second page.
async fn assert_steady(world: &World, client: &CheckedClient) {
    let ids = |answer: &fanfare_tests::clients::api::Answer| -> Vec<String> {
        list(answer.data()).iter().map(|item| text(item, "id").to_owned()).collect()
    };
    let all = ids(&client.get("/api/v1/webhooks?limit=20").await);
    let first = client.get("/api/v1/webhooks?limit=10").await;
    let next = text(&first.body, "next").to_owned();
    world.endpoint("newer", &["a"]).await;
    client.call(Method::DELETE, &format!("/api/v1/webhooks/{}", all[0]), &json!({})).await.data();
    // The item of the cursor may be deleted, too.
    client.call(Method::DELETE, &format!("/api/v1/webhooks/{}", all[9]), &json!({})).await.data();
    let second = client.get(&format!("/api/v1/webhooks?limit=10&before={next}")).await;
    assert_eq!(ids(&second), all[10..], "the next page has shifted");
}

/// A last page that is full has no `next`, so that a client offers no empty page.
#[tokio::test]
async fn the_last_page_has_no_next() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    for path in ["a", "b", "c", "d"] {
        world.endpoint(path, &["a"]).await;
    }
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries("state=delivered", 4).await;
    let mut wrong = Vec::new();
    for path in ["/api/v1/webhooks", "/webhooks/configs", "/api/v1/deliveries", "/webhooks/logs"] {
        let first = client.get(&format!("{path}?limit=2")).await;
        let next = text(&first.body, "next");
        assert_ne!(next, "", "{path}: the first page has no next page");
        let last = client.get(&format!("{path}?limit=2&before={next}")).await;
        assert_eq!(list(last.data()).len(), 2, "{path}");
        if !last.body["next"].is_null() {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "the last page has a next page: {wrong:?}");
}

#[tokio::test]
async fn invalid_page_parameters_are_refused() {
    let world = World::shared().await;
    let (client, administrator) = (CheckedClient::new(&world), CheckedClient::admin(&world).await);
    let endpoint = world.endpoint("a", &["a"]).await;
    let things = Things { webhook: endpoint.id, ..Things::unknown() };
    let lists = contract::routes().into_iter().filter(|route| {
        route.successes() == [200]
            && route.method == Method::GET
            && text(route.operation, "operationId").starts_with("list_")
    });
    for route in lists.filter(|route| !WHOLE.contains(&route.name())) {
        assert!(route.has_parameter("limit") && route.has_parameter("before"), "{} has no pages", route.name());
        let client = if route.takes_admin() { &administrator } else { &client };
        let path = things.path(&route);
        let long = "0".repeat(2000);
        // Most texts are ordering keys.
        let is_text = route.name() == "list_ordering_keys";
        for before in ["1", "wh_", "usr_00000000000000000000000000", "null", "2026-13-18T12:00:00Z"] {
            let path = format!("{path}?before={before}");
            if !is_text {
                assert_refused(&path, &client.get(&path).await, (422, "invalid_field", "before"));
            }
        }
        for before in ["", "%00", long.as_str()] {
            let path = format!("{path}?before={before}");
            let code = if is_text && before.len() > 255 { "field_too_long" } else { "invalid_field" };
            assert_refused(&path, &client.get(&path).await, (422, code, "before"));
        }
        for limit in ["0", "101", "18446744073709551615"] {
            let path = format!("{path}?limit={limit}");
            assert_refused(&path, &client.get(&path).await, (422, "invalid_field", "limit"));
        }
        for limit in ["-1", "1.5", "many", "", "%00", "99999999999999999999999"] {
            let path = format!("{path}?limit={limit}");
            assert_refused(&path, &client.get(&path).await, (400, "invalid_query", "limit"));
        }
        for (query, field) in [("limt=1", "limt"), ("offset=1", "offset"), ("limit=1&page=2", "page")] {
            let path = format!("{path}?{query}");
            assert_refused(&path, &client.get(&path).await, (400, "invalid_query", field));
        }
        let twice = client.get(&format!("{path}?limit=1&limit=2")).await;
        assert_eq!((twice.status, twice.code()), (400, "invalid_query"), "{path}: {}", twice.body);
        assert_eq!(client.get(&format!("{path}?limit=100")).await.status, 200, "{path}");
    }
    let webhook = format!("/api/v1/webhooks/{}", things.webhook);
    for (path, refusal) in [
        ("/api/v1/events?type=a%20b".to_owned(), (422, "invalid_field", "type")),
        (format!("{webhook}/deliveries?state=lost"), (422, "invalid_field", "state")),
        (format!("{webhook}/attempts?limit=101"), (422, "invalid_field", "limit")),
        (format!("{webhook}/attempts?before=1"), (400, "invalid_query", "before")),
        ("/api/v1/deliveries?state=delivered&state=failed".to_owned(), (400, "invalid_query", "")),
    ] {
        assert_refused(&path, &client.get(&path).await, refusal);
    }
}

/// A page of a hundred long payloads would fill the memory of ingest.
#[tokio::test]
async fn a_long_payload_is_shown_alone_and_in_no_list() {
    const LONGEST: usize = 64 * 1024;
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("a", &["a"]).await;
    world.publish(&json!({ "type": "a", "data": "" })).await;
    let around = world.receiver.wait_for("a", 1).await[0].body.len();
    let listed = world.publish(&json!({ "type": "a", "data": "x".repeat(LONGEST - around) })).await;
    let long = world.publish(&json!({ "type": "a", "data": "x".repeat(LONGEST - around + 1) })).await;
    world.wait_for_deliveries("state=delivered", 3).await;
    let webhook = format!("/api/v1/webhooks/{}", endpoint.id);
    for (id, length) in [(&listed, LONGEST), (&long, LONGEST + 1)] {
        let received = world
            .receiver
            .received("a")
            .into_iter()
            .find(|request| request.event() == id)
            .expect("the event was delivered");
        let sent: Value = serde_json::from_slice(&received.body).expect("JSON");
        assert_eq!(received.body.len(), length);
        let in_lists = if length > LONGEST { &Value::Null } else { &sent };
        for (path, name) in [
            ("/api/v1/events".to_owned(), "id"),
            (format!("{webhook}/deliveries"), "event"),
            (format!("{webhook}/attempts"), "event_id"),
            ("/webhooks/logs".to_owned(), "event_id"),
        ] {
            let answer = client.get(&path).await;
            let item = list(answer.data()).iter().find(|item| item[name] == **id).expect("the event is listed");
            assert!(item["payload"] == *in_lists, "{path}: with {length} bytes");
        }
        let delivery = world.deliveries(&format!("event={id}")).await.remove(0);
        let shown = world.delivery(text(&delivery, "id")).await;
        assert!(
            text(&shown, "body").as_bytes() == received.body,
            "the body of {length} bytes differs from the delivered body"
        );
        let shown = crate::api::event(&world, id).await;
        assert!(shown["payload"] == sent, "the payload of {length} bytes differs from the delivered body");
    }
}
