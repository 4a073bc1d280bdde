//! Plans, quotas and labels in the forms of the console.

use fanfare_tests::world::World;
use serde_json::json;

use super::visitor::Visitor;

#[tokio::test]
async fn a_plan_is_made_given_and_removed_by_the_forms() {
    let world = World::new().await;
    let admin = world.admin().await;
    let operator = Visitor::by_link(&world, &[]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let put = async |limit: &str| {
        operator.post("/console/plans", &[("name", "free"), ("events_per_day", limit), ("max_webhooks", "3")]).await
    };
    let refused = put("none").await;
    assert!(refused.status == 422 && refused.text.contains("events_per_day"), "{}", refused.text);
    for limit in ["1000", "2000"] {
        assert_eq!(put(limit).await.status, 303);
    }
    let plan = admin.get("plans/free").await.data().clone();
    assert_eq!((&plan["events_per_day"], &plan["max_webhooks"]), (&json!(2000), &json!(3)), "{plan}");
    let listed = operator.get("/console/plans").await.text;
    assert!(listed.contains("Remove the plan free"), "{listed}");
    assert_eq!(named.get("/console/plans").await.status, 403, "plans are for administrators");

    // The settings of an application: reviewed, then saved.
    let settings = format!("/console/{}/settings", world.application);
    let form = operator.page(&settings).await.forms().into_iter().find(|form| form.is_post && form.action == settings);
    let fields = form.expect("the form").fields;
    let dialect = admin.get(&format!("applications/{}", world.application)).await.data()["dialect"].clone();
    let dialect = dialect.as_str().expect("a dialect");
    let with = |more: &[(&str, &str)]| {
        let more = &[more, &[("dialect", dialect)]].concat()[..];
        let is_kept = |name: &str| name != "_form" && !more.iter().any(|(other, _)| *other == name);
        let kept = fields.iter().filter(|(name, _)| is_kept(name));
        let all = kept.map(|(name, value)| (name.as_str(), value.as_str())).chain(more.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let save = async |more: &[(&str, &str)]| {
        let all = with(more);
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        operator.post(&settings, &all).await
    };
    let asked = [("plan", "free"), ("stored_bytes", "5000000"), ("labels", "region:eu\ncustomer:4711")];
    let reviewed = save(&asked).await;
    assert!(reviewed.status == 200 && reviewed.text.contains("Review the changes"), "{}", reviewed.text);
    let confirmed = save(&[&asked[..], &[("confirmed", "yes")]].concat()).await;
    assert_eq!(confirmed.status, 303, "{}", confirmed.text);
    let application = admin.get(&format!("applications/{}", world.application)).await.data().clone();
    assert_eq!((&application["plan"], &application["stored_bytes"]), (&json!("free"), &json!(5_000_000)));
    assert_eq!(application["labels"], json!({ "region": "eu", "customer": "4711" }));
    let wrong = save(&[("labels", "no colon")]).await;
    assert!(wrong.status == 422 && wrong.text.contains("no colon"), "{}", wrong.text);

    // An application's own people see the limits, and set none.
    let usage = named.get(&format!("/console/{}/usage", world.application)).await.text;
    assert!(usage.contains("2,000"), "{usage}");
    let remove = async || operator.post("/console/plans/free/remove", &[]).await.status;
    assert_eq!(remove().await, 409, "an application has the plan");
    assert_eq!(save(&[("plan", ""), ("confirmed", "yes")]).await.status, 303);
    assert_eq!(remove().await, 303);
    assert_eq!(admin.get("plans/free").await.status, 404);
}
