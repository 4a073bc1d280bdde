//! SIGKILL for every process, under load: each accepted event is delivered, and the accounts of publishers, receiver
//! and Fanfare agree.

use std::time::Duration;

use fanfare_tests::{
    clients::load::{Answered, Load},
    ledger::{Allowed, Ledger, Subscriber},
    metrics::metric,
    patience::{until, until_within},
    receiver::Behaviour,
    servers::instance::{Instance, Servers},
    world::{
        World,
        process::{Process, get},
    },
};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicNackOptions, QueuePurgeOptions},
};
use serde_json::json;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

/// Time between two events of a publisher. HTTP and AMQP together make twice the rate.
const PACE: Duration = Duration::from_millis(40);

/// Attempts in flight in a process: the requests that may be repeated after its death.
const PERMITS: usize = 24;

/// Time limit until deliveries flow again after a broker or database returns, or a dispatcher dies. A dispatcher counts
/// as alive for 10 s after the last heartbeat, and its backlogs wait until then.
const SOON: Duration = Duration::from_secs(20);

/// The lease of a delivery: the attempt timeout (2 s here) and 11 s.
const LEASE: Duration = Duration::from_secs(2 + 11);

const SLOW: Duration = Duration::from_millis(300);

/// Every leased delivery of a killed process becomes an attempt of unknown outcome, even if no request was sent.
fn allowed(kills: usize) -> Allowed {
    Allowed { repeats: PERMITS * kills, unknown: i64::MAX, ..Allowed::default() }
}

/// Eight attempts for each of three endpoints. An application may use half of the places.
fn bounds() -> [(&'static str, &'static str); 2] {
    [("FANFARE_LANE_BOUND", "8"), ("FANFARE_PLACES", "48")]
}

/// Waits for new requests at the receiver, so that the next kill hits attempts in flight.
async fn flowing(world: &World) {
    let before = world.receiver.all().len();
    until_within(SOON, "new requests", async || (world.receiver.all().len() >= before + 10).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_again_and_again_loses_nothing() {
    const KILLS: usize = 3;
    let world = World::of_variables(&bounds()).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let mut dispatcher = world.dispatcher().await;
    let load = Load::start(&world, 400, PACE);
    for kill in 1..=KILLS {
        load.reached(kill * 80).await;
        flowing(&world).await;
        dispatcher.kill();
        dispatcher = world.dispatcher().await;
    }
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(allowed(KILLS));
}

/// While nothing can be recorded, the application's places bound the number of sent requests, and thereby the repeats
/// after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_are_not_recorded_count_as_on_their_way() {
    const EVENTS: usize = 200;
    const FAST: usize = 16;
    let [_, places] = bounds();
    let world = World::of_variables(&[("FANFARE_LANE_BOUND", "100"), places]).await;
    let subscriber = Subscriber::new(&world, "quick", vec![Behaviour::OK]).await;
    let dispatcher = world.dispatcher().await;
    let mut database = world.database().await;
    let lock = database.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE attempts IN EXCLUSIVE MODE").await.expect("the lock");
    let load = Load::start(&world, EVENTS, Duration::from_millis(2));
    world.receiver.wait_for("quick", FAST).await;
    let accepted = load.finish().await;
    let taken = "SELECT count(*) FROM all_deliveries";
    until("all events to be persisted", async || (world.count(taken).await == 200).then_some(())).await;
    dispatcher.kill();
    lock.rollback().await.expect("the end of the lock");

    let _dispatcher = world.dispatcher().await;
    let ledger = Ledger::read(&world, &accepted, &[subscriber]).await;
    ledger.check(allowed(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_dispatchers_killed_loses_nothing() {
    const KILLS: usize = 3;
    let world = World::of_variables(&bounds()).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let mut survivor = world.dispatcher().await;
    let mut victim = world.dispatcher().await;
    let load = Load::start(&world, 400, PACE);
    for kill in 1..=KILLS {
        load.reached(kill * 80).await;
        flowing(&world).await;
        victim.kill();
        // The other dispatcher continues alone, and is killed in the next round.
        flowing(&world).await;
        victim = survivor;
        survivor = world.dispatcher().await;
    }
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(allowed(KILLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_ingest_loses_no_accepted_event() {
    let mut world = World::of_variables(&[]).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let _dispatcher = world.dispatcher().await;
    let load = Load::start(&world, 400, PACE);
    for kill in 1..=3 {
        load.reached(kill * 80).await;
        world.take_ingest().kill();
        world.start_ingest().await;
        load.use_client(world.client());
    }
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_and_ingest_refuses_meanwhile() {
    let broker = block_in_place(|| Instance::rabbitmq("killed"));
    let world = World::with(Servers { amqp_url: broker.url(), ..Servers::given() }, &[]).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let _dispatcher = world.dispatcher().await;
    let mut accepted = Vec::new();
    for _ in 1..=2 {
        // The load begins more than a second after the topology was declared: RabbitMQ 3.10.8 forgets younger queues
        // when killed.
        let load = Load::start(&world, 300, PACE);
        load.reached(100).await;
        flowing(&world).await;
        let before = load.answers().len();
        block_in_place(|| broker.kill());
        let refusals = until("ingest to refuse", async || {
            let refusals: Vec<Answered> = load.answers().split_off(before);
            let count = refusals.iter().filter(|refusal| refusal.status() == 503).count();
            (count >= 40).then_some(refusals)
        })
        .await;
        check_refusals(&refusals);
        // Ingest stays in the load balancer, so that callers get these answers.
        let operations = world.ingest().address("serving health and metrics").await;
        assert_eq!(get(operations, "readyz").await.as_deref(), Some("not ready: cannot publish to the broker\n"));
        assert_eq!(get(operations, "readyz?exclude=broker").await.as_deref(), Some("ready\n"));
        block_in_place(|| broker.start());
        let back = Instant::now();
        flowing(&world).await;
        println!("deliveries flow again {:?} after the broker", back.elapsed());
        let answers = load.answers();
        let slowest = answers.iter().max_by_key(|answered| answered.took);
        assert!(slowest.is_some_and(|slowest| slowest.took < Duration::from_secs(6)), "{slowest:?}");
        accepted.extend(load.finish().await);
    }
    // No process died: outcomes in flight are recorded, and each redelivered message finds its event.
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

/// Checks the responses while the broker is unavailable: 503 with `Retry-After` and the event id. Once ingest has
/// noticed the loss, each response comes within 500 ms.
fn check_refusals(refusals: &[Answered]) {
    let mut known = None;
    for refusal in refusals.iter().filter(|refusal| refusal.status() != 202) {
        let answer = refusal.answer.as_ref().expect("ingest always answers");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.retry_after().is_some_and(|seconds| seconds > 0), "{answer:?}");
        assert_eq!(answer.body["error"]["id"], refusal.key, "{answer:?}");
        if known.is_some_and(|known| refusal.sent > known) {
            assert_eq!(answer.code(), "broker_unavailable");
            assert!(
                refusal.took < Duration::from_millis(500),
                "a response took {:?} although ingest had noticed the loss",
                refusal.took
            );
        }
        if answer.code() == "broker_unavailable" {
            known = known.or(Some(refusal.sent + refusal.took));
        }
    }
    assert!(known.is_some(), "ingest never noticed the loss of the broker: {refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_loses_nothing_and_ingest_accepts_meanwhile() {
    const EVENTS: usize = 300;
    let database = block_in_place(|| Instance::postgres("killed"));
    let world = World::with(Servers { database_url: database.url(), ..Servers::given() }, &[]).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let _dispatcher = world.dispatcher().await;
    let mut accepted = Vec::new();
    for _ in 1..=2 {
        let load = Load::start(&world, EVENTS, PACE);
        load.reached(100).await;
        flowing(&world).await;
        block_in_place(|| database.kill());
        // A slow machine may have fewer events left.
        load.reached(EVENTS.min(load.accepted() + 60)).await;
        block_in_place(|| database.start());
        let back = Instant::now();
        flowing(&world).await;
        println!("deliveries flow again {:?} after the database", back.elapsed());
        let refused: Vec<_> = load.answers().into_iter().filter(|answered| answered.status() != 202).collect();
        assert!(refused.is_empty(), "ingest does not need the database: {refused:?}");
        accepted.extend(load.finish().await);
    }
    // Outcomes waited in memory, and were recorded once the database had returned.
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

/// Outcomes wait in memory. Dispatchers record them before recovery treats the expired leases as lost.
async fn a_database_away_for_longer_than_the_holds(name: &str, dispatchers: usize) {
    let database = block_in_place(|| Instance::postgres(name));
    let world = World::with(Servers { database_url: database.url(), ..Servers::given() }, &[]).await;
    // Slow answers: the first outcome comes long after the kill, so that record and persist wait independently.
    let slow = vec![Behaviour::Answer(200, Duration::from_millis(1500))];
    let subscribers = [Subscriber::new(&world, "slow", slow).await];
    let mut running = Vec::new();
    for _ in 0..dispatchers {
        running.push(world.dispatcher().await);
    }
    let load = Load::start(&world, 60, PACE);
    world.receiver.wait_for("slow", 10).await;
    block_in_place(|| database.kill());
    // The outage outlasts all leases.
    sleep(LEASE + Duration::from_secs(2)).await;
    block_in_place(|| database.start());
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

/// Runs a statement and reloads the server settings. The commit waits for no standby.
async fn set(world: &World, statement: &str) {
    let client = world.database().await;
    client.batch_execute("SET synchronous_commit = local").await.expect("the database");
    client.batch_execute(statement).await.expect("the database");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("the database");
}

/// The commit is durable, but the confirmation was lost. Deliveries leased by the commit were not sent, or are sent
/// after recovery.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_not_an_attempt() {
    let database = block_in_place(|| Instance::postgres("unheard"));
    let world = World::with(Servers { database_url: database.url(), ..Servers::given() }, &[]).await;
    let subscribers = [Subscriber::new(&world, "all", vec![Behaviour::OK]).await];
    let _dispatcher = world.dispatcher().await;
    set(&world, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    let load = Load::start(&world, 20, PACE);
    until("a commit to wait for a standby", async || {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'WITH input%is_wide%'";
        (world.count(waiting).await > 0).then_some(())
    })
    .await;
    block_in_place(|| database.kill());
    // The outage outlasts all leases.
    sleep(LEASE + Duration::from_secs(2)).await;
    block_in_place(|| database.start());
    set(&world, "ALTER SYSTEM RESET synchronous_standby_names").await;
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_away_for_longer_than_the_holds_causes_no_second_send() {
    a_database_away_for_longer_than_the_holds("away", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_away_for_longer_than_the_holds_with_two_dispatchers() {
    a_database_away_for_longer_than_the_holds("away-from-two", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_loses_nothing() {
    let broker = block_in_place(|| Instance::rabbitmq("all"));
    let database = block_in_place(|| Instance::postgres("all"));
    let servers = Servers { amqp_url: broker.url(), database_url: database.url() };
    let mut world = World::with(servers, &bounds()).await;
    let subscribers = Subscriber::three(&world, SLOW).await;
    let mut dispatcher = world.dispatcher().await;
    let mut accepted = Vec::new();
    for kill in 1..=2 {
        let load = Load::start(&world, 200, PACE);
        load.reached(100).await;
        flowing(&world).await;
        dispatcher.kill();
        block_in_place(|| [database.kill(), broker.kill()]);
        world.take_ingest().kill();
        // Services start before broker and database, and wait for both, in either order.
        dispatcher = world.dispatcher_starting();
        match kill {
            1 => block_in_place(|| [database.start(), broker.start()]),
            _ => block_in_place(|| [broker.start(), database.start()]),
        };
        world.start_ingest().await;
        load.use_client(world.client());
        flowing(&world).await;
        accepted.extend(load.finish().await);
    }
    Ledger::read(&world, &accepted, &subscribers).await.check(allowed(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_repeats_nothing_and_leaves_nothing_behind() {
    let world = World::of_variables(&[]).await;
    let subscribers = Subscriber::three(&world, Duration::from_millis(700)).await;
    let first = world.dispatcher().await;
    let load = Load::start(&world, 300, PACE * 2);
    load.reached(60).await;
    flowing(&world).await;
    let second = world.dispatcher().await;
    flowing(&world).await;
    first.terminate();
    assert_eq!(first.ended().await, 0);

    // No other dispatcher runs: the test can check the state after a regular end.
    load.reached(150).await;
    flowing(&world).await;
    second.terminate();
    assert_eq!(second.ended().await, 0);
    let requests = world.receiver.all().len();
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries WHERE state = 'sending'").await, 0);
    assert_eq!(
        world.count("SELECT count(*) FROM all_attempts").await,
        i64::try_from(requests).expect("a small number")
    );

    let _third = world.dispatcher().await;
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

/// A world in which each event has failed once. Each retry is scheduled 5 s later.
async fn with_scheduled(events: usize) -> (World, Process, Subscriber, Vec<String>) {
    let world = World::of_waits("5s,5s", &[]).await;
    let mut script = vec![Behaviour::FAIL; events];
    script.push(Behaviour::Answer(200, SLOW));
    let subscriber = Subscriber::new(&world, "failing", script).await;
    let dispatcher = world.dispatcher().await;
    let load = Load::start(&world, events, Duration::from_millis(5));
    let accepted = load.finish().await;
    (world, dispatcher, subscriber, accepted)
}

/// A separate AMQP channel, for operations that [`fanfare_tests::clients::amqp::Broker`] lacks.
async fn channel(world: &World) -> (Connection, Channel) {
    let connection = Connection::connect(&world.variables["AMQP_URL"], ConnectionProperties::default()).await;
    let connection = connection.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

fn queue(world: &World, name: &str) -> lapin::types::ShortString {
    format!("{}.{name}", world.variables["FANFARE_PREFIX"]).into()
}

async fn wait_for_depth(world: &World, name: &str, depth: u32) {
    let broker = world.broker().await;
    until(&format!("{depth} messages in {name}"), async || (broker.depth(name).await.ok()? >= depth).then_some(()))
        .await;
}

/// Recovered deliveries: after an expired lease, and after a missing retry message.
async fn recovered(dispatcher: &Process) -> [f64; 2] {
    [
        metric(dispatcher, r#"fanfare_recovered_total{kind="lease"}"#).await,
        metric(dispatcher, r#"fanfare_recovered_total{kind="retry"}"#).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_whose_retry_messages_are_gone_are_recovered() {
    const EVENTS: usize = 30;
    let (world, dispatcher, subscriber, accepted) = with_scheduled(EVENTS).await;
    wait_for_depth(&world, "delay.5s", 30).await;
    let (_connection, channel) = channel(&world).await;
    let purged = channel.queue_purge(queue(&world, "delay.5s"), QueuePurgeOptions::default()).await.expect("a purge");
    assert_eq!(purged, 30);
    let ledger = Ledger::read(&world, &accepted, &[subscriber]).await;
    ledger.check(Allowed::default());
    assert_eq!(recovered(&dispatcher).await, [0.0, 30.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_process_died_is_recovered() {
    let world = World::of_variables(&[]).await;
    let subscriber = Subscriber::new(&world, "slow", vec![Behaviour::Answer(200, Duration::from_secs(1))]).await;
    let dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "id": "one", "data": { "key": "one" } })).await;
    world.receiver.wait_for("slow", 1).await;
    dispatcher.kill();
    let dispatcher = world.dispatcher().await;
    let ledger = Ledger::read(&world, &["one".to_owned()], &[subscriber]).await;
    ledger.check(Allowed { repeats: 1, unknown: 1, ..Allowed::default() });
    assert_eq!(recovered(&dispatcher).await, [1.0, 0.0]);
}

/// A consumer of the test holds the retry messages, and requeues them while the recovered deliveries are sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_message_that_was_only_slow_makes_no_second_send() {
    const EVENTS: usize = 30;
    let (world, dispatcher, subscriber, accepted) = with_scheduled(EVENTS).await;
    wait_for_depth(&world, "delay.5s", 30).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    wait_for_depth(&world, "deliveries", 30).await;
    let (_connection, channel) = channel(&world).await;
    let mut messages = Vec::new();
    while let Some(message) =
        channel.basic_get(queue(&world, "deliveries"), BasicGetOptions::default()).await.expect("the queue")
    {
        messages.push(message);
    }
    assert_eq!(messages.len(), EVENTS);

    let dispatcher = world.dispatcher().await;
    until("all to be recovered", async || (recovered(&dispatcher).await == [0.0, 30.0]).then_some(())).await;
    for message in messages {
        let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        assert!(message.acker.nack(back).await.expect("the broker"));
    }
    let ledger = Ledger::read(&world, &accepted, &[subscriber]).await;
    ledger.check(Allowed::default());
    assert_eq!(recovered(&dispatcher).await, [0.0, 30.0]);
}
