//! A client of the API.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

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
    /// `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// The body, `null` if the body is not JSON.
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
    /// A client for an API at an address.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { http: HttpClient::builder(TokioExecutor::new()).build_http(), address, key: key.to_owned() }
    }

    /// A client for the same API with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Sends a request with a raw body.
    ///
    /// # Errors
    /// If no response arrives.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("http://{}/api/v1/{path}", self.address));
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(Full::new(body.into()))?).await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, retry_after, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
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
