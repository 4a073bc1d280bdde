//! A client of the API.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::patience::until;

/// Sends requests to the API with a key. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    key: String,
}

/// A response of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as sent: parsed JSON shows neither the order of members nor the form of numbers.
    pub text: String,
    /// The parsed body, `null` if the body is not JSON.
    pub body: Value,
}

impl Answer {
    /// The error code; empty for a success.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The field at fault; empty if the error names no field.
    pub fn field(&self) -> &str {
        self.body["error"]["field"].as_str().unwrap_or_default()
    }

    /// `Retry-After` in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.headers.get("retry-after")?.to_str().ok()?.parse().ok()
    }

    /// The data of a successful response.
    ///
    /// # Panics
    /// If the response is an error.
    pub fn data(&self) -> &Value {
        assert_eq!(self.body["success"], true, "{} {}", self.status, self.body);
        &self.body["data"]
    }
}

impl Client {
    /// Address of the API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client for an API at an address.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { http: HttpClient::builder(TokioExecutor::new()).build_http(), address, key: key.to_owned() }
    }

    /// A client for the same API with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Sends a request with a raw body to a path below `/api/v1/`.
    ///
    /// # Errors
    /// If no response arrives, or the body is not UTF-8.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        self.send_to(method, &format!("/api/v1/{path}"), headers, body).await
    }

    /// Like [`Self::send`], to a whole path.
    ///
    /// # Errors
    /// If no response arrives, or the body is not UTF-8.
    pub async fn send_to(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(Full::new(body.into()))?).await?;
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await?.to_bytes().into())?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, text, body })
    }

    /// Waits until the API accepts the key: the notice of a new key needs a moment.
    pub async fn accepted(&self) {
        until("ingest to accept the key", async || (self.get("webhooks").await.status != 401).then_some(())).await;
    }

    /// Sends a POST request with a JSON body.
    ///
    /// # Panics
    /// If no response arrives.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string())
            .await
            .expect("an answer")
    }

    /// Sends a PATCH request with a JSON body.
    ///
    /// # Panics
    /// If no response arrives.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", "application/json")], body.to_string())
            .await
            .expect("an answer")
    }

    /// Sends a GET request.
    ///
    /// # Panics
    /// If no response arrives.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.expect("an answer")
    }

    /// Sends a DELETE request.
    ///
    /// # Panics
    /// If no response arrives.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await.expect("an answer")
    }
}
