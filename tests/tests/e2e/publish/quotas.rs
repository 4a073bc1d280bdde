//! Plans, quotas and usage: refusals at both ingests, changes of a plan, labels, and the figures.

use std::time::Duration;

use fanfare_tests::{
    clients::api::Client,
    patience::{until, until_within},
    receiver::Behaviour,
    world::{World, process::Process},
};
use hyper::Method;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A client of a second ingest, with the same key.
async fn second(world: &World) -> (Process, Client) {
    let process = world.process_with("ingest", &[]);
    process.ready().await;
    let client = Client::new(process.address("serving the API").await, &world.key);
    (process, client)
}

#[tokio::test]
async fn a_quota_of_events_is_kept_by_two_ingests() {
    let world = World::new().await;
    let (_second, other) = second(&world).await;
    let (client, admin) = (world.client(), world.admin().await);
    let path = format!("applications/{}", world.application);
    let put = async |plan: &str, body: Value| {
        admin.send(Method::PUT, &format!("plans/{plan}"), &[JSON], body.to_string()).await.expect("an answer")
    };
    assert_eq!(put("free", json!({ "events_per_day": 5 })).await.data()["applications"], 0);
    assert_eq!(put("Free", json!({})).await.field(), "name");
    let refused = put("free", json!({ "events_per_day": 0 })).await;
    assert_eq!((refused.status, refused.field()), (422, "events_per_day"), "{}", refused.body);
    assert_eq!(admin.patch(&path, &json!({ "plan": "gold" })).await.field(), "plan");
    for own in [json!({ "plan": "free" }), json!({ "labels": {} }), json!({ "events_per_day": 9 })] {
        assert_eq!(client.patch(&path, &own).await.status, 403, "{own}: the application's own key");
    }
    let labels = json!({ "region": "eu", "customer/id": "4711" });
    let changed = admin.patch(&path, &json!({ "plan": "free", "labels": labels })).await;
    assert_eq!((&changed.data()["plan"], &changed.data()["labels"]), (&json!("free"), &labels));
    let own = client.get(&path).await;
    assert_eq!((&own.data()["plan"], own.data().get("labels")), (&json!("free"), None), "labels are for operators");
    for (query, found) in [("label=region:eu", 1), ("label=region:us", 0), ("plan=free", 1), ("plan=gold", 0)] {
        let listed = admin.get(&format!("applications?{query}")).await;
        assert_eq!(listed.data().as_array().map(Vec::len), Some(found), "{query}: {}", listed.body);
    }
    assert_eq!(admin.get("applications?label=region").await.field(), "label");
    let in_use = admin.send(Method::DELETE, "plans/free", &[], "").await.expect("an answer");
    assert_eq!((in_use.status, in_use.code()), (409, "plan_in_use"), "{}", in_use.body);
    assert!(in_use.body.to_string().contains("1 applications"), "{}", in_use.body);

    // Both have the plan. Until the job has counted, each ingest knows its own events only.
    world.known().await;
    let event = json!({ "type": "a", "data": 1 });
    let fill = async |client: &Client| {
        let batch = client.post("events/batch", &json!(vec![&event; 8])).await;
        let results: Vec<bool> =
            batch.data().as_array().into_iter().flatten().map(|result| result["success"] == true).collect();
        (batch, results)
    };
    let (batch, results) = fill(client).await;
    assert_eq!((batch.status, results), (207, [[true; 5].as_slice(), &[false; 3]].concat()), "{}", batch.body);
    assert_eq!(batch.data()[7]["error"]["code"], "quota_exceeded");
    let refused = client.post("events", &event).await;
    assert_eq!((refused.status, refused.code()), (429, "quota_exceeded"), "{}", refused.body);
    assert!(refused.retry_after().is_some_and(|seconds| (1..=86_400).contains(&seconds)), "{}", refused.body);
    assert!(refused.body.to_string().contains("5 events (plan free)"), "{}", refused.body);
    let accepted = until("the other ingest to know the plan", async || {
        let (_, results) = fill(&other).await;
        Some(results.iter().filter(|accepted| **accepted).count()).filter(|accepted| *accepted < 8)
    });
    assert!(accepted.await <= 5, "the other ingest exceeds the quota at most by its own events");

    // A change of the plan reaches both.
    assert_eq!(put("free", json!({ "events_per_day": 1000 })).await.status, 200);
    for client in [client, &other] {
        until("room", async || (client.post("events", &event).await.status == 202).then_some(())).await;
    }
    // The own quota replaces the plan's.
    assert_eq!(admin.patch(&path, &json!({ "events_per_day": 1 })).await.data()["events_per_day"], 1);
    for client in [client, &other] {
        until("the own quota", async || (client.post("events", &event).await.code() == "quota_exceeded").then_some(()))
            .await;
    }
}

#[tokio::test]
async fn the_counts_of_the_database_refuse_at_each_ingest() {
    let world = World::new().await;
    let (client, admin) = (world.client(), world.admin().await);
    let path = format!("applications/{}", world.application);
    let today =
        "INSERT INTO usage_days SELECT id, (now() AT TIME ZONE 'UTC')::date, 85, 170, 160, 9, 1, 500 FROM applications
                 WHERE id = $1";
    let id: fanfare_domain::ids::ApplicationId = world.application.parse().expect("an id");
    world.database().await.execute(today, &[&id.0]).await.expect("a row");
    admin.patch(&path, &json!({ "events_per_day": 100, "stored_bytes": 500 })).await;
    let event = json!({ "type": "a", "data": 1 });
    let refused =
        until("the counts", async || Some(client.post("events", &event).await).filter(|answer| answer.status != 202));
    let refused = refused.await;
    assert_eq!((refused.status, refused.code()), (429, "storage_quota_exceeded"), "{}", refused.body);

    let usage = client.get(&format!("{path}/usage")).await.data().clone();
    assert_eq!((&usage["quotas"][0]["percent"], &usage["quotas"][0]["state"]), (&json!(85), &json!("near")));
    assert_eq!((&usage["quotas"][1]["percent"], &usage["quotas"][1]["state"]), (&json!(100), &json!("full")));
    let day = &usage["days"][0];
    for (figure, expected) in
        [("events", 85), ("deliveries", 170), ("attempts", 170), ("delivered", 160), ("failed", 9)]
    {
        assert_eq!((&day[figure], &usage["total"][figure]), (&json!(expected), &json!(expected)), "{figure}");
    }
    assert_eq!(day["final"], false);
    let (_, stranger) = world.other_application().await;
    assert_eq!(stranger.get(&format!("{path}/usage")).await.status, 404);
    assert_eq!(client.get("usage").await.status, 403);
    for query in ["from=2026-13-01", "from=2020-01-01&to=2026-01-01", "from=2026-02-01&to=2026-01-01"] {
        assert_eq!(client.get(&format!("{path}/usage?{query}")).await.status, 422, "{query}");
    }
    let listed = admin.get("usage").await;
    assert_eq!(
        (listed.data()[0]["application"].as_str(), &listed.data()[0]["events"]),
        (Some(&*world.application), &json!(85))
    );
    assert_eq!(admin.get("usage?month=1999-01").await.data(), &json!([]));
    assert_eq!(admin.get("usage?format=xml").await.status, 422);

    // Without the quota, publishing goes on.
    admin.patch(&path, &json!({ "stored_bytes": null })).await;
    until("room", async || (client.post("events", &event).await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn a_plan_limits_the_webhooks_of_an_application() {
    let world = World::new().await;
    let admin = world.admin().await;
    admin.send(Method::PUT, "plans/small", &[JSON], r#"{"max_webhooks":1}"#).await.expect("an answer");
    admin.patch(&format!("applications/{}", world.application), &json!({ "plan": "small" })).await;
    let create = async |number: usize| {
        let new = json!({ "url": world.receiver.url(&number.to_string()), "events": ["order.created"] });
        world.client().post("webhooks", &new).await
    };
    assert_eq!(create(1).await.status, 201);
    let refused = create(2).await;
    assert_eq!((refused.status, refused.code()), (409, "too_many_webhooks"), "{}", refused.body);
    assert!(refused.body.to_string().contains("maximum of 1 webhooks"), "{}", refused.body);
}

/// All entries of a list.
async fn all(client: &Client, path: &str) -> Vec<Value> {
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = client.get(&format!("{path}{separator}limit=20{cursor}")).await;
        entries.extend(page.data().as_array().expect("a list").clone());
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&before={next}"),
            None => return entries,
        }
    }
}

/// A bill is added up by hand: from the lists of events, deliveries and attempts.
#[tokio::test]
async fn the_usage_is_the_sum_of_the_listed_events_deliveries_and_attempts() {
    let world = World::of_waits("1s,1s", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let client = world.client();
    for (path, script) in [
        ("fine", vec![Behaviour::OK]),
        ("flaky", vec![Behaviour::FAIL, Behaviour::OK, Behaviour::FAIL, Behaviour::OK]),
        ("dead", vec![Behaviour::FAIL]),
    ] {
        world.endpoint(path, &["a"]).await;
        world.receiver.script(path, &script);
    }
    for number in 0..25 {
        let event = json!({ "type": if number % 5 == 0 { "b" } else { "a" }, "data": { "n": number } });
        world.publish(&event).await;
    }
    let ended = "SELECT count(*) FROM deliveries";
    until("the end of all deliveries", async || (world.count(ended).await == 60).then_some(())).await;
    // A test counts nowhere, a resend counts as an attempt.
    let webhook = all(client, "webhooks").await[0]["id"].as_str().expect("an id").to_owned();
    client.post(&format!("webhooks/{webhook}/test"), &json!({ "type": "a", "data": {} })).await.data();
    let failed = all(client, "deliveries?state=failed").await;
    let id = failed[0]["id"].as_str().expect("an id");
    client.post(&format!("deliveries/{id}/resend"), &json!({})).await.data();
    until("the resend", async || (world.rows("open_deliveries", "true").await == 0).then_some(())).await;
    let last = jiff::Timestamp::now();

    // The job counts a minute 90 s after its end.
    let path = format!("applications/{}/usage", world.application);
    let usage = until_within(Duration::from_secs(300), "the count", async || {
        let usage = client.get(&path).await.data().clone();
        let counted: jiff::Timestamp = usage["counted_until"].as_str()?.parse().ok()?;
        (counted > last).then_some(usage)
    })
    .await;
    let (events, attempts) = (all(client, "events").await, all(client, "attempts?tests=false").await);
    let deliveries = all(client, "deliveries").await;
    let with = |outcome: &dyn Fn(i64) -> bool| {
        attempts.iter().filter(|attempt| attempt["response_status"].as_i64().is_some_and(outcome)).count()
    };
    let is_test = |entry: &&Value| entry["test"] == true;
    let own: Vec<&Value> = events.iter().filter(|event| !is_test(event)).collect();
    let is_own = |delivery: &Value| own.iter().any(|event| event["id"] == delivery["event"]);
    let mut bytes = 0;
    for event in &own {
        let id = event["id"].as_str().expect("an id");
        let detail = client.get(&format!("events/{id}")).await;
        bytes += detail.data()["payload"].to_string().len();
    }
    let by_hand = json!({
        "events": own.len(),
        "deliveries": deliveries.iter().filter(|delivery| is_own(delivery)).count(),
        "attempts": attempts.len(),
        "delivered": with(&|status| (200..300).contains(&status)),
        "failed": with(&|status| !(200..300).contains(&status)),
        "unknown": 0,
        "stored_bytes": bytes,
    });
    assert_eq!(usage["total"], by_hand, "{usage}");
    assert_eq!((own.len(), deliveries.len()), (25, 61));
}
