//! The signing keys of an application in the form, on the page of a webhook, and on their own page.

use fanfare_tests::world::World;

use super::visitor::Visitor;

#[tokio::test]
async fn keys_are_made_by_the_form_shown_and_rotated() {
    let world = World::new().await;
    let named = Visitor::by_key(&world, &world.key).await;
    let base = format!("/console/{}", world.application);
    let keys = format!("{base}/signing-keys");
    let jwks = format!("http://127.0.0.1/api/v1/applications/{}/jwks.json", world.application);
    let empty = named.get(&keys).await.text;
    assert!(empty.contains("The application has no key.") && empty.contains(&jwks), "{empty}");

    let (id, url) = ("wh_01h455vb4pex5vsknk084sn02q", world.receiver.url("a"));
    let form = [("id", id), ("url", url.as_str()), ("which", "all"), ("asymmetric", "true")];
    let created = named.post(&format!("{base}/webhooks/new"), &form).await;
    assert!(created.status < 400, "{}", created.text);
    let webhook = world.client().get("webhooks").await.data()[0].clone();
    assert_eq!(webhook["asymmetric"], true);
    let page = named.get(&format!("{base}/webhooks/{id}")).await.text;
    assert!(page.contains(&format!("by the <a href=\"{keys}\">keys of the application</a>")), "{page}");

    let listed = async || {
        let path = format!("applications/{}/signing-keys", world.application);
        world.client().get(&path).await.data()["keys"].as_array().expect("keys").clone()
    };
    let [first] = &listed().await[..] else { panic!("a single key") };
    let page = named.get(&keys).await.text;
    // The page escapes `+` and `=` of base64, but not the id.
    assert!(page.contains(first["kid"].as_str().expect("an id")), "{page}");
    let refused = named.post(&keys, &[("overlap_seconds", "60")]).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(named.post(&keys, &[("overlap_seconds", "7200")]).await.status, 303);
    assert_eq!(listed().await.len(), 2);
    let again = named.post(&keys, &[("overlap_seconds", "7200")]).await;
    assert!(again.status == 409 && again.text.contains("the previous key still signs"), "{}", again.text);
    let asked = named.post(&keys, &[("overlap_seconds", "0")]).await;
    assert!(asked.status == 200 && asked.text.contains("End all earlier keys now?"), "{}", asked.text);
    assert_eq!(listed().await.len(), 2, "nothing ends before the confirmation");
    assert_eq!(named.post(&keys, &[("overlap_seconds", "0"), ("confirmed", "yes")]).await.status, 303);
    assert_eq!(listed().await.len(), 1);
    let page = named.get(&keys).await.text;
    assert!(!page.contains("End the previous key now"), "{page}");

    assert_eq!(named.post(&keys, &[("overlap_seconds", "7200")]).await.status, 303);
    let page = named.get(&keys).await.text;
    assert!(page.contains("End the previous key now"), "{page}");
    let newest = listed().await[0].clone();
    assert_eq!(named.post(&format!("{keys}/end"), &[]).await.status, 303);
    assert_eq!(listed().await, [newest]);
    let told = named.get(&format!("{base}/changes")).await.text;
    assert!(told.contains("rotated the signing key of the application"), "{told}");
}
