//! A client for any path that checks each answer against the OpenAPI document.

use bytes::Bytes;
use fanfare_tests::{
    clients::api::{Answer, Client},
    world::World,
};
use hyper::Method;
use serde_json::Value;

use crate::api::{conformance::contract, list};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Sends requests with whole paths to ingest, with a key.
#[derive(Clone)]
pub(crate) struct CheckedClient(Client);

impl CheckedClient {
    /// A client with the key that manages the world's application.
    pub(crate) fn new(world: &World) -> Self {
        Self(world.client().clone())
    }

    /// A client with a new key of the role `admin`.
    pub(crate) async fn admin(world: &World) -> Self {
        Self(world.admin().await)
    }

    /// A client with a new key of these arguments of `fanfare key create`.
    pub(crate) async fn of(world: &World, arguments: &[&str]) -> Self {
        Self(world.client_of(arguments).await)
    }

    /// A client with another key. An empty key sends no `Authorization`.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self(self.0.with_key(key))
    }

    /// Sends a request with a raw body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// Like [`Self::send`], but fails if no answer arrives.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let answer = self.0.send_to(method.clone(), path, headers, body).await?;
        contract::check(&method, path, &answer);
        Ok(answer)
    }

    /// Sends a JSON body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[JSON], body.to_string()).await
    }

    /// Sends a PUT request with a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    /// Sends a GET request.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// All items of a list, read page by page until a page has no `next`.
    pub(crate) async fn walk(&self, path: &str, limit: usize) -> Vec<Value> {
        let first = format!("{path}{}limit={limit}", if path.contains('?') { '&' } else { '?' });
        let (mut items, mut page) = (Vec::new(), first.clone());
        loop {
            let answer = self.get(&page).await;
            assert!(list(answer.data()).len() <= limit, "{page}");
            items.extend_from_slice(list(answer.data()));
            let Some(next) = answer.body["next"].as_str() else { return items };
            assert_eq!(list(answer.data()).len(), limit, "{page} is not full, but has a next page");
            page = format!("{first}&before={next}");
        }
    }

    /// Answers of all routes about a webhook, a delivery and an event: route and text of each.
    pub(crate) async fn everything(&self, webhook: &str, delivery: &str, event: &str) -> Vec<(String, String)> {
        let routes = [
            (Method::GET, "/api/v1/webhooks".to_owned(), ""),
            (Method::GET, format!("/api/v1/webhooks/{webhook}"), ""),
            (Method::PATCH, format!("/api/v1/webhooks/{webhook}"), "{}"),
            (Method::PUT, format!("/api/v1/webhooks/{webhook}"), "{}"),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/disable"), ""),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/pause"), ""),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/enable"), ""),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/end-rotation"), ""),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/test"), ""),
            (Method::GET, format!("/api/v1/webhooks/{webhook}/deliveries"), ""),
            (Method::GET, format!("/api/v1/webhooks/{webhook}/attempts"), ""),
            (Method::GET, "/webhooks/configs".to_owned(), ""),
            (Method::GET, "/webhooks/logs".to_owned(), ""),
            (Method::GET, "/api/v1/deliveries".to_owned(), ""),
            (Method::GET, format!("/api/v1/deliveries/{delivery}"), ""),
            (Method::POST, format!("/api/v1/deliveries/{delivery}/resend"), ""),
            (Method::GET, "/api/v1/events".to_owned(), ""),
            (Method::GET, format!("/api/v1/events/{event}"), ""),
            (Method::GET, format!("/api/v1/events/{event}/why"), ""),
            (Method::POST, format!("/api/v1/webhooks/{webhook}/verify"), r#"{"headers":{"a":"b"},"body":"{}"}"#),
        ];
        let mut shown = Vec::new();
        for (method, path, body) in routes {
            let answer = self.send(method.clone(), &path, &[JSON], body).await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
            shown.push((format!("{method} {path}"), answer.text));
        }
        let put = self.put("/webhooks/configs", &serde_json::json!({ "id": webhook })).await;
        shown.push(("PUT /webhooks/configs".to_owned(), put.body.to_string()));
        shown
    }
}
