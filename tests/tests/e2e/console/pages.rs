//! Each page: valid, complete, without secrets, with its twins; and the texts of others.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::access::session::Face;
use fanfare_tests::{
    clients::api::Client,
    patience::until,
    scene::{self, Scene},
    world::World,
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    crawl::{Page, crawl, route_of},
    html::Html,
    visitor::Visitor,
};

/// The largest page, in bytes.
const LARGEST: usize = 100_000;

/// Begin of the call below a page that answers the page's content.
const READ: &str = "curl -H \"Authorization: Bearer $KEY\" '";

/// Tells all faults of a page at once.
fn faults(page: &Page) -> Vec<String> {
    let html = &page.html;
    let mut faults: Vec<String> = html.errors.clone();
    let mut ids = BTreeSet::new();
    for element in &html.elements {
        if let Some(id) = element.get("id")
            && !ids.insert(id)
        {
            faults.push(format!("id {id} twice"));
        }
        let forbidden = element.names().find(|name| *name == "style" || name.starts_with("on"));
        faults.extend(forbidden.map(|name| format!("{} has {name}", element.name)));
        if element.name == "style" || element.name == "script" && element.get("src").is_none() {
            faults.push(format!("an inline {}", element.name));
        }
    }
    for (name, count) in [("h1", 1), ("main", 1)] {
        let found = html.all(name).filter(|element| !element.text.trim().is_empty()).count();
        if found != count {
            faults.push(format!("{found} {name} with text"));
        }
    }
    faults.extend(broken_references(html, &ids));
    // A large body is shown on demand.
    if page.text.len() > LARGEST && !page.address.contains("body=whole") {
        faults.push(format!("{} bytes", page.text.len()));
    }
    faults
}

/// References within the page to missing elements, and fields without a label.
fn broken_references(html: &Html, ids: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for element in &html.elements {
        for attribute in ["for", "aria-describedby", "aria-labelledby", "aria-controls", "list", "data-copy-of"] {
            let missing =
                element.get(attribute).into_iter().flat_map(str::split_whitespace).find(|id| !ids.contains(id));
            faults.extend(missing.map(|id| format!("{attribute} names {id}")));
        }
        let fragment = element.get("href").and_then(|href| href.strip_prefix('#')).filter(|id| !ids.contains(id));
        faults.extend(fragment.map(|id| format!("a link to #{id}")));
    }
    faults
}

/// Checks the token of each form, and the route of each form.
async fn assert_forms(visitor: &Visitor, face: Face, page: &Page) {
    for form in page.html.forms().iter().filter(|form| form.is_post) {
        let at = &page.address;
        let to = if form.action.is_empty() { at } else { &form.action };
        let token = form.fields.iter().find(|(name, _)| name == "_form").map(|(_, value)| value.as_str());
        assert_eq!(token, Some(visitor.form_token()), "{at}: the form to {to}");
        assert!(route_of(face, to).is_some(), "{at}: no route serves the form to {to}");
        let answer = visitor.send(Method::OPTIONS, to, &[], String::new()).await;
        let methods = answer.headers.get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(methods.contains("POST"), "{at}: {to} takes no form, but {methods:?}");
    }
}

/// Compares the page's text with the page.
async fn assert_text(visitor: &Visitor, page: &Page) {
    let twin = page.html.link("As text");
    let answer = visitor.get(twin).await;
    let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    assert_eq!((answer.status, kind), (200, Some("text/plain; charset=utf-8")), "{twin}");
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = plain(&answer.text);
    let copied = page.html.all("code").filter(|code| code.get("class") == Some("copy"));
    for shown in copied.chain(page.html.all("h1")) {
        assert!(text.contains(&plain(&shown.text)), "{twin} lacks {:?}:\n{}", shown.text, answer.text);
    }
}

/// Compares the answer of the API, named below the page, with the rows of the page.
async fn assert_call(admin: &Client, page: &Page) {
    for address in page.html.all("pre").filter_map(|pre| pre.text.strip_prefix(READ)) {
        let address = address.trim_end_matches('\'');
        let (_, path) = address.split_once("/api/v1/").unwrap_or_else(|| panic!("{}: {address}", page.address));
        let answer = admin.get(path).await;
        assert_eq!(answer.status, 200, "{}: {path}: {}", page.address, answer.text);
        let rows = page.html.all("tbody").filter(|body| body.get("data-rows").is_some());
        let shown: BTreeSet<&str> = if rows.count() == 1 {
            page.html.all("tr").filter_map(|row| row.get("id")).collect()
        } else {
            continue;
        };
        let Some(data) = answer.body["data"].as_array() else { continue };
        let answered: BTreeSet<&str> =
            data.iter().filter_map(|row| row["id"].as_str().or(row["webhook"].as_str())).collect();
        assert_eq!(shown, answered, "{}: {path}", page.address);
    }
}

/// Checks all pages within a visitor's reach. Returns the routes.
async fn assert_pages(world: &World, visitor: &Visitor, face: Face, secrets: &[&str]) -> BTreeSet<String> {
    let admin = world.admin().await;
    let first = match face {
        Face::Console => "/console/".to_owned(),
        Face::Portal => format!("/portal/{}/", world.application),
    };
    let pages = crawl(visitor, face, &first).await;
    let mut found = Vec::new();
    for page in &pages {
        found.extend(faults(page).into_iter().map(|fault| format!("{}: {fault}", page.address)));
        let shown = secrets.iter().find(|secret| page.text.contains(**secret));
        found.extend(shown.map(|secret| format!("{} shows the secret {secret}", page.address)));
        assert_forms(visitor, face, page).await;
        assert_text(visitor, page).await;
        if face == Face::Console {
            assert_call(&admin, page).await;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    pages.into_iter().map(|page| page.route).collect()
}

/// Publishes an event that is due in an hour, and waits until lists show the event.
async fn delay(world: &World) {
    let due = Timestamp::now() + SignedDuration::from_hours(1);
    world.publish(&json!({ "type": "order.reminder", "data": 1, "deliver_at": due })).await;
    until("the delayed event", async || (world.rows("delayed_events", "true").await == 1).then_some(())).await;
}

/// Puts each application into a plan, with labels and with usage of today near the quota.
async fn bill(world: &World) {
    let statements = "INSERT INTO plans (name, events_per_day, stored_bytes) VALUES ('free', 100, 100);
                      UPDATE applications SET plan = 'free', labels = '{\"region\": \"eu <west>\"}', version = version + 1;
                      INSERT INTO usage_days SELECT id, (now() AT TIME ZONE 'UTC')::date, 85, 9, 8, 7, 6, 100
                          FROM applications ON CONFLICT DO NOTHING";
    world.database().await.batch_execute(statements).await.expect("a plan");
}

#[tokio::test]
async fn each_page_is_valid_leads_on_and_has_its_twins() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let scene = Scene::fill(&world).await;
    let admin = world.admin().await;
    scene::park(&world, &admin).await;
    delay(&world).await;
    bill(&world).await;
    let visitor = Visitor::by_link(&world, &[]).await;
    let (_, token) = visitor.cookie.split_once('.').expect("a token");
    let token = token.to_owned();
    let secrets = [
        scene::SECRET,
        scene::HEADER,
        &scene.well.secret,
        &scene.failing.secret,
        &scene.paused.secret,
        &world.key,
        token.as_str(),
    ];
    let reached = assert_pages(&world, &visitor, Face::Console, &secrets).await;
    let look = Visitor::by_link(&world, &["--application", &world.application, "--look-only"]).await;
    assert_pages(&world, &look, Face::Console, &secrets).await;
    let customer = Visitor::of_portal(&world, &["payloads", "test", "resend", "endpoints", "replay"]).await;
    assert_pages(&world, &customer, Face::Portal, &secrets).await;
    // Nobody finds a page without a link.
    for route in fanfare_console::guarded_paths(Face::Console) {
        let sample = route.replace("{app}", &world.application);
        let answer = visitor.send(Method::OPTIONS, &sample, &[], String::new()).await;
        let methods = answer.headers.get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_page = methods.contains("GET") && !route.ends_with("/body");
        assert!(!is_page || reached.contains(&route), "no link leads to {route}: {reached:?}");
    }
}

#[tokio::test]
async fn texts_of_others_are_escaped_on_each_page() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    Scene::fill(&world).await;
    let admin = world.admin().await;
    scene::park(&world, &admin).await;
    let visitor = Visitor::by_link(&world, &[]).await;
    let pages = crawl(&visitor, Face::Console, "/console/").await;
    let mut shown = (0, 0, 0);
    for page in &pages {
        let at = &page.address;
        assert!(!page.text.contains("<script>alert"), "{at} has a script of others");
        assert!(page.html.all("img").next().is_none(), "{at} has a picture of others");
        assert!(page.html.all("script").count() == 1, "{at} has another script");
        assert!(!page.text.contains('\u{202e}'), "{at} has an override of direction");
        assert!(!page.html.addresses().any(|address| address.contains("127.0.0.1")), "{at} links to an endpoint");
        let text = page.html.text("main");
        shown.0 += usize::from(text.contains("<script>alert(1)</script>"));
        shown.1 += usize::from(text.contains(scene::ARABIC));
        shown.2 += usize::from(text.contains("invoice\\u{202e}gpj.exe"));
    }
    assert!(shown.0 > 0 && shown.1 > 0 && shown.2 > 0, "texts of others are on pages: {shown:?}");
}

#[tokio::test]
async fn a_live_page_answers_only_what_is_new() {
    let world = World::shared().await;
    world.endpoint("a", &["*"]).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let address = format!("/console/{}/deliveries", world.application);
    let ask =
        async |known: &str| visitor.send(Method::GET, &address, &[("x-fanfare-live", known)], String::new()).await;
    let digest = |answer: &fanfare_tests::clients::api::Answer| {
        answer.headers.get("x-fanfare-content").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let first = ask("none").await;
    assert_eq!(first.status, 200);
    assert!(!first.text.contains("<html") && first.text.contains("<h1>"), "only the content is sent");
    let again = ask(&digest(&first)).await;
    assert_eq!((again.status, again.text.as_str()), (204, ""));

    world.publish(&json!({ "type": "a", "data": {} })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await;
    let changed = ask(&digest(&first)).await;
    assert_eq!(changed.status, 200);
    assert!(changed.text.contains(delivery[0]["id"].as_str().expect("an id")));
    assert_eq!(ask(&digest(&changed)).await.status, 204);
}

#[tokio::test]
async fn an_empty_application_has_pages_that_tell_the_next_step() {
    let world = World::shared().await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    for page in crawl(&visitor, Face::Console, "/console/session").await {
        let found = faults(&page);
        assert!(found.is_empty(), "{}: {found:?}", page.address);
        // A filter may leave no row, and the page tells which filter to widen.
        if page.address.contains('?') {
            continue;
        }
        let tables = page.html.all("tbody").filter(|body| body.text.trim().is_empty()).count();
        assert_eq!(tables, 0, "{} shows an empty table", page.address);
    }
}

/// Heartbeats alone are no new content, also on the page of operations. A screen without the script loads pages again.
#[tokio::test]
async fn a_quiet_page_answers_live_requests_with_nothing() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let visitor = Visitor::by_link(&world, &[]).await;
    for page in ["/console/".to_owned(), format!("/console/{}/deliveries", world.application)] {
        until(&format!("a request without new content of {page}"), async || {
            let live =
                async |known: &str| visitor.send(Method::GET, &page, &[("x-fanfare-live", known)], String::new()).await;
            let first = live("none").await;
            let known = first.headers["x-fanfare-content"].to_str().expect("a digest");
            // The dispatcher renews its heartbeat meanwhile.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let next = live(known).await;
            assert!(next.status == 200 || next.text.is_empty(), "{} {}", next.status, next.text);
            (next.status == 204).then_some(())
        })
        .await;
        let again = visitor.get(&format!("{page}?refresh=10")).await;
        assert_eq!((again.status, again.headers["refresh"].as_bytes()), (200, b"10".as_slice()), "{page}");
    }
}
