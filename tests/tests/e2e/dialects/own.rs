//! Custom dialects: a valid dialect for an unknown platform, and invalid files.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fanfare_tests::{
    folder::Folder,
    patience::{patience, until},
    receiver::Behaviour,
    world::{
        World,
        process::{Variables, try_fanfare},
        release::Release,
    },
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::dialects::{
    bytes::assert_verified_in_both,
    tenants::{Tenant, Webhook, attempts},
    verifiers::Verifiers,
};

/// A dialect unlike the six shipped dialects: nested data, time in seconds, a signature over time and body keyed by the
/// secret's bytes, and two success statuses.
const ACME: &str = r#"
title = "Acme"
description = "What the Acme system sent until it was replaced"

[body]
template = '{"meta":{"id":<event_id>,"kind":<event_type>,"app":<application_id>},"sent":<time>,"payload":{"content":<data>}}'
time = "unix_seconds"
event_id_prefix = "acme"

[signature]
header = "X-Acme-Signature"
value = "t=<timestamp>,v1=<signature>"
signs = "<timestamp>.<body>"
key = "bytes"
encoding = "base64"

[headers]
X-Acme-Event = "<event_type>"
X-Acme-Attempt = "<attempt>"

[delivery]
schedule = ["1s", "1s"]
timeout = "1500ms"
success = ["200", "202"]
final = ["4xx", "timed_out"]
disabling = ["410", "503"]

[[event_types]]
name = "order.created"
category = "Orders"
description = "An order was placed"
sample = '''
{ "order_id": "ord_1", "total": 12.50 }
'''
"#;

const EVENT: &str = r#"{"type":"order.created","data":{"total":12.50}}"#;

/// The path of a custom dialect of a world. The file may not exist yet.
fn file_of(world: &World, name: &str) -> PathBuf {
    Path::new(&world.variables["FANFARE_DIALECTS"]).join(format!("{name}.toml"))
}

/// A world with the dialect `acme`.
async fn acmes_world() -> World {
    let mut world = World::new().await;
    fs::write(file_of(&world, "acme"), ACME).expect("a file");
    world.start_ingest().await;
    world
}

#[tokio::test]
async fn an_unknown_system_is_a_dialect_file_and_its_receivers_verify() {
    assert_verified_in_both(&acmes_world().await, &["acme"]).await;
}

/// The path, the scripted answers, the end of the first delivery (state, reason, attempts), and the webhook's final
/// status.
type Course = (&'static str, &'static [Behaviour], (&'static str, Option<&'static str>, usize), &'static str);

const OK: Behaviour = Behaviour::OK;
const FAIL: Behaviour = Behaviour::FAIL;
const COURSES: [Course; 7] = [
    ("200", &[OK], ("delivered", None, 1), "enabled"),
    ("202", &[Behaviour::Answer(202, Duration::ZERO)], ("delivered", None, 1), "enabled"),
    ("204", &[Behaviour::Answer(204, Duration::ZERO), OK], ("delivered", None, 2), "enabled"),
    ("500", &[FAIL, FAIL, FAIL, OK], ("failed", Some("attempts_exhausted"), 3), "enabled"),
    ("404", &[Behaviour::Answer(404, Duration::ZERO), OK], ("failed", Some("rejected"), 1), "enabled"),
    ("hang", &[Behaviour::Hang, OK], ("failed", Some("rejected"), 1), "enabled"),
    ("503", &[Behaviour::Answer(503, Duration::ZERO), OK], ("failed", Some("endpoint_gone"), 1), "disabled"),
];

#[tokio::test]
async fn its_rules_hold_and_each_attempt_is_signed_for_itself() {
    let world = acmes_world().await;
    let tenant = Tenant::new(&world, "acme").await;
    let mut receivers = [Verifiers::in_node().await, Verifiers::in_python().await];
    let mut webhooks = Vec::new();
    for (path, behaviours, ..) in COURSES {
        world.receiver.script(path, behaviours);
        let webhook = tenant.webhook(&world, &world.receiver.url(path), &["order.*"]).await;
        for receivers in &mut receivers {
            receivers.receive(path, "acme", &webhook.secret).await;
        }
        webhooks.push(webhook);
    }
    let _dispatcher = world.dispatcher().await;
    let event = tenant.publish_as_it_is(EVENT).await;
    let courses = COURSES.iter().zip(&webhooks);
    join_all(courses.map(|(course, webhook)| assert_course(&tenant, &event, webhook, course))).await;
    for (path, _, (_, _, sends), _) in COURSES {
        let received = world.receiver.received(path);
        assert_eq!(received.len(), sends, "requests to {path}");
        for (number, request) in (1..).zip(&received) {
            assert_eq!(request.header("x-acme-attempt"), format!("{number}"));
            for receivers in &receivers {
                assert_eq!(receivers.faults(path, request).await, [""; 0]);
            }
        }
    }
}

async fn assert_course(tenant: &Tenant, event: &str, webhook: &Webhook, course: &Course) {
    let (path, _, (state, reason, sends), status) = course;
    let delivery = tenant.delivery(event, webhook, state).await;
    let came = (attempts(&delivery).len(), &delivery["reason"]);
    assert_eq!(came, (*sends, &json!(reason)), "{path}: {delivery}");
    // Another statement disables the endpoint, shortly after the delivery failed.
    until(&format!("{path} to be {status}"), async || {
        let shown = tenant.client.get(&format!("webhooks/{}", webhook.id)).await;
        (shown.data()["status"] == *status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn its_event_types_are_there_and_their_samples_are_sent() {
    let world = acmes_world().await;
    let tenant = Tenant::new(&world, "acme").await;
    let types = tenant.client.get("event-types").await;
    let names: Vec<&Value> =
        types.data().as_array().expect("types").iter().map(|described| &described["name"]).collect();
    assert_eq!(names, ["order.created"]);
    let mut receivers = Verifiers::in_node().await;
    let webhook = tenant.webhook(&world, &receivers.url("acme"), &["order.created"]).await;
    receivers.receive("acme", "acme", &webhook.secret).await;
    let test = tenant.client.post(&format!("webhooks/{}/test", webhook.id), &json!({})).await;
    assert_eq!(test.data()["response"]["status"], 200, "{}", test.body);
    let body = test.body.to_string();
    assert!(body.contains(r#"\"payload\":{\"content\":{\"order_id\":\"ord_1\",\"total\":12.50}}}"#), "{body}");
}

#[test]
fn the_command_checks_a_file_and_shows_an_example_delivery() {
    let folder = Folder::new("dialects");
    let file = folder.write("acme.toml", ACME);
    let (printed, failed) = try_fanfare(&Variables::new(), &["dialect", "check", &file]);
    assert_eq!(failed, None);
    assert!(printed.contains("acme is valid"), "{printed}");
    assert!(printed.contains(r#","sent":"#) && printed.contains(r#""content":{"order_id":"ord_1","total":12.50}}}"#));
    assert!(printed.contains("1s, 1s"), "{printed}");
}

/// A part of the file, its replacement, and two parts of the error: the key at fault and the reason.
const BREAKS: [(&str, &str, &str, &str); 18] = [
    ("title = \"Acme\"", "", "the file", "title"),
    ("title = \"Acme\"", "tittle = \"Acme\"", "tittle", "unknown field"),
    ("[body]", "[body", "the file", "is no TOML (line 5)"),
    ("\"sent\":<time>", "\"sent\":<now>", "body.template", "<now>"),
    ("\"content\":<data>", "\"content\":\"<data>\"", "body.template", "gives no JSON"),
    ("\"content\":<data>}", "\"content\":<data>", "body.template", "gives no JSON"),
    ("time = \"unix_seconds\"", "time = \"minutes\"", "body.time", "minutes"),
    ("\"acme\"", "\"Acme\"", "body.event_id_prefix", "a-z"),
    ("\"X-Acme-Signature\"", "\"webhook-signature\"", "signature.header", "cannot be sent"),
    ("<timestamp>.<body>", "<timestamp>", "signature.signs", "has no <body>"),
    ("\"base64\"", "\"base62\"", "signature.encoding", "base62"),
    ("X-Acme-Event", "Content-Type", "headers.Content-Type", "cannot be sent"),
    ("[\"1s\", \"1s\"]", "[\"1s\", \"25h\"]", "delivery.schedule", "25h"),
    ("[\"1s\", \"1s\"]", "\"1s\"", "delivery.schedule", "sequence"),
    ("\"1500ms\"", "\"61s\"", "delivery.timeout", "60s"),
    ("[\"200\", \"202\"]", "[]", "delivery.success", "empty"),
    ("\"4xx\"", "\"sometimes\"", "delivery.final", "sometimes"),
    ("{ \"order_id\": \"ord_1\",", "{ order_id: 1,", "event_types[0].sample", "cannot be sent"),
];

/// A fault in a dialect file and the expected place in the error.
struct Broken {
    file: String,
    key: &'static str,
    reason: &'static str,
}

impl Broken {
    fn assert_told(&self, who: &str, complaint: &str) {
        let said = format!("{}: {}: ", self.file, self.key);
        let line = complaint.lines().find(|line| line.contains(&said));
        let is_told = line.is_some_and(|line| line.contains(self.reason));
        assert!(is_told, "{who} does not print {said}…{} but {complaint}", self.reason);
    }
}

#[tokio::test]
async fn a_broken_file_stops_the_start_and_says_which_key_and_why() {
    let world = World::new().await;
    for (line, instead, key, reason) in BREAKS {
        let text = ACME.replacen(line, instead, 1);
        assert_ne!(text, ACME, "{line}");
        let file = file_of(&world, "acme");
        fs::write(&file, text).expect("a file");
        let broken = Broken { file: file.display().to_string(), key, reason };
        let (_, failed) = try_fanfare(&Variables::new(), &["dialect", "check", &broken.file]);
        broken.assert_told("fanfare dialect check", &failed.expect("a complaint"));
        for process in ["ingest", "dispatcher"] {
            broken.assert_told(process, &complaint_at_the_start(process, &world.variables).await);
        }
    }
}

#[tokio::test]
async fn all_broken_files_are_told_at_once_and_beside_other_mistakes() {
    let world = World::new().await;
    let breaks = [("Capitals", ACME.to_owned()), ("empty", String::new()), ("text", "not TOML".to_owned())];
    for (name, text) in &breaks {
        fs::write(file_of(&world, name), text).expect("a file");
    }
    let mut variables = world.variables.clone();
    variables.insert("FANFARE_GRACE".to_owned(), "for a while".to_owned());
    for process in ["ingest", "dispatcher"] {
        let complaint = complaint_at_the_start(process, &variables).await;
        for (name, _) in &breaks {
            assert!(complaint.contains(&file_of(&world, name).display().to_string()), "{process}: {complaint}");
        }
        assert!(complaint.contains("FANFARE_GRACE"), "{process}: {complaint}");
    }
    let missing = file_of(&world, "nowhere").display().to_string();
    variables.insert("FANFARE_DIALECTS".to_owned(), missing.clone());
    for process in ["ingest", "dispatcher"] {
        let complaint = complaint_at_the_start(process, &variables).await;
        assert!(complaint.contains(&format!("FANFARE_DIALECTS: cannot read the folder {missing}")), "{complaint}");
    }
}

/// The error output of a process that must refuse to start.
async fn complaint_at_the_start(process: &str, variables: &Variables) -> String {
    let mut command = Command::new(Release::present().program(process));
    command.env_clear().envs(variables).kill_on_drop(true);
    let output = tokio::time::timeout(patience(), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{process} has started")).expect("the process output");
    assert!(!output.status.success(), "{process} ended without a failure status");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
