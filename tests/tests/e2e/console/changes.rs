//! Changes over the pages: the same entries in the audit log as over the API.

use fanfare_tests::world::World;
use serde_json::{Value, json};

use super::visitor::{Visitor, location};

/// The newest entry of the audit log.
async fn newest(world: &World) -> Value {
    world.client().get("audit-log?limit=1").await.data()[0].clone()
}

#[tokio::test]
async fn changes_have_the_entries_of_the_api() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await[0]["id"].as_str().expect("an id").to_owned();
    let visitor = Visitor::by_link(&world, &["--application", &world.application]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let base = format!("/console/{}", world.application);

    let answer = visitor.post(&format!("{base}/deliveries/{delivery}/resend"), &[]).await;
    assert_eq!(location(&answer), format!("{base}/deliveries/{delivery}?done=resent"), "{}", answer.text);
    let entry = newest(&world).await;
    assert_eq!((&entry["action"], &entry["outcome"]), (&json!("resend_delivery"), &json!("done")), "{entry}");
    assert!(entry["visitor"].as_str().is_some_and(|name| name.contains('@')) && entry["key"].is_null(), "{entry}");
    assert_eq!(entry["application"], json!(world.application));
    world.receiver.wait_for(&endpoint.path, 2).await;

    let described = [("name", "order.paid"), ("sample", "{\"secret\": \"in-the-sample\"}")];
    let answer = named.post(&format!("{base}/event-types/describe"), &described).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let entry = newest(&world).await;
    assert_eq!((&entry["action"], &entry["outcome"]), (&json!("describe_event_type"), &json!("done")), "{entry}");
    assert!(entry["key"].as_str().is_some_and(|key| key.starts_with("key_")), "{entry}");
    assert_eq!(entry["request"]["name"], "order.paid");
    assert!(!entry.to_string().contains("in-the-sample"), "{entry}");

    // A refused change is logged as the API logs it, and the form keeps the typed values.
    let wrong = [("name", "no spaces please"), ("description", "kept")];
    let answer = named.post(&format!("{base}/event-types/describe"), &wrong).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    let page = super::html::Html::parse(&answer.text);
    let field = page.all("input").find(|field| field.get("name") == Some("name")).expect("the field");
    assert_eq!((field.get("value"), field.get("aria-invalid")), (Some("no spaces please"), Some("true")));
    assert!(page.all("div").any(|part| part.get("id") == Some("error-summary")));
    assert_eq!(newest(&world).await["outcome"], "refused");
}

/// The form writes versions of a schema, and the pages show them.
#[tokio::test]
async fn a_schema_is_written_by_the_form_and_shown_with_its_versions() {
    let world = World::shared().await;
    let named = Visitor::by_key(&world, &world.key).await;
    let base = format!("/console/{}", world.application);
    let describe = async |schema: &str| {
        let described = [("name", "order/paid"), ("sample", ""), ("schema", schema)];
        named.post(&format!("{base}/event-types/describe"), &described).await
    };
    assert_eq!(describe(r#"{"title": "the <first>"}"#).await.status, 303);
    assert_eq!(describe(r#"{"title": "the second", "type": "object"}"#).await.status, 303);
    let refused = describe(r##"{"$ref": "#"}"##).await;
    assert!(refused.status == 422 && refused.text.contains("back to itself"), "{}", refused.text);
    let address = "event-types/order%2Fpaid/schemas";
    let listed = named.get(&format!("{base}/event-types")).await;
    assert!(listed.text.contains(&format!("{base}/{address}/2")), "{}", listed.text);
    let first = named.get(&format!("{base}/{address}/1")).await;
    assert!(first.status == 200 && first.text.contains("Version 1 of 2"), "{}", first.text);
    assert!(first.text.contains("the &#60;first&#62;") || first.text.contains("the &lt;first&gt;"), "{}", first.text);
    let form = named.get(&format!("{base}/event-types/describe?name=order%2Fpaid")).await;
    assert!(form.text.contains("the second"), "{}", form.text);
    assert_eq!(named.get(&format!("{base}/{address}/3")).await.status, 404);
    assert_eq!(describe("").await.status, 303);
    assert_eq!(named.get(&format!("{base}/{address}/1")).await.status, 404, "an empty field removes the schemas");
}

#[tokio::test]
async fn sign_ins_links_sign_outs_and_missing_rights_have_entries() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let entry = async |action: &str, outcome: &str| {
        let entry = newest(&world).await;
        assert_eq!((&entry["action"], &entry["outcome"]), (&json!(action), &json!(outcome)), "{entry}");
        assert_eq!(entry["origin"], "127.0.0.1", "{entry}");
        entry
    };
    let visitor = Visitor::by_key(&world, &world.key).await;
    let (_, token) = visitor.cookie.split_once('=').expect("a cookie");
    let session = token.split('.').next().expect("an id");
    let of_session = json!([session]);
    assert_eq!(entry("sign_in", "done").await["subject"], of_session);
    assert_eq!(visitor.post("/console/sign-out", &[]).await.status, 303);
    assert_eq!(entry("sign_out", "done").await["subject"], of_session);

    let customer = Visitor::of_portal(&world, &["resend"]).await;
    let opened = entry("open_link", "done").await;
    assert_eq!((&opened["visitor"], &opened["path"]), (&json!("Ada of Acme"), &json!("/portal/open")));
    let path = format!("/portal/{}/webhooks/{}/test", world.application, endpoint.id);
    assert_eq!(customer.post(&path, &[("type", "a"), ("data", "{}")]).await.status, 403);
    entry("test_webhook", "refused").await;
}
