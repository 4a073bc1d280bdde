//! A client for any path that keeps the raw answer: parsed JSON shows neither the order of members nor the original
//! bytes. Checks each answer against the OpenAPI document.

use std::net::SocketAddr;

use bytes::Bytes;
use fanfare_tests::{clients::api::Answer, world::World};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::api::{conformance::contract, list};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Sends requests with whole paths to ingest, with a key.
#[derive(Clone)]
pub(crate) struct RawClient {
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: String,
}

/// A raw answer.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Raw {
    /// The parsed answer.
    pub(crate) fn answer(&self) -> Answer {
        Answer { status: self.status, retry_after: None, body: serde_json::from_str(&self.text).unwrap_or(Value::Null) }
    }
}

impl RawClient {
    /// A client of a world's ingest, with the key that manages the world's application.
    pub(crate) async fn of(world: &World) -> Self {
        let address = world.ingest().address("serving the API").await;
        Self { http: Client::builder(TokioExecutor::new()).build_http(), address, key: world.key.clone() }
    }

    /// A client with another key. An empty key sends no `Authorization`.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Sends a request with a raw body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Raw {
        self.try_send(method, path, headers, body).await.expect("an answer")
    }

    /// Like [`Self::send`], but fails if no answer arrives.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Raw> {
        let mut request = Request::builder().method(&method).uri(format!("http://{}{path}", self.address));
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(Full::new(body.into()))?).await?;
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        let raw = Raw { status: head.status.as_u16(), headers: head.headers, text };
        contract::check(&method, path, &raw);
        Ok(raw)
    }

    /// Sends a JSON body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(method, path, &[JSON], body.to_string()).await.answer()
    }

    /// Sends a PUT request with a JSON body.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    /// Sends a GET request.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.answer()
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
