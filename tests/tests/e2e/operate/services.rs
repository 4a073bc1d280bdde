//! Operation: invalid settings, health and metrics pages, a database without the schema.

use std::{fs, net::SocketAddr, process::Stdio};

use fanfare_tests::{
    metrics::counted,
    patience::{patience, until},
    world::{
        World,
        process::{Process, Variables, fanfare, get, signal},
        release::Release,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

/// Runs a service that must refuse to start. Returns all output.
async fn complaint(service: &str, variables: &Variables) -> String {
    let mut command = Command::new(Release::present().program(service));
    command.env_clear().envs(variables).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patience(), command.output());
    let output =
        output.await.unwrap_or_else(|_| panic!("{service} runs with {variables:?}")).expect("the service starts");
    assert!(
        output.status.code().is_some_and(|code| code != 0),
        "{service} must end with a failure status, but ended with {}",
        output.status
    );
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The secret part of the invalid values.
const SECRET: &str = "hunter2";

/// An invalid value for each setting that both services share.
const BAD: [(&str, &str); 10] = [
    ("AMQP_URL", "amqp://user:hunter2@:none"),
    ("DATABASE_URL", "postgres://user:hunter2@localhost:none/fanfare"),
    ("FANFARE_SECRET_KEYS", "k1:hunter2"),
    ("FANFARE_PREFIX", "a b"),
    ("FANFARE_DIALECTS", "no-such-folder"),
    ("FANFARE_MAX_EVENT_BYTES", "1"),
    ("FANFARE_DATABASE_CONNECTIONS", "many"),
    ("FANFARE_ALLOW_ADDRESSES", "10.0.0.0/8,everything"),
    ("FANFARE_HTTPS_ONLY", "perhaps"),
    ("FANFARE_OPERATIONS_ADDRESS", "localhost"),
];

/// Invalid values for the settings of a single service.
const BAD_ALONE: [(&str, &[(&str, &str)]); 2] = [
    ("ingest", &[("FANFARE_ADDRESS", "8080"), ("FANFARE_LOG_FORMAT", "xml")]),
    (
        "dispatcher",
        &[
            ("FANFARE_EXPIRY", "10"),
            ("FANFARE_PREFETCH", "0"),
            ("FANFARE_RETENTION", "-1d"),
            ("FANFARE_SMTP_URL", "smtp://user:hunter2@mail.example.com?tls=perhaps"),
            ("FANFARE_MAIL_FROM", "Fanfare"),
            ("FANFARE_MAIL_DIGEST", "daily"),
        ],
    ),
];

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_told_at_once() {
    for (service, alone) in BAD_ALONE {
        let bad: Vec<_> = BAD.iter().chain(alone).collect();
        let variables = bad.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let said = complaint(service, &variables).await;
        let missing: Vec<_> = bad.iter().map(|(name, _)| *name).filter(|name| !said.contains(name)).collect();
        assert!(missing.is_empty(), "{service} does not name {missing:?}: {said}");
        assert!(!said.contains(SECRET), "{service} shows a secret: {said}");

        let said = complaint(service, &Variables::new()).await;
        for name in ["AMQP_URL", "DATABASE_URL", "FANFARE_SECRET_KEYS"] {
            assert!(said.contains(&format!("{name} is not set")), "{service}: {said}");
        }
    }
}

#[tokio::test]
async fn a_mail_server_needs_a_sender() {
    let variables = [("FANFARE_SMTP_URL", "smtps://user:hunter2@mail.example.com")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let said = complaint("dispatcher", &variables).await;
    assert!(said.contains("FANFARE_MAIL_FROM is not set") && !said.contains("FANFARE_SMTP_URL:"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

/// A fault found only by the last check also names the setting, and never shows the value.
#[tokio::test]
async fn each_mistake_alone_is_told_by_its_name() {
    let world = World::new().await;
    let more = [
        ("AMQP_URL", "amqp://node-1,amqp:user:hunter2@node-2"),
        ("AMQP_URL", "amqp:user:hunter2@node-1,node-2"),
        ("RUST_LOG", "info,=,"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
    ];
    for service in ["ingest", "dispatcher"] {
        for (name, value) in BAD.iter().take(3).chain(&more) {
            let mut variables = world.variables.clone();
            variables.insert((*name).to_owned(), (*value).to_owned());
            let said = complaint(service, &variables).await;
            assert!(said.contains(name), "{service} with {name}={value} does not name the setting: {said}");
            assert!(!said.contains(SECRET), "{service} shows a secret: {said}");
        }
    }
}

async fn operations(process: &Process) -> SocketAddr {
    process.address("serving health and metrics").await
}

#[tokio::test]
async fn a_service_tells_its_health_and_its_metrics() {
    let world = World::new().await;
    world.endpoint("a", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    counted(world.ingest(), r#"fanfare_published_total{result="accepted"}"#, 1).await;
    counted(&dispatcher, r#"fanfare_attempts_total{outcome="answered"}"#, 1).await;
    counted(&dispatcher, r#"fanfare_events_total{result="new"}"#, 1).await;
    counted(&dispatcher, r#"fanfare_deliveries_ended_total{state="delivered",reason=""}"#, 1).await;
    for (process, histogram) in [(world.ingest(), "fanfare_publish_seconds"), (&dispatcher, "fanfare_attempt_seconds")]
    {
        let address = operations(process).await;
        assert_eq!(get(address, "healthz").await.as_deref(), Some("alive\n"));
        assert_eq!(get(address, "readyz").await.as_deref(), Some("ready\n"));
        assert_eq!(get(address, "readyz?exclude=broker").await.as_deref(), Some("ready\n"));
        let refused = get(address, "readyz?exclude=all").await.expect("an answer");
        assert!(refused.contains("exclude=broker"), "{refused}");
        let metrics = get(address, "metrics").await.expect("the metrics");
        assert!(metrics.contains(&format!("{histogram}_bucket{{le=")), "{metrics}");
        assert!(metrics.contains(&format!("# HELP {histogram} ")), "{metrics}");
        for id in ["app_", "wh_", "evt_", "dlv_"] {
            assert!(!metrics.contains(id), "a label contains an id, and ids are unbounded: {metrics}");
        }
    }
}

/// Every metric of the reference is there soon after the start: PromQL's `increase` does not see a counter that begins
/// at 1, and an alert on an absent gauge never fires.
#[tokio::test]
async fn all_metrics_exist_soon_after_the_start() {
    let world = World::new().await;
    // The first request to the API.
    world.endpoint("a", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    for (service, process) in [("ingest", world.ingest()), ("dispatcher", &dispatcher)] {
        let reference = Command::new(Release::present().program(service))
            .arg("--reference")
            .env_clear()
            .output()
            .await
            .expect("a reference");
        let reference = String::from_utf8(reference.stdout).expect("text");
        let names: Vec<&str> = reference.lines().filter_map(metric_row).collect();
        assert!(names.len() > 10, "{names:?}");
        let address = operations(process).await;
        until(&format!("all metrics of {service}"), async || {
            let metrics = get(address, "metrics").await?;
            let missing = names.iter().find(|name| !metrics.contains(&format!("# TYPE {name} ")));
            missing.is_none().then_some(())
        })
        .await;
    }
}

/// Name of the metric in a row of the reference.
fn metric_row(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    ["counter |", "gauge |", "histogram |"].iter().any(|kind| rest.starts_with(kind)).then_some(name)
}

/// Publishers keep connections open, and open further connections while waiting for an answer.
#[tokio::test]
async fn a_connection_costs_ingest_little_memory() {
    const CONNECTIONS: u64 = 200;
    let world = World::new().await;
    let address = world.ingest().address("serving the API").await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    let before = memory(world.ingest());
    let each = || memory(world.ingest()).saturating_sub(before) / CONNECTIONS;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(TcpStream::connect(address).await.expect("a connection"));
    }
    // The last connection is served after all others were accepted.
    ask(open.last_mut().expect("connections")).await;
    let unused = each();
    assert!(unused < 100, "{unused} kB for each connection");
    for connection in &mut open {
        ask(connection).await;
    }
    let used = each();
    assert!(used < 200, "{used} kB for each connection that was used");
}

/// Sends a request and reads the start of the answer.
async fn ask(connection: &mut TcpStream) {
    connection.write_all(b"GET /nothing HTTP/1.1\r\nhost: ingest\r\n\r\n").await.expect("a request");
    assert!(connection.read(&mut [0; 1024]).await.expect("an answer") > 0);
}

/// A proxy that still sends on an open connection gets an answer, and the end of the connection.
#[tokio::test]
async fn a_kept_connection_is_answered_after_sigterm_and_then_ends() {
    let mut world = World::new().await;
    let ingest = world.take_ingest();
    let address = ingest.address("serving the API").await;
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let request =
        format!("GET /api/v1/webhooks HTTP/1.1\r\nhost: ingest\r\nauthorization: Bearer {}\r\n\r\n", world.key);
    let mut answer = vec![0; 64 * 1024];
    connection.write_all(request.as_bytes()).await.expect("a request");
    let length = connection.read(&mut answer).await.expect("an answer");
    assert!(!String::from_utf8_lossy(&answer[..length]).contains("connection: close"));

    ingest.terminate();
    until("ingest to accept no more connections", async || TcpStream::connect(address).await.err()).await;
    connection.write_all(request.as_bytes()).await.expect("a request");
    let mut last = String::new();
    connection.read_to_string(&mut last).await.expect("an answer, and the end");
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
    assert_eq!(ingest.ended().await, 0);
}

/// Resident memory of a process, in kB.
fn memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// In most deployments, services and migration start together, in any order.
#[tokio::test]
async fn services_wait_for_the_migration_and_say_so() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    world.database().await.batch_execute(empty).await.expect("a database as if it were new");

    let dispatcher = world.dispatcher_starting();
    let ingest = world.process_with("ingest", &[]);
    for process in [&dispatcher, &ingest] {
        process.logged("connected to the broker for publishing").await;
        let address = operations(process).await;
        assert_eq!(
            get(address, "healthz").await.as_deref(),
            Some("alive\n"),
            "a waiting service must count as alive, or an orchestrator restarts the process"
        );
        let readiness = get(address, "readyz").await.expect("an answer");
        assert!(readiness.starts_with("not ready: "), "a service without a schema reports {readiness:?}");
    }
    dispatcher.logged("the database has not the schema of this release; run: fanfare migrate").await;
    let readiness = get(operations(&dispatcher).await, "readyz").await;
    assert_eq!(readiness.as_deref(), Some("not ready: the database is away, or not migrated\n"));

    assert!(fanfare(&world.variables, &["migrate"]).contains("applied"));
    dispatcher.ready().await;
    ingest.ready().await;
    ingest.logged("serving the API").await;
}

#[tokio::test]
async fn a_service_ends_at_sigterm() {
    let mut world = World::new().await;
    let dispatcher = world.dispatcher().await;
    for process in [dispatcher, world.take_ingest()] {
        process.terminate();
        assert_eq!(process.ended().await, 0);
    }
}

/// A log driver that takes nothing fills the pipe. Deliveries go on, and the lost lines are counted.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_delivery() {
    let world = World::new().await;
    world.endpoint("a", &["*"]).await;
    world.known().await;
    let mut dispatcher = Command::new(Release::present().program("dispatcher"));
    dispatcher.env_clear().envs(&world.variables).env("RUST_LOG", "trace");
    let mut dispatcher = dispatcher.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("a dispatcher");
    let mut lines = BufReader::new(dispatcher.stdout.take().expect("a standard output")).lines();
    let address: SocketAddr = loop {
        let line = lines.next_line().await.expect("a log").expect("a line with the address");
        let log: Value = serde_json::from_str(&line).expect("JSON");
        if log["message"] == "serving health and metrics" {
            break log["address"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        }
    };
    // From here on, nothing reads the log.
    const EVENTS: usize = 500;
    let events: Vec<Value> = (0..EVENTS).map(|number| json!({ "type": "a", "data": number })).collect();
    assert_eq!(world.client().post("events/batch", &json!(events)).await.status, 202);
    world.receiver.wait_for("a", EVENTS).await;
    until("a count of dropped lines", async || {
        let metrics = get(address, "metrics").await.expect("the metrics");
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("fanfare_log_lines_dropped_total "))?;
        (dropped.parse::<f64>().expect("a number") > 0.0).then_some(())
    })
    .await;
    // Nor does the log stop the end of the process.
    signal("TERM", dispatcher.id().expect("a running process"));
    let ended = tokio::time::timeout(patience(), dispatcher.wait()).await.expect("the end").expect("an exit");
    assert!(ended.success(), "{ended}");
    drop(lines);
}
