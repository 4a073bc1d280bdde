//! Custom headers of an endpoint: sent with each delivery, never shown again, and unable to replace headers of Fanfare,
//! HTTP or the dialect.

use fanfare_tests::{
    patience::until,
    receiver::{Receiver, signature::is_signed},
    world::World,
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    delivery_in, event, patient, text,
};

const CREDENTIAL: &str = "Bearer s3cr3t-of-the-receiver";

#[tokio::test]
async fn headers_arrive_and_their_values_are_never_shown() {
    let world = World::of(patient(&[])).await;
    let client = CheckedClient::new(&world);
    let new = json!({
        "url": world.receiver.url("a"), "events": ["*"],
        "headers": { "Authorization": CREDENTIAL, "X-Tenant": "blue ~!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}" },
    });
    let made = world.client().post("webhooks", &new).await.data().clone();
    assert_eq!(made["headers"], json!(["authorization", "x-tenant"]));
    let _dispatcher = world.dispatcher().await;
    let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    assert_eq!(received.header("authorization"), CREDENTIAL);
    assert_eq!(received.header("x-tenant"), text(&new["headers"], "X-Tenant"));
    assert!(is_signed(&received, text(&made, "secret")) && received.header("content-type") == "application/json");

    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    for (what, answer) in client.everything(text(&made, "id"), text(&delivery, "id"), &id).await {
        assert!(!answer.contains("s3cr3t") && !answer.contains("blue ~"), "{what} shows a value: {answer}");
    }
    assert_encrypted(&world, "s3cr3t").await;

    // A change of `headers` replaces all previous headers.
    let endpoint = format!("webhooks/{}", text(&made, "id"));
    for (headers, names, tenant) in
        [(json!({ "x-tenant": "red" }), json!(["x-tenant"]), "red"), (json!({}), json!([]), "")]
    {
        let changed = world.client().patch(&endpoint, &json!({ "headers": headers })).await.data().clone();
        assert_eq!(changed["headers"], names);
        let kept = world.client().patch(&endpoint, &json!({ "name": tenant.to_owned() + "x" })).await.data().clone();
        assert_eq!(kept["headers"], names, "a change of another field changed the headers");
        world.known().await;
        let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
        let arrived =
            until("the event", async || world.receiver.received("a").into_iter().find(|request| request.event() == id));
        let arrived = arrived.await;
        assert_eq!((arrived.header("authorization"), arrived.header("x-tenant")), ("", tenant));
    }
    assert_eq!(world.count("SELECT count(headers_ciphertext) FROM endpoints").await, 0);
}

/// Checks that no row of any table contains a text in plain or hexadecimal form.
async fn assert_encrypted(world: &World, value: &str) {
    let database = world.database().await;
    let row =
        database.query_one("SELECT headers_ciphertext, headers_key_name FROM endpoints", &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(1), "test", "the name of the encryption key");
    assert!(row.get::<_, Vec<u8>>(0).len() > CREDENTIAL.len(), "the ciphertext is shorter than the plaintext");
    let hexadecimal: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let statement = "SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                     WHERE nspname = 'public' AND relkind IN ('r', 'p')";
    for table in database.query(statement, &[]).await.expect("the tables") {
        let table: &str = table.get(0);
        let statement = format!(
            "SELECT count(*) FROM \"{table}\" t WHERE t::text LIKE '%{value}%' OR t::text LIKE '%{hexadecimal}%'"
        );
        assert_eq!(world.count(&statement).await, 0, "{table} contains {value}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of header names")]
async fn headers_that_are_not_the_endpoints_are_refused() {
    let world = World::new().await;
    let client = world.client();
    let good = world.endpoint("a", &["*"]).await;
    let url = world.receiver.url("b");
    let refused = async |what: &str, headers: Value, code: &str, field: &str| {
        let new = json!({ "url": url, "events": ["*"], "headers": headers });
        let made = client.post("webhooks", &new).await;
        assert_refused(what, &made, (422, code, field));
        let changed = client.patch(&format!("webhooks/{}", good.id), &json!({ "headers": headers })).await;
        assert_refused(what, &changed, (422, code, field));
        made.body["error"]["message"].as_str().unwrap_or_default().to_owned()
    };
    for name in [
        // HTTP
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "Content-Type",
        "User-Agent",
        "Upgrade",
        "Accept-Encoding",
        "TE",
        "Trailer",
        "Expect",
        "Keep-Alive",
        "Content-Encoding",
        // Standard Webhooks
        "webhook-id",
        "Webhook-Timestamp",
        "WEBHOOK-SIGNATURE",
        // the dialect
        "X-Webhook-Signature",
        "x-webhook-signature",
        // invalid names
        "",
        " ",
        "a b",
        "a:",
        "ü",
        "a\r\nHost",
        "a\nb",
        "a\0",
        "\u{7f}",
        "(a)",
    ] {
        let told = refused(name, json!({ name: "value" }), "invalid_field", "headers").await;
        let shown: String = name.to_ascii_lowercase().chars().take_while(char::is_ascii_graphic).collect();
        assert!(told.to_ascii_lowercase().contains(&shown), "{name:?}: {told}");
    }
    for value in [
        "a\r\nX-Other: b",
        "a\rb",
        "a\nb",
        "\n",
        "a\0b",
        "\0",
        "a\tb",
        "",
        " a",
        "a ",
        "ä",
        "\u{7f}",
        &"a".repeat(4097),
    ] {
        let told = refused(value, json!({ "X-Token": value }), "invalid_field", "headers").await;
        assert!(told.contains("x-token"), "the error does not name the header: {told}");
        assert!(
            value.trim().len() < 2 || !told.contains(value),
            "the error repeats the value, which may be a credential: {told}"
        );
    }
    for (what, headers, code, field) in [
        ("one name twice", json!({ "X-A": "1", "x-a": "2" }), "invalid_field", "headers"),
        ("too many", (0..21).map(|number| (format!("x-{number}"), json!("1"))).collect(), "invalid_field", "headers"),
        ("a number", json!({ "X-A": 1 }), "wrong_type", "headers.X-A"),
        ("null", json!({ "X-A": null }), "wrong_type", "headers.X-A"),
        ("a list", json!([["X-A", "1"]]), "wrong_type", "headers"),
        ("a text", json!("X-A: 1"), "wrong_type", "headers"),
    ] {
        refused(what, headers, code, field).await;
    }
    let twenty: Value = (0..20).map(|number| (format!("x-{number}"), json!("a".repeat(4096)))).collect();
    let change = client.patch(&format!("webhooks/{}", good.id), &json!({ "headers": twenty })).await;
    assert_eq!(change.status, 200, "values at the limits are refused: {}", change.body);
    assert_eq!(world.count("SELECT count(*) FROM endpoints").await, 1, "a refused webhook was created");
}

/// The dialect may change after a header was accepted. The dialect's signature and event headers override a custom
/// header.
#[tokio::test]
async fn a_header_that_the_next_dialect_sets_gives_way() {
    let world = World::shared().await;
    let headers = json!({ "X-Ploints-Signature": "mine", "X-Kept": "yes" });
    let new = json!({ "url": world.receiver.url("a"), "events": ["*"], "headers": headers });
    let made = world.client().post("webhooks", &new).await.data().clone();
    let change = json!({ "dialect": "ploints" });
    assert_eq!(world.client().patch(&format!("applications/{}", world.application), &change).await.status, 200);
    world.known().await;
    let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    assert_eq!((received.header("x-ploints-signature").len(), received.header("x-kept")), (64, "yes"), "{received:?}");
    let of_event = event(&world, &id).await["deliveries"][0].clone();
    delivery_in(&world, text(&of_event, "id"), "delivered").await;
    let refused =
        world.client().patch(&format!("webhooks/{}", text(&made, "id")), &json!({ "headers": headers })).await;
    assert_refused("from now on", &refused, (422, "invalid_field", "headers"));
}

/// The values are hidden from the caller, and may be credentials of the present origin alone.
#[tokio::test]
async fn headers_go_to_no_other_origin() {
    let world = World::shared().await;
    let (client, other) = (world.client(), Receiver::start().await);
    let new = json!({ "url": world.receiver.url("a"), "events": ["a"], "headers": { "Authorization": CREDENTIAL } });
    let id = text(client.post("webhooks", &new).await.data(), "id").to_owned();
    let (webhook, test) = (format!("webhooks/{id}"), format!("webhooks/{id}/test"));

    for (receiver, path, sent) in [(&world.receiver, "b", CREDENTIAL), (&other, "b", "")] {
        let tested = client.post(&test, &json!({ "url": receiver.url(path) })).await;
        assert_eq!(tested.data()["delivered"], true, "{}", tested.body);
        assert_eq!(receiver.received(path)[0].header("authorization"), sent);
    }

    let moved = json!({ "url": other.url("a") });
    assert_refused("a move", &client.patch(&webhook, &moved).await, (422, "missing_field", "headers"));
    let config = json!({ "id": id, "url": other.url("a") });
    let put = client.send_to(Method::PUT, "/webhooks/configs", &[JSON], config.to_string()).await.expect("an answer");
    assert_refused("a move of a configuration", &put, (422, "missing_field", "headers"));
    let beside = client.patch(&webhook, &json!({ "url": world.receiver.url("c") })).await;
    assert_eq!(beside.data()["headers"], json!(["authorization"]));
    let moved = json!({ "url": other.url("a"), "headers": {} });
    assert_eq!(client.patch(&webhook, &moved).await.data()["headers"], json!([]));
    assert_eq!(client.patch(&webhook, &json!({ "url": world.receiver.url("c") })).await.status, 200);
}
