//! The portal: links, sessions in paths and cookies of their own, themes, and pages that are not a customer's.

use std::time::Duration;

use fanfare_tests::{
    clients::api::{Answer, Client},
    receiver::Behaviour,
    world::World,
};
use hyper::Method;
use serde_json::{Value, json};

use super::visitor::Visitor;

/// The header by which a browser tells that a page of the same site sent the form.
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A request of a browser with this cookie.
pub(super) async fn ask(client: &Client, method: Method, path: &str, cookie: &str) -> Answer {
    let form = ("content-type", "application/x-www-form-urlencoded");
    client.with_key("").send_to(method, path, &[SAME_ORIGIN, form, ("cookie", cookie)], "").await.expect("an answer")
}

async fn get(world: &World, path: &str, cookie: &str) -> Answer {
    ask(world.client(), Method::GET, path, cookie).await
}

pub(super) fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The pair `name=value` of the cookie that an answer sets.
pub(super) fn cookie(answer: &Answer) -> String {
    header(answer, "set-cookie").split(';').next().unwrap_or_default().to_owned()
}

/// Makes a link. Returns the session's id, and the path.
async fn link(client: &Client, new: &Value) -> (String, String) {
    let answer = client.post("portal-links", new).await;
    let text = |member: &str| answer.data()[member].as_str().expect("a text").to_owned();
    let path = text("url").split("127.0.0.1").last().expect("a path").to_owned();
    (text("id"), path)
}

/// Opens a link like a browser that keeps cookies. Returns the session's cookie.
async fn open(world: &World, path: &str) -> String {
    let shown = get(world, path, "").await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    let opened = ask(world.client(), Method::POST, path, &cookie(&shown)).await;
    assert_eq!(opened.status, 303, "{}", opened.text);
    cookie(&opened)
}

#[tokio::test]
async fn a_link_opens_once_in_a_browser_that_keeps_cookies() {
    let world = World::shared().await;
    let (_, path) = link(world.client(), &json!({ "name": "Ada" })).await;
    // A program that fetches the link in advance does not use the link up, nor does a browser without cookies.
    let trial = cookie(&get(&world, &path, "").await);
    let refused = ask(world.client(), Method::POST, &path, "").await;
    assert!(refused.status == 200 && refused.text.contains("data-tells=\"no-cookie\""), "{}", refused.text);
    let other_site = [("sec-fetch-site", "cross-site"), ("cookie", trial.as_str())];
    let foreign = world.client().with_key("").send_to(Method::POST, &path, &other_site, "").await.expect("an answer");
    assert_eq!(foreign.status, 403);

    let opened = ask(world.client(), Method::POST, &path, &trial).await;
    let root = format!("/portal/{}", world.application);
    assert_eq!((opened.status, header(&opened, "location")), (303, format!("{root}/").as_str()));
    let session = cookie(&opened);
    assert!(session.starts_with(&format!("fanfare-portal-{}=", world.application)), "{session}");
    assert_eq!(get(&world, &format!("{root}/session"), &session).await.status, 200);
    let again = ask(world.client(), Method::POST, &path, &trial).await;
    assert_eq!(again.status, 404);
    assert!(again.text.contains("was used"), "{}", again.text);
}

#[tokio::test]
async fn a_session_of_the_portal_is_of_one_application_and_no_session_of_the_console() {
    let world = World::shared().await;
    let (other, _) = world.other_application().await;
    let session = open(&world, &link(world.client(), &json!({ "name": "Ada" })).await.1).await;
    let (_, token) = session.split_once('=').expect("a cookie");
    let renamed = format!("fanfare-portal-{other}={token}");
    for (path, cookie) in [
        (format!("/portal/{other}/session"), session.as_str()),
        (format!("/portal/{other}/session"), renamed.as_str()),
        ("/portal/".to_owned(), session.as_str()),
    ] {
        let answer = get(&world, &path, cookie).await;
        assert_eq!((answer.status, header(&answer, "location")), (303, "/portal/ended"), "{path}");
    }
    let of_console = get(&world, "/console/session", &format!("fanfare={token}")).await;
    assert!(header(&of_console, "location").starts_with("/console/sign-in"), "{of_console:?}");
    // The page of links is the operator's.
    assert_eq!(get(&world, &format!("/portal/{}/portal", world.application), &session).await.status, 403);
}

#[tokio::test]
async fn the_theme_is_served_by_its_hash() {
    let world = World::shared().await;
    let theme = json!({ "accent": "#ffcc00", "radius": 2, "scheme": "dark", "density": "compact" });
    let new = json!({ "name": "Ada", "theme": theme, "back": "https://app.example.com/settings" });
    let session = open(&world, &link(world.client(), &new).await.1).await;
    let root = format!("/portal/{}", world.application);
    let page = get(&world, &format!("{root}/session"), &session).await.text;
    assert!(page.contains("data-scheme=\"dark\"") && page.contains("href=\"https://app.example.com/settings\""));
    let (_, rest) = page.split_once(&format!("{root}/theme/")).expect("a stylesheet");
    let sheet = format!("{root}/theme/{}", rest.split('"').next().expect("a name"));
    let answer = get(&world, &sheet, &session).await;
    assert_eq!(header(&answer, "content-type"), "text/css; charset=utf-8");
    assert!(header(&answer, "cache-control").contains("immutable"));
    assert!(answer.text.contains("--accent: light-dark(#846900, #ffcc00);"), "{}", answer.text);
    assert_eq!(get(&world, &format!("{root}/theme/0000000000000000.css"), &session).await.status, 404);
    // The visitor's choice comes before the theme.
    let chosen = get(&world, &format!("{root}/session"), &format!("{session}; fanfare-view=light.utc.on")).await;
    assert!(chosen.text.contains("data-scheme=\"light\""));
}

#[tokio::test]
async fn a_revoked_session_ends_at_once_and_tells_the_parent() {
    let world = World::shared().await;
    let (id, path) = link(world.client(), &json!({ "name": "Ada", "rights": ["view", "replay"] })).await;
    let listed = async || world.client().get("sessions?pages=portal").await.data().as_array().expect("a list").clone();
    let shown = listed().await.into_iter().find(|session| session["id"] == *id).expect("the link");
    assert!(shown["opens_until"].is_string() && shown["sign_in"] == "link", "{shown}");
    let session = open(&world, &path).await;
    let shown = listed().await.into_iter().find(|session| session["id"] == *id).expect("the session");
    assert_eq!((&shown["opens_until"], &shown["rights"]), (&Value::Null, &json!(["view", "replay"])));
    assert!(!world.client().get("sessions?pages=console").await.text.contains(&id));

    assert_eq!(world.client().delete(&format!("sessions/{id}")).await.status, 200);
    let answer = get(&world, &format!("/portal/{}/session", world.application), &session).await;
    assert_eq!(header(&answer, "location"), "/portal/ended");
    let ended = get(&world, "/portal/ended", "").await.text;
    assert!(ended.contains("data-tells=\"expired\""), "{ended}");
}

#[tokio::test]
async fn a_link_is_checked() {
    let world = World::shared().await;
    let refused = async |new: Value| {
        let answer = world.client().post("portal-links", &new).await;
        (answer.status, answer.field().to_owned())
    };
    let with = |field: &str, value: Value| {
        let mut new = json!({ "name": "Ada" });
        new[field] = value;
        new
    };
    for (new, field) in [
        (json!({}), "name"),
        (json!({ "name": " " }), "name"),
        (json!({ "name": "key_01h455vb4pex5vsknk084sn02q" }), "name"),
        (with("rights", json!(["view", "operate"])), "rights[1]"),
        (with("expires_in_seconds", json!(43201)), "expires_in_seconds"),
        (with("back", json!("javascript:alert(1)")), "back"),
        (with("theme", json!({ "accent": "red;}" })), "theme.accent"),
        (with("theme", json!({ "radius": 13 })), "theme.radius"),
        (with("logo", json!("x")), "logo"),
    ] {
        assert_eq!(refused(new.clone()).await, (422, field.to_owned()), "{new}");
    }
    let admin = world.admin().await;
    assert_eq!(admin.post("portal-links", &json!({ "name": "Ada" })).await.code(), "missing_application");
    let path = format!("portal-links?application={}", world.application);
    assert_eq!(admin.post(&path, &json!({ "name": "Ada" })).await.status, 201);
    let entries = world.client().get("audit-log?limit=5").await.text;
    assert!(entries.contains("create_portal_link"), "{entries}");
}

#[tokio::test]
async fn without_pages_there_is_no_link() {
    let world = World::of_variables(&[("FANFARE_CONSOLE_URL", "")]).await;
    let answer = world.client().post("portal-links", &json!({ "name": "Ada" })).await;
    assert_eq!((answer.status, answer.code()), (409, "pages_off"), "{}", answer.text);
    assert!(answer.text.contains("FANFARE_CONSOLE_URL"));
}

/// A session without a key makes a link on the page of the console.
#[tokio::test]
async fn a_session_of_the_portal_ends_with_its_creator() {
    let world = World::shared().await;
    let creator = Visitor::by_link(&world, &["--application", &world.application]).await;
    let page = creator.post(&format!("/console/{}/portal", world.application), &[("name", "Ada")]).await;
    let (_, path) = page.text.split_once("/portal/open/").expect("a link");
    let secret: String = path.chars().take_while(|letter| !matches!(letter, '"' | '<' | ' ')).collect();
    let session = open(&world, &format!("/portal/open/{secret}")).await;
    let shown = async || get(&world, &format!("/portal/{}/session", world.application), &session).await.status;
    assert_eq!(shown().await, 200);
    assert_eq!(creator.post("/console/sign-out", &[]).await.status, 303);
    assert_eq!(shown().await, 303, "the session outlives its creator");
}

/// The visitors of an application wait for each other, and hold up no other application.
#[tokio::test]
async fn requests_of_a_session_beyond_its_places_are_refused() {
    let world = World::new().await;
    // The usual deadline of an attempt is shorter than the wait for a place.
    let new = json!({ "url": world.receiver.url("own"), "events": ["a"], "timeout_ms": 60000 });
    let endpoint = world.client().post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
    world.receiver.script("own", &[Behaviour::Answer(200, Duration::from_secs(6)); 3]);
    let visitor = Visitor::of_portal(&world, &["test"]).await;
    let path = format!("/portal/{}/webhooks/{endpoint}/test", world.application);
    let sent = async || visitor.post(&path, &[("type", "a"), ("data", "{}")]).await;
    let (one, two, three) = tokio::join!(sent(), sent(), async {
        world.receiver.wait_for("own", 2).await;
        visitor.get(&format!("/portal/{}/session", world.application)).await
    });
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!((three.status, header(&three, "retry-after")), (429, "2"), "{}", three.text);
    assert_eq!(visitor.get(&format!("/portal/{}/session", world.application)).await.status, 200);
}

/// The receiver of another URL would get a valid signature.
#[tokio::test]
async fn the_right_to_test_sends_to_the_webhooks_url_alone() {
    let world = World::shared().await;
    let endpoint = world.endpoint("own", &["a"]).await;
    let visitor = Visitor::of_portal(&world, &["test"]).await;
    let path = format!("/portal/{}/webhooks/{}/test", world.application, endpoint.id);
    let elsewhere = world.receiver.url("elsewhere");
    let fields = [("type", "a"), ("data", "{}"), ("url", elsewhere.as_str())];
    assert_eq!(visitor.post(&path, &fields).await.status, 200);
    assert_eq!((world.receiver.received("own").len(), world.receiver.received("elsewhere").len()), (1, 0));
    let edit = path.replace("/test", "/edit");
    assert_eq!(visitor.post(&edit, &[("intent", "test"), fields[2]]).await.status, 403);
}
