//! The OpenAPI document: served to everybody, complete, and true for all routes. Each answer through a `CheckedClient`
//! is checked, too.

use std::collections::BTreeSet;

use fanfare_tests::world::World;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    conformance::contract,
    conformance::samples::{self, CONFIDENTIAL, Things},
    delivery_in, event, list, text,
};

#[tokio::test]
async fn the_openapi_document_and_its_page_need_no_key() {
    let world = World::shared().await;
    let anybody = CheckedClient::new(&world).with_key("");
    let served = anybody.send(Method::GET, "/api/v1/openapi.json", &[], "").await;
    assert_eq!((served.status, &served.headers["content-type"]), (200, &"application/json".parse().expect("a value")));
    assert_eq!(&served.body, contract::document());

    let page = anybody.send(Method::GET, "/docs", &[], "").await;
    assert_eq!(
        (page.status, &page.headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().expect("a value"))
    );
    assert!(page.text.len() <= 100_000, "{} bytes", page.text.len());
    // Nothing is loaded from elsewhere: the page works offline.
    assert!(!page.text.contains("src=") && !page.text.contains("<link"), "the page loads a file");
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"), "{policy}");
    let tag = page.headers["etag"].to_str().expect("text");
    let again = anybody.send(Method::GET, "/docs", &[("if-none-match", tag)], "").await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
}

/// Generators of client code derive function names from operation ids.
#[test]
fn every_operation_has_a_unique_name_and_a_summary() {
    let mut names = BTreeSet::new();
    for route in contract::routes() {
        assert!(
            names.insert(route.name()),
            "the operation id {} is used twice, for example by {} {}",
            route.name(),
            route.method,
            route.path
        );
        assert_ne!(text(route.operation, "summary"), "", "{} has no summary", route.name());
        assert!(!list(&route.operation["tags"]).is_empty(), "{} has no tag", route.name());
        let in_path = list(&route.operation["parameters"]).iter().filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, route.path.matches('{').count(), "{}", route.name());
    }
}

#[tokio::test]
async fn each_route_exists_with_its_methods_and_no_others() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let (routes, unknown) = (contract::routes(), Things::unknown());
    for route in &routes {
        let path = unknown.path(route);
        let of_path: Vec<_> =
            routes.iter().filter(|other| other.path == route.path).map(|other| &other.method).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = client.with_key("").send(method.clone(), &path, &[JSON], "{}").await;
            if of_path.contains(&&method) {
                assert_refused(&path, &answer, (401, "missing_key", ""));
            } else {
                assert_refused(&path, &answer, (405, "method_not_allowed", ""));
            }
        }
        let below = client.send(route.method.clone(), &format!("{path}/nothing/here"), &[JSON], "{}").await;
        assert_refused(&path, &below, (404, "not_found", "route"));
    }
}

/// Publishes an event that no webhook wants. Returns the id.
async fn unmatched(world: &World) -> String {
    let id = world.publish(&json!({ "type": "nobody.wants.it", "data": 1 })).await;
    event(world, &id).await;
    id
}

/// Publishes an event that is due in an hour. Returns the id.
async fn delayed(world: &World, key: &str) -> String {
    let due = Timestamp::now() + SignedDuration::from_hours(1);
    let id = world.publish(&json!({ "type": "nobody.wants.it", "id": key, "data": 1, "deliver_at": due })).await;
    event(world, &id).await;
    id
}

#[tokio::test]
async fn every_route_answers_as_documented() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let mut things = Things::of(&world).await;
    let client = CheckedClient::new(&world);
    let administrator = CheckedClient::admin(&world).await;
    let mut routes = contract::routes();
    // DELETE routes come last, because other routes need the objects.
    routes.sort_by_key(|route| route.method == Method::DELETE);
    for route in routes {
        if route.name().starts_with("resend") {
            // A delivery in flight cannot be resent.
            delivery_in(&world, &things.delivery, "delivered").await;
        }
        if route.path.contains("/replays/{") {
            things.replay = samples::replay(&world).await;
        }
        if route.is_about_parked() {
            // An earlier route put the parked message back, or discarded the message.
            things.parked = samples::park(&world).await;
        }
        if route.name() == "resume_ordering_keys" {
            let key = "INSERT INTO ordering_keys (endpoint_id, key, last, parked_at) SELECT id, 'parked', 1, now() FROM endpoints";
            world.database().await.batch_execute(key).await.expect("a parked key");
        }
        let client = if route.takes_admin() { &administrator } else { &client };
        let body = things.body(&route).map(|body| body.to_string()).unwrap_or_default();
        let path = match route.name() {
            // The webhook has a delivery of the other event.
            "send_event" => Things { event: unmatched(&world).await, ..things.clone() }.path(&route),
            "cancel_event" => Things { event: delayed(&world, "delayed").await, ..things.clone() }.path(&route),
            "cancel_event_by_key" => {
                delayed(&world, "delayed-by-key").await;
                format!("{}?key=delayed-by-key", route.path)
            }
            "explain_event_by_key" => format!("{}?key={CONFIDENTIAL}", route.path),
            "search" => format!("{}?q=order", route.path),
            _ => things.path(&route),
        };
        let answer = client.send(route.method.clone(), &path, &[JSON], body).await;
        let mut met = vec![answer.status];
        if route.name() == "publish_events" {
            let half = json!([{ "type": "a", "data": 1 }, {}]);
            met.push(client.call(Method::POST, &things.path(&route), &half).await.status);
        }
        assert_eq!(met, route.successes(), "{} {}: {}", route.method, route.path, answer.text);
    }
}
