//! Asymmetric signatures: the key set of an application, and its rotation under deliveries.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signature, VerifyingKey};
use fanfare_tests::{
    clients::api::Answer,
    patience::until,
    receiver::{Received, signature::is_signed},
    servers::instance::{Instance, Servers},
    world::{Endpoint, World},
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::sleep};

/// A verifier that holds a key set, as a receiver does.
struct KeySet(Vec<VerifyingKey>);

impl KeySet {
    async fn fetch(world: &World) -> Self {
        let answer = key_set(world, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let key = |key: &Value| {
            let text = |name: &str| key[name].as_str().expect("a text").to_owned();
            assert_eq!(["kty", "crv", "use", "alg"].map(text), ["OKP", "Ed25519", "sig", "EdDSA"]);
            let bytes = URL_SAFE_NO_PAD.decode(text("x")).expect("base64url");
            VerifyingKey::from_bytes(&bytes.try_into().expect("32 bytes")).expect("a key")
        };
        Self(answer.body["keys"].as_array().expect("keys").iter().map(key).collect())
    }

    fn verifies(&self, request: &Received) -> bool {
        let head = format!("{}.{}.", request.event(), request.header("webhook-timestamp"));
        let signed = [head.as_bytes(), &request.body].concat();
        let mut signatures = asymmetric(request).into_iter().map(|text| {
            let bytes = STANDARD.decode(text).expect("base64");
            Signature::from_slice(&bytes).expect("64 bytes")
        });
        signatures.any(|signature| self.0.iter().any(|key| key.verify_strict(&signed, &signature).is_ok()))
    }
}

/// The asymmetric signatures of a request, in base64.
fn asymmetric(request: &Received) -> Vec<&str> {
    request.header("webhook-signature").split(' ').filter_map(|part| part.strip_prefix("v1a,")).collect()
}

/// Asks for the key set without a key of the API.
async fn key_set(world: &World, headers: &[(&str, &str)]) -> Answer {
    key_set_of(world, &world.application, headers).await
}

async fn key_set_of(world: &World, application: &str, headers: &[(&str, &str)]) -> Answer {
    let nobody = world.client().with_key("");
    nobody.send(Method::GET, &format!("applications/{application}/jwks.json"), headers, "").await.expect("an answer")
}

async fn signed_endpoint(world: &World, path: &str) -> Endpoint {
    let new = json!({ "url": world.receiver.url(path), "events": ["a"], "asymmetric": true });
    let answer = world.client().post("webhooks", &new).await;
    assert_eq!(answer.data()["asymmetric"], true, "{}", answer.text);
    world.known().await;
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
}

async fn rotate(world: &World, overlap: u64) -> Answer {
    let path = format!("applications/{}/signing-keys/rotate", world.application);
    let answer = world.client().post(&path, &json!({ "overlap_seconds": overlap })).await;
    world.known().await;
    answer
}

#[tokio::test]
async fn each_delivery_of_a_rotation_is_verified_by_older_and_newer_key_sets() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let endpoint = signed_endpoint(&world, "a").await;
    world.endpoint("without", &["a"]).await;
    let before = KeySet::fetch(&world).await;
    assert_eq!(before.0.len(), 1);

    let (published, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let publishing = async {
        while !is_over.load(Ordering::Relaxed) {
            world.publish(&json!({ "type": "a", "data": { "n": published.load(Ordering::Relaxed) } })).await;
            published.fetch_add(1, Ordering::Relaxed);
            // The pace of the publisher.
            sleep(Duration::from_millis(20)).await;
        }
    };
    let more = async |count: usize| {
        let least = published.load(Ordering::Relaxed) + count;
        world.receiver.wait_for("a", least).await.len()
    };
    let rotating = async {
        more(10).await;
        let rotated = rotate(&world, 7200).await;
        let keys = rotated.data()["keys"].as_array().expect("keys").clone();
        assert_eq!((keys.len(), &keys[0]["expires_at"]), (2, &Value::Null), "{}", rotated.text);
        assert!(keys[1]["expires_at"].is_string() && keys[0]["public_key"].as_str().is_some_and(is_public_key));
        let refused = rotate(&world, 7200).await;
        assert_eq!((refused.status, refused.code()), (409, "rotation_under_way"), "{}", refused.text);
        let during =
            until("both keys", async || Some(KeySet::fetch(&world).await).filter(|set| set.0.len() == 2)).await;
        let overlapping = more(10).await;
        // The overlap ends.
        let end = "UPDATE signing_keys SET expires_at = now() WHERE expires_at IS NOT NULL";
        world.database().await.execute(end, &[]).await.expect("an update");
        world.known().await;
        let after = until("one key", async || Some(KeySet::fetch(&world).await).filter(|set| set.0.len() == 1)).await;
        more(10).await;
        is_over.store(true, Ordering::Relaxed);
        (overlapping, during, after)
    };
    let ((), (overlapping, during, after)) = tokio::join!(publishing, rotating);
    let received = world.receiver.wait_for("a", published.load(Ordering::Relaxed)).await;
    assert!(received.len() >= 30);
    for (place, request) in received.iter().enumerate() {
        assert!(is_signed(request, &endpoint.secret));
        assert!(during.verifies(request), "{place}: {:?}", request.headers);
        assert!(place >= overlapping || before.verifies(request), "{place}: {:?}", request.headers);
    }
    let counts: Vec<usize> = received.iter().map(|request| asymmetric(request).len()).collect();
    assert!(counts.contains(&2) && counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
    let last = received.last().expect("a request");
    assert!(after.verifies(last) && !before.verifies(last));
    assert!(received.iter().filter(|request| asymmetric(request).len() == 2).all(|request| after.verifies(request)));
    assert!(world.receiver.received("without").iter().all(|request| asymmetric(request).is_empty()));
}

fn is_public_key(text: &str) -> bool {
    text.strip_prefix("whpk_").is_some_and(|text| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32))
}

#[tokio::test]
async fn a_leaked_key_ends_at_once() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let endpoint = signed_endpoint(&world, "a").await;
    let leaked = KeySet::fetch(&world).await;
    assert_eq!(rotate(&world, 7200).await.status, 200);
    assert_eq!(rotate(&world, 0).await.data()["keys"].as_array().map(Vec::len), Some(1));
    let present = until("one key", async || Some(KeySet::fetch(&world).await).filter(|set| set.0.len() == 1)).await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    let request = world.receiver.wait_for("a", 1).await.remove(0);
    assert!(present.verifies(&request) && !leaked.verifies(&request) && is_signed(&request, &endpoint.secret));
    assert_eq!(rotate(&world, 60).await.field(), "overlap_seconds", "shorter than the caches of receivers");

    // The check of signatures names the key, and a foreign key.
    let headers: Value = request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let body = String::from_utf8(request.body.clone()).expect("UTF-8");
    let keys = world.client().get(&format!("applications/{}/signing-keys", world.application)).await;
    let key = &keys.data()["keys"][0];
    for (given, kid, verifies) in [(&key["public_key"], &key["kid"], true), (&json!("whpk_AAAA"), &Value::Null, false)]
    {
        let asked = json!({ "headers": headers, "body": body, "public_key": given });
        let found = world.client().post(&format!("webhooks/{}/verify", endpoint.id), &asked).await;
        let found = found.data();
        assert_eq!((&found["verifies"], &found["signing_keys"]), (&json!(true), &json!([key["kid"]])), "{found}");
        assert_eq!(found["public_key"], json!({ "kid": kid, "verifies": verifies }), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_set_needs_neither_a_key_nor_the_database() {
    let database = block_in_place(|| Instance::postgres("keysets"));
    let servers = Servers { database_url: database.url(), ..Servers::given() };
    let world = World::with(servers, &[]).await;
    // Without keys, an application is unknown here.
    let without = key_set(&world, &[]).await;
    let unknown = key_set_of(&world, "app_00000000000000000000000000", &[]).await;
    assert_eq!((without.status, &without.text), (404, &unknown.text));
    assert_eq!(without.headers["cache-control"], "no-store");
    assert_eq!(key_set_of(&world, "nothing", &[]).await.status, 422);
    assert_eq!(world.rows("signing_keys", "true").await, 0);

    signed_endpoint(&world, "a").await;
    signed_endpoint(&world, "b").await;
    assert_eq!(world.rows("signing_keys", "true").await, 1, "the second webhook uses the key of the first");
    let shown = until("a key", async || Some(key_set(&world, &[]).await).filter(|answer| answer.status == 200)).await;
    assert_eq!(shown.headers["content-type"], "application/jwk-set+json");
    assert_eq!(shown.headers["cache-control"], "public, max-age=300");
    let tag = shown.headers["etag"].to_str().expect("a tag").to_owned();
    let unchanged = key_set(&world, &[("if-none-match", &tag)]).await;
    assert_eq!(
        (unchanged.status, unchanged.text.as_str(), &unchanged.headers["etag"]),
        (304, "", &shown.headers["etag"])
    );
    assert_eq!(key_set(&world, &[("if-none-match", "\"other\"")]).await.status, 200);

    block_in_place(|| database.kill());
    until("an outage", async || (world.client().get("webhooks").await.status == 503).then_some(())).await;
    assert_eq!(key_set(&world, &[]).await.text, shown.text);
}
