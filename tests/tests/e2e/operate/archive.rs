//! The archive in a real S3 server: a day is archived, dropped, found and checked. A day that cannot be archived is
//! kept.

use std::process::Stdio;

use fanfare_tests::{
    clients::python::python,
    metrics::counted,
    patience::until,
    receiver::Behaviour,
    world::{
        World,
        process::{Process, fanfare, try_fanfare},
    },
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

const PASSWORD: &str = "hunter2";

/// Age of the archived day: longer than the retention.
const AGE: SignedDuration = SignedDuration::from_hours(40 * 24);

/// A private S3 server. Ends on drop.
struct S3Server {
    port: u64,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl S3Server {
    /// Reserves a port, which refuses connections.
    async fn start() -> Self {
        let mut command = python("s3_server.py").await;
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let input = process.stdin.take().expect("a piped standard input");
        let output = BufReader::new(process.stdout.take().expect("a piped standard output")).lines();
        let mut server = Self { port: 0, input, output, _process: process };
        server.port = server.line().await["port"].as_u64().expect("a port");
        server
    }

    async fn listen(&mut self) {
        self.input.write_all(b"\n").await.expect("the server runs");
        assert_eq!(self.line().await["created"], 200);
    }

    async fn line(&mut self) -> Value {
        let line = self.output.next_line().await.expect("the server's output").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

/// Moves all events, deliveries and attempts into partitions of an old day. Returns the day.
async fn age(world: &World) -> Date {
    let day = (Timestamp::now() - AGE).to_zoned(TimeZone::UTC).date();
    create_partitions(world, day).await;
    let age = format!("interval '{} s'", AGE.as_secs());
    let statements = format!(
        "CREATE FUNCTION aged(id uuid) RETURNS uuid LANGUAGE sql AS $$
             SELECT (lpad(to_hex(('x' || digits)::bit(48)::bigint - {}), 12, '0') || substr(all_digits, 13))::uuid
             FROM (SELECT replace(id::text, '-', '') AS all_digits, substr(replace(id::text, '-', ''), 1, 12) AS digits) d
         $$;
         UPDATE events SET accepted_at = accepted_at - {age};
         UPDATE deliveries SET id = aged(id), finished_at = finished_at - {age};
         UPDATE attempts SET delivery_id = aged(delivery_id), started_at = started_at - {age}",
        AGE.as_millis()
    );
    world.database().await.batch_execute(&statements).await.expect("moved rows");
    day
}

async fn create_partitions(world: &World, day: Date) {
    let moment = |day: Date| day.to_zoned(TimeZone::UTC).expect("a day").timestamp();
    let (begin, end) = (moment(day), moment(day.tomorrow().expect("a day")));
    let least = |moment: Timestamp| format!("{:012x}{:020}", moment.as_millisecond(), 0);
    let name = day.strftime("p%Y%m%d");
    let mut statements =
        format!("CREATE TABLE events_{name} PARTITION OF events FOR VALUES FROM ('{begin}') TO ('{end}');");
    for table in ["deliveries", "attempts"] {
        statements += &format!(
            "CREATE TABLE {table}_{name} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}');",
            least(begin),
            least(end)
        );
    }
    world.database().await.batch_execute(&statements).await.expect("partitions");
}

async fn tables_of(world: &World, day: Date) -> i64 {
    world.count(&format!("SELECT count(*) FROM pg_class WHERE relname ~ '_{}$'", day.strftime("p%Y%m%d"))).await
}

async fn end(dispatcher: Process) {
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
}

/// An event with an encrypted body, and with two attempts.
async fn delivered_event(world: &World) -> String {
    let path = format!("applications/{}", world.application);
    let changed = world.client().patch(&path, &json!({ "redacted": ["password"] })).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.known().await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    world.endpoint("a", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let order = json!({ "type": "order.created", "id": "order-1", "data": { "password": PASSWORD, "n": 1 } });
    let event = world.publish(&order).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    // The next dispatcher's run finds the line, and need not wait for statements that read an older line.
    counted_partitions(&dispatcher).await;
    end(dispatcher).await;
    event
}

#[tokio::test]
async fn a_day_is_archived_before_the_drop() {
    let mut server = S3Server::start().await;
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let world = World::of_variables(&[
        ("FANFARE_ARCHIVE_URL", "s3://archive/production"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "fanfare"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
    ])
    .await;
    world.describe("order.created").await;
    let event = delivered_event(&world).await;
    let day = age(&world).await;

    // The server is away: the day is kept.
    let dispatcher = world.dispatcher().await;
    let failed = dispatcher.logged("cannot archive a day; the day is kept, and the next run tries again").await;
    assert_eq!(failed["day"], day.to_string());
    let reason = failed["error"].as_str().expect("a reason");
    assert!(reason.contains("cannot read production/") && reason.contains("Connection refused"), "{reason}");
    counted(&dispatcher, "fanfare_archive_failures_total", 1).await;
    let (printed, failed) = try_fanfare(&world.variables, &["doctor"]);
    assert!(failed.is_some() && printed.contains("the archive s3://archive/production does not work"), "{printed}");
    assert_eq!(tables_of(&world, day).await, 3);
    end(dispatcher).await;

    // The server is back.
    server.listen().await;
    let dispatcher = world.dispatcher().await;
    let archived = dispatcher.logged("archived a day").await;
    assert_eq!(archived["day"], json!(day));
    until("the day to be dropped", async || (tables_of(&world, day).await == 0).then_some(())).await;
    let rows = ["events", "deliveries", "attempts"].map(|table| archived[table].as_u64());
    assert_eq!(rows, [Some(1), Some(1), Some(2)], "{archived}");
    counted(&dispatcher, r#"fanfare_archived_rows_total{table="attempts"}"#, 2).await;
    counted(&dispatcher, "fanfare_archived_bytes_total", 500).await;
    end(dispatcher).await;
    check_commands(&world, &event, day);

    // Another deployment with the same prefix: its day is no copy of the archived day. A dispatcher without the setting
    // keeps the day, too, until an operator switches the archive off.
    create_partitions(&world, day).await;
    let statement = format!(
        "UPDATE retention SET deployment = gen_random_uuid();
         INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent)
         VALUES (gen_random_uuid(), '{day}', gen_random_uuid(), 'other', '', 0, '')"
    );
    world.database().await.batch_execute(&statement).await.expect("an event");
    let dispatcher = world.dispatcher().await;
    let failed = dispatcher.logged("cannot archive a day; the day is kept, and the next run tries again").await;
    assert!(failed["error"].as_str().expect("a reason").contains("of another deployment"), "{failed}");
    counted(&dispatcher, "fanfare_days_to_archive", 1).await;
    end(dispatcher).await;
    let without = || world.process_with("dispatcher", &[("FANFARE_ARCHIVE_URL", "")]);
    let dispatcher = without();
    counted_partitions(&dispatcher).await;
    assert_eq!(tables_of(&world, day).await, 3);
    end(dispatcher).await;
    assert!(fanfare(&world.variables, &["archive", "off"]).contains("without archiving"));
    let dispatcher = without();
    counted_partitions(&dispatcher).await;
    assert_eq!(tables_of(&world, day).await, 0);
    end(dispatcher).await;
}

/// Waits for a run of the partitions job.
async fn counted_partitions(dispatcher: &Process) {
    counted(dispatcher, r#"fanfare_job_success_timestamp_seconds{task="partitions"}"#, 1).await;
}

/// Checks `fanfare archive` on the archive with a single day and event, and the doctor.
fn check_commands(world: &World, event: &str, day: Date) {
    let run = |arguments: &[&str]| fanfare(&world.variables, &[&["archive"], arguments].concat());
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&run(arguments)).expect("JSON");
    let listed = json(&["list", "--json"]);
    assert_eq!(
        (&listed["day"], &listed["is_complete"], &listed["events"], &listed["attempts"]),
        (&json!(day), &json!(true), &json!(1), &json!(2))
    );
    let list = run(&["list"]);
    assert!(list.contains("complete") && list.lines().count() == 2, "{list}");

    let found = json(&["find", event, "--json"]);
    assert_eq!(
        (&found["day"], &found["event"]["id"], &found["event"]["key"]),
        (&json!(day), &json!(event), &json!("order-1"))
    );
    let body = found["event"]["body"].as_str().expect("a body");
    assert!(body.contains("[redacted]") && !found.to_string().contains(PASSWORD), "{found}");
    let attempts = found["attempts"].as_array().expect("attempts");
    assert_eq!((attempts[0]["status"].as_u64(), attempts[1]["status"].as_u64()), (Some(500), Some(200)));
    assert_eq!(found["deliveries"][0]["state"], "delivered");
    let by_key = ["find", "--application", &world.application, "--key", "order-1", "--json"];
    assert_eq!(json(&by_key), found);
    assert!(run(&["find", event, "--decrypt"]).contains(PASSWORD));
    let text = run(&["find", event, "--day", &day.to_string()]);
    assert!(text.contains("encrypted   with the key") && text.contains("  attempt 2"), "{text}");

    let (_, failed) = try_fanfare(&world.variables, &["archive", "find", "evt_00000000000080000000000000"]);
    let failed = failed.expect("no such event");
    assert!(failed.contains(&format!("is not in the archive; searched {day}")), "{failed}");
    assert!(run(&["check"]).starts_with("3 objects are as written"));
    // The doctor may find a trouble: no dispatcher runs at times.
    let (doctor, _) = try_fanfare(&world.variables, &["doctor"]);
    assert!(doctor.contains("the archive s3://archive/production takes, gives back and deletes an object"), "{doctor}");
}
