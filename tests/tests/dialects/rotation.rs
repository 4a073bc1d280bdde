//! A secret that is changed while deliveries go on: receivers that know the old one, and those that know the new one.

use std::time::Duration;

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received},
    world::World,
};
use serde_json::{Value, json};

use crate::{
    DIALECTS,
    tenants::{Tenant, Webhook},
    verifiers::Verifiers,
};

/// An overlap that a test can wait for: longer than two deliveries take.
const SHORT_OVERLAP: Duration = Duration::from_secs(5);

/// The secrets that a delivery is verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignedBy {
    Old,
    /// `webhook-signature` by both, the dialect's own header by the old one.
    Both,
    New,
}

/// A webhook whose deliveries are looked at by receivers with either secret, in both languages.
struct Rotating<'a> {
    world: &'a World,
    tenant: Tenant,
    webhook: Webhook,
    receivers: [Verifiers; 2],
}

impl<'a> Rotating<'a> {
    async fn new(world: &'a World, dialect: &'static str, secret: Option<&str>) -> Self {
        let (in_node, in_python) = tokio::join!(Verifiers::in_node(), Verifiers::in_python());
        let tenant = Tenant::new(world, dialect).await;
        let mut fields = json!({ "url": world.receiver.url(dialect), "events": ["*"] });
        if let Some(secret) = secret {
            fields["secret"] = secret.into();
        }
        let webhook = tenant.webhook_of(world, &fields).await;
        let mut rotating = Self { world, tenant, webhook, receivers: [in_node, in_python] };
        let secret = rotating.webhook.secret.clone();
        rotating.tell("old", &secret).await;
        rotating
    }

    /// A receiver is told a secret.
    async fn tell(&mut self, path: &str, secret: &str) {
        for receivers in &mut self.receivers {
            if secret.starts_with("whsec_") {
                receivers.receive(path, self.tenant.dialect, secret).await;
            } else {
                receivers.receive_raw(path, self.tenant.dialect, secret).await;
            }
        }
    }

    /// Gives the webhook another secret, which a new receiver is told.
    async fn rotate(&mut self, overlap: Duration) -> Value {
        let path = format!("webhooks/{}/rotate-secret", self.webhook.id);
        let answer = self.tenant.client.post(&path, &json!({ "overlap_seconds": overlap.as_secs() })).await;
        self.world.known().await;
        let secret = answer.data()["secret"].as_str().expect("a secret").to_owned();
        assert_ne!(secret, self.webhook.secret);
        self.tell("new", &secret).await;
        answer.data().clone()
    }

    /// Publishes an event and gives the request that it leads to.
    async fn deliver(&self) -> Received {
        let event = self.tenant.publish(&json!({ "type": "order.created", "data": { "n": 1.50 } })).await;
        until(&format!("{event} in {}", self.tenant.dialect), async || {
            self.world.receiver.received(self.tenant.dialect).into_iter().find(|one| one.event() == event)
        })
        .await
    }

    async fn assert_signed(&self, request: &Received, signed: SignedBy) {
        let dialect = self.tenant.dialect;
        for receivers in &self.receivers {
            let old = receivers.faults("old", request).await;
            assert_eq!(
                procedures(&old),
                failing(dialect, signed == SignedBy::New, signed == SignedBy::New),
                "{dialect}, {signed:?}"
            );
            if signed != SignedBy::Old {
                let new = receivers.faults("new", request).await;
                assert_eq!(
                    procedures(&new),
                    failing(dialect, signed == SignedBy::Both, false),
                    "{dialect}, {signed:?}"
                );
            }
        }
        let signatures = request.header("webhook-signature").split(' ').count();
        assert_eq!(signatures, if signed == SignedBy::Both { 2 } else { 1 }, "{dialect}, {signed:?}");
    }

    async fn shown_end(&self) -> Value {
        let shown = self.tenant.client.get(&format!("webhooks/{}", self.webhook.id)).await;
        shown.data()["previous_secret_expires_at"].clone()
    }
}

/// The procedures that found a fault.
fn procedures(faults: &[String]) -> Vec<&str> {
    faults.iter().filter_map(|fault| fault.split(':').next()).collect()
}

/// Those that do, where a dialect's own signature, or that of Standard Webhooks, is by another secret.
fn failing(dialect: &str, own: bool, standard: bool) -> Vec<&'static str> {
    let has_own = !matches!(dialect, "reward" | "standard");
    [("own", own && has_own), ("standard", standard)].into_iter().filter_map(|(name, it)| it.then_some(name)).collect()
}

#[tokio::test]
async fn both_secrets_sign_until_the_owner_ends_the_old_one() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    for dialect in DIALECTS {
        let mut rotating = Rotating::new(&world, dialect, None).await;
        rotating.assert_signed(&rotating.deliver().await, SignedBy::Old).await;
        assert_eq!(rotating.shown_end().await, Value::Null, "{dialect}");

        rotating.rotate(Duration::from_secs(3600)).await;
        rotating.assert_signed(&rotating.deliver().await, SignedBy::Both).await;
        assert_ne!(rotating.shown_end().await, Value::Null, "{dialect}");
        let path = format!("webhooks/{}", rotating.webhook.id);
        let again = rotating.tenant.client.post(&format!("{path}/rotate-secret"), &json!({})).await;
        assert_eq!((again.status, again.code()), (409, "rotation_under_way"), "{}", again.body);
        rotating.assert_signed(&rotating.deliver().await, SignedBy::Both).await;

        rotating.tenant.client.post(&format!("{path}/end-rotation"), &json!({})).await.data();
        world.known().await;
        rotating.assert_signed(&rotating.deliver().await, SignedBy::New).await;
        assert_eq!(rotating.shown_end().await, Value::Null, "{dialect}");
    }
}

#[tokio::test]
async fn the_overlap_ends_by_itself_and_retries_are_signed_as_it_is_then() {
    let world = World::of_waits(&["1s"; 30].join(","), &[]).await;
    let _dispatcher = world.dispatcher().await;
    let mut rotating = Rotating::new(&world, "incenta", None).await;
    world.receiver.script("incenta", &[Behaviour::FAIL]);
    let rotated = rotating.rotate(SHORT_OVERLAP).await;
    let end = rotated["previous_secret_expires_at"].as_str().and_then(|end| end.parse().ok()).expect("a moment");
    let first = rotating.deliver().await;
    rotating.assert_signed(&first, SignedBy::Both).await;

    let retries = until("attempts after the overlap", async || {
        let all = world.receiver.received("incenta");
        Some(all).filter(|all| all.iter().filter(|one| one.at > end).count() > 2)
    })
    .await;
    // The end is by the database's clock, and reaches no process before it: around it either is right.
    let seconds = jiff::SignedDuration::from_secs(1);
    for request in &retries {
        assert_eq!((request.event(), &request.body), (first.event(), &first.body));
        if request.at < end - seconds {
            rotating.assert_signed(request, SignedBy::Both).await;
        } else if request.at > end + seconds {
            rotating.assert_signed(request, SignedBy::New).await;
        }
    }
    assert!(retries.iter().any(|one| one.at > end + seconds), "none is looked at that came after the overlap");
    assert_eq!(rotating.shown_end().await, Value::Null);
}

#[tokio::test]
async fn a_secret_that_another_system_gave_away_can_be_kept_and_changed() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let mut rotating = Rotating::new(&world, "nudj", Some("the secret of 2019, & no base64")).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::Old).await;
    rotating.rotate(Duration::from_secs(3600)).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::Both).await;
}

#[tokio::test]
async fn without_an_overlap_the_old_secret_ends_at_once() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let mut rotating = Rotating::new(&world, "ploints", None).await;
    rotating.rotate(Duration::ZERO).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::New).await;
}
