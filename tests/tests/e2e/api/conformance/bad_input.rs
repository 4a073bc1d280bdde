//! Invalid requests to every route with a body. The cases are generated from the OpenAPI document, so that the tests
//! include each new route and field.

use fanfare_tests::{clients::api::Answer, patience::until, world::World};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    conformance::contract,
    conformance::contract::{Route, is_of_type},
    conformance::samples::Things,
    list, text,
};

/// A world with data of every kind, and an admin's client.
struct Target {
    world: World,
    things: Things,
    client: CheckedClient,
}

impl Target {
    async fn new() -> Self {
        let world = World::new().await;
        let dispatcher = world.dispatcher().await;
        let things = Things::of(&world).await;
        drop(dispatcher);
        let client = CheckedClient::admin(&world).await;
        Self { world, things, client }
    }

    fn path(&self, route: &Route) -> String {
        format!("{}?application={}", self.things.path(route), self.things.application)
    }

    async fn send(&self, route: &Route, body: impl Into<bytes::Bytes>) -> Answer {
        self.client.send(route.method.clone(), &self.path(route), &[JSON], body).await
    }

    async fn send_json(&self, route: &Route, body: &Value) -> Answer {
        self.send(route, body.to_string()).await
    }

    /// Sends a body of more than 512 KiB. The refusal comes before the whole body is read, and may be lost with the
    /// connection: hence the repetition.
    async fn too_large(&self, route: &Route) -> Answer {
        let body = format!("{{\"a\":\"{}\"}}", "a".repeat(512 * 1024));
        let path = self.path(route);
        until("an answer", async || {
            let answer = self.client.try_send(route.method.clone(), &path, &[JSON], body.clone()).await;
            answer.ok()
        })
        .await
    }

    /// Counts of all rows and requests that a request could change.
    async fn state(&self) -> Vec<i64> {
        let mut state = Vec::new();
        for table in
            ["applications", "api_keys", "endpoints", "endpoint_secrets", "event_types", "events", "deliveries"]
        {
            state.push(self.world.count(&format!("SELECT count(*) FROM {table}")).await);
        }
        let versions = "SELECT sum(version)::bigint FROM applications";
        state.push(self.world.count(versions).await);
        state.push(self.world.receiver.all().len() as i64);
        state
    }
}

/// The routes whose body is a single object.
fn with_object() -> Vec<(Route, &'static Value)> {
    let with_body = contract::routes().into_iter().filter_map(|route| route.body().map(|schema| (route, schema)));
    let found: Vec<_> = with_body.filter(|(_, schema)| schema["type"] == "object").collect();
    assert!(found.len() >= 11, "{} routes with a body", found.len());
    found
}

fn may_be_empty(route: &Route) -> bool {
    route.operation["requestBody"]["required"] != true
}

/// Values with a type other than the property's type.
fn wrong_values(property: &Value) -> Vec<Value> {
    let types: Vec<&str> = match &property["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        // Any JSON is valid.
        _ => return Vec::new(),
    };
    let candidates = [
        json!(null),
        json!(true),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!("1"),
        json!([]),
        json!({}),
        json!([1]),
        json!([null]),
    ];
    let is_negative = |value: &Value| value.as_i64().is_some_and(|number| number < 0);
    let is_right = |value: &Value| {
        let is_item =
            list(value).iter().all(|item| property["items"]["type"].as_str().is_none_or(|kind| is_of_type(item, kind)));
        types.iter().any(|kind| is_of_type(value, kind)) && is_item && !(is_negative(value) && property["minimum"] == 0)
    };
    candidates.into_iter().filter(|value| !is_right(value)).collect()
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let target = Target::new().await;
    let before = target.state().await;
    for (route, _) in with_object() {
        let what = target.path(&route);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(500), "}".repeat(500));
        for body in
            ["{", "[", "[{}", "nope", "'a'", "{}{}", "{\"a\":1,}", "{a:1}", "\0", "{\"a\":\"\u{1}\"}", deep.as_str()]
        {
            let answer = target.send(&route, body.to_owned()).await;
            let is_of_json = ["malformed_json", "too_deep"].contains(&answer.code());
            assert!(answer.status == 400 && is_of_json, "{what} {body:.20}: {}", answer.body);
        }
        for bytes in [&b"\xff"[..], b"{\"name\":\"\xff\"}", b"\xef\xbb\xbf{}"] {
            assert_refused(&what, &target.send(&route, bytes.to_vec()).await, (400, "malformed_json", ""));
        }
        for body in ["null", "1", "true", "\"a\"", "[]", "[{}]", "[[]]"] {
            // The route also takes a list of configurations.
            if route.name() == "put_webhook_configs" && body.starts_with('[') {
                continue;
            }
            assert_refused(&what, &target.send(&route, body.to_owned()).await, (400, "not_an_object", ""));
        }
        if !may_be_empty(&route) {
            assert_refused(&what, &target.send(&route, "").await, (400, "malformed_json", ""));
        }
        assert_refused(&what, &target.too_large(&route).await, (413, "body_too_large", ""));
        let good = target.things.body(&route).expect("a body").to_string();
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", ""] {
            let answer = target.client.send(route.method.clone(), &what, &[("content-type", kind)], good.clone()).await;
            assert_refused(&what, &answer, (415, "unsupported_content_type", ""));
        }
    }
    assert_eq!(target.state().await, before, "a refused request had an effect");
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named() {
    let target = Target::new().await;
    let before = target.state().await;
    for (route, schema) in with_object() {
        let good = target.things.body(&route).expect("a body");
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        let what = |body: &Value| format!("{} {} {body}", route.method, route.path);
        for name in ["surprise", "Name", "", "name ", "__proto__"] {
            let body = with(name, json!(1));
            assert_refused(&what(&body), &target.send_json(&route, &body).await, (422, "unknown_field", name));
        }
        for required in list(&schema["required"]).iter().filter_map(Value::as_str) {
            let mut body = good.clone();
            body.as_object_mut().expect("an object").remove(required);
            assert_refused(&what(&body), &target.send_json(&route, &body).await, (422, "missing_field", required));
        }
        for (name, property) in schema["properties"].as_object().expect("properties") {
            for value in wrong_values(property) {
                let body = with(name, value);
                let answer = target.send_json(&route, &body).await;
                assert_eq!((answer.status, answer.code()), (422, "wrong_type"), "{}: {}", what(&body), answer.body);
                let field = answer.field().split(['[', '.']).next();
                assert_eq!(field, Some(name.as_str()), "{}: {}", what(&body), answer.body);
            }
        }
    }
    assert_eq!(target.state().await, before, "a refused request had an effect");
}

/// Values of the right type that no field accepts.
#[tokio::test]
async fn a_value_that_cannot_be_taken_is_refused_with_its_field() {
    let target = Target::new().await;
    let before = target.state().await;
    let long = "a".repeat(20_000);
    // A preview answers a URL that cannot be called: its answer tells the problem.
    for (route, schema) in with_object().into_iter().filter(|(route, _)| route.name() != "preview_webhook") {
        let good = target.things.body(&route).expect("a body");
        for (name, property) in schema["properties"].as_object().expect("properties") {
            let kinds = property["type"].to_string();
            let values = if kinds.contains("\"string\"") {
                vec![json!(""), json!(long), json!("a\0b"), json!("\u{7f}"), json!("\u{202e}\0")]
            } else if kinds.contains("\"array\"") {
                let strange = [json!([""]), json!([long]), json!(["a\0b"]), json!([" "])];
                strange.into_iter().chain([json!(vec!["1s"; 2000])]).collect()
            } else if kinds.contains("\"integer\"") {
                let of_32_bits = (property["format"] != "int64").then(|| json!(u64::from(u32::MAX) + 1));
                of_32_bits.into_iter().chain([json!(u64::MAX)]).collect()
            } else if kinds.contains("\"object\"") {
                vec![json!({ "": "" }), json!({ "x-a": "a\0b" }), json!({ "x-a": long })]
            } else {
                Vec::new()
            };
            for value in values {
                let mut body = good.clone();
                body[name] = value;
                let answer = target.send_json(&route, &body).await;
                let what = format!("{} {} {name} {:.60}", route.method, route.path, body[name].to_string());
                assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.body);
                let field = answer.field().split(['[', '.']).next();
                assert_eq!(field, Some(name.as_str()), "{what}: {}", answer.body);
            }
        }
    }
    assert_eq!(target.state().await, before, "a refused request had an effect");
}

/// A repeated field is ambiguous and is refused.
#[tokio::test]
async fn a_field_that_is_given_twice_is_named() {
    let target = Target::new().await;
    let before = target.state().await;
    let mut unnamed = Vec::new();
    for (route, _) in with_object() {
        let good = target.things.body(&route).expect("a body").to_string();
        let rest = good.strip_prefix('{').expect("an object");
        let (name, _) = rest.trim_start_matches('"').split_once('"').expect("a member");
        let member = &target.things.body(&route).expect("a body")[name];
        let answer = target.send(&route, format!("{{\"{name}\":{member},{rest}")).await;
        assert_eq!((answer.status, answer.code()), (422, "duplicate_field"), "{good}: {}", answer.body);
        if answer.field() != name {
            unnamed.push(format!("{} {}: {}", route.method, route.path, answer.body));
        }
        if route.name() == "put_webhook_configs" {
            let listed = target.send(&route, format!("[{good},{{\"{name}\":{member},{rest}]")).await;
            assert_eq!((listed.status, listed.code()), (422, "duplicate_field"), "{}", listed.body);
            if listed.field() != format!("[1].{name}") {
                unnamed.push(format!("{} {}, in a list: {}", route.method, route.path, listed.body));
            }
        }
    }
    assert_eq!(target.state().await, before, "a refused request had an effect");
    assert!(unnamed.is_empty(), "the error does not name the field: {unnamed:#?}");
}

#[tokio::test]
async fn a_batch_that_is_no_list_of_events_is_refused() {
    let target = Target::new().await;
    let before = target.state().await;
    let routes = contract::routes();
    let route = routes.iter().find(|route| route.name() == "publish_events").expect("the route");
    for body in ["", "{", "[", "{}", "null", "1", "\"a\"", "[1,", "[{}}", "\0"] {
        let answer = target.send(route, body).await;
        assert!(
            answer.status == 400 && ["malformed_json", "not_a_list"].contains(&answer.code()),
            "{body}: {}",
            answer.body
        );
    }
    let many = vec![json!({ "type": "a", "data": 1 }); 1001];
    for body in [json!([]), json!(many)] {
        assert_refused("a batch", &target.send_json(route, &body).await, (422, "invalid_batch", ""));
    }
    for (entry, code, field) in [
        (json!(null), "not_an_object", ""),
        (json!([]), "not_an_object", ""),
        (json!({ "data": 1 }), "missing_field", "type"),
        (json!({ "type": "a" }), "missing_field", "data"),
        (json!({ "type": 1, "data": 1 }), "wrong_type", "type"),
        (json!({ "type": "a", "data": 1, "kind": "a" }), "unknown_field", "kind"),
        (json!({ "type": "a", "data": 1, "id": "a\0" }), "invalid_field", "id"),
        (json!({ "type": "a", "data": 1, "time": "now" }), "invalid_field", "time"),
    ] {
        let answer = target.send_json(route, &json!([entry])).await;
        let error = &answer.data()[0]["error"];
        assert_eq!((answer.status, text(error, "code"), text(error, "field")), (207, code, field), "{entry}");
    }
    assert_eq!(target.state().await, before, "a refused batch had an effect");
}

#[tokio::test]
async fn an_invalid_id_is_refused_and_an_unknown_id_is_not_found() {
    let target = Target::new().await;
    let before = target.state().await;
    let routes = contract::routes();
    for route in routes.iter().filter(|route| route.path.contains("{id}")) {
        let body = target.things.body(route).map(|body| body.to_string()).unwrap_or_default();
        let send = async |id: &str| {
            let path = format!("{}?application={}", route.path.replace("{id}", id), target.things.application);
            let answer = target.client.send(route.method.clone(), &path, &[JSON], body.clone()).await;
            (path, answer)
        };
        let long = "a".repeat(4000);
        let another_kind =
            if route.path.contains("/webhooks/") { &target.things.event } else { &target.things.webhook };
        for id in
            ["1", "wh_", "_", "%20", "%00", "..%2f..", "null", "evt_zzzzzzzzzzzzzzzzzzzzzzzzzz", &long, another_kind]
        {
            let (path, answer) = send(id).await;
            assert_refused(&path, &answer, (422, "invalid_field", "id"));
        }
        let (path, answer) = send("%ff").await;
        assert_refused(&path, &answer, (400, "invalid_path", ""));
        let unknown = Things::unknown().path(route);
        let path = format!("{unknown}?application={}", target.things.application);
        let answer = target.client.send(route.method.clone(), &path, &[JSON], body.clone()).await;
        assert_refused(&path, &answer, (404, "not_found", "id"));
    }
    for path in ["/api", "/api/v1", "/api/v1/", "/api/v1/webhooks/", "/API/v1/webhooks", "/api/v2/webhooks"] {
        assert_refused(path, &target.client.send(Method::GET, path, &[], "").await, (404, "not_found", "route"));
    }
    assert_eq!(target.state().await, before, "a refused request had an effect");
}
