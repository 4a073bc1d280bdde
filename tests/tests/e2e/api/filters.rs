//! Filters in the API: refusals with place and reason, the trial on the last events, and explanations.

use fanfare_tests::{patience::until, world::World};
use serde_json::{Value, json};

use crate::api::{list, text};

async fn publish(world: &World, events: &[(&str, Value)]) -> Vec<String> {
    let mut ids = Vec::new();
    for (event_type, data) in events {
        ids.push(world.publish(&json!({ "type": event_type, "data": data })).await);
        let published = i64::try_from(ids.len()).expect("a small number");
        until("the event", async || (world.count("SELECT count(*) FROM events").await >= published).then_some(()))
            .await;
    }
    ids
}

#[tokio::test]
async fn a_refused_filter_has_the_place_and_the_reason() {
    let world = World::new().await;
    let url = world.receiver.url("a");
    for (filter, reason) in [
        ("data.amount = 100", "cannot be used: at character 13: `=` is not expected here; compare by =="),
        ("amount > 1", "cannot be used: at character 1: unknown name `amount`"),
        ("data.a.all(a, a.all(b, b.all(c, c.all(d, true))))", "more than 3 loops within each other"),
        ("data.a.matches('(x{50}){50}')", "states"),
        ("", "the expression is empty"),
    ] {
        let new = json!({ "url": url, "events": ["*"], "filter": filter });
        for answer in [
            world.client().post("webhooks", &new).await,
            world.client().post("webhooks/filter-test", &json!({ "filter": filter })).await,
        ] {
            let error = &answer.body["error"];
            assert_eq!(
                (answer.status, &error["code"], &error["field"]),
                (422, &json!("invalid_field"), &json!("filter"))
            );
            assert!(text(error, "message").contains(reason), "{}", answer.body);
        }
    }
    let long = json!({ "url": url, "events": ["*"], "filter": format!("data.a == '{}'", "x".repeat(2000)) });
    assert_eq!(world.client().post("webhooks", &long).await.status, 422);
}

#[tokio::test]
async fn a_filter_is_tried_on_the_last_events() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    world.describe("order.paid").await;
    let run = async |body: Value| {
        let answer = world.client().post("webhooks/filter-test", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.data().clone()
    };
    let samples = run(json!({ "filter": "data.n == 1", "events": ["order.paid"] })).await;
    assert_eq!((text(&samples, "tried_on"), &samples["passed"]), ("samples", &json!(1)), "{samples}");
    let ids = publish(
        &world,
        &[
            ("order.paid", json!({ "amount": 50, "country": "DE" })),
            ("order.paid", json!({ "amount": 150, "country": "DE" })),
            ("order.sent", json!({ "amount": 150 })),
        ],
    )
    .await;
    let filter = "data.country == 'DE' && data.amount > 100";
    let tried = run(json!({ "filter": filter })).await;
    assert_eq!((text(&tried, "tried_on"), &tried["passed"]), ("events", &json!(1)), "{tried}");
    let results = list(&tried["results"]);
    let words: Vec<&str> = results.iter().map(|result| text(result, "result")).collect();
    assert_eq!(words, ["error", "true", "false"], "newest first");
    assert_eq!(text(&results[0], "error"), "the event has no member `country` (at character 5)");
    assert_eq!((text(&results[2], "part"), &results[2]["position"]), ("data.amount > 100", &json!(25)));
    assert_eq!(results[2]["values"], json!([{ "name": "data.amount", "value": "50" }]));
    assert_eq!(results[2]["event"], json!(ids[0]));
    let of_type = run(json!({ "filter": filter, "events": ["order.sent"] })).await;
    assert_eq!(list(&of_type["results"]).len(), 1);
    let of_types = run(json!({ "filter": filter, "events": ["order.sent", "other.*"] })).await;
    assert_eq!(list(&of_types["results"]).len(), 1);
    let named = run(json!({ "filter": filter, "event_ids": [ids[1]] })).await;
    assert_eq!((list(&named["results"]).len(), &named["passed"]), (1, &json!(1)));
    let missing = json!({ "filter": filter, "event_ids": ["evt_00000000000000000000000000"] });
    assert_eq!(world.client().post("webhooks/filter-test", &missing).await.status, 404);
}

#[tokio::test]
async fn an_explanation_names_the_part_that_said_no_and_the_value() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let url = world.receiver.url("filtered");
    let new = json!({ "url": url, "events": ["order.*"], "filter": "has(data.amount) && data.amount > 100" });
    let webhook = text(world.client().post("webhooks", &new).await.data(), "id").to_owned();
    world.known().await;
    let ids =
        publish(&world, &[("order.paid", json!({ "amount": 50 })), ("order.paid", json!({ "amount": 200 }))]).await;
    let why = async |event: &str| {
        let answer = world.client().get(&format!("events/{event}/why?webhook={webhook}")).await;
        answer.data()["webhooks"][0]["steps"].clone()
    };
    let evidence = |step: &Value, name: &str| {
        let found = list(&step["evidence"]).iter().find(|fact| fact["name"] == name);
        found.map(|fact| text(fact, "value").to_owned()).unwrap_or_default()
    };
    let steps = why(&ids[0]).await;
    assert_eq!(
        (text(&steps[0], "code"), text(&steps[0]["remedy"], "action")),
        ("filtered", "change_filter"),
        "{steps}"
    );
    assert!(text(&steps[0], "sentence").contains("does not meet data.amount > 100"), "{steps}");
    assert_eq!(evidence(&steps[0], "part"), "data.amount > 100");
    assert_eq!(
        (evidence(&steps[0], "value"), evidence(&steps[0], "position")),
        ("data.amount = 50".into(), "21".into())
    );
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(text(&why(&ids[1]).await[0], "code"), "matched");

    let change = |filter: Value| json!({ "filter": filter });
    let path = format!("webhooks/{webhook}");
    world.client().patch(&path, &change(json!("data.total > 1"))).await.data();
    let steps = why(&ids[0]).await;
    assert_eq!(text(&steps[0], "code"), "filter_failed", "{steps}");
    assert!(steps[0]["evidence"].to_string().contains("no member `total`"), "{steps}");
    assert!(text(&steps[0], "sentence").contains("changed since"), "{steps}");
    world.client().patch(&path, &change(Value::Null)).await.data();
    assert_eq!(text(&why(&ids[0]).await[0], "code"), "changed_later");
}

#[tokio::test]
async fn hidden_members_stay_hidden_in_trials_and_explanations() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let application = format!("applications/{}", world.application);
    world.client().patch(&application, &json!({ "redacted": ["card.number"] })).await.data();
    let url = world.receiver.url("hidden");
    let filter = "data.card.number.startsWith('4') && data.n > 1";
    let new = json!({ "url": url, "events": ["a"], "filter": filter });
    let webhook = text(world.client().post("webhooks", &new).await.data(), "id").to_owned();
    world.known().await;
    let data = |n: i64| json!({ "n": n, "card": { "number": "4111-hidden" } });
    let ids = publish(&world, &[("a", data(1)), ("a", data(2))]).await;
    let received = world.receiver.wait_for("hidden", 1).await;
    assert!(String::from_utf8_lossy(&received[0].body).contains("4111-hidden"), "the match reads the hidden member");
    for asked in [filter, "data.card.number == '4111-hidden'", "size(data.card.number) == 11"] {
        let answer =
            world.client().post("webhooks/filter-test", &json!({ "filter": asked, "event_ids": [ids[1]] })).await;
        let result = &answer.data()["results"][0];
        assert_eq!(text(result, "result"), "error", "{}", answer.body);
        assert!(text(result, "error").contains("hidden"), "{}", answer.body);
        assert_eq!(result["values"][0]["value"], "hidden");
        assert!(!result["values"].to_string().contains("4111"), "{}", answer.body);
    }
    let answer = world.client().get(&format!("events/{}/why?webhook={webhook}", ids[0])).await;
    let step = &answer.data()["webhooks"][0]["steps"][0];
    assert_eq!((text(step, "code"), answer.body.to_string().contains("4111")), ("filtered", false), "{}", answer.body);
    world.client().patch(&format!("webhooks/{webhook}"), &json!({ "filter": "data.card.number == 'x'" })).await.data();
    let answer = world.client().get(&format!("events/{}/why?webhook={webhook}", ids[0])).await;
    let step = &answer.data()["webhooks"][0]["steps"][0];
    assert_eq!((text(step, "code"), answer.body.to_string().contains("4111")), ("filter_failed", false));
}

#[tokio::test]
async fn a_dry_run_and_an_explanation_end_with_costly_filters() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let url = world.receiver.url("costly");
    let filter = |number: usize| format!("data.a.all(x, data.a.all(y, x == y || x == {number}))");
    for number in 0..8 {
        let new = json!({ "url": url, "events": ["a"], "filter": filter(number) });
        world.client().post("webhooks", &new).await.data();
    }
    world.known().await;
    let event = json!({ "type": "a", "data": { "a": vec![1; 500] } });
    let published = world.client().post("events/batch", &json!(vec![event; 40])).await;
    assert_eq!(published.status, 202, "{}", published.body);
    until("the events", async || (world.count("SELECT count(*) FROM events").await == 40).then_some(())).await;
    let asked = json!({ "since": "2020-01-01T00:00:00Z", "states": ["unmatched"] });
    let counted = world.client().post("replays/dry-run", &asked).await;
    let events = counted.data()["events"].as_u64().expect("a number");
    assert!((1..40).contains(&events) && counted.data()["has_more"] == true, "{}", counted.body);

    let listed = world.client().get("events?limit=1").await;
    let id = text(&listed.data()[0], "id").to_owned();
    let why = world.client().get(&format!("events/{id}/why")).await;
    let ways = list(&why.data()["webhooks"]).to_vec();
    let is_too_long = |way: &&Value| text(&way["steps"][0], "sentence").contains("ask for this webhook alone");
    let too_long: Vec<&Value> = ways.iter().filter(is_too_long).collect();
    assert!((1..8).contains(&too_long.len()), "{}", why.body);
    let alone = format!("events/{id}/why?webhook={}", text(too_long[0], "webhook"));
    let alone = world.client().get(&alone).await;
    assert_eq!(text(&alone.data()["webhooks"][0]["steps"][0], "code"), "filter_failed", "{}", alone.body);
}
