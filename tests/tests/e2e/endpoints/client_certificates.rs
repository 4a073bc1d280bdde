//! Client certificates of webhooks, from the API through a dispatcher to a receiver with mutual TLS.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_tests::{
    patience::until,
    world::{Endpoint, World},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::protect::tls::{Certificates, terminate_tls};

const DAY: Duration = Duration::from_secs(86400);

/// An issuer of client certificates.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// An issuer, and the address of a receiver for certificates of the issuer.
    async fn with_receiver(world: &World, certificates: &Certificates) -> (Self, String) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).expect("a certificate").der().clone();
        let plain = world.receiver.url("");
        let address = plain.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address");
        let front = terminate_tls(certificates.server(Some(root)), address).await;
        (Self(Issuer::new(parameters, key)), format!("https://{front}"))
    }

    /// A certificate with the lifetime `life`, in whole seconds, and the key, for `client_certificate` of a webhook.
    fn certificate(&self, life: Duration) -> Value {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock") + life;
        parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate");
        json!({ "certificate_chain": certificate.pem(), "private_key": key.serialize_pem() })
    }
}

async fn created(world: &World, base: &str, path: &str, certificate: &Value) -> Endpoint {
    let new = json!({ "url": format!("{base}/{path}"), "events": ["a"], "client_certificate": certificate });
    let answer = world.client().post("webhooks", &new).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    world.known().await;
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
}

/// Waits for a failed attempt at a webhook's scheduled delivery. Returns outcome and error.
async fn failure(world: &World, webhook: &Endpoint) -> (String, String) {
    until("a failed attempt", async || {
        let path = format!("deliveries?webhook={}&state=scheduled", webhook.id);
        let listed = world.client().get(&path).await.data().clone();
        let delivery = world.delivery(listed.as_array()?.first()?["id"].as_str()?).await;
        let attempt = delivery["attempts"].as_array()?.last()?.clone();
        Some((attempt["outcome"].as_str()?.to_owned(), attempt["error"].as_str()?.to_owned()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_requires_certificates_gets_deliveries_until_the_certificate_ends() {
    let certificates = Certificates::new("receiver", "127.0.0.1");
    let authority = certificates.authority().display().to_string();
    let world = World::of_waits("1s,1s,1s,1s,1s,1s,1s,1s,1s,1s", &[("FANFARE_CA_FILE", &authority)]).await;
    let _dispatcher = world.dispatcher().await;
    let (issuer, base) = Authority::with_receiver(&world, &certificates).await;

    let tomorrow = created(&world, &base, "tomorrow", &issuer.certificate(DAY)).await;
    let without = created(&world, &base, "without", &Value::Null).await;
    let foreign = Authority::with_receiver(&world, &certificates).await.0;
    let stranger = created(&world, &base, "stranger", &foreign.certificate(DAY)).await;
    let life = Duration::from_secs(6);
    let short = created(&world, &base, "short", &issuer.certificate(life)).await;
    let publish = async || world.publish(&json!({ "type": "a", "data": {} })).await;
    publish().await;
    for webhook in [&tomorrow, &short] {
        world.receiver.wait_for(&webhook.path, 1).await;
    }
    for refused in [&without, &stranger] {
        let (outcome, error) = failure(&world, refused).await;
        assert!(outcome == "tls_failed" && error.contains("fatal alert"), "{outcome}: {error}");
        assert!(world.receiver.received(&refused.path).is_empty());
    }
    let shown = world.admin().await.get("overview").await.body.to_string();
    assert!(shown.contains("The client certificate for 127.0.0.1 ends at"), "{shown}");

    // From its end on the certificate is not sent, and the attempt says so.
    tokio::time::sleep(life).await;
    publish().await;
    let (outcome, error) = failure(&world, &short).await;
    assert!(outcome == "not_sendable" && error.contains("has ended at"), "{outcome}: {error}");
    world.receiver.wait_for("tomorrow", 2).await;
    assert_eq!(world.receiver.received("short").len(), 1);
    let ended = world.client().post(&format!("webhooks/{}/test", short.id), &json!({})).await;
    assert_eq!(ended.data()["outcome"], json!("not_sendable"), "{}", ended.body);

    // A renewed certificate delivers the delivery that waits.
    world.change(&short, &json!({ "client_certificate": issuer.certificate(DAY) })).await;
    world.receiver.wait_for("short", 2).await;
}
