//! Mails about failed deliveries, over a real SMTP server: content and number, and behaviour when the server is down,
//! untrusted, or refuses a mail.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare_tests::{
    clients::python::python,
    metrics::{counted, metric},
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World, dialects::Waits, process::Process},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::sleep,
};

use crate::features::operational::{Operations, looked};

const OWNER: &str = "owner@example.com";
const USER: &str = "fanfare@mail";
const PASSWORD: &str = "s3cret/@";

/// User and password, percent-encoded for a URL.
const CREDENTIALS: &str = "fanfare%40mail:s3cret%2F%40";

/// Longer than the interval of the mail job: time in which no further mail may come.
const A_LOOK: Duration = Duration::from_secs(6);

/// A mail accepted by the server.
#[derive(Debug, Clone, Deserialize)]
struct Mail {
    from: String,
    to: Vec<String>,
    is_encrypted: bool,
    is_authenticated: bool,
    headers: HashMap<String, String>,
    text: String,
}

/// A report of the server, after the line with its port.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Heard(String),
    Mail(Mail),
}

#[derive(Default)]
struct Ledger {
    heard: String,
    mails: Vec<(SystemTime, Mail)>,
}

/// A private mail server. Ends on drop.
struct MailServer {
    port: u16,
    ledger: Arc<Mutex<Ledger>>,
    input: ChildStdin,
    _process: Child,
}

impl MailServer {
    async fn start(arguments: &[&str]) -> Self {
        let mut process = python("smtp_server.py")
            .await
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let input = process.stdin.take().expect("a piped standard input");
        let mut lines = BufReader::new(process.stdout.take().expect("a piped standard output")).lines();
        let first = lines.next_line().await.expect("the server's output").expect("a line");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        let port = first["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        let ledger = Arc::default();
        tokio::spawn(keep(lines, Arc::clone(&ledger)));
        Self { port, ledger, input, _process: process }
    }

    /// Makes a server started with `--later` listen.
    async fn listen(&mut self) {
        self.input.write_all(b"\n").await.expect("the server runs");
    }

    fn mails(&self) -> Vec<Mail> {
        lock(&self.ledger).mails.iter().map(|(_, mail)| mail.clone()).collect()
    }

    /// Arrival time of the newest mail.
    fn newest_at(&self) -> SystemTime {
        lock(&self.ledger).mails.last().expect("a mail").0
    }

    /// All text received from clients.
    fn heard(&self) -> String {
        lock(&self.ledger).heard.clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Mail> {
        until(&format!("{count} mails"), async || Some(self.mails()).filter(|mails| mails.len() >= count)).await
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep(mut lines: Lines<BufReader<ChildStdout>>, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let report = serde_json::from_str(&line).expect("a report");
        let mut ledger = lock(&ledger);
        match report {
            Report::Heard(heard) => ledger.heard += &heard,
            Report::Mail(mail) => ledger.mails.push((SystemTime::now(), mail)),
        }
    }
}

/// Files with a self-signed certificate for 127.0.0.1 and its key. Removed on drop.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mail-{:032x}", rand::random::<u128>()));
        fs::create_dir_all(&folder).expect("a folder");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        fs::write(folder.join("certificate.pem"), cert.pem()).expect("written");
        fs::write(folder.join("key.pem"), signing_key.serialize_pem()).expect("written");
        Self(folder)
    }

    fn file(&self) -> String {
        self.0.join("certificate.pem").to_string_lossy().into_owned()
    }

    /// Starts a mail server with this certificate.
    async fn server(&self, arguments: &[&str]) -> MailServer {
        let (certificate, key) = (self.file(), self.0.join("key.pem").to_string_lossy().into_owned());
        MailServer::start(&[&["--certificate", &certificate, "--key", &key], arguments].concat()).await
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A world whose application has an owner's address, with this mail server and a single retry after 1 s.
fn setup(url: &str) -> Setup {
    let variables = [("FANFARE_SMTP_URL", url), ("FANFARE_MAIL_FROM", "Fanfare <fanfare@mail.example.com>")];
    let arguments = ["--email", OWNER].map(str::to_owned).to_vec();
    Setup { dialect: "incentable".to_owned(), arguments, waits: Waits::of("1s"), ..Setup::new(&variables) }
}

/// Like [`setup`], with further environment variables.
fn setup_with(url: &str, variables: &[(&str, &str)]) -> Setup {
    let mut setup = setup(url);
    setup.variables.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    setup
}

/// Publishes an event that every endpoint of this file is subscribed to.
async fn publish(world: &World) -> String {
    world.publish(&json!({ "type": "points.awarded", "data": { "points": 500 } })).await
}

/// An endpoint that answers 500 to every attempt.
async fn failing(world: &World, path: &str) -> Endpoint {
    world.receiver.script(path, &[Behaviour::FAIL]);
    world.endpoint(path, &["*"]).await
}

async fn notices(world: &World) -> i64 {
    world.count("SELECT count(*) FROM failure_notices").await
}

async fn wait_for_notices(world: &World, count: i64) {
    until(&format!("{count} notices"), async || (notices(world).await == count).then_some(())).await;
}

/// Texts that no log may contain: the credentials, also in the forms of the URL and of the SMTP session.
fn secrets() -> Vec<String> {
    let sent = [PASSWORD.to_owned(), format!("\0{USER}\0{PASSWORD}")].map(|text| BASE64_STANDARD.encode(text));
    [USER, PASSWORD, CREDENTIALS, "s3cret"].map(str::to_owned).into_iter().chain(sent).collect()
}

fn assert_silent(dispatcher: &Process, secrets: &[String]) {
    for log in dispatcher.logs() {
        let log = log.to_string();
        assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    }
}

/// Either of two dispatchers sends the mail. Both log at debug level, so that the search for secrets is complete.
#[tokio::test]
async fn an_owner_gets_one_mail_with_failures_answers_and_the_next_step() {
    let certificate = Certificate::new();
    let server = certificate.server(&["--user", USER, "--password", PASSWORD]).await;
    let url = format!("smtp://{CREDENTIALS}@127.0.0.1:{}", server.port);
    let file = certificate.file();
    let variables = [("FANFARE_CA_FILE", file.as_str()), ("FANFARE_MAIL_DIGEST", "1s"), ("RUST_LOG", "debug")];
    let world = World::of(Setup { waits: Waits::Short, ..setup_with(&url, &variables) }).await;
    let dispatchers = [world.dispatcher().await, world.dispatcher().await];
    let endpoint = failing(&world, "orders").await;
    world.change(&endpoint, &json!({ "name": "Bestellungen für Köln" })).await;
    let fine = world.endpoint("fine", &["*"]).await;
    let event = publish(&world).await;

    let mail = server.wait_for(1).await.remove(0);
    assert_envelope(&mail);
    assert_eq!(mail.headers["subject"], "A delivery to Bestellungen für Köln failed");
    let delivery = world.deliveries("state=failed").await.remove(0)["id"].as_str().expect("an id").to_owned();
    for said in [
        endpoint.id.as_str(),
        &world.receiver.url("orders"),
        "Bestellungen für Köln",
        &event,
        "points.awarded",
        &delivery,
        "after 5 attempts",
        "HTTP status 500",
        "| noted",
        "GET /api/v1/deliveries/",
        "/resend",
        "POST /api/v1/deliveries/resend",
    ] {
        assert!(mail.text.contains(said), "{said:?} is not in:\n{}", mail.text);
    }
    assert!(!mail.text.contains(&fine.id), "{}", mail.text);

    wait_for_notices(&world, 0).await;
    let reported = world.client().get(&format!("deliveries/{delivery}")).await.data().clone();
    assert_eq!(reported["mailed_to"], OWNER);
    assert!(reported["mailed_at"].as_str() >= reported["finished_at"].as_str(), "{reported}");
    let listed = world.deliveries("state=failed").await.remove(0);
    assert_eq!((&listed["mailed_at"], listed.get("mailed_to")), (&reported["mailed_at"], None));
    // The mail stays on record while a resend is open.
    world.client().post(&format!("webhooks/{}/pause", endpoint.id), &Value::Null).await.data();
    assert_eq!(world.client().post(&format!("deliveries/{delivery}/resend"), &Value::Null).await.status, 200);
    let open = world.client().get(&format!("deliveries/{delivery}")).await.data().clone();
    assert_eq!((&open["state"], &open["mailed_at"]), (&json!("held"), &reported["mailed_at"]), "{open}");
    // No further mail may come.
    sleep(A_LOOK).await;
    assert_eq!(server.mails().len(), 1);
    let mut sent = 0.0;
    for dispatcher in &dispatchers {
        sent += metric(dispatcher, "fanfare_mails_total{result=\"sent\"}").await;
        assert_silent(dispatcher, &secrets());
    }
    assert!((0.9..1.1).contains(&sent), "{sent} mails");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_told_changed_conditions_of_an_endpoint() {
    let server = MailServer::start(&[]).await;
    let url = format!("smtp://127.0.0.1:{}?tls=none", server.port);
    let variables = [("FANFARE_MAIL_DIGEST", "1s"), ("FANFARE_MAIL_CONDITIONS", "true")];
    let mut world = World::of(setup_with(&url, &variables)).await;
    let _operations = Operations::new(&mut world).await;
    let _dispatcher = world.dispatcher().await;
    looked(&world).await;
    let endpoint = world.endpoint("orders", &["*"]).await;
    world.change(&endpoint, &json!({ "name": "Orders" })).await;
    for (number, status, subject) in [(1, "disable", "Orders is disabled"), (2, "enable", "Orders is enabled")] {
        world.client().post(&format!("webhooks/{}/{status}", endpoint.id), &Value::Null).await.data();
        let mail = server.wait_for(number).await.remove(number - 1);
        assert_eq!((mail.headers["subject"].as_str(), mail.to.as_slice()), (subject, [OWNER.to_owned()].as_slice()));
        let host = world.receiver.url("orders");
        assert!(mail.text.contains(&endpoint.id) && mail.text.contains(&host), "{}", mail.text);
        assert!(!mail.text.contains("What to do"), "no delivery has failed: {}", mail.text);
        let notices = "SELECT count(*) FROM condition_notices";
        until("no notice", async || (world.count(notices).await == 0).then_some(())).await;
    }
    let events = world.count("SELECT count(*) FROM events WHERE type LIKE 'fanfare.endpoint.%'").await;
    assert_eq!((events, server.mails().len()), (2, 2));
}

fn assert_envelope(mail: &Mail) {
    assert_eq!((mail.from.as_str(), mail.to.as_slice()), ("fanfare@mail.example.com", [OWNER.to_owned()].as_slice()));
    assert!(mail.is_encrypted && mail.is_authenticated);
    assert_eq!(mail.headers["from"], "Fanfare <fanfare@mail.example.com>");
    assert_eq!(mail.headers["to"], OWNER);
    assert_eq!(mail.headers["auto-submitted"], "auto-generated");
    assert!(mail.headers["message-id"].ends_with("@mail.example.com>") && mail.headers.contains_key("date"));
}

/// Shortens the digest interval only after all deliveries have failed, so that a slow machine makes a single digest,
/// too.
#[tokio::test]
async fn many_failures_make_one_digest_after_the_interval() {
    const REST: Duration = Duration::from_secs(8);
    const ALMOST_DUE: &str = "
        UPDATE mailed SET last_at = now() - interval '15 minutes' + interval '8 seconds';
        UPDATE failure_notices SET failed_at = failed_at - interval '1 minute'";
    let server = MailServer::start(&[]).await;
    let world = World::of(setup(&format!("smtp://127.0.0.1:{}?tls=none", server.port))).await;
    let _dispatcher = world.dispatcher().await;
    let mut endpoints = vec![failing(&world, "a").await];
    publish(&world).await;
    server.wait_for(1).await;
    wait_for_notices(&world, 0).await;

    endpoints.extend([failing(&world, "b").await, failing(&world, "c").await]);
    for _ in 0..20 {
        publish(&world).await;
    }
    wait_for_notices(&world, 60).await;
    let due = SystemTime::now() + REST;
    world.database().await.batch_execute(ALMOST_DUE).await.expect("a digest that is almost due");
    let digest = server.wait_for(2).await.remove(1);
    assert!(server.newest_at() >= due, "the digest came too early, by {:?}", due.duration_since(server.newest_at()));
    assert_eq!(digest.headers["subject"], "60 deliveries failed");
    assert!(digest.text.starts_with("60 deliveries to 3 endpoints failed."), "{}", digest.text);
    assert_eq!(digest.text.matches("Response ").count(), 20);
    for endpoint in &endpoints {
        let url = world.receiver.url(&endpoint.path);
        assert!(digest.text.contains(&format!("20  {url}  {}", endpoint.id)), "{}", digest.text);
    }
    wait_for_notices(&world, 0).await;
    assert_eq!(server.mails().len(), 2);
}

/// Uses TLS from the first byte (`smtps`).
#[tokio::test]
async fn a_server_that_is_down_delays_mails_and_nothing_else() {
    let certificate = Certificate::new();
    let mut server = certificate.server(&["--tls", "--later"]).await;
    let url = format!("smtps://127.0.0.1:{}", server.port);
    let world = World::of(setup_with(&url, &[("FANFARE_CA_FILE", &certificate.file())])).await;
    let dispatcher = world.dispatcher().await;
    failing(&world, "failing").await;
    world.endpoint("fine", &["*"]).await;
    publish(&world).await;
    dispatcher.logged("the mail server cannot be used; mails wait").await;
    publish(&world).await;
    world.receiver.wait_for("fine", 2).await;
    world.wait_for_deliveries("state=failed", 2).await;
    assert_eq!(notices(&world).await, 2);

    server.listen().await;
    let mail = server.wait_for(1).await.remove(0);
    assert!(mail.is_encrypted);
    assert!(mail.headers["subject"].starts_with("2 deliveries to 127.0.0.1 failed"), "{:?}", mail.headers);
    wait_for_notices(&world, 0).await;
    assert_eq!(server.mails().len(), 1);
    assert!(metric(&dispatcher, "fanfare_mails_total{result=\"failed\"}").await >= 1.0);
}

/// Lets a delivery fail, and checks that the server got no mail. Returns the text received by the server.
async fn assert_nothing_is_sent(server: &MailServer, trusted: &Certificate) -> String {
    let url = format!("smtp://{CREDENTIALS}@127.0.0.1:{}", server.port);
    let world = World::of(setup_with(&url, &[("FANFARE_CA_FILE", &trusted.file())])).await;
    let dispatcher = world.dispatcher().await;
    failing(&world, "failing").await;
    publish(&world).await;
    counted(&dispatcher, "fanfare_mails_total{result=\"failed\"}", 1).await;
    assert_eq!((notices(&world).await, server.mails().len()), (1, 0));
    assert_silent(&dispatcher, &[vec![OWNER.to_owned()], secrets()].concat());
    let heard = server.heard();
    assert!(heard.starts_with("EHLO mail.example.com\r\n") && !heard.contains("MAIL FROM"), "{heard}");
    heard
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_the_wrong_certificate() {
    let server = Certificate::new().server(&["--user", USER, "--password", PASSWORD]).await;
    let heard = assert_nothing_is_sent(&server, &Certificate::new()).await;
    assert!(heard.contains("STARTTLS") && !heard.contains("AUTH"), "{heard}");
}

/// Not even the password is sent: an attacker between dispatcher and server could read the text.
#[tokio::test]
async fn nothing_is_sent_without_encryption() {
    let server = MailServer::start(&["--user", USER, "--password", PASSWORD]).await;
    let heard = assert_nothing_is_sent(&server, &Certificate::new()).await;
    assert!(!heard.contains("AUTH"), "{heard}");
}

#[tokio::test]
async fn nothing_is_lost_where_the_password_is_wrong() {
    let certificate = Certificate::new();
    let server = certificate.server(&["--user", USER, "--password", "another"]).await;
    let heard = assert_nothing_is_sent(&server, &certificate).await;
    assert!(heard.contains("AUTH"), "{heard}");
}

/// A permanent refusal of the address drops the notices; any other refusal keeps them. An endpoint without an address
/// delays no mail.
#[tokio::test]
async fn a_recipient_refused_for_good_does_not_delay_others() {
    let server = MailServer::start(&[]).await;
    let url = format!("smtp://127.0.0.1:{}?tls=none", server.port);
    let world = World::of(Setup { arguments: Vec::new(), ..setup(&url) }).await;
    let mut endpoints = Vec::new();
    for name in ["refused", "denied", "owner"] {
        let endpoint = failing(&world, name).await;
        world.change(&endpoint, &json!({ "email": format!("{name}@example.com") })).await;
        endpoints.push(endpoint.id);
    }
    failing(&world, "without-an-address").await;
    let dispatcher = world.dispatcher().await;
    publish(&world).await;

    let mail = server.wait_for(1).await.remove(0);
    assert_eq!(mail.to, [OWNER]);
    assert!(!mail.is_encrypted);
    assert!(mail.text.starts_with("1 delivery to 1 endpoint") && mail.text.contains(&endpoints[2]), "{}", mail.text);
    counted(&dispatcher, "fanfare_mails_total{result=\"refused\"}", 1).await;
    counted(&dispatcher, "fanfare_mails_total{result=\"failed\"}", 1).await;
    for (message, endpoint) in [
        (
            "the mail server refuses an owner's address for good; no mail reports these failures and changes",
            &endpoints[0],
        ),
        ("the mail server does not accept a mail; the next mail reports these failures and changes", &endpoints[1]),
    ] {
        assert_eq!(dispatcher.logged(message).await["endpoint"], endpoint.as_str());
    }
    wait_for_notices(&world, 1).await;
    assert_silent(&dispatcher, &[OWNER, "refused@example.com", "denied@example.com"].map(str::to_owned));
}

/// Without notifications in the dialect, no notice is stored: checked in the database, without a wait for mails.
#[tokio::test]
async fn a_dialect_without_notices_sends_no_mail() {
    let server = MailServer::start(&[]).await;
    let url = format!("smtp://127.0.0.1:{}?tls=none", server.port);
    let world = World::of(Setup { dialect: "incenta".to_owned(), ..setup(&url) }).await;
    let _dispatcher = world.dispatcher().await;
    failing(&world, "failing").await;
    publish(&world).await;
    world.wait_for_deliveries("state=failed", 1).await;
    assert_eq!((notices(&world).await, server.mails().len()), (0, 0));
}

#[tokio::test]
async fn without_a_server_notices_do_not_pile_up() {
    let world = World::of(Setup { dialect: "incentable".to_owned(), ..Setup::new(&[]) }).await;
    let insert = "INSERT INTO failure_notices (delivery_id, application_id, endpoint_id, failed_at)
                  SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - age
                  FROM unnest(ARRAY['1 minute', '2 hours', '3 days']::interval[]) AS age";
    world.database().await.execute(insert, &[]).await.expect("notices");
    let dispatcher = world.dispatcher().await;
    dispatcher.logged("FANFARE_SMTP_URL is not set: no mails are sent to owners").await;
    wait_for_notices(&world, 1).await;
}
