//! Rotation of a secret during deliveries, with receivers that have the old secret and receivers that have the new
//! secret.

use std::time::Duration;

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received},
    world::World,
};
use serde_json::{Value, json};

use crate::dialects::{
    DIALECTS,
    tenants::{Tenant, Webhook},
    verifiers::Verifiers,
};

/// An overlap short enough for a test, but longer than two deliveries.
const SHORT_OVERLAP: Duration = Duration::from_secs(5);

/// The secrets that sign a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignedBy {
    Old,
    /// Both secrets sign `webhook-signature`; the old secret signs the dialect's own header.
    Both,
    New,
}

/// A webhook with receivers for the old and the new secret, in Node and Python.
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

    /// Sets up receivers at a path with a secret.
    async fn tell(&mut self, path: &str, secret: &str) {
        for receivers in &mut self.receivers {
            if secret.starts_with("whsec_") {
                receivers.receive(path, self.tenant.dialect, secret).await;
            } else {
                receivers.receive_raw(path, self.tenant.dialect, secret).await;
            }
        }
    }

    /// Rotates the webhook's secret, and sets up receivers with the new secret. Returns the response data.
    async fn rotate(&mut self, overlap: Duration) -> Value {
        let path = format!("webhooks/{}/rotate-secret", self.webhook.id);
        let answer = self.tenant.client.post(&path, &json!({ "overlap_seconds": overlap.as_secs() })).await;
        self.world.known().await;
        let secret = answer.data()["secret"].as_str().expect("a secret").to_owned();
        assert_ne!(secret, self.webhook.secret);
        self.tell("new", &secret).await;
        answer.data().clone()
    }

    /// Publishes an event. Returns the request at the receiver.
    async fn deliver(&self) -> Received {
        let event = self.tenant.publish(&json!({ "type": "order.created", "data": { "n": 1.50 } })).await;
        until(&format!("{event} in {}", self.tenant.dialect), async || {
            self.world.receiver.received(self.tenant.dialect).into_iter().find(|request| request.event() == event)
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

/// The signature schemes with a fault.
fn procedures(faults: &[String]) -> Vec<&str> {
    faults.iter().filter_map(|fault| fault.split(':').next()).collect()
}

/// The schemes expected to fail, if another secret made the dialect's own signature or the Standard Webhooks signature.
fn failing(dialect: &str, own: bool, standard: bool) -> Vec<&'static str> {
    let has_own = !matches!(dialect, "reward" | "standard" | "cloudevents");
    [("own", own && has_own), ("standard", standard)].into_iter().filter_map(|(name, it)| it.then_some(name)).collect()
}

#[tokio::test]
async fn both_secrets_sign_until_the_owner_ends_the_old_one() {
    let world = World::shared().await;
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
async fn the_overlap_ends_and_retries_are_signed_by_the_secrets_of_the_moment() {
    let world = World::of_waits(&["1s"; 30].join(","), &[]).await;
    let _dispatcher = world.dispatcher().await;
    let mut rotating = Rotating::new(&world, "incenta", None).await;
    world.receiver.script("incenta", &[Behaviour::FAIL]);
    let rotated = rotating.rotate(SHORT_OVERLAP).await;
    let end = rotated["previous_secret_expires_at"].as_str().and_then(|end| end.parse().ok()).expect("a timestamp");
    let first = rotating.deliver().await;
    rotating.assert_signed(&first, SignedBy::Both).await;

    let retries = until("attempts after the overlap", async || {
        let all = world.receiver.received("incenta");
        Some(all).filter(|all| all.iter().filter(|request| request.at > end).count() > 2)
    })
    .await;
    // The end is by the database's clock, and takes effect in each process no earlier: within a second of the end, both
    // signatures are valid.
    let seconds = jiff::SignedDuration::from_secs(1);
    for request in &retries {
        assert_eq!((request.event(), &request.body), (first.event(), &first.body));
        if request.at < end - seconds {
            rotating.assert_signed(request, SignedBy::Both).await;
        } else if request.at > end + seconds {
            rotating.assert_signed(request, SignedBy::New).await;
        }
    }
    assert!(
        retries.iter().any(|request| request.at > end + seconds),
        "no request came more than 1 s after the overlap"
    );
    assert_eq!(rotating.shown_end().await, Value::Null);
}

#[tokio::test]
async fn a_secret_that_another_system_gave_away_can_be_kept_and_changed() {
    let world = World::shared().await;
    let mut rotating = Rotating::new(&world, "nudj", Some("the secret of 2019, & no base64")).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::Old).await;
    rotating.rotate(Duration::from_secs(3600)).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::Both).await;
}

#[tokio::test]
async fn without_an_overlap_the_old_secret_ends_at_once() {
    let world = World::shared().await;
    let mut rotating = Rotating::new(&world, "ploints", None).await;
    rotating.rotate(Duration::ZERO).await;
    rotating.assert_signed(&rotating.deliver().await, SignedBy::New).await;
}
