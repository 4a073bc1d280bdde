//! Templates of webhooks in the API: refusals, trials and presets.

use fanfare_tests::{patience::until, world::World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_template_is_refused_with_the_place_and_the_reason() {
    let world = World::shared().await;
    let post = async |template: Value| {
        let new = json!({ "url": world.receiver.url("a"), "events": ["order.paid"], "template": template });
        world.client().post("webhooks", &new).await
    };
    for (template, expected) in [
        (json!({ "a": "{{ name }}" }), "/a, character 4, in {{ name }}: unknown name `name`"),
        (json!({ "a": ["{{ data.n"] }), "/a/0, character 1: the placeholder has no end"),
        (json!(["x".repeat(17_000)]), "16384 are allowed"),
    ] {
        let answer = post(template).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(answer.body.to_string().contains(expected), "{}", answer.body);
    }

    // The sample of the type, and then the last event, must have a body.
    let described = json!({ "name": "order.paid", "category": "a", "description": "b", "sample": { "amount": 1 } });
    assert!(world.client().post("event-types", &described).await.status < 300);
    let answer = post(json!({ "a": { "b": "{{ data.total }}" } })).await;
    let expected = "has no body for the sample of order.paid: /a/b, character 8, in {{ data.total }}: the event has no \
                    member `total`";
    assert!(answer.status == 422 && answer.body.to_string().contains(expected), "{}", answer.body);
    let created = post(json!({ "amount": "{{ data.amount }}" })).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let webhook = format!("webhooks/{}", created.data()["id"].as_str().expect("an id"));
    let changed = world.client().patch(&webhook, &json!({ "template": { "a": "{{ data.b }}" } })).await;
    assert_eq!(changed.status, 422, "{}", changed.body);
    let filtered = json!({ "template": { "a": "{{ data.b }}" }, "filter": "has(data.b)" });
    let changed = world.client().patch(&webhook, &filtered).await;
    assert_eq!(changed.status, 200, "an event that the filter leaves out needs no body: {}", changed.body);
    let removed = world.client().patch(&webhook, &json!({ "template": null })).await;
    assert_eq!(removed.data()["template"], Value::Null, "{}", removed.body);
}

#[tokio::test]
async fn a_template_is_tried_on_the_last_events_and_presets_are_listed() {
    let world = World::shared().await;
    let template = json!({ "text": "{{ type }}: {{ data.n + 1 }}", "id": "{{ id }}" });
    let asked = json!({ "template": template, "events": ["tried.*"] });
    let none = world.client().post("webhooks/template-test", &asked).await;
    assert_eq!((none.status, &none.data()["tried_on"]), (200, &json!("samples")), "{}", none.body);
    let event = world.publish(&json!({ "type": "tried.a", "data": { "n": 1 } })).await;
    world.publish(&json!({ "type": "tried.b", "data": { "m": 1 } })).await;
    let tried = until("the events", async || {
        let tried = world.client().post("webhooks/template-test", &asked).await;
        (tried.data()["results"].as_array().map(Vec::len) == Some(2)).then_some(tried)
    })
    .await;
    let of = |name: &str| {
        let results = tried.data()["results"].as_array().expect("results");
        results.iter().find(|result| result["type"] == name).expect("a result").clone()
    };
    assert_eq!(of("tried.a")["body"], json!({ "id": event, "text": "tried.a: 2" }), "{}", tried.body);
    assert_eq!((&of("tried.b")["body"], &of("tried.b")["pointer"]), (&Value::Null, &json!("/text")));
    assert_eq!(tried.data()["rendered"], json!(1));

    let presets = world.client().get("webhook-templates").await;
    let presets = presets.data().as_array().expect("presets").clone();
    let names: Vec<&str> = presets.iter().filter_map(|preset| preset["name"].as_str()).collect();
    assert_eq!(names, ["slack", "teams", "discord", "pagerduty", "zapier"]);
    for preset in presets {
        let new = json!({ "url": world.receiver.url("a"), "events": ["tried.*"], "template": preset["template"] });
        let created = world.client().post("webhooks", &new).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
}
