//! The guard: each route, with each kind of session, and each kind of foreign request.

use std::collections::BTreeMap;

use fanfare_console::{guarded_paths, open_paths};
use fanfare_domain::access::session::Face;
use fanfare_tests::{
    clients::api::Answer,
    scene::{self, Scene},
    world::World,
};
use hyper::Method;

use super::{
    crawl::crawl,
    visitor::{FORM, SAME_ORIGIN, Visitor, encoded, location},
};

/// The policy of all pages of the console.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The forms of the visitor's own session, which change nothing of others.
const OWN: [&str; 2] = ["/console/session/preferences", "/console/sign-out"];

/// An address of each route: of a page that a crawl opened, or with made-up ids.
fn samples(opened: &BTreeMap<String, String>, application: &str) -> Vec<(String, String)> {
    let made_up = |route: &str| {
        let parts = route.split('/').map(|part| match part {
            "{app}" => application,
            part if part.starts_with('{') => "unknown",
            part => part,
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let sample = |route: String| (opened.get(&route).cloned().unwrap_or_else(|| made_up(&route)), route);
    guarded_paths(Face::Console).into_iter().map(sample).collect()
}

async fn get(visitor: &Visitor, address: &str) -> Answer {
    visitor.get(address).await
}

#[tokio::test]
async fn each_route_asks_for_a_session_of_its_application() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    Scene::fill(&world).await;
    scene::park(&world, &world.admin().await).await;
    let (other, _) = world.other_application().await;
    let stranger = Visitor::stranger(&world);
    let admin = Visitor::by_link(&world, &[]).await;
    let bound = Visitor::by_link(&world, &["--application", &world.application]).await;
    let foreign = Visitor::by_link(&world, &["--application", &other]).await;
    let look = Visitor::by_link(&world, &["--look-only"]).await;
    let mut opened = BTreeMap::new();
    for page in crawl(&admin, Face::Console, "/console/").await {
        if !page.route.contains("{app}") || page.address.contains(&world.application) {
            opened.entry(page.route).or_insert(page.address);
        }
    }
    let before: i64 = world.count("SELECT count(*) FROM audit_log").await;
    for (address, route) in samples(&opened, &world.application) {
        let is_of_application = route.contains("{app}");
        // Without a session.
        let answer = get(&stranger, &address).await;
        assert!(location(&answer).starts_with("/console/sign-in?to="), "{route}: {}", answer.status);
        let answer = stranger.post(&address, &[]).await;
        assert!(location(&answer).starts_with("/console/sign-in?to="), "{route}: {}", answer.status);
        let live = stranger.send(Method::GET, &address, &[("x-fanfare-live", "none")], String::new()).await;
        assert_eq!((live.status, live.text.as_str()), (401, ""), "{route}");

        let shown = get(&admin, &address).await.status;
        assert!(shown < 500 && (!opened.contains_key(&route) || shown == 200), "{route}: {shown}");
        let looked = get(&look, &address).await.status;
        assert!(
            looked == shown || looked == 403,
            "{route}: a visitor who may only look sees the pages, no forms: {looked}"
        );
        let expected = if is_of_application { vec![shown] } else { vec![200, 303, 403, 404, 405] };
        let own = get(&bound, &address).await.status;
        assert!(expected.contains(&own), "{route}: bound to the application: {own}, not {expected:?}");
        if is_of_application {
            let (got, sent) = (get(&foreign, &address).await.status, foreign.post(&address, &[]).await.status);
            let unknown = |status| status == 404 || status == 405;
            assert!(unknown(got) && unknown(sent), "{route}: bound to another application: {got} {sent}");
        }
        if !OWN.contains(&route.as_str()) {
            let refused = look.post(&address, &[]).await;
            assert_eq!(refused.status, 403, "{route}: {}", refused.text);
        }
    }
    let after = world.count("SELECT count(*) FROM audit_log").await;
    assert_eq!(after, before, "a refused request changed something");
}

#[tokio::test]
async fn each_route_refuses_forms_of_others() {
    let world = World::shared().await;
    let visitor = Visitor::by_link(&world, &[]).await;
    let other = Visitor::by_link(&world, &[]).await;
    let (own, foreign) = (encoded(&[("_form", visitor.form_token())]), encoded(&[("_form", other.form_token())]));
    let origin = ("origin", world.variables["FANFARE_CONSOLE_URL"].as_str());
    let evil = ("origin", "https://evil.example");
    let site = |site| ("sec-fetch-site", site);
    type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let refused: [Refused<'_>; 11] = [
        ("without origin", &[FORM], &own, 403),
        ("a foreign origin", &[FORM, evil], &own, 403),
        ("an origin with another port", &[FORM, ("origin", "http://127.0.0.1:1")], &own, 403),
        ("an opaque origin", &[FORM, ("origin", "null")], &own, 403),
        ("another site", &[FORM, site("cross-site")], &own, 403),
        ("another site with our origin", &[FORM, site("cross-site"), origin], &own, 403),
        ("a sibling of the site", &[FORM, site("same-site")], &own, 403),
        ("typed by the visitor", &[FORM, site("none")], &own, 403),
        ("without token", &[FORM, SAME_ORIGIN], "", 403),
        ("the token of another session", &[FORM, SAME_ORIGIN], &foreign, 403),
        ("JSON", &[("content-type", "application/json"), SAME_ORIGIN], &own, 415),
    ];
    for (address, route) in samples(&BTreeMap::new(), &world.application) {
        for (what, headers, body, status) in refused {
            let answer = visitor.send(Method::POST, &address, headers, body.to_owned()).await;
            assert_eq!(answer.status, status, "{route}, {what}: {}", answer.text);
        }
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = visitor.send(method.clone(), &address, &[FORM, evil], own.clone()).await;
            assert_eq!(answer.status, 403, "{route}, {method}");
        }
    }
    // Browsers without the newer header send the origin.
    let path = "/console/session/preferences";
    let body = format!("{own}&scheme=dark&time=utc");
    assert_eq!(visitor.send(Method::POST, path, &[FORM, origin], body).await.status, 303);
    assert_eq!(visitor.get("/console/session").await.status, 200, "no refused form ended the session");
}

#[tokio::test]
async fn each_answer_has_the_headers() {
    let world = World::shared().await;
    let (visitor, stranger) = (Visitor::by_link(&world, &[]).await, Visitor::stranger(&world));
    let page = visitor.page("/console/session").await;
    let assets: Vec<&str> = page.addresses().filter(|address| address.contains("/assets/")).collect();
    assert_eq!(assets.len(), 3, "style, script and icon: {assets:?}");
    let mut bytes = 0;
    for asset in assets {
        let answer = stranger.get(asset).await;
        assert_eq!(answer.status, 200, "{asset}");
        bytes += answer.text.len();
        assert_headers(asset, &answer, "public, max-age=31536000, immutable");
    }
    assert!(bytes <= 40_000, "{bytes} bytes of assets");
    assert_eq!(stranger.get("/console/assets/0123-console.css").await.status, 404);
    let application = format!("/console/{}/deliveries", world.application);
    for address in
        ["/console/session", "/console/session?as=text", "/console/unknown", "/console/sign-in", "/", &application]
    {
        assert_headers(address, &visitor.get(address).await, "no-store");
        assert_headers(address, &stranger.get(address).await, "no-store");
    }
    let live = [("x-fanfare-live", "none")];
    assert_headers("live", &visitor.send(Method::GET, &application, &live, String::new()).await, "no-store");
    assert_headers("a form", &visitor.post("/console/session/preferences", &[]).await, "no-store");
    for route in open_paths(Face::Console) {
        assert_headers(&route, &stranger.get(&route.replace(['{', '}'], "")).await, "no-store");
    }
}

fn assert_headers(what: &str, answer: &Answer, kept: &str) {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("content-security-policy"), POLICY, "{what}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "same-origin", "{what}");
    assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{what}");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{what}");
    assert_eq!(header("cache-control"), kept, "{what}: {}", answer.status);
}
