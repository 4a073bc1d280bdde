//! Permissions: a key reaches nothing of another application, a `publish` key manages nothing, and a request without a
//! key is refused.

use fanfare_tests::{
    patience::until,
    world::{World, process::fanfare},
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    conformance::contract,
    conformance::contract::Route,
    conformance::samples::{CONFIDENTIAL, Things},
    list, text,
};

/// A client with the role `manage` for another application.
async fn other_manager(world: &World) -> CheckedClient {
    let application = fanfare(&world.variables, &["app", "create", "other"]);
    CheckedClient::of(world, &["--role", "manage", "--application", &application]).await
}

async fn request(
    client: &CheckedClient,
    route: &Route,
    path: &str,
    things: &Things,
) -> fanfare_tests::clients::api::Answer {
    let body = things.body(route).map(|body| body.to_string()).unwrap_or_default();
    client.send(route.method.clone(), path, &[JSON], body).await
}

fn publishes(route: &Route) -> bool {
    ["publish_event", "publish_events"].contains(&route.name())
}

/// All data of an application that its own key can read.
async fn seen(client: &CheckedClient, things: &Things) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        format!("/api/v1/applications/{}", things.application),
        format!("/api/v1/webhooks/{}", things.webhook),
        format!("/api/v1/deliveries/{}", things.delivery),
        format!("/api/v1/events/{}", things.event),
        "/api/v1/event-types".to_owned(),
        "/api/v1/webhooks".to_owned(),
        "/api/v1/deliveries".to_owned(),
        "/api/v1/events".to_owned(),
        "/webhooks/logs".to_owned(),
    ] {
        seen.push(client.get(&path).await.data().clone());
    }
    seen
}

#[tokio::test]
async fn nothing_of_an_application_is_reached_with_the_key_of_another() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let things = Things::of(&world).await;
    let owner = CheckedClient::new(&world);
    let before = seen(&owner, &things).await;
    let requests = world.receiver.all().len();
    let other = other_manager(&world).await;

    assert_nothing_is_found(&other, &things).await;
    for route in contract::routes() {
        let path = things.path(&route);
        let named = request(&other, &route, &format!("{path}?application={}", things.application), &things).await;
        let is_refused = [403, 404].contains(&named.status) || route.name() == "list_dialects";
        assert!(is_refused, "{} {path} for the other application: {}", route.method, named.text);
        let answer = request(&other, &route, &path, &things).await;
        // Event types are named by the caller, and the audit log repeats the caller's own requests.
        let is_echo = ["event-types", "replays", "audit-log"].iter().any(|part| route.path.contains(part));
        for told in [&answer.text, &named.text] {
            assert!(!told.contains(CONFIDENTIAL) || is_echo, "{path} reveals: {told}");
        }
        let what = format!("{} {path}", route.method);
        if route.takes_admin() {
            assert_refused(&what, &answer, (403, "forbidden", ""));
        } else if route.path.contains("{name}") {
            // This loop describes an event type with the same name in the caller's own application, removes it, and
            // then finds no such type.
            assert_eq!(answer.status, if route.method == "DELETE" { 200 } else { 404 }, "{what}");
        } else if route.path.contains('{') || route.name() == "put_webhook_configs" {
            assert_refused(&what, &answer, (404, "not_found", "id"));
        } else if route.name() == "resend_deliveries" {
            assert_eq!(answer.data()["resent"], 0, "{what}");
        }
    }
    assert_eq!(seen(&owner, &things).await, before, "a request changed the other application");
    assert_eq!(world.receiver.all().len(), requests, "a request sent a delivery");
    let secrets = "SELECT count(*) FROM endpoint_secrets WHERE endpoint_id IN
                   (SELECT id FROM endpoints WHERE name = 'confidential')";
    assert_eq!(world.count(secrets).await, 1, "the secret of the webhook was rotated");
}

/// Filters, cursors and suggestions reveal nothing of another application.
async fn assert_nothing_is_found(other: &CheckedClient, things: &Things) {
    let Things { webhook, delivery, event, event_type, .. } = things;
    for path in [
        format!("/api/v1/deliveries?webhook={webhook}"),
        format!("/api/v1/deliveries?event={event}"),
        format!("/api/v1/deliveries?before={delivery}"),
        format!("/api/v1/deliveries?ids={delivery}"),
        format!("/api/v1/deliveries?type={event_type}&contains={CONFIDENTIAL}"),
        "/api/v1/deliveries?state=delivered".to_owned(),
        format!("/api/v1/events?type={event_type}"),
        format!("/webhooks/logs?config={webhook}"),
        format!("/webhooks/logs?event={event}"),
        format!("/webhooks/logs?before=4102444800000000.{delivery}.9"),
        format!("/api/v1/webhooks?before={webhook}"),
        format!("/webhooks/configs?before={webhook}"),
    ] {
        assert_eq!(other.get(&path).await.data(), &json!([]), "{path}");
    }
    // The id of an event is derived from its key: a cursor must not tell whether the other application has the key.
    assert_refused(
        "a cursor",
        &other.get(&format!("/api/v1/events?before={event}")).await,
        (422, "invalid_field", "before"),
    );
    for text in [webhook, delivery, event, event_type, &things.application, &things.replay, &things.parked, &things.key]
    {
        let found = other.get(&format!("/api/v1/search?q={text}")).await;
        assert_eq!(found.data()["hits"], json!([]), "{text}");
    }
    let counts = other.get("/api/v1/deliveries/counts").await.data().clone();
    assert!(counts.as_object().into_iter().flatten().all(|(_, count)| count["deliveries"] == 0), "{counts}");
    for filter in [json!({}), json!({ "webhook": webhook }), json!({ "event": event }), json!({ "state": "delivered" })]
    {
        let resent = other.call(Method::POST, "/api/v1/deliveries/resend", &filter).await;
        assert_eq!(resent.data()["resent"], 0, "{filter}");
    }
    // The same URL in another application is another configuration.
    let own = json!({ "url": things.url.replace("another", CONFIDENTIAL), "event_types": ["*"], "enabled": false });
    let own = other.put("/webhooks/configs", &own).await.data()[0].clone();
    assert!(text(&own, "id") != webhook && own.get("secret").is_some(), "{own}");
    let new = json!({ "url": things.url, "events": ["confidental.hapened"] });
    let warned = other.call(Method::POST, "/api/v1/webhooks", &new).await;
    assert_eq!(list(&warned.data()["warnings"]).len(), 1, "{}", warned.body);
    assert!(!warned.body.to_string().contains(event_type), "another application's type is suggested: {}", warned.body);
    assert_eq!(
        other.call(Method::DELETE, &format!("/api/v1/webhooks/{}", text(&own, "id")), &json!({})).await.status,
        200
    );
    let type_path = format!("/api/v1/event-types/{event_type}");
    assert_refused("another's", &other.call(Method::DELETE, &type_path, &json!({})).await, (404, "not_found", "name"));
    let types = other.get("/api/v1/event-types").await.data().clone();
    assert!(list(&types).iter().all(|described| text(described, "name") != event_type), "{types}");
}

#[tokio::test]
async fn a_key_without_the_right_is_refused_everywhere() {
    let world = World::new().await;
    let client = CheckedClient::new(&world);
    let publisher = CheckedClient::of(&world, &["--role", "publish", "--application", &world.application]).await;
    let endpoint = world.endpoint("a", &["order.created"]).await;
    let things = Things { webhook: endpoint.id, application: world.application.clone(), ..Things::unknown() };
    let before = client.get("/api/v1/webhooks").await.data().clone();
    let shortened = &world.key[..world.key.len() - 1];
    let wrong = [shortened.to_owned(), format!("{}0", world.key), world.key.to_uppercase(), "Bearer".to_owned()];
    for route in contract::routes() {
        for prefix in ["", "/api/v2/admin"] {
            if !prefix.is_empty() && !route.path.starts_with("/webhooks") {
                continue;
            }
            let path = format!("{prefix}{}", things.path(&route));
            let nobody = request(&client.with_key(""), &route, &path, &things).await;
            assert_refused(&path, &nobody, (401, "missing_key", ""));
            assert_eq!(nobody.headers["www-authenticate"], "Bearer", "{path}");
            for key in &wrong {
                let answer = request(&client.with_key(key), &route, &path, &things).await;
                assert_refused(&path, &answer, (401, "invalid_key", ""));
            }
            let answer = request(&publisher, &route, &path, &things).await;
            if publishes(&route) {
                assert_eq!(answer.status, 202, "{path}: {}", answer.body);
            } else if route.name().starts_with("cancel_event") {
                // A publisher may cancel its delayed events. The path names no event.
                assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.body);
            } else {
                assert_refused(&path, &answer, (403, "forbidden", ""));
            }
            if route.takes_admin() {
                assert_refused(&path, &request(&client, &route, &path, &things).await, (403, "forbidden", ""));
            }
        }
    }
    assert_eq!(client.get("/api/v1/webhooks").await.data(), &before, "a refused request changed a webhook");
    assert_eq!(world.count("SELECT count(*) FROM applications").await, 1);
}

/// `x-api-token` works like `Authorization`. The scheme of `Authorization` may have any case.
#[tokio::test]
async fn a_key_may_be_given_in_either_header() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let (anybody, unknown) = (client.with_key(""), Things::unknown());
    let key = &world.key;
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer {key}")),
        ("AUTHORIZATION", format!("BEARER {key}")),
        ("x-api-token", key.clone()),
        ("X-API-Token", key.clone()),
    ] {
        for route in contract::routes().iter().filter(|route| !route.takes_admin()) {
            let body = unknown.body(route).map(|body| body.to_string()).unwrap_or_default();
            let path = unknown.path(route);
            let given = anybody.send(route.method.clone(), &path, &[(name, &value), JSON], body).await;
            assert!(![401, 403].contains(&given.status), "{name} {path}: {}", given.text);
        }
    }
    for (name, value) in [
        ("authorization", format!("Basic {key}")),
        ("authorization", key.clone()),
        ("authorization", "Bearer".to_owned()),
        ("authorization", String::new()),
    ] {
        let answer = anybody.send(Method::GET, "/api/v1/webhooks", &[(name, &value)], "").await;
        assert_refused(&value, &answer, (401, "missing_key", ""));
    }
    for (name, value) in [
        ("authorization", "Bearer ".to_owned()),
        ("x-api-token", String::new()),
        ("x-api-token", format!("Bearer {key}")),
    ] {
        let answer = anybody.send(Method::GET, "/api/v1/webhooks", &[(name, &value)], "").await;
        assert_eq!(answer.status, 401, "{name}: {value}: {}", answer.body);
    }
}

/// Every request that may change something is logged with its key, including refused requests.
#[tokio::test]
async fn each_route_that_changes_something_is_in_the_audit_log() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let things = Things::of(&world).await;
    let administrator = CheckedClient::admin(&world).await;
    for route in contract::routes().iter().filter(|route| route.method != Method::GET && !publishes(route)) {
        for prefix in ["", "/api/v2/admin"] {
            if !prefix.is_empty() && !route.path.starts_with("/webhooks") {
                continue;
            }
            let path = format!("{prefix}{}", things.path(route));
            let answer =
                request(&administrator, route, &format!("{path}?application={}", things.application), &things).await;
            let newest = administrator.get("/api/v1/audit-log?limit=1").await.data()[0].clone();
            assert_eq!((text(&newest, "action"), text(&newest, "path")), (route.name(), path.as_str()), "{newest}");
            let outcome = if answer.status < 400 { "done" } else { "refused" };
            assert_eq!(text(&newest, "outcome"), outcome, "{path}: {}", answer.text);
            assert_eq!(text(&newest, "application"), things.application, "{newest}");
            assert!(!newest.to_string().contains("\"x-confidential\":\"confidential"), "{newest}");
        }
    }
    let before = administrator.walk("/api/v1/audit-log", 100).await.len();
    for route in contract::routes().iter().filter(|route| route.method == Method::GET || publishes(route)) {
        request(&administrator, route, &format!("{}?application={}", things.path(route), things.application), &things)
            .await;
    }
    assert_eq!(administrator.walk("/api/v1/audit-log", 100).await.len(), before, "reads are not logged");
}

/// No route accepts a revoked or expired key, of any role.
#[tokio::test]
async fn an_ended_key_opens_no_route() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["order.created"]).await;
    let things = Things { webhook: endpoint.id, application: world.application.clone(), ..Things::unknown() };
    let administrator = CheckedClient::admin(&world).await;
    let mut ended = Vec::new();
    for role in ["publish", "manage", "admin"] {
        for way in ["revoked", "expired"] {
            let mut new = json!({ "role": role });
            if role != "admin" {
                new["application"] = json!(world.application);
            }
            let key = administrator.call(Method::POST, "/api/v1/keys", &new).await.data().clone();
            let id = text(&key, "id");
            let path =
                if way == "revoked" { format!("/api/v1/keys/{id}") } else { format!("/api/v1/keys/{id}/rotate") };
            let (method, body) = if way == "revoked" {
                (Method::DELETE, json!({}))
            } else {
                (Method::POST, json!({ "overlap_seconds": 0 }))
            };
            administrator.call(method, &path, &body).await.data();
            ended.push((format!("a {role} key that is {way}"), administrator.with_key(text(&key, "key"))));
        }
    }
    for (what, client) in &ended {
        until("ingest to refuse the ended key", async || {
            (client.get("/api/v1/webhooks").await.status == 401).then_some(())
        })
        .await;
        for route in contract::routes() {
            let path = things.path(&route);
            let answer = request(client, &route, &path, &things).await;
            assert_refused(&format!("{what} at {path}"), &answer, (401, "invalid_key", ""));
        }
    }
}
