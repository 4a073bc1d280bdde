//! Operational events: each change of state is told once to a receiver of the operator, and never about that receiver.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::operational::catalogue;
use fanfare_tests::{
    clients::api::Client,
    patience::until,
    receiver::{Behaviour, Received, signature::is_signed},
    world::{Endpoint, World, process::Process},
};
use serde_json::{Value, json};

/// The setting that names the operator's application.
const SETTING: &str = "FANFARE_OPERATIONAL_EVENTS_APPLICATION";

/// Path of the operator's receiver.
const PATH: &str = "operations";

/// The operator's application, with a webhook for all events.
pub(crate) struct Operations {
    pub(crate) application: String,
    client: Client,
    secret: String,
}

impl Operations {
    /// Names an application to the dispatchers that are started from now on.
    pub(crate) async fn new(world: &mut World) -> Self {
        let (application, client) = world.other_application().await;
        let webhook = json!({ "url": world.receiver.url(PATH), "events": ["fanfare.*"] });
        let secret = client.post("webhooks", &webhook).await.data()["secret"].as_str().expect("a secret").to_owned();
        world.variables.insert(SETTING.to_owned(), application.clone());
        Self { application, client, secret }
    }

    /// Data of the received events, by type. Each event counts once: a failed request is sent again.
    pub(crate) fn told(&self, world: &World) -> Vec<(String, Value)> {
        let requests = world.receiver.received(PATH);
        let by_event: BTreeMap<&str, &Received> = requests.iter().map(|request| (request.event(), request)).collect();
        let read = |request: &&Received| {
            assert!(is_signed(request, &self.secret));
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            (body["event"].as_str().expect("a type").to_owned(), body["data"].clone())
        };
        by_event.values().map(read).collect()
    }

    /// Waits for an event of a type about a subject. Returns the event's data.
    async fn wait_for(&self, world: &World, name: &str, is_about: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{name} among {:?}", self.names(world)), async || {
            self.told(world).into_iter().find(|(told, data)| told == name && is_about(data)).map(|(_, data)| data)
        })
        .await
    }

    fn names(&self, world: &World) -> Vec<String> {
        self.told(world).into_iter().map(|(name, _)| name).collect()
    }
}

/// A dispatcher that tells operational events, after its first look.
async fn dispatcher(world: &World) -> Process {
    let dispatcher = world.dispatcher().await;
    looked(world).await;
    dispatcher
}

/// Waits for the end of a turn that begins from now on.
pub(crate) async fn looked(world: &World) {
    let runs = "SELECT count(*) FROM job_runs WHERE job = 'operational_events'
                AND ended_at - duration_ms * interval '1 ms' > $now AND succeeded_at = ended_at";
    let now: i64 = world.count("SELECT (extract(epoch FROM now()) * 1000)::bigint").await;
    let runs = runs.replace("$now", &format!("to_timestamp({now} / 1000.0)"));
    until("a turn of the job", async || (world.count(&runs).await == 1).then_some(())).await;
}

async fn run(world: &World, statements: &str) {
    world.database().await.batch_execute(statements).await.expect("a change");
}

fn about(webhook: &str) -> impl Fn(&Value) -> bool {
    move |data| data["webhook"]["id"] == webhook
}

/// Rollups of an endpoint, with failures until now and since `hours` hours.
fn failures(path: &str, hours: u32) -> String {
    format!(
        "DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros FROM pg_attribute
    WHERE attrelid = 'rollups'::regclass AND attnum > 0 AND attname NOT IN ('subject', 'at', 'kind', 'taken', 'failed_5xx');
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_5xx, %s)
        SELECT id, date_bin(''5 minutes'', now() - ago * interval ''5 minutes'', ''epoch''), 2, 0, 2, %s
        FROM endpoints, generate_series(1, 12 * {hours}) ago WHERE url LIKE ''%%/{path}''', names, zeros);
END $$"
    )
}

/// Makes all waits of told states end.
const LATER: &str = "UPDATE operational_states SET seen_at = seen_at - interval '10 minutes'";

/// Lets the next turn look at held deliveries.
const HELD_DUE: &str = "UPDATE operational_marks SET held_at = '-infinity'";

#[tokio::test]
async fn each_condition_is_told_once_with_its_end() {
    let variables = [("FANFARE_BREAKER_AFTER", "3"), ("FANFARE_MAX_HELD", "10")];
    let mut world = World::of_waits("1s", &variables).await;
    let operations = Operations::new(&mut world).await;
    let _dispatcher = dispatcher(&world).await;
    let [off, failing, paused] = [
        world.endpoint("off", &["off"]).await,
        world.endpoint("failing", &["f"]).await,
        world.endpoint("paused", &["p"]).await,
    ];
    let broken = world.endpoint("broken", &["broken"]).await;
    world.receiver.script("broken", &[Behaviour::FAIL]);

    // Deliveries are given up, the breaker opens, and the backlog waits for longer than it may.
    for number in 0..40 {
        world.publish(&json!({ "type": "broken", "data": number })).await;
    }
    world.change(&off, &json!({ "status": "disabled" })).await;
    world.change(&paused, &json!({ "status": "paused" })).await;
    for number in 0..8 {
        world.publish(&json!({ "type": "p", "data": number })).await;
    }
    run(&world, &failures("failing", 3)).await;
    let routing_key = format!("{}.order.created", world.application);
    assert!(world.broker().await.publish(&routing_key, None, &[], "{}").await.expect("the broker"));
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "states": ["unmatched"] });
    let replay = world.client().post("replays", &replay).await.data()["id"].clone();

    let disabled = operations.wait_for(&world, "fanfare.endpoint.disabled", about(&off.id)).await;
    assert_eq!(disabled["application"]["id"], world.application.as_str());
    let told = operations.wait_for(&world, "fanfare.endpoint.failing", about(&failing.id)).await;
    assert_eq!((&told["condition"], &told["changes"]), (&json!("failing"), &json!(1)));
    let waiting =
        "SELECT count(*) FROM open_deliveries o JOIN endpoints e ON e.id = o.endpoint_id WHERE url LIKE '%/paused'";
    until("the held deliveries", async || (world.count(waiting).await == 8).then_some(())).await;
    run(&world, HELD_DUE).await;
    let held = operations.wait_for(&world, "fanfare.endpoint.held_near_limit", about(&paused.id)).await;
    assert_eq!((&held["held"], &held["max_held"]), (&json!(8), &json!(10)));
    let given_up = operations.wait_for(&world, "fanfare.endpoint.giving_up", about(&broken.id)).await;
    let first = given_up["first_delivery"].as_str().expect("an id");
    assert_eq!(world.delivery(first).await["state"], "failed");
    assert!(given_up["count"].as_u64().is_some_and(|count| count > 0), "{given_up}");
    let parked = operations.wait_for(&world, "fanfare.messages.parked", |_| true).await;
    assert_eq!(parked["reasons"], json!({ "missing_message_id": 1 }));
    let finished = operations.wait_for(&world, "fanfare.replay.finished", |_| true).await;
    assert_eq!((&finished["replay"]["id"], &finished["replay"]["state"]), (&replay, &json!("done")));

    let is_broken = "endpoint_id = (SELECT id FROM endpoints WHERE url LIKE '%/broken')";
    run(&world, &format!("UPDATE endpoint_backlogs SET since = now() - interval '2 hours' WHERE {is_broken}")).await;
    let soon = "UPDATE open_deliveries SET expires_at = now() + interval '30 minutes'";
    run(&world, &format!("{soon} WHERE {is_broken}")).await;
    operations.wait_for(&world, "fanfare.endpoint.backlog_near_limit", about(&broken.id)).await;
    run(&world, LATER).await;
    let opened = operations.wait_for(&world, "fanfare.endpoint.breaker_opened", about(&broken.id)).await;
    assert!(opened["failures"].as_u64().is_some_and(|failures| failures >= 3), "{opened}");

    all_end(&world, &operations, [&off, &failing, &paused, &broken]).await;
    assert_told_once(&world, &operations).await;
}

/// Lets all conditions end, and waits for the events.
async fn all_end(world: &World, operations: &Operations, [off, failing, paused, broken]: [&Endpoint; 4]) {
    world.receiver.script("broken", &[Behaviour::OK]);
    world.change(off, &json!({ "status": "enabled" })).await;
    world.change(paused, &json!({ "status": "enabled" })).await;
    run(world, "UPDATE rollups SET taken = 1, failed_5xx = 0 WHERE kind = 2 AND failed_5xx = 2").await;
    let waiting =
        "SELECT count(*) FROM endpoint_backlogs b JOIN endpoints e ON e.id = b.endpoint_id WHERE url LIKE '%/broken'";
    until("the end of the backlog", async || (world.count(waiting).await == 0).then_some(())).await;
    operations.wait_for(world, "fanfare.endpoint.enabled", about(&off.id)).await;
    run(world, HELD_DUE).await;
    looked(world).await;
    run(world, LATER).await;
    for (webhook, condition) in
        [(failing, "failing"), (paused, "held_near_limit"), (broken, "breaker_open"), (broken, "backlog_near_limit")]
    {
        let is_about = |data: &Value| about(&webhook.id)(data) && data["condition"] == condition;
        let told = operations.wait_for(world, "fanfare.endpoint.recovered", is_about).await;
        assert_eq!(told["because"], "recovered", "{told}");
    }
}

/// Each type was told once, without a URL, and the application describes the types.
async fn assert_told_once(world: &World, operations: &Operations) {
    looked(world).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    operations.names(world).into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let expected = catalogue::TYPES.map(|name| (name.to_owned(), if name.ends_with("recovered") { 4 } else { 1 }));
    assert_eq!(counts, BTreeMap::from(expected));
    let text = format!("{:?}", operations.told(world));
    assert!(text.contains("127.0.0.1") && !text.contains("/broken"), "only hosts are told: {text}");

    // The operator's application describes the types, and nobody else publishes them.
    let described = operations.client.get("event-types").await.data().clone();
    let names: Vec<_> = described.as_array().expect("a list").iter().map(|described| &described["name"]).collect();
    assert!(catalogue::TYPES.iter().all(|name| names.contains(&&json!(name))), "{described}");
    for client in [world.client(), &operations.client] {
        let refused = client.post("events", &json!({ "type": "fanfare.endpoint.failing", "data": {} })).await;
        assert_eq!((refused.status, refused.field()), (422, "type"), "{}", refused.body);
    }
}

/// The operator's receiver fails for the whole time: nothing is told about it, and nothing is lost.
#[tokio::test]
async fn a_failing_receiver_of_operational_events_causes_none() {
    let mut world = World::of_waits(&["2s"; 50].join(","), &[("FANFARE_BREAKER_AFTER", "2")]).await;
    let operations = Operations::new(&mut world).await;
    let events = json!({ "url": world.receiver.url("gone"), "events": ["*"] });
    operations.client.post("webhooks", &events).await.data();
    world.receiver.script(PATH, &[Behaviour::FAIL]);
    world.receiver.script("gone", &[Behaviour::Answer(410, Duration::ZERO)]);
    let _dispatcher = dispatcher(&world).await;
    let endpoint = world.endpoint("sound", &["a"]).await;
    let off = [world.endpoint("off1", &["off"]).await, world.endpoint("off2", &["off"]).await];
    for webhook in &off {
        world.change(webhook, &json!({ "status": "disabled" })).await;
    }
    world.receiver.wait_for(PATH, 3).await;
    let own = format!("/{PATH}");
    let is_own = format!("id IN (SELECT id FROM endpoints WHERE url LIKE '%{own}' OR url LIKE '%/gone')");
    let opened = "SELECT count(*) FROM endpoint_backlogs WHERE next_probe IS NOT NULL";
    until("the breaker", async || (world.count(opened).await >= 1).then_some(())).await;
    run(&world, &failures(PATH, 3)).await;
    run(&world, &format!("UPDATE endpoint_backlogs SET since = now() - interval '2 hours' WHERE endpoint_{is_own}"))
        .await;
    run(
        &world,
        &format!("UPDATE open_deliveries SET expires_at = now() + interval '20 minutes' WHERE endpoint_{is_own}"),
    )
    .await;
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "states": ["unmatched"] });
    operations.client.post("replays", &replay).await.data();
    let routing_key = format!("{}.order.created", operations.application);
    assert!(world.broker().await.publish(&routing_key, None, &[], "{}").await.expect("the broker"));

    // Deliveries to other webhooks go at once, meanwhile.
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    // Longer than the age of counted occurrences.
    for _ in 0..4 {
        looked(&world).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM operational_states").await, 2, "the two disabled webhooks");
    assert_eq!(world.count("SELECT count(*) FROM events WHERE type LIKE 'fanfare.%'").await, 2);

    world.receiver.script(PATH, &[Behaviour::OK]);
    run(&world, "UPDATE endpoint_backlogs SET next_probe = now() WHERE next_probe IS NOT NULL").await;
    for webhook in &off {
        let taken = async || {
            let requests = world.receiver.received(PATH);
            requests.iter().any(|request| {
                let body: Value = serde_json::from_slice(&request.body).expect("JSON");
                request.behaviour.succeeds() && body["data"]["webhook"]["id"] == webhook.id.as_str()
            })
        };
        until("the waiting event", async || taken().await.then_some(())).await;
    }
    assert_eq!(operations.told(&world).len(), 2);
}

/// A webhook that flaps: few events, and the last event tells the true state.
#[tokio::test]
async fn a_flapping_webhook_causes_few_events() {
    let mut world = World::new().await;
    let operations = Operations::new(&mut world).await;
    let _dispatchers = [dispatcher(&world).await, world.dispatcher().await];
    let webhook = world.endpoint("flapping", &["a"]).await;
    for turn in 0..7 {
        let status = if turn % 2 == 0 { "disabled" } else { "enabled" };
        world.change(&webhook, &json!({ "status": status })).await;
        let seen = format!(
            "SELECT count(*) FROM operational_states WHERE condition = 'disabled' AND holds = {}",
            status == "disabled"
        );
        until("the look", async || (world.count(&seen).await == 1).then_some(())).await;
    }
    looked(&world).await;
    let names = operations.names(&world);
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(world.count("SELECT changes::bigint FROM operational_states").await, 3);
    // An hour later, the true state is told, with the changes between.
    run(&world, "UPDATE operational_states SET free_at = free_at - interval '1 hour'").await;
    let told = operations
        .wait_for(&world, "fanfare.endpoint.disabled", |data| about(&webhook.id)(data) && data["changes"] == 3)
        .await;
    assert_eq!(told["since"].as_str().map(|since| since.ends_with('Z')), Some(true));
    assert_eq!(operations.names(&world).len(), 5);
}

/// What changed while no dispatcher ran is told once, with its true time.
#[tokio::test]
async fn changes_during_a_downtime_are_told_once_with_their_time() {
    let mut world = World::new().await;
    let operations = Operations::new(&mut world).await;
    let first = dispatcher(&world).await;
    let [off, flapped] = [world.endpoint("off", &["a"]).await, world.endpoint("flapped", &["a"]).await];
    first.terminate();
    assert_eq!(first.ended().await, 0);
    for (webhook, statuses) in [(&off, ["disabled", "disabled"]), (&flapped, ["disabled", "enabled"])] {
        for status in statuses {
            let change = json!({ "status": status });
            world.client().patch(&format!("webhooks/{}", webhook.id), &change).await.data();
        }
    }
    run(&world, "UPDATE operational_marks SET begun_at = begun_at - interval '2 hours'").await;
    run(
        &world,
        "UPDATE endpoints SET status_since = date_trunc('hour', now() - interval '1 hour') WHERE status = 'disabled'",
    )
    .await;
    let _dispatchers = [dispatcher(&world).await, world.dispatcher().await];
    let told = operations.wait_for(&world, "fanfare.endpoint.disabled", about(&off.id)).await;
    assert!(told["since"].as_str().is_some_and(|since| since.ends_with(":00:00Z")), "{told}");
    looked(&world).await;
    assert_eq!(operations.names(&world), ["fanfare.endpoint.disabled"]);
}

#[tokio::test]
async fn an_unknown_application_is_named_at_the_start_and_nothing_is_told() {
    let world = World::new().await;
    let unknown = "app_01kb3z8wc7f0a9r5w3v6q2x4m1";
    let dispatcher = world.process_with("dispatcher", &[(SETTING, unknown)]);
    dispatcher
        .logged(
            "no operational events are told: FANFARE_OPERATIONAL_EVENTS_APPLICATION names an application that does not \
             exist, or that cannot be read; create the application, or change the setting",
        )
        .await;
    looked(&world).await;
    assert_eq!(world.count("SELECT count(*) FROM operational_marks").await, 0);
}
