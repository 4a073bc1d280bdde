//! Sign-in by key and by link, the end of sessions, and sign-out.

use fanfare_domain::ids::SessionId;
use fanfare_tests::world::World;
use hyper::Method;

use super::{
    html::Html,
    visitor::{FORM, Visitor, encoded, link, location},
};

/// The id of the key in a token.
fn key_of(token: &str) -> String {
    format!("key_{}", token.split('_').nth(1).expect("an id"))
}

/// The session's id in the visitor's cookie.
fn session_of(visitor: &Visitor) -> SessionId {
    let (_, token) = visitor.cookie.split_once('=').expect("a cookie");
    token.split('.').next().and_then(|id| id.parse().ok()).expect("a session's id")
}

/// True if the visitor is led to the sign-in.
async fn is_out(visitor: &Visitor) -> bool {
    location(&visitor.get("/console/session").await).starts_with("/console/sign-in?to=")
}

#[tokio::test]
async fn a_key_signs_in_and_leads_to_the_wanted_page() {
    let world = World::shared().await;
    let mut visitor = Visitor::stranger(&world);
    let wanted = format!("/console/{}/deliveries?state=failed", world.application);
    let answer = visitor.get(&wanted).await;
    assert_eq!(answer.status, 303);
    let page = visitor.page(location(&answer)).await;
    let to = page.forms()[0].fields.iter().find(|(name, _)| name == "to").expect("the wanted page").1.clone();
    assert_eq!(to, wanted);

    let key = world.key.clone();
    let answer = visitor.send_form("/console/sign-in", &[("key", &key), ("to", &to)]).await;
    assert_eq!(location(&answer), wanted);
    let cookie = answer.headers.get("set-cookie").expect("a cookie").to_str().expect("a text");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    visitor.take_session(&answer).await;
    assert_eq!(visitor.get(&wanted).await.status, 200);
    // A key of an application leads to the application alone.
    assert_eq!(visitor.get("/console/applications").await.status, 403);
}

#[tokio::test]
async fn other_keys_do_not_sign_in() {
    let world = World::shared().await;
    let publish = world.create_key(&["--role", "publish", "--application", &world.application]);
    world.client().with_key(&publish).accepted().await;
    let visitor = Visitor::stranger(&world);
    let unknown = format!("{}x", &world.key[..world.key.len() - 1]);
    for (key, status) in [(publish.as_str(), 403), (unknown.as_str(), 401), ("nonsense", 401), ("", 401)] {
        let answer = visitor.send_form("/console/sign-in", &[("key", key)]).await;
        assert_eq!((answer.status, answer.headers.get("set-cookie")), (status, None), "{key}: {}", answer.text);
        let page = Html::parse(&answer.text);
        let field = page.all("input").find(|field| field.get("id") == Some("key")).expect("the field");
        assert_eq!((field.get("aria-invalid"), field.get("value")), (Some("true"), None));
        assert!(!answer.text.contains(&world.key[8..]), "the page repeats a key");
    }
    // Another site can neither sign a browser in, nor out.
    let body = encoded(&[("key", &world.key)]);
    for headers in [&[FORM][..], &[FORM, ("origin", "https://evil.example")], &[FORM, ("sec-fetch-site", "same-site")]]
    {
        let answer = visitor.send(Method::POST, "/console/sign-in", headers, body.clone()).await;
        assert_eq!((answer.status, answer.headers.get("set-cookie")), (403, None));
    }
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let world = World::shared().await;
    let admin = world.admin().await;
    let key = world.create_key(&["--role", "manage", "--application", &world.application]);
    world.client().with_key(&key).accepted().await;
    let (visitor, other) = (Visitor::by_key(&world, &key).await, Visitor::by_key(&world, &world.key).await);
    let page = format!("/console/{}/deliveries", world.application);
    assert_eq!(visitor.get(&page).await.status, 200);
    assert_eq!(admin.delete(&format!("keys/{}", key_of(&key))).await.status, 200);
    assert!(is_out(&visitor).await, "the session outlives its key");
    let live = visitor.send(Method::GET, &page, &[("x-fanfare-live", "none")], String::new()).await;
    assert_eq!((live.status, live.text.as_str()), (401, ""), "the script is told by the status");
    assert!(location(&visitor.post("/console/sign-out", &[]).await).starts_with("/console/sign-in"));
    assert!(!is_out(&other).await, "another key's session ends");
}

#[tokio::test]
async fn a_link_opens_one_session() {
    let world = World::shared().await;
    let stranger = Visitor::stranger(&world);
    let address = link(&world, &[]);
    // Programs that look at links in advance do not use the link up.
    for _ in 0..2 {
        assert_eq!(stranger.page(&address).await.text("h1"), "Sign in");
    }
    assert_eq!(stranger.send(Method::HEAD, &address, &[], String::new()).await.status, 200);
    let (_, token) = address.rsplit_once('/').expect("a token");
    let as_cookie = stranger.with_cookie(format!("fanfare={token}"));
    assert!(is_out(&as_cookie).await, "the token of an unopened link is no session");
    let crossed = stranger.send(Method::POST, &address, &[FORM, ("sec-fetch-site", "cross-site")], String::new()).await;
    assert_eq!(crossed.status, 403);

    let mut visitor = stranger.clone();
    visitor.take_session(&visitor.send_form(&address, &[]).await).await;
    assert_eq!(visitor.get("/console/applications").await.status, 200);
    for answer in [stranger.send_form(&address, &[]).await, stranger.get(&address).await] {
        assert_eq!((answer.status, answer.headers.get("set-cookie")), (404, None));
        assert_eq!(Html::parse(&answer.text).text("h1"), "The link does not open");
    }
    assert!(is_out(&as_cookie).await, "the token of a used link is no session");
    // A link to the console opens no session of the portal.
    assert_eq!(stranger.get(&link(&world, &[]).replace("/console/", "/portal/")).await.status, 404);
}

#[tokio::test]
async fn a_link_may_be_of_one_application_and_look_only() {
    let world = World::shared().await;
    let (other, _) = world.other_application().await;
    let visitor = Visitor::by_link(&world, &["--application", &world.application, "--look-only"]).await;
    assert_eq!(visitor.get(&format!("/console/{}/deliveries", world.application)).await.status, 200);
    assert_eq!(visitor.get(&format!("/console/{other}/deliveries")).await.status, 404);
    assert_eq!(visitor.get("/console/applications").await.status, 403);
    let page = visitor.page("/console/session").await;
    assert!(page.all("a").any(|link| link.text.contains("(look only)")));
    let refused = visitor.post(&format!("/console/{}/deliveries/resend", world.application), &[]).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("this session may only look"), "{}", refused.text);
    // Preferences and the sign-out change nothing of others.
    let kept = visitor.post("/console/session/preferences", &[("scheme", "dark"), ("time", "utc")]).await;
    assert_eq!(location(&kept), "/console/session?done=preferences");
    let set = kept.headers.get("set-cookie").expect("a cookie").to_str().expect("a text");
    let dark = visitor.with_cookie(format!("{}; {}", visitor.cookie, set.split(';').next().unwrap_or_default()));
    assert_eq!(dark.page("/console/session").await.elements[0].get("data-scheme"), Some("dark"));
    assert_eq!(location(&dark.post("/console/sign-out", &[]).await), "/console/sign-in");
}

#[tokio::test]
async fn another_sign_in_ends_the_former_session_of_the_browser() {
    let world = World::shared().await;
    let former = Visitor::by_key(&world, &world.key).await;
    let by_key = former.send_form("/console/sign-in", &[("key", &world.key)]).await;
    assert!(by_key.status == 303 && is_out(&former).await, "{}", by_key.text);
    let mut second = former.clone();
    second.take_session(&by_key).await;
    let by_link = second.send_form(&link(&world, &[]), &[]).await;
    assert!(by_link.status == 303 && is_out(&second).await, "{}", by_link.text);
    let mut third = second.clone();
    third.take_session(&by_link).await;
    assert!(!is_out(&third).await);
}

/// Another site could sign a browser in unnoticed, if a link opened without a click.
#[tokio::test]
async fn a_link_names_its_session_and_opens_by_itself_only_in_a_frame() {
    let world = World::shared().await;
    let stranger = Visitor::stranger(&world);
    let address = link(&world, &["--application", &world.application]);
    for (target, is_sent) in [("document", false), ("iframe", true)] {
        let answer = stranger.send(Method::GET, &address, &[("sec-fetch-dest", target)], String::new()).await;
        assert_eq!(answer.text.contains("data-send"), is_sent, "{target}: {}", answer.text);
        assert!(answer.text.contains('@') && answer.text.contains("once"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_sign_out_ends_one_session_or_all_sessions_at_each_ingest() {
    let world = World::new().await;
    let second = world.process_with("ingest", &[]);
    second.ready().await;
    let second = fanfare_tests::clients::api::Client::new(second.address("serving the API").await, "");
    let key = world.key.clone();
    let visitors = [(); 3].map(|()| Visitor::by_key(&world, &key));
    let [one, two, three] =
        futures_util::future::join_all(visitors).await.try_into().unwrap_or_else(|_| panic!("three"));
    for visitor in [&one, &two, &three] {
        assert!(!is_out(&visitor.at(&second)).await, "each ingest knows the session");
    }
    let out = one.post("/console/sign-out", &[]).await;
    assert!(
        out.headers
            .get("set-cookie")
            .is_some_and(|cookie| cookie.to_str().is_ok_and(|text| text.contains("Max-Age=0")))
    );
    assert!(is_out(&one).await && is_out(&one.at(&second)).await);
    assert!(!is_out(&two.at(&second)).await);
    two.at(&second).post("/console/sign-out", &[("everywhere", "yes")]).await;
    for visitor in [&two, &three] {
        assert!(is_out(visitor).await && is_out(&visitor.at(&second)).await);
    }
}

#[tokio::test]
async fn a_session_ends_when_idle_and_only_its_digest_is_kept() {
    let world = World::new().await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let (database, session) = (world.database().await, session_of(&visitor));
    let seen = async |ago: &str| {
        let statement = format!("UPDATE sessions SET seen_at = now() - interval '{ago}' WHERE id = $1");
        assert_eq!(database.execute(&statement, &[&session.0]).await.expect("an update"), 1);
    };
    seen("119 min").await;
    assert!(!is_out(&visitor).await);
    let fresh = "SELECT count(*) FROM sessions WHERE seen_at > now() - interval '1 min'";
    assert_eq!(world.count(fresh).await, 1, "a request keeps the session");
    seen("119 min").await;
    let page = format!("/console/{}/deliveries", world.application);
    let live = visitor.send(Method::GET, &page, &[("x-fanfare-live", "none")], String::new()).await;
    assert_eq!((live.status, world.count(fresh).await), (200, 0), "a live page alone does not keep the session");
    seen("121 min").await;
    assert!(is_out(&visitor).await);
    seen("1 min").await;
    let statement = "UPDATE sessions SET created_at = now() - interval '12 h' WHERE id = $1";
    database.execute(statement, &[&session.0]).await.expect("an update");
    assert!(is_out(&visitor).await, "a session outlives its longest time");

    let (_, token) = visitor.cookie.split_once('.').expect("a token");
    let kept = database.query_one("SELECT s::text FROM sessions s", &[]).await.expect("a row").get::<_, String>(0);
    let logs = world.ingest().logs().iter().map(ToString::to_string).collect::<String>();
    for (place, text) in [("database", &kept), ("log", &logs)] {
        assert!(!text.contains(token), "the {place} has the token: {text}");
        assert!(!text.contains(visitor.form_token()), "the {place} has the form token: {text}");
        assert!(!text.contains(&world.key), "the {place} has the key: {text}");
    }
}
