//! What grows with what there is or waits, and must not.

use std::{collections::VecDeque, time::Instant};

use fanfare_domain::{
    ids::{ApplicationId, DeliveryId, EndpointId},
    retry::RetryMessage,
};
use fanfare_tests::world::ready;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use crate::{
    delivered::Delivered,
    figures::{Figures, Goal},
    latency::{subscriber, types},
    machine::Machine,
    processes::peak_memory,
    scene::{Scene, Subject, Subscriber, Way},
    throughput::{Load, WARM_UP},
};

/// Events that wait while no dispatcher runs.
const WAITING: usize = 100_000;

/// Retries that wait for hours.
const RETRIES: usize = 1_000_000;

/// Deliveries that were recorded before, with two attempts each.
const LOGGED: usize = 1_000_000;

/// Applications, and endpoints of each.
const APPLICATIONS: usize = 10_000;
const ENDPOINTS: usize = 10;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Events by which a throughput is measured here.
const LOAD: Load = Load { way: Way::Amqp, per_event: 1, events: 20_000 };

/// Event types, each with an endpoint of its own.
const TYPES: usize = 10;

fn subscribers() -> Vec<Subscriber> {
    (0..TYPES).map(|number| subscriber("all", "ok", number)).collect()
}

/// A dispatcher that starts on a backlog.
pub(crate) async fn backlog(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(0)).await;
    scene.publish(Way::Amqp, &types(TYPES), WAITING, None).await;
    let per_second = scene.work_off(WAITING).await;
    let memory = peak_memory(scene.dispatchers[0].id()) as f64 / MEBIBYTE;
    figures.add(
        "memory of a dispatcher that starts on 100,000 events",
        "MiB",
        memory,
        None,
        Goal::at_most(150.0, memory),
    );
    figures.add("deliveries of a dispatcher that starts on 100,000 events", "/s", per_second, None, None);
}

/// Very many retries that wait.
pub(crate) async fn retries(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
    let before = throughput(&mut scene).await;
    let memory_before = scene.memory();
    wait_for_hours(&scene).await;
    let after = throughput(&mut scene).await;
    enter(figures, "processor time per delivery while 1,000,000 retries wait", &after, &before);
    let memory = scene.memory();
    let goal = Goal::at_most(memory_before + 16.0, memory);
    figures.add("memory of a dispatcher while 1,000,000 retries wait", "MiB", memory, Some(memory_before), goal);
}

/// A log that has grown.
pub(crate) async fn log(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
    let before = throughput(&mut scene).await;
    write_log(&scene).await;
    let after = throughput(&mut scene).await;
    enter(figures, "processor time per delivery after 2,000,000 attempts", &after, &before);
}

/// Events and deliveries of today, two attempts of each delivery, and all that their indexes cost.
async fn write_log(scene: &Scene) {
    let write = "
        CREATE TEMPORARY TABLE past AS
        SELECT (prefix || substr(md5('event' || number), 1, 20))::uuid AS event,
               (prefix || substr(md5('delivery' || number), 1, 20))::uuid AS delivery, at
        FROM (SELECT number, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS prefix
              FROM (SELECT number, date_trunc('milliseconds', date_trunc('day', now(), 'UTC')
                               + (now() - date_trunc('day', now(), 'UTC')) * number / $COUNT) AS at
                    FROM generate_series(1, $COUNT) AS number) AS times) AS one;
        INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content)
        SELECT event, at, application_id, 'bench.0', repeat('x', 440), 1, '', ''
        FROM past, (SELECT application_id FROM endpoints LIMIT 1) AS one;
        INSERT INTO deliveries (id, event_id, application_id, endpoint_id, state, attempt, failures, finished_at)
        SELECT delivery, event, application_id, id, 'delivered', 2, 1, at
        FROM past, (SELECT id, application_id FROM endpoints LIMIT 1) AS one;
        INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms,
                              outcome, status, response_headers, response_body)
        SELECT delivery, number, event, application_id, id, url, at, 1, 'answered', CASE number WHEN 1 THEN 500 ELSE 200 END,
               '{}', 'ok'
        FROM past, generate_series(1, 2) AS number, (SELECT id, application_id, url FROM endpoints LIMIT 1) AS one;
        DROP TABLE past";
    let write = write.replace("$COUNT", &LOGGED.to_string());
    scene.world.database().await.batch_execute(&write).await.expect("a log");
}

/// Writes the rows and the retry messages of deliveries whose next attempt is due in two hours.
async fn wait_for_hours(scene: &Scene) {
    const QUEUE: &str = "120m";
    const WINDOW: usize = 1024;
    let (database, variables) = (scene.world.database().await, &scene.world.variables);
    let application: ApplicationId = scene.world.application.parse().expect("an application");
    let insert = "INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, listed, attempt, failures,
                                               due_at, expires_at)
                  SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0')
                          || substr(md5(number::text), 1, 20))::uuid, gen_random_uuid(), $1, id, 'scheduled', true, 2, 1,
                         now() + interval '2 h', now() + interval '3 days'
                  FROM generate_series(1, $2::int) AS number, (SELECT id FROM endpoints LIMIT 1) AS one
                  RETURNING id, endpoint_id";
    let rows = database.query(insert, &[&application.0, &(RETRIES as i32)]).await.expect("deliveries");
    let connection =
        Connection::connect(&variables["AMQP_URL"], ConnectionProperties::default()).await.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let exchange = format!("{}.deliveries", variables["FANFARE_PREFIX"]);
    let mut confirms = VecDeque::new();
    for row in rows {
        let retry = RetryMessage {
            delivery: DeliveryId(row.get(0)),
            application,
            endpoint: EndpointId(row.get(1)),
            attempt: 2,
            then: Vec::new(),
        };
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
        let body = serde_json::to_vec(&retry).expect("JSON");
        let published = channel.basic_publish(exchange.as_str().into(), QUEUE.into(), options, &body, properties).await;
        confirms.push_back(published.expect("published"));
        if confirms.len() >= WINDOW {
            assert!(confirms.pop_front().expect("one").await.expect("a confirm").is_ack());
        }
    }
    for confirm in confirms {
        assert!(confirm.await.expect("a confirm").is_ack());
    }
    let waiting = scene.world.broker().await.depth(&format!("delay.{QUEUE}")).await.expect("its queue");
    assert_eq!(waiting as usize, RETRIES);
}

/// Very many applications and endpoints.
pub(crate) async fn endpoints(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
    let before = throughput(&mut scene).await;
    populate(&scene).await;
    scene.dispatchers.clear();
    let started = Instant::now();
    let dispatcher = scene.world.dispatcher_starting();
    ready(&dispatcher).await;
    let took = started.elapsed().as_secs_f64();
    figures.add("start with 100,000 endpoints of 10,000 applications", "s", took, None, Goal::at_most(5.0, took));
    scene.dispatchers.push(dispatcher);
    let after = throughput(&mut scene).await;
    enter(figures, "processor time per delivery with 100,000 endpoints", &after, &before);
    figures.note(format!("the dispatcher has {:.0} MiB", scene.memory()));
}

async fn throughput(scene: &mut Scene) -> Delivered {
    // What was written before is to be over, and not to be measured.
    let database = scene.world.database().await;
    for step in ["VACUUM ANALYZE", "CHECKPOINT"] {
        database.batch_execute(step).await.expect("a quiet database");
    }
    scene.quiet().await;
    scene.deliver(Way::Amqp, &types(TYPES), WARM_UP, 1, None).await;
    scene.deliver(LOAD.way, &types(TYPES), LOAD.events, LOAD.per_event, None).await
}

/// What a delivery costs must not depend on what there is.
fn enter(figures: &mut Figures, name: &str, after: &Delivered, before: &Delivered) {
    let goal = Goal::at_most(before.cost() * 1.15, after.cost());
    figures.add(name, "µs", after.cost(), Some(before.cost()), goal);
    figures.note(format!("{}; before: {}", after.costs_in_words(), before.costs_in_words()));
    figures.note(format!("{:.0} deliveries/s; before: {:.0}", after.per_second, before.per_second));
}

/// Makes applications and endpoints, these without secrets: to decrypt one takes a microsecond.
async fn populate(scene: &Scene) {
    let make = "INSERT INTO applications (id, name, dialect)
                SELECT gen_random_uuid(), 'bench ' || number, dialect
                FROM generate_series(1, $1::int) AS number, (SELECT dialect FROM applications LIMIT 1) AS one";
    let fill = "INSERT INTO endpoints (id, application_id, url, event_types)
                SELECT gen_random_uuid(), id, $1, '{*}' FROM applications, generate_series(1, $2::int)
                WHERE name LIKE 'bench %'";
    let database = scene.world.database().await;
    // Whoever follows the changes would read everything anew for each of them.
    database.batch_execute("ALTER TABLE applications DISABLE TRIGGER announce").await.expect("no notices");
    database.execute(make, &[&(APPLICATIONS as i32)]).await.expect("applications");
    let url = format!("http://{}/all/ok", scene.address);
    database.execute(fill, &[&url, &(ENDPOINTS as i32)]).await.expect("endpoints");
    let enable = "ALTER TABLE applications ENABLE TRIGGER announce; NOTIFY fanfare_configuration";
    database.batch_execute(enable).await.expect("notices");
}
