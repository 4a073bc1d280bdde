//! A browser with a session of the console or the portal.

use std::time::{Duration, Instant};

use fanfare_tests::{
    clients::api::{Answer, Client},
    world::World,
};
use hyper::Method;
use serde_json::json;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Header of the script's request for new content, and the header with the digest of the content.
const LIVE: &str = "x-fanfare-live";
const DIGEST: &str = "x-fanfare-content";

pub(super) struct Visit {
    client: Client,
    /// The session's cookie, `name=value`.
    cookie: String,
}

impl Visit {
    /// Signs in to the console, with access to all applications.
    pub(super) async fn of_console(world: &World) -> Self {
        let link = world.release.fanfare(&world.variables, &["sign-in"]);
        Self::open(world, &link, "").await
    }

    /// Opens the portal of the world's application, with all rights.
    pub(super) async fn of_portal(world: &World) -> Self {
        let rights = ["view", "payloads", "test", "resend", "endpoints", "replay"];
        let made = world.client().post("portal-links", &json!({ "name": "Bench", "rights": rights })).await;
        // The server checks only whether the browser kept the trial's cookie.
        Self::open(world, made.data()["url"].as_str().expect("a URL"), "fanfare-trial=kept").await
    }

    async fn open(world: &World, link: &str, trial: &str) -> Self {
        let client = world.client().with_key("");
        let (_, path) = link.trim().split_once("127.0.0.1").expect("the console's address");
        let headers = [FORM, SAME_ORIGIN, ("cookie", trial)];
        let answer = client.send_to(Method::POST, path, &headers, "").await.expect("an answer");
        assert_eq!(answer.status, 303, "{}", answer.text);
        let cookies = answer.headers.get_all("set-cookie").into_iter().filter_map(|value| value.to_str().ok());
        let session = cookies.filter_map(|text| text.split(';').next()).find(|text| !text.starts_with("fanfare-trial"));
        Self { client, cookie: session.expect("the cookie of a session").to_owned() }
    }

    /// Requests a page, or only content that differs from the `known` content. Returns the time until the last byte.
    pub(super) async fn get(&self, address: &str, known: Option<&str>) -> (Duration, Answer) {
        let mut headers = vec![("cookie", self.cookie.as_str())];
        headers.extend(known.map(|known| (LIVE, known)));
        let began = Instant::now();
        let answer = self.client.send_to(Method::GET, address, &headers, "").await.expect("an answer");
        (began.elapsed(), answer)
    }

    /// Returns the digest of a page's content.
    pub(super) async fn content(&self, address: &str) -> String {
        let (_, answer) = self.get(address, Some("none")).await;
        let digest = answer.headers.get(DIGEST).and_then(|value| value.to_str().ok());
        digest.unwrap_or_else(|| panic!("{address}: {}", answer.text)).to_owned()
    }
}
