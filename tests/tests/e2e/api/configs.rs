//! `GET` and `PUT /webhooks/configs` (Nudj's configuration API): create or change by id or by URL, a single
//! configuration or a list, all or none.

use fanfare_tests::{receiver::Received, world::World};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::api::{
    Refusal, assert_refused,
    checked_client::{CheckedClient, JSON},
    list, text,
};

const CONFIGS: &str = "/webhooks/configs";

/// True if a request has the signature that Nudj's receivers verify.
fn is_signed(received: &Received, secret: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(&received.body);
    let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    received.header("x-nudj-signature") == format!("sha256={digest}")
}

#[tokio::test]
async fn a_configuration_is_created_and_changed_by_its_url_or_its_id() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    let url = world.receiver.url("a");
    let new = json!({ "url": url, "event_types": ["user.*"], "headers": { "X-Tenant": "blue" }, "name": "Users" });
    let created = client.put(CONFIGS, &new).await.data()[0].clone();
    let secret = text(&created, "secret");
    assert!(secret.starts_with("whsec_") && text(&created, "id").starts_with("wh_"), "{created}");
    assert_eq!((text(&created, "name"), &created["enabled"]), ("Users", &json!(true)));
    assert_eq!((&created["event_types"], &created["headers"]), (&json!(["user.*"]), &json!(["x-tenant"])));
    world.publish(&json!({ "type": "user.authenticated", "data": 1 })).await;
    assert!(is_signed(&world.receiver.wait_for("a", 1).await[0], secret));

    let changed =
        client.put(CONFIGS, &json!({ "url": url, "event_types": ["reward.claimed"] })).await.data()[0].clone();
    let member = |config: &Value, name: &str| config[name].clone();
    for kept in ["id", "url", "name", "enabled", "headers", "created_at"] {
        assert_eq!(member(&changed, kept), member(&created, kept), "{kept} has changed");
    }
    assert_eq!((&changed["event_types"], changed.get("secret")), (&json!(["reward.claimed"]), None));

    let (elsewhere, brought) = (world.receiver.url("b"), "brought along");
    let change = json!({ "id": created["id"], "url": elsewhere, "enabled": false, "secret": brought, "headers": {} });
    let moved = client.put(CONFIGS, &change).await.data()[0].clone();
    assert_eq!(
        (text(&moved, "url"), &moved["enabled"], &moved["headers"]),
        (elsewhere.as_str(), &json!(false), &json!([]))
    );
    assert_eq!(moved.get("secret"), None, "the answer repeats a secret that the client set");
    let webhook = world.client().get(&format!("webhooks/{}", text(&created, "id"))).await.data().clone();
    assert_eq!((text(&webhook, "status"), text(&webhook, "url")), ("disabled", elsewhere.as_str()));
    let enabled = client.put(CONFIGS, &json!([{ "id": created["id"], "enabled": true }])).await.data().clone();
    assert_eq!(client.get(CONFIGS).await.data(), &enabled, "the list differs from the answer of the PUT");
    world.known().await;
    world.publish(&json!({ "type": "reward.claimed", "data": 1 })).await;
    let received = world.receiver.wait_for("b", 1).await.remove(0);
    assert!(is_signed(&received, brought) && !is_signed(&received, secret), "{received:?}");
    assert_eq!(received.header("x-tenant"), "");
}

#[tokio::test]
async fn several_are_put_at_once_or_none_of_them() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    let put = |path: &str, event: &str| json!({ "url": world.receiver.url(path), "event_types": [event] });
    let both = json!([put("a", "user.*"), put("b", "reward.*"), put("a", "action.completed")]);
    let answer = client.put(CONFIGS, &both).await.data().clone();
    let [first, second, again] = list(&answer) else { panic!("three answers: {answer}") };
    assert_eq!(
        (&first["id"], &again["event_types"]),
        (&again["id"], &json!(["action.completed"])),
        "the answers are not in the order of the request"
    );
    assert!(first.get("secret").is_some() && second.get("secret").is_some() && again.get("secret").is_none());
    let before = client.get(CONFIGS).await.data().clone();
    assert_eq!(list(&before).len(), 2);

    let unknown = "wh_00000000000000000000000000";
    for (what, last, refusal) in [
        ("an unknown event", put("c", "user.authenticatd"), (422, "unknown_event_type", "[2].event_types")),
        ("an unknown id", json!({ "id": unknown, "enabled": false }), (404, "not_found", "[2].id")),
        ("half of a new one", json!({ "url": world.receiver.url("c") }), (422, "missing_field", "[2].event_types")),
    ] {
        let body = json!([put("a", "user.*"), put("new", "*"), last]);
        let refused = client.put(CONFIGS, &body).await;
        assert_refused(what, &refused, refusal);
        assert_eq!(client.get(CONFIGS).await.data(), &before, "{what}: a refused list had an effect");
    }
    // Two endpoints may share a URL, created by other routes. Then only an id is unambiguous.
    world.endpoint("a", &["*"]).await;
    assert_refused("two", &client.put(CONFIGS, &put("a", "user.*")).await, (409, "ambiguous_url", "url"));
    let listed = json!([put("b", "*"), put("a", "user.*")]);
    assert_refused("two, listed", &client.put(CONFIGS, &listed).await, (409, "ambiguous_url", "[1].url"));
    let named = json!({ "id": first["id"], "url": first["url"], "enabled": false });
    assert_eq!(client.put(CONFIGS, &named).await.data()[0]["enabled"], false);
}

#[tokio::test]
async fn an_invalid_configuration_is_refused_with_code_and_field() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    let url = world.receiver.url("a");
    let with = |name: &str, value: Value| {
        let mut config = json!({ "url": url, "event_types": ["user.*"] });
        config[name] = value;
        config.to_string()
    };
    let invalid = |field| (422, "invalid_field", field);
    let wrong = |field| (422, "wrong_type", field);
    let cases: Vec<(&str, String, Refusal<'_>)> = vec![
        ("no fields", "{}".to_owned(), (422, "missing_field", "url")),
        ("no events", json!({ "url": url }).to_string(), (422, "missing_field", "event_types")),
        ("a misspelt field", with("events", json!(["*"])), (422, "unknown_field", "events")),
        ("a url that is a number", with("url", json!(1)), wrong("url")),
        ("no url", with("url", json!("nowhere")), (422, "invalid_url", "url")),
        ("a private address", with("url", json!("https://192.168.0.1/")), (422, "invalid_url", "url")),
        ("events as a text", with("event_types", json!("user.*")), wrong("event_types")),
        ("a number among the events", with("event_types", json!(["user.*", 1])), wrong("event_types[1]")),
        ("no events at all", with("event_types", json!([])), invalid("event_types")),
        ("no event type", with("event_types", json!(["a b"])), invalid("event_types")),
        ("an unknown event", with("event_types", json!(["user.born"])), (422, "unknown_event_type", "event_types")),
        ("enabled in words", with("enabled", json!("yes")), wrong("enabled")),
        ("a short secret", with("secret", json!("short")), invalid("secret")),
        ("a broken secret", with("secret", json!("whsec_short")), invalid("secret")),
        ("a blank name", with("name", json!(" ")), invalid("name")),
        ("headers as a list", with("headers", json!(["a"])), wrong("headers")),
        ("a header that is a number", with("headers", json!({ "x-a": 1 })), wrong("headers.x-a")),
        ("a header of ours", with("headers", json!({ "Host": "a" })), invalid("headers")),
        ("a header of the dialect's", with("headers", json!({ "X-Nudj-Event": "a" })), invalid("headers")),
        ("no id", with("id", json!("1")), invalid("id")),
    ];
    for (what, body, (status, code, field)) in &cases {
        let alone = client.send(Method::PUT, CONFIGS, &[JSON], body.clone()).await;
        assert_refused(what, &alone, (*status, code, field));
        let listed = format!(r#" [{{"url":"{}","event_types":["*"]}},{body}]"#, world.receiver.url("good"));
        let listed = client.send(Method::PUT, CONFIGS, &[JSON], listed).await;
        assert_refused(what, &listed, (*status, code, &format!("[1].{field}")));
    }
    let many = format!("[{}]", vec![with("enabled", json!(true)); 101].join(","));
    for (what, body, refusal) in [
        ("no JSON", "{".to_owned(), (400, "malformed_json", "")),
        ("a list without an end", "[{}".to_owned(), (400, "malformed_json", "")),
        ("a number", "1".to_owned(), (400, "not_an_object", "")),
        ("null", "null".to_owned(), (400, "not_an_object", "")),
        ("an empty list", "[]".to_owned(), (422, "invalid_batch", "")),
        ("too long a list", many, (422, "invalid_batch", "")),
        ("a list of a list", "[[]]".to_owned(), (400, "not_an_object", "[0]")),
        ("a list with null", format!("[{},null]", with("enabled", json!(true))), (400, "not_an_object", "[1]")),
    ] {
        assert_refused(what, &client.send(Method::PUT, CONFIGS, &[JSON], body).await, refusal);
    }
    assert_eq!(client.get(CONFIGS).await.data(), &json!([]), "a refused configuration was created");
}

/// Both key headers work on both path prefixes.
#[tokio::test]
async fn the_routes_are_below_the_admin_api_as_well() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    let nobody = client.with_key("");
    let bearer = format!("Bearer {}", world.key);
    let keys = [("authorization", bearer.as_str()), ("x-api-token", world.key.as_str()), ("X-API-Token", &world.key)];
    for prefix in ["", "/api/v2/admin"] {
        for (name, key) in keys {
            let config = json!({ "url": world.receiver.url("a"), "event_types": ["*"] }).to_string();
            let put = nobody.send(Method::PUT, &format!("{prefix}{CONFIGS}"), &[(name, key), JSON], config).await;
            assert_eq!(put.status, 200, "{prefix} {name}: {}", put.text);
            for route in ["configs", "logs"] {
                let path = format!("{prefix}/webhooks/{route}");
                let got = nobody.send(Method::GET, &path, &[(name, key)], "").await;
                assert_eq!(got.status, 200, "{path} {name}: {}", got.body);
                let missing = nobody.send(Method::GET, &path, &[], "").await;
                assert_refused(&path, &missing, (401, "missing_key", ""));
                assert_eq!(missing.headers["www-authenticate"], "Bearer");
                let wrong = nobody.send(Method::GET, &path, &[(name, "Bearer no")], "").await;
                assert_refused(&path, &wrong, (401, "invalid_key", ""));
            }
        }
    }
    assert_eq!(
        list(client.get("/api/v2/admin/webhooks/configs").await.data()).len(),
        1,
        "a repeated PUT of a URL made another configuration"
    );
    // Only the routes of Nudj's API exist below the prefix.
    assert_refused("elsewhere", &client.get("/api/v2/admin/webhooks").await, (404, "not_found", "route"));
}

#[tokio::test]
async fn concurrent_puts_of_a_url_create_a_single_configuration() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    for round in 0..3 {
        let config = json!({ "url": world.receiver.url(&format!("round/{round}")), "event_types": ["user.*"] });
        let answers = join_all((0..8).map(|_| client.put(CONFIGS, &config))).await;
        let configs: Vec<&Value> = answers.iter().map(|answer| &answer.data()[0]).collect();
        assert!(configs.iter().all(|config| config["id"] == configs[0]["id"]), "{configs:?}");
        let secrets = configs.iter().filter(|config| config.get("secret").is_some()).count();
        assert_eq!(secrets, 1, "exactly one of the requests creates the configuration: {configs:?}");
        assert_eq!(list(client.get(CONFIGS).await.data()).len(), round + 1);
    }
    assert_eq!(world.rows("endpoints JOIN endpoint_secrets secret ON endpoint_id = endpoints.id", "true").await, 3);
}

/// A PUT with unchanged values changes nothing: `enabled` of a paused endpoint is true, as a paused endpoint is not
/// disabled.
#[tokio::test]
async fn a_put_of_unchanged_values_leaves_an_endpoint_paused() {
    let world = World::shared_of_dialect("nudj").await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("a", &["user.*"]).await;
    let path = format!("/api/v1/webhooks/{}", endpoint.id);
    let status = async || text(client.get(&path).await.data(), "status").to_owned();
    world.change(&endpoint, &json!({ "status": "paused" })).await;
    let read = client.get(CONFIGS).await.data()[0].clone();
    assert_eq!(read["enabled"], true, "{read}");
    let members = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), read[*name].clone())).collect::<serde_json::Map<_, _>>()
    };
    for (what, put) in [
        ("by its id", members(&["id", "url", "event_types", "enabled"])),
        ("by its URL", members(&["url", "event_types", "enabled"])),
        ("`enabled` alone", members(&["id", "enabled"])),
    ] {
        let answer = client.put(CONFIGS, &put.into()).await.data()[0].clone();
        assert_eq!((&answer["id"], &answer["enabled"]), (&read["id"], &json!(true)), "{what}");
        assert_eq!(status().await, "paused", "{what}");
    }
    for (enabled, expected) in [(false, "disabled"), (false, "disabled"), (true, "enabled"), (true, "enabled")] {
        client.put(CONFIGS, &json!({ "id": endpoint.id, "enabled": enabled })).await.data();
        assert_eq!(status().await, expected);
    }
}
