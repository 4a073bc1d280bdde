//! Authentication and client certificates in the form and on the page of a webhook.

use fanfare_tests::world::World;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use super::visitor::Visitor;

const SECRET: &str = "pass-w0rd-5d1c";

/// A client certificate that ends within two days, and its key, in PEM.
fn ending_certificate() -> (String, String) {
    let end = (Timestamp::now() + SignedDuration::from_hours(48)).to_zoned(TimeZone::UTC).date();
    let mut parameters = CertificateParams::new(vec!["client.example".to_owned()]).expect("a name");
    parameters.distinguished_name.push(DnType::CommonName, "ends-tomorrow");
    let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
    parameters.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
    let key = KeyPair::generate().expect("a key");
    (parameters.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_sets_and_keeps_secrets_and_the_page_tells_the_end_of_a_certificate() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["order.paid"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    let edit = format!("{page}/edit");
    let url = world.receiver.url("a");
    let usual = [("url", url.as_str()), ("which", "these"), ("others", "order.paid")];
    let shown = async || world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    let save = async |more: &[(&str, &str)]| {
        let updated_at = shown().await["updated_at"].as_str().expect("a time").to_owned();
        let confirmed = [("confirmed", "yes"), ("updated_at", updated_at.as_str())];
        named.post(&edit, &[&usual[..], &confirmed, more].concat()).await
    };
    let basic = [("authentication.type", "basic"), ("authentication.username", "shop")];
    let refused = save(&basic).await;
    assert!(refused.status == 422 && refused.text.contains("is missing"), "{}", refused.text);
    let saved = save(&[&basic[..], &[("authentication.password", SECRET)]].concat()).await;
    assert_eq!(saved.status, 303, "{}", saved.text);
    let (chain, key) = ending_certificate();
    let certified =
        [("client_certificate.certificate_chain", chain.as_str()), ("client_certificate.private_key", key.as_str())];
    let saved = save(&[&basic[..], &certified].concat()).await;
    assert_eq!(saved.status, 303, "{}", saved.text);
    let webhook = shown().await;
    assert_eq!(webhook["authentication"], json!({ "type": "basic", "username": "shop" }));
    assert!(webhook["client_certificate"]["subject"].as_str().is_some_and(|subject| subject.contains("ends-tomorrow")));

    let body = named.get(&page).await.text;
    assert!(body.contains("user shop, password hidden") && body.contains("The client certificate ends at"), "{body}");
    let findings = world.admin().await.get("overview").await.body.to_string();
    assert!(findings.contains("The client certificate for 127.0.0.1 ends at"), "{findings}");
    let secret_line = key.lines().nth(1).expect("a line of the key").to_owned();
    let audit = world.admin().await.get("audit-log").await.body.to_string();
    assert!(audit.contains("change_webhook"), "{audit}");
    for text in [&body, &named.get(&edit).await.text, &findings, &webhook.to_string(), &audit] {
        assert!(!text.contains(SECRET) && !text.contains(&secret_line), "{text}");
    }

    // The key of another certificate is refused beside its field.
    let (_, other) = ending_certificate();
    let mixed =
        [("client_certificate.certificate_chain", chain.as_str()), ("client_certificate.private_key", other.as_str())];
    let refused = save(&[&basic[..], &mixed].concat()).await;
    assert!(refused.status == 422 && refused.text.contains("does not belong"), "{}", refused.text);
    let removed = save(&[("no_certificate", "true")]).await;
    assert_eq!(removed.status, 303, "{}", removed.text);
    let webhook = shown().await;
    assert!(webhook["authentication"].is_null() && webhook["client_certificate"].is_null(), "{webhook}");
}
