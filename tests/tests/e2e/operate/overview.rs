//! The overview, counts over time, and the health of webhooks.

use std::time::Duration;

use fanfare_tests::{patience::until, receiver::Behaviour, world::World};
use serde_json::{Value, json};

use crate::console::{html::Html, visitor::Visitor};

/// A member of an object as text.
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// Sentences of the overview's findings.
fn sentences(overview: &Value) -> Vec<&str> {
    overview["findings"].as_array().into_iter().flatten().map(|finding| text(finding, "sentence")).collect()
}

#[tokio::test]
async fn the_overview_names_processes_queues_jobs_and_troubles() {
    let world = World::new().await;
    let administrator = world.admin().await;
    let overview = administrator.get("overview").await.data().clone();
    assert_eq!(text(&overview, "summary"), "Fanfare does not keep up.");
    assert!(sentences(&overview)[0].starts_with("No dispatcher runs"), "{overview}");
    assert_eq!(world.client().get("overview").await.status, 403);

    let dispatcher = world.dispatcher().await;
    world.endpoint("a", &["*"]).await;
    world.known().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    let overview = until("a sound overview", async || {
        let overview = administrator.get("overview").await.data().clone();
        let has_all = overview["queues"].as_array().is_some_and(|queues| queues.len() > 3)
            && overview["jobs"].as_array().is_some_and(|jobs| jobs.iter().any(|job| job["job"] == "rollups"))
            && text(&overview, "summary") == "Fanfare keeps up.";
        has_all.then_some(overview)
    })
    .await;
    assert_eq!(sentences(&overview), Vec::<&str>::new());
    let processes = overview["processes"].as_array().expect("processes");
    let kinds: Vec<&str> = processes.iter().map(|process| text(process, "kind")).collect();
    assert_eq!(kinds, ["dispatcher", "ingest"]);
    for process in processes {
        assert_eq!((&process["has_broker"], &process["has_database"]), (&json!(true), &json!(true)));
        assert_eq!(process["configuration"], processes[0]["configuration"]);
    }
    assert!(processes[0]["places"].as_u64() > Some(0) && !text(&processes[0], "host").is_empty(), "{processes:?}");

    dispatcher.kill();
    let found = until("the death of the dispatcher", async || {
        let overview = administrator.get("overview").await.data().clone();
        sentences(&overview).iter().any(|sentence| sentence.starts_with("No dispatcher runs")).then_some(overview)
    })
    .await;
    assert!(sentences(&found).iter().any(|sentence| sentence.starts_with("The process dispatcher")), "{found}");
}

/// Each bar of the application's chart leads to as many rows as the bar counts, `all` together.
async fn assert_bars_lead_to_their_attempts(world: &World, all: usize) {
    let visitor = Visitor::by_key(world, &world.key).await;
    let page = Html::parse(&visitor.get(&format!("/console/{}/", world.application)).await.text);
    let bars: Vec<(&str, &str)> = page
        .all("a")
        .filter_map(|link| Some((link.get("href")?, link.get("aria-label")?)))
        .filter(|(href, _)| href.contains("/attempts?"))
        .collect();
    assert_eq!(bars.len(), 24);
    let mut found = 0;
    for (href, label) in bars {
        let numbers = label.split_once(": ").map_or("", |(_, numbers)| numbers).split([' ', ',', ';']);
        let counted: usize = numbers.filter_map(|word| word.parse::<usize>().ok()).sum();
        let list = Html::parse(&visitor.get(href).await.text);
        let rows = list.all("tr").filter(|row| row.get("id").is_some()).count();
        assert_eq!(rows, counted, "{label}: {href}");
        found += rows;
    }
    assert_eq!(found, all);
}

#[tokio::test]
async fn attempts_are_counted_and_a_failing_webhook_is_explained() {
    // The retry stays out of the test: the test counts one attempt.
    let world = World::of_waits("5m", &[]).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.receiver.script("a", &[Behaviour::Answer(401, Duration::ZERO)]);
    world.known().await;
    let dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    // A test is in the list of attempts, and not in the counts.
    world.client().post(&format!("webhooks/{}/test", endpoint.id), &json!({})).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    let listed = async |query: &str| world.client().get(query).await.data().as_array().map_or(0, Vec::len);
    assert_eq!(listed("attempts?limit=100").await, listed("attempts?limit=100&tests=false").await + 1);
    // The job counts the attempt as one of a while ago, soon after its start.
    let earlier = "UPDATE attempts SET started_at = started_at - interval '12 minutes';
                   UPDATE rollup_marks SET counted = counted - interval '1 hour', hourly = hourly - interval '1 hour'";
    world.database().await.batch_execute(earlier).await.expect("an attempt of the last hour");
    let _dispatcher = world.dispatcher().await;
    let (client, administrator) = (world.client(), world.admin().await);
    let stats = until("a count", async || {
        let stats = client.get("stats?step=5m").await.data().clone();
        (stats["total"]["failed"] == 1).then_some(stats)
    })
    .await;
    assert_eq!((&stats["total"]["failures"]["status_4xx"], &stats["total"]["taken"]), (&json!(1), &json!(0)));
    assert_eq!(stats["buckets"].as_array().map(Vec::len), Some(24));
    for query in [format!("webhook={}&step=5m", endpoint.id), "step=1h".to_owned()] {
        assert_eq!(client.get(&format!("stats?{query}")).await.data()["total"]["failed"], 1, "{query}");
    }
    assert_eq!(administrator.get("stats").await.data()["total"]["failed"], 1, "of all applications");
    assert_eq!(client.get("stats?step=1m").await.status, 422);
    let far = "stats?step=5m&since=2020-01-01T00:00:00Z";
    assert_eq!(client.get(far).await.status, 422);

    assert_bars_lead_to_their_attempts(&world, 1).await;

    let health = client.get("webhooks/health").await.data()[0].clone();
    assert_eq!((text(&health, "webhook"), text(&health, "state")), (endpoint.id.as_str(), "failing"));
    assert_eq!(health["hours"].as_array().map(Vec::len), Some(24));
    let failed: u64 = health["hours"].as_array().into_iter().flatten().filter_map(|hour| hour["failed"].as_u64()).sum();
    assert_eq!(failed, 1);
    let path = format!("applications/{}/overview", world.application);
    let overview = client.get(&path).await.data().clone();
    let sentence = sentences(&overview)[0];
    assert!(sentence.contains("has failed since") && sentence.contains("(401)"), "{overview}");
    assert_eq!(overview["findings"][0]["subject"]["webhook"], json!(endpoint.id));
}
