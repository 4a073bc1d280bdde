//! `make run`: starts ingest and dispatcher in a `World`, publishes over both entrances, shows the deliveries of each
//! event, and runs until Ctrl-C.

use std::{collections::HashMap, time::Duration};

use fanfare_tests::{
    receiver::{Behaviour, Received, signature::is_signed},
    world::{Endpoint, World, process::Process},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, signal::unix};

/// Short waits, to watch a retry. The default is 60s,5m,15m,60m,120m.
const SCHEDULE: &str = "2s,5s,15s,30s,60s";

/// Port in the README. If the port is taken, the demo takes another.
const ADDRESS: &str = "127.0.0.1:8080";

#[tokio::main]
async fn main() {
    let mut stop = unix::signal(unix::SignalKind::terminate()).expect("signals can be caught");
    let stopped = tokio::select! {
        () = demonstrate() => false,
        _ = tokio::signal::ctrl_c() => true,
        _ = stop.recv() => true,
    };
    if stopped {
        println!("\nEnded. All started servers, processes and data are removed.");
    }
}

/// Runs the demo without end. The drop of its `World` ends all started processes.
async fn demonstrate() {
    step("Creating a database and queues for this run, and starting ingest");
    let address = free_address().await;
    let url = format!("http://{address}");
    let world = World::of_waits(SCHEDULE, &[("FANFARE_ADDRESS", &address), ("FANFARE_CONSOLE_URL", &url)]).await;
    step("Starting the dispatcher");
    let dispatcher = world.dispatcher().await;
    step("Creating two endpoints: for order.*, and for all events; the second fails twice at first");
    let orders = world.endpoint("orders", &["order.*"]).await;
    let flaky = world.endpoint("flaky", &["*"]).await;
    world.receiver.script("flaky", &[Behaviour::FAIL, Behaviour::FAIL, Behaviour::OK]);
    let events = publish(&world).await;
    step("Waiting for the deliveries; retries come back from the delay queues");
    let deliveries = world.wait_for_deliveries("state=delivered", 7).await;
    show(&world, &events, &[&orders, &flaky], &deliveries).await;
    explain(&world, &dispatcher).await;
    watch(&world, &[&orders, &flaky]).await;
}

/// The address in the README if its port is free, else another free address.
async fn free_address() -> String {
    let listener = match TcpListener::bind(ADDRESS).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await.expect("a free port"),
    };
    listener.local_addr().expect("an address").to_string()
}

fn step(what: &str) {
    println!("· {what}.");
}

/// Publishes over both entrances. Returns the id and the entrance of each event.
async fn publish(world: &World) -> HashMap<String, String> {
    step("Publishing two events over HTTP and two over AMQP");
    let mut events = HashMap::new();
    for (kind, data) in [
        ("order.created", json!({ "order": 1001, "total": 49.90 })),
        ("invoice.paid", json!({ "invoice": "2026-7", "total": 49.90 })),
    ] {
        let id = world.publish(&json!({ "type": kind, "data": data })).await;
        events.insert(id, format!("HTTP  {kind}"));
    }
    let broker = world.broker().await;
    let application = world.application.parse().expect("an application's id");
    for (kind, key) in [("order.shipped", "shipment-77"), ("order.created", "order-1002")] {
        let body = json!({ "data": { "order": 1002 } }).to_string();
        let confirmed = broker.publish(&format!("{}.{kind}", world.application), Some(key), &[], body).await;
        assert!(confirmed.expect("the broker answers"), "the broker refused a message");
        let id = fanfare_domain::ids::EventId::from_key(application, key);
        events.insert(id.to_string(), format!("AMQP  {kind}"));
    }
    events
}

async fn show(world: &World, events: &HashMap<String, String>, endpoints: &[&Endpoint], deliveries: &[Value]) {
    println!("\n  published            endpoint  state      attempts              signatures");
    for delivery in deliveries.iter().rev() {
        let text = |name: &str| delivery[name].as_str().unwrap_or_default().to_owned();
        let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.id == text("webhook")) else { continue };
        let detail = world.delivery(&text("id")).await;
        let attempts: Vec<String> = detail["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|attempt| {
                attempt["status"].as_u64().map_or_else(|| attempt["outcome"].to_string(), |status| status.to_string())
            })
            .collect();
        let received = world.receiver.received(&endpoint.path);
        let mut received = received.iter().filter(|request| request.event() == text("event"));
        let verified =
            if received.all(|request| is_signed(request, &endpoint.secret)) { "all verified" } else { "WRONG" };
        let published = events.get(&text("event")).map_or("?", String::as_str);
        println!("  {published:<20} {:<9} {:<10} {:<21} {verified}", endpoint.path, text("state"), attempts.join(", "));
    }
}

async fn explain(world: &World, dispatcher: &Process) {
    let api = world.ingest().address("serving the API").await;
    let operations = dispatcher.address("serving health and metrics").await;
    println!(
        "
The API is at http://{api}/api/v1 and the dispatcher's metrics are at http://{operations}/metrics.
The README's examples use these variables. KEY has the role manage, ADMIN_KEY the role admin:

  export API=http://{api}/api/v1 KEY={key}
  export APPLICATION={application} EXCHANGE={prefix}.events BROKER={amqp}
  export ADMIN_KEY={admin}

Publish an event of your own:

  curl http://{api}/api/v1/events \\
    -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{\"type\": \"order.created\", \"data\": {{\"order\": 1003}}}}'

List the deliveries:

  curl http://{api}/api/v1/deliveries -H 'Authorization: Bearer {key}'

Endpoints on this machine are permitted here, such as http://127.0.0.1:9000/hooks, and the waits between attempts are
short. The requests at the demo's receiver follow. Ctrl-C ends the demo.

The console is at http://{api}/console. This link signs in, once and within 5 minutes:

  {link}
",
        link = world.release.fanfare(&world.variables, &["sign-in"]).lines().next().unwrap_or_default(),
        key = world.key,
        prefix = world.variables["FANFARE_PREFIX"],
        amqp = world.variables["AMQP_URL"],
        application = world.application,
        admin = world.create_key(&["--role", "admin"]),
    );
}

/// Prints each further request to the receiver, without end.
async fn watch(world: &World, endpoints: &[&Endpoint]) {
    let mut shown = world.receiver.all().len();
    loop {
        for received in world.receiver.all().iter().skip(shown) {
            shown += 1;
            println!("  {} {}", received.path, line(received, endpoints));
        }
        // The pace of the looks, until Ctrl-C.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn line(received: &Received, endpoints: &[&Endpoint]) -> String {
    let endpoint = endpoints.iter().find(|endpoint| received.path == format!("/{}", endpoint.path));
    let verified = endpoint.is_some_and(|endpoint| is_signed(received, &endpoint.secret));
    let body = String::from_utf8_lossy(&received.body);
    format!("{} {body} {}", received.event(), if verified { "(signatures verified)" } else { "(WRONG SIGNATURE)" })
}
