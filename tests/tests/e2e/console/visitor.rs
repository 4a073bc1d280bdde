//! A visitor of the pages: a browser without script, and without pictures.

use fanfare_tests::{
    clients::api::{Answer, Client},
    world::World,
};
use hyper::Method;
use serde_json::json;

use super::html::Html;

/// The content type of a form.
pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The header by which a browser tells that a page of the same site sent the form.
pub(crate) const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A visitor with or without a session.
#[derive(Clone)]
pub(crate) struct Visitor {
    client: Client,
    /// The cookie of the session, `name=value`; empty without a session.
    pub(crate) cookie: String,
    form_token: String,
}

impl Visitor {
    /// A visitor without a session.
    pub(crate) fn stranger(world: &World) -> Self {
        Self { client: world.client().with_key(""), cookie: String::new(), form_token: String::new() }
    }

    /// Signs in with a key.
    pub(crate) async fn by_key(world: &World, key: &str) -> Self {
        let mut visitor = Self::stranger(world);
        let answer = visitor.send_form("/console/sign-in", &[("key", key)]).await;
        visitor.take_session(&answer).await;
        visitor
    }

    /// Signs in with a link of `fanfare sign-in` with these arguments.
    pub(crate) async fn by_link(world: &World, arguments: &[&str]) -> Self {
        let mut visitor = Self::stranger(world);
        let answer = visitor.send_form(&link(world, arguments), &[]).await;
        visitor.take_session(&answer).await;
        visitor
    }

    /// Opens the portal of the world's application with these rights.
    pub(crate) async fn of_portal(world: &World, rights: &[&str]) -> Self {
        let new = json!({ "name": "Ada of Acme", "rights": rights });
        let made = world.client().post("portal-links", &new).await.data()["url"].as_str().expect("a URL").to_owned();
        let (_, path) = made.split_once("127.0.0.1").expect("an address");
        let mut visitor = Self::stranger(world);
        // The page of the link tries whether the browser keeps cookies.
        visitor.cookie = cookies(&visitor.get(path).await).remove(0);
        let answer = visitor.send_form(path, &[]).await;
        visitor.take_session(&answer).await;
        visitor
    }

    /// Keeps the session of an answer to a sign-in.
    pub(crate) async fn take_session(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 303, "{}", answer.text);
        let session = cookies(answer).into_iter().find(|cookie| !cookie.starts_with("fanfare-trial"));
        self.cookie = session.expect("the cookie of a session");
        let to = location(answer);
        let root = if to.starts_with("/portal/") { to.trim_end_matches('/') } else { "/console" };
        let page = self.get(&format!("{root}/session")).await;
        let form = Html::parse(&page.text).forms().into_iter().find(|form| form.is_post).expect("a form");
        let token = form.fields.into_iter().find(|(name, _)| name == "_form").expect("a form token");
        self.form_token = token.1;
    }

    /// The same visitor with another cookie.
    pub(crate) fn with_cookie(&self, cookie: String) -> Self {
        Self { cookie, ..self.clone() }
    }

    /// The same visitor at another ingest.
    pub(crate) fn at(&self, client: &Client) -> Self {
        Self { client: client.with_key(""), ..self.clone() }
    }

    /// Sends a request with the visitor's cookie.
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut all = headers.to_vec();
        if !self.cookie.is_empty() {
            all.push(("cookie", &self.cookie));
        }
        self.client.send_to(method, path, &all, body).await.expect("an answer")
    }

    /// Opens a page.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], String::new()).await
    }

    /// Opens a page, which must exist.
    pub(crate) async fn page(&self, path: &str) -> Html {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        Html::parse(&answer.text)
    }

    /// Sends a form as a page's own form: with token and origin.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut all = vec![("_form", self.form_token.as_str())];
        all.extend_from_slice(fields);
        self.send_form(path, &all).await
    }

    /// Sends a form without the token.
    pub(crate) async fn send_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, &[FORM, SAME_ORIGIN], encoded(fields)).await
    }

    /// The session's form token.
    pub(crate) fn form_token(&self) -> &str {
        &self.form_token
    }
}

/// Names and values of an answer's cookies.
fn cookies(answer: &Answer) -> Vec<String> {
    let texts = answer.headers.get_all("set-cookie").into_iter().filter_map(|value| value.to_str().ok());
    texts.filter_map(|text| text.split(';').next()).map(str::to_owned).collect()
}

/// The path of a new link of `fanfare sign-in`.
pub(crate) fn link(world: &World, arguments: &[&str]) -> String {
    let printed = world.release.fanfare(&world.variables, &[&["sign-in"], arguments].concat());
    let (_, path) = printed.trim().split_once("127.0.0.1").expect("an address");
    path.to_owned()
}

/// The body of a form.
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let text = |text: &str| {
        text.bytes()
            .map(
                |byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") },
            )
            .collect::<String>()
    };
    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("&")
}

/// The address that an answer leads to.
pub(crate) fn location(answer: &Answer) -> &str {
    answer.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default()
}
