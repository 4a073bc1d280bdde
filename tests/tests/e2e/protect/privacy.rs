//! Privacy: secrets, credentials and redacted members stay hidden from readers of the database, the broker's folder,
//! the logs and the API. Also: erasure of events, and rotation of the encryption keys.

use std::{fs, path::Path};

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, signature::is_signed},
    servers::instance::{Instance, Servers},
    token_server::{TokenAnswer, TokenServer},
    world::{
        Endpoint, Setup, World,
        process::{fanfare, try_fanfare},
    },
};
use hyper::Method;
use serde_json::{Value, json};

const CREDENTIAL: &str = "Bearer tok-4f9d1c";
const CLIENT_SECRET: &str = "cs-81d3a0f2";
const PASSWORD: &str = "hunter2-7b1e";

/// Two encryption keys.
const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

/// Redacts `password` and `card.number` for the application. Creates an endpoint with a credential header and an echo
/// as the answer.
async fn guarded(world: &World) -> Endpoint {
    let redacted = json!({ "redacted": ["password", "card.number"] });
    let path = format!("applications/{}", world.application);
    assert_eq!(world.client().patch(&path, &redacted).await.data()["redacted"], redacted["redacted"]);
    world.receiver.script("a", &[Behaviour::Echo]);
    let endpoint = world.endpoint("a", &["order.created"]).await;
    world.change(&endpoint, &json!({ "headers": { "authorization": CREDENTIAL } })).await;
    endpoint
}

fn order() -> Value {
    json!({ "type": "order.created", "data": { "password": PASSWORD, "card": { "number": PASSWORD }, "n": 1 } })
}

/// Resends a delivery once its previous attempt is recorded.
async fn resend(world: &World, delivery: &str) {
    let path = format!("deliveries/{delivery}/resend");
    until("the resend to be accepted", async || {
        (world.client().post(&path, &Value::Null).await.status == 200).then_some(())
    })
    .await;
}

/// Checks that each request at the endpoint has the whole body, a signature and the credential.
async fn assert_got(world: &World, endpoint: &Endpoint, count: usize) {
    for received in world.receiver.wait_for("a", count).await {
        let body: Value = serde_json::from_slice(&received.body).expect("JSON");
        assert_eq!(body["data"], order()["data"]);
        assert!(is_signed(&received, &endpoint.secret));
        assert_eq!(received.header("authorization"), CREDENTIAL);
    }
}

#[tokio::test]
async fn redacted_members_are_sent_and_not_shown() {
    let world = World::shared().await;
    let endpoint = guarded(&world).await;
    let event = world.publish(&order()).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = delivery["id"].as_str().expect("an id");
    assert_got(&world, &endpoint, 1).await;

    let expected = json!({ "password": "[redacted]", "card": { "number": "[redacted]" }, "n": 1 });
    let shown = world.client().get(&format!("events/{event}")).await.data().clone();
    assert_eq!(shown["payload"]["data"], expected);
    let attempt = &world.delivery(delivery).await["attempts"][0];
    let answered: Value = serde_json::from_str(attempt["response_body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(answered["data"], expected, "{attempt}");
    let test =
        world.client().post(&format!("webhooks/{}/test", endpoint.id), &json!({ "data": order()["data"] })).await;
    assert_eq!(test.data()["delivered"], true, "{}", test.body);
    for answer in [
        test.body.to_string(),
        world.client().get("events").await.body.to_string(),
        world.client().get(&format!("webhooks/{}/attempts", endpoint.id)).await.body.to_string(),
        world.client().get(&format!("webhooks/{}/deliveries", endpoint.id)).await.body.to_string(),
    ] {
        assert!(answer.contains("[redacted]") && !answer.contains(PASSWORD), "{answer}");
    }
    assert!(!world.client().get("audit-log").await.body.to_string().contains(PASSWORD));
    // Resends and replays send the accepted bytes.
    resend(&world, delivery).await;
    assert_got(&world, &endpoint, 3).await;
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "types": ["order.created"], "states": ["delivered"] });
    assert_eq!(world.client().post("replays", &replay).await.status, 201);
    assert_got(&world, &endpoint, 4).await;
    // A response without readable members is not stored.
    world.receiver.script("a", &[Behaviour::OK]);
    resend(&world, delivery).await;
    until("the last attempt to be recorded", async || {
        let attempts = world.delivery(delivery).await["attempts"].clone();
        let last = attempts.as_array()?.iter().find(|attempt| attempt["attempt"] == 4)?.clone();
        assert!(last["response_body"].as_str()?.contains("not kept"), "{last}");
        Some(())
    })
    .await;

    for names in [json!([""]), json!(["a..b"]), json!([1]), json!("password"), json!(vec!["a"; 101])] {
        let path = format!("applications/{}", world.application);
        let refused = world.client().patch(&path, &json!({ "redacted": names })).await;
        assert_eq!(refused.status, 422, "{names}: {}", refused.body);
    }
}

#[tokio::test]
async fn an_erased_event_is_gone_and_sent_no_more() {
    let world = World::of_waits("24h", &[]).await;
    world.receiver.script("a", &[Behaviour::Echo]);
    world.receiver.script("b", &[Behaviour::FAIL]);
    let (_a, _b) = (world.endpoint("a", &["order.created"]).await, world.endpoint("b", &["order.created"]).await);
    let _dispatcher = world.dispatcher().await;
    let mut order = order();
    order["id"] = json!(format!("key-{PASSWORD}"));
    let event = world.publish(&order).await;
    // The same key with other data.
    order["data"]["n"] = json!(2);
    world.publish(&order).await;
    let parked = "SELECT count(*) FROM parked WHERE reason = 'key_reused'";
    until("the event with the reused key to be parked", async || (world.count(parked).await == 1).then_some(())).await;
    let waiting = world.wait_for_deliveries("state=scheduled", 1).await.remove(0);
    let delivered = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let (_, other) = world.other_application().await;
    let path = format!("events/{event}");
    let erase = async |client: &fanfare_tests::clients::api::Client| {
        client.send(Method::DELETE, &path, &[], "").await.expect("an answer")
    };
    assert_eq!(erase(&other).await.status, 404, "the event belongs to another application");
    assert_eq!(erase(world.client()).await.data(), &json!({ "id": event, "erased": true }));
    assert_eq!(erase(world.client()).await.status, 200, "a second erasure changes nothing");

    let shown = world.client().get(&path).await.data().clone();
    assert!(shown["payload"].is_null() && shown["key"].is_null() && !shown["erased_at"].is_null(), "{shown}");
    let of = async |delivery: &Value| world.delivery(delivery["id"].as_str().expect("an id")).await;
    let (failed, done) = (of(&waiting).await, of(&delivered).await);
    assert_eq!((&failed["state"], &failed["reason"]), (&json!("failed"), &json!("erased")));
    assert_eq!(done["state"], "delivered", "the outcome stays on record");
    assert!(done["attempts"][0]["response_body"].is_null() && done["attempts"][0]["status"] == 200, "{done}");
    for table in ["events", "attempts", "deliveries", "event_keys", "parked", "audit_log"] {
        let kept = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{PASSWORD}%'");
        assert_eq!(world.count(&kept).await, 0, "{table}");
    }
    // Neither a single resend, nor a resend by filter, nor a replay sends the event.
    let id = waiting["id"].as_str().expect("an id");
    let refused = world.client().post(&format!("deliveries/{id}/resend"), &Value::Null).await;
    assert_eq!((refused.status, refused.code()), (409, "event_erased"));
    let all = world.client().post("deliveries/resend", &json!({ "state": "failed" })).await;
    assert_eq!(all.data()["resent"], 0);
    let wanted = json!({ "since": "2020-01-01T00:00:00Z", "states": ["failed", "delivered"] });
    assert_eq!(world.client().post("replays/dry-run", &wanted).await.data()["deliveries"], 0);
    assert_eq!(world.receiver.all().len(), 2);
    // The same key again is the same event: persisted before, and erased.
    world.publish(&order).await;
    world.publish(&json!({ "type": "order.created", "data": "another" })).await;
    world.receiver.wait_for("a", 2).await;
    assert_eq!(world.receiver.received("a").len(), 2);
    let unknown = world.client().send(Method::DELETE, "events/evt_00000000000000000000000000", &[], "").await;
    assert_eq!(unknown.expect("an answer").status, 404);
}

/// A delivery that is still `scheduled` after the erasure ends as well.
#[tokio::test]
async fn a_scheduled_delivery_of_an_erased_event_fails() {
    let world = World::of_waits("3s", &[]).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    world.endpoint("a", &["order.created"]).await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&order()).await;
    let waiting = world.wait_for_deliveries("state=scheduled", 1).await.remove(0);
    world.database().await.batch_execute("UPDATE events SET body = '', erased_at = now()").await.expect("erased");
    let failed = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!((&failed["id"], &failed["reason"]), (&waiting["id"], &json!("erased")));
    assert_eq!(world.receiver.all().len(), 1);
}

/// A process without the key of a body queues only this delivery again.
#[tokio::test]
async fn a_body_that_cannot_be_read_is_put_off() {
    let world = World::of_waits("24h", &[]).await;
    let endpoint = guarded(&world).await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&order()).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = delivery["id"].as_str().expect("an id");
    let database = world.database().await;
    database.batch_execute("UPDATE events SET body_key_name = 'lost'").await.expect("the key name is changed");
    resend(&world, delivery).await;
    until("the delivery to be queued again", async || {
        let shown = world.delivery(delivery).await;
        (shown["state"] == "queued" && shown["reason"] == "application_unreadable").then_some(())
    })
    .await;
    database.batch_execute("UPDATE events SET body_key_name = 'test'").await.expect("the key name is restored");
    resend(&world, delivery).await;
    assert_got(&world, &endpoint, 2).await;
}

/// An erasure during an attempt is refused, because the attempt's outcome would be recorded after the erasure.
#[tokio::test]
async fn an_event_is_not_erased_while_it_is_sent() {
    let world = World::of(Setup { timeout: Some("60s".to_owned()), ..Setup::new(&[]) }).await;
    world.receiver.script("a", &[Behaviour::Hang]);
    world.endpoint("a", &["order.created"]).await;
    let _dispatcher = world.dispatcher().await;
    let event = world.publish(&order()).await;
    world.receiver.wait_for("a", 1).await;
    let refused = world.client().send(Method::DELETE, &format!("events/{event}"), &[], "").await.expect("an answer");
    assert_eq!((refused.status, refused.code()), (409, "event_under_way"), "{}", refused.body);
    assert!(refused.retry_after().is_some());
}

#[tokio::test]
async fn data_is_reencrypted_with_a_new_key_while_services_run() {
    let mut world = World::of_variables(&[("FANFARE_SECRET_KEYS", OLD)]).await;
    let endpoint = guarded(&world).await;
    let other = world.endpoint("b", &["other"]).await;
    world.change(&other, &json!({ "authentication": { "type": "bearer", "token": PASSWORD } })).await;
    let dispatcher = world.dispatcher().await;
    world.publish(&order()).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = delivery["id"].as_str().expect("an id");
    drop(dispatcher);

    // Each process gets the new key as the first of both.
    let both = format!("{NEW},{OLD}");
    world.variables.insert("FANFARE_SECRET_KEYS".to_owned(), both);
    drop(world.take_ingest());
    world.start_ingest().await;
    let dispatcher = world.dispatcher().await;
    let names = "SELECT count(*) FROM (
                     SELECT key_name FROM endpoint_secrets UNION ALL SELECT headers_key_name FROM endpoints
                     UNION ALL SELECT body_key_name FROM events
                     UNION ALL SELECT authentication_key_name FROM endpoints
                 ) AS all_of_them WHERE key_name =";
    assert_eq!(world.count(&format!("{names} 'old'")).await, 5);
    let said = fanfare(&world.variables, &["reencrypt"]);
    assert!(said.contains("2 secrets, the headers of 1 endpoints, 1 bodies of events, 1 credentials"), "{said}");
    assert!(said.contains("everything is encrypted with the first key"), "{said}");
    assert_eq!(world.count(&format!("{names} 'old'")).await, 0);
    assert_eq!(world.count(&format!("{names} 'new'")).await, 5);
    assert!(
        !fanfare(&world.variables, &["reencrypt"]).contains("re-encrypted"),
        "a second run finds nothing to encrypt"
    );
    resend(&world, delivery).await;
    assert_got(&world, &endpoint, 2).await;

    // The old key is no longer needed.
    drop(dispatcher);
    drop(world.take_ingest());
    let with_old = {
        let mut all = world.variables.clone();
        all.insert("FANFARE_SECRET_KEYS".to_owned(), OLD.to_owned());
        all
    };
    world.variables.insert("FANFARE_SECRET_KEYS".to_owned(), NEW.to_owned());
    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    resend(&world, delivery).await;
    assert_got(&world, &endpoint, 3).await;
    let (_, error) = try_fanfare(&with_old, &["reencrypt"]);
    assert!(error.is_some_and(|error| error.contains("new")), "the error names the missing key");
}

/// Searches the disks of database and broker, and the logs at trace level, for secrets.
#[tokio::test]
async fn a_thief_of_disks_and_logs_finds_no_secret() {
    let (postgres, rabbitmq) = (Instance::postgres("stolen"), Instance::rabbitmq("stolen"));
    let servers = Servers { amqp_url: rabbitmq.url(), database_url: postgres.url() };
    let world = World::with(servers, &[("RUST_LOG", "trace")]).await;
    let endpoint = guarded(&world).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::FAIL, Behaviour::Echo]);
    let token_server = TokenServer::start(TokenAnswer::Token(3_600_000)).await;
    let oauth2 = json!({
        "type": "oauth2", "token_url": token_server.url(), "client_id": "shop", "client_secret": CLIENT_SECRET,
    });
    let other = world.endpoint("b", &["order.created"]).await;
    world.change(&other, &json!({ "authentication": oauth2 })).await;
    let dispatcher = world.dispatcher().await;
    for _ in 0..20 {
        world.publish(&order()).await;
    }
    world.wait_for_deliveries("state=delivered", 40).await;
    world.database().await.batch_execute("CHECKPOINT").await.expect("all is on disk");

    let key_ring = world.variables["FANFARE_SECRET_KEYS"].split(':').next_back().expect("a key").to_owned();
    let token = world.key.splitn(3, '_').last().expect("the secret part");
    let secret = endpoint.secret.strip_prefix("whsec_").expect("a secret");
    let basic = token_server.requests()[0].authorization.clone();
    let access_token = token_server.tokens()[0].clone();
    let credentials = [secret, token, CREDENTIAL, &key_ring, CLIENT_SECRET, &basic, &access_token];
    // Bodies are not searched in the broker: an event message holds the event as published.
    let logs: String =
        [world.ingest(), &dispatcher].iter().flat_map(|process| process.logs()).map(|line| line.to_string()).collect();
    assert!(logs.contains("an attempt failed"), "the logs lack the failed attempts: {} bytes", logs.len());
    for what in credentials.iter().chain([&PASSWORD]) {
        assert!(!logs.contains(what), "the logs contain {what}");
        assert!(!holds(&postgres.data(), what), "the database's folder contains {what}");
    }
    for what in credentials {
        assert!(!holds(&rabbitmq.data(), what), "the broker's folder contains {what}");
    }
    assert!(holds(&postgres.data(), &world.receiver.url(&endpoint.path)), "the search finds an unencrypted URL");
}

/// True if a file below a folder contains a text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, text);
        }
        // Files may disappear meanwhile.
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
