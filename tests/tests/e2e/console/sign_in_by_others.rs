//! The sign-in by the header of an authenticating proxy, and by a provider of OpenID Connect.

use std::process::Stdio;

use fanfare_tests::{
    clients::{
        api::{Answer, Client},
        node::program,
    },
    world::World,
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout},
};

use super::portal::{ask, cookie, header};

/// A request through a proxy that tells a name and groups.
async fn through(client: &Client, path: &str, name: &str, groups: &str, cookie: &str) -> Answer {
    let headers = [("x-user", name), ("x-groups", groups), ("cookie", cookie)];
    client.with_key("").send_to(Method::GET, path, &headers, "").await.expect("an answer")
}

const SETTINGS: [(&str, &str); 3] = [
    ("FANFARE_CONSOLE_USER_HEADER", "x-user"),
    ("FANFARE_CONSOLE_GROUPS_HEADER", "x-groups"),
    ("FANFARE_CONSOLE_ROLES", "operators=admin,support=look"),
];

fn settings(proxies: &'static str) -> Vec<(&'static str, &'static str)> {
    [SETTINGS.as_slice(), &[("FANFARE_CONSOLE_PROXIES", proxies)]].concat()
}

#[tokio::test]
async fn a_trusted_proxy_signs_its_users_in() {
    let world = World::of_variables(&settings("127.0.0.0/8")).await;
    let (client, page) = (world.client(), "/console/session");
    let first = through(client, page, "ada", "staff, operators", "").await;
    assert_eq!(first.status, 200, "{}", first.text);
    let session = cookie(&first);
    assert!(session.starts_with("fanfare=ses_") && first.text.contains("ada"), "{session}");
    let second = through(client, page, "ada", "operators", &session).await;
    assert_eq!((second.status, header(&second, "set-cookie")), (200, ""));
    let admin = world.admin().await;
    let sessions = admin.get("sessions").await;
    assert!(sessions.data()[0]["sign_in"] == "proxy" && sessions.data()[0]["name"] == "ada", "{}", sessions.text);

    // Another user, or other groups: another session. The first has ended.
    let demoted = through(client, page, "ada", "support", &session).await;
    assert!(demoted.status == 200 && demoted.text.contains("look only"), "{}", demoted.text);
    assert_ne!(cookie(&demoted), "");
    assert_eq!(admin.get("sessions").await.data().as_array().map(Vec::len), Some(1));
    // Without the proxy's word, the cookie alone is no session.
    let around = ask(client, Method::GET, page, &cookie(&demoted)).await;
    assert!(header(&around, "location").starts_with("/console/sign-in"), "{}", around.status);
    let unknown = through(client, page, "eve", "staff", "").await;
    assert!(unknown.status == 403 && unknown.text.contains("FANFARE_CONSOLE_ROLES"), "{}", unknown.text);
    // A page that asks again by itself begins no session.
    let live = [("x-user", "ada"), ("x-groups", "operators"), ("x-fanfare-live", "none")];
    let live = client.with_key("").send_to(Method::GET, page, &live, "").await.expect("an answer");
    assert_eq!((live.status, header(&live, "set-cookie")), (401, ""));

    // Only a visit begins a session: another site, a script or a form would begin one session after another.
    let begun = world.count("SELECT count(*) FROM sessions").await;
    let of = async |method: Method, mode: &str, site: &str| {
        let headers = [
            ("x-user", "ada"),
            ("x-groups", "operators"),
            ("sec-fetch-mode", mode),
            ("sec-fetch-site", site),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        client.with_key("").send_to(method, page, &headers, "").await.expect("an answer")
    };
    let others = [
        of(Method::GET, "navigate", "cross-site").await,
        of(Method::GET, "no-cors", "same-origin").await,
        of(Method::HEAD, "navigate", "none").await,
        of(Method::POST, "navigate", "same-origin").await,
    ];
    for answer in &others {
        assert!(header(answer, "location").starts_with("/console/sign-in?to="), "{answer:?}");
    }
    let told = get_page(client, header(&others[0], "location")).await;
    assert!(told.contains("The next page signs you in"), "{told}");
    assert_eq!(world.count("SELECT count(*) FROM sessions").await, begun);
    assert_eq!(of(Method::GET, "navigate", "none").await.status, 200);
}

async fn get_page(client: &Client, path: &str) -> String {
    ask(client, Method::GET, path, "").await.text
}

/// A load balancer that passes headers on is trusted with addresses alone.
#[tokio::test]
async fn a_proxy_of_addresses_names_nobody() {
    let trusted = [settings("10.0.0.0/8").as_slice(), &[("FANFARE_TRUSTED_PROXIES", "127.0.0.0/8")]].concat();
    let world = World::of_variables(&trusted).await;
    let answer = through(world.client(), "/console/session", "ada", "operators", "").await;
    assert!(header(&answer, "location").starts_with("/console/sign-in"), "{}", answer.status);
}

#[tokio::test]
async fn the_header_of_another_peer_is_not_believed() {
    let world = World::of_variables(&settings("10.0.0.0/8")).await;
    let answer = through(world.client(), "/console/session", "ada", "operators", "").await;
    assert!(header(&answer, "location").starts_with("/console/sign-in"), "{}", answer.status);
    assert_eq!(header(&answer, "set-cookie"), "");
}

/// A provider of OpenID Connect, and a browser.
struct Provider {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    issuer: String,
}

impl Provider {
    async fn start() -> Self {
        let mut process = program("oidc.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a piped output")).lines();
        let issuer = lines.next_line().await.expect("a line").expect("the issuer");
        Self { process, lines, issuer }
    }

    /// Signs in as a user. Returns the last page of the browser.
    async fn sign_in(&mut self, world: &World, user: &str, change: Value) -> Value {
        let ingest = world.ingest().address("serving the API").await.to_string();
        let line = json!({ "ingest": ingest, "user": user, "change": change }).to_string() + "\n";
        let stdin = self.process.stdin.as_mut().expect("a piped input");
        stdin.write_all(line.as_bytes()).await.expect("the program reads");
        let answer = self.lines.next_line().await.expect("a line").expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }
}

#[tokio::test]
#[ignore = "needs an ingest with the feature oidc: run `make test-oidc`"]
async fn a_provider_of_openid_connect_signs_its_users_in() {
    let mut provider = Provider::start().await;
    let issuer = provider.issuer.clone();
    let world = World::of_variables(&[
        ("FANFARE_OIDC_ISSUER", &issuer),
        ("FANFARE_OIDC_CLIENT_ID", "fanfare"),
        ("FANFARE_OIDC_CLIENT_SECRET", "a secret of the client"),
        ("FANFARE_CONSOLE_ROLES", "operators=admin,support=look"),
    ])
    .await;
    let page = provider.sign_in(&world, "ada.staff.operators", json!({})).await;
    assert_eq!((&page["status"], &page["path"]), (&json!(200), &json!("/console/session")), "{page}");
    assert!(page["body"].as_str().is_some_and(|body| body.contains("ada.staff.operators")), "{page}");
    assert!(page["cookies"]["fanfare"].is_string() && page["cookies"]["fanfare-attempt"].is_null(), "{page}");
    let sessions = world.admin().await.get("sessions").await;
    assert_eq!(sessions.data()[0]["sign_in"], "provider", "{}", sessions.text);

    let looking = provider.sign_in(&world, "bob.support", json!({})).await;
    assert!(looking["body"].as_str().is_some_and(|body| body.contains("look only")), "{looking}");
    for (user, change, words) in [
        ("eve.staff", json!({}), "has no access"),
        ("ada.operators", json!({ "state": "another" }), "another sign-in"),
        ("ada.operators", json!({ "code": "another" }), "gives no token"),
    ] {
        let refused = provider.sign_in(&world, user, change).await;
        assert_eq!((&refused["status"], &refused["path"]), (&json!(403), &json!("/console/sign-in/callback")));
        assert!(refused["body"].as_str().is_some_and(|body| body.contains(words)), "{refused}");
        assert!(refused["cookies"]["fanfare"].is_null(), "{refused}");
    }
}
