//! A client for JSON over HTTP and HTTPS.

use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

/// Longest wait for an answer, and its largest size in bytes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Client for HTTP and HTTPS.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Creates a client that trusts the system's authorities.
///
/// # Errors
/// If the system's certificates cannot be used.
pub(crate) fn client() -> anyhow::Result<HttpClient> {
    let tls = fanfare_tls::client_config(fanfare_tls::system_roots())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Client with a fixed authorization. A clone shares the connections.
#[derive(Clone)]
pub(crate) struct JsonClient {
    client: HttpClient,
    authorization: String,
}

impl JsonClient {
    /// Creates a client that sends `authorization` with each request.
    pub(crate) fn new(authorization: String) -> anyhow::Result<Self> {
        Ok(Self { client: client()?, authorization })
    }

    /// Value of the header `Authorization`.
    #[cfg(test)]
    pub(crate) fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Sends a request. Returns the status and the answer, `null` if the answer is no JSON.
    ///
    /// # Errors
    /// If no answer comes in time.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let bytes = body.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(bytes))
            .with_context(|| format!("{url} is not a URL"))?;
        let answered = async {
            let answer = self.client.request(request).await.with_context(|| format!("{url} does not answer"))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!("{url}: {error}"))?.to_bytes();
            anyhow::Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        timeout(ANSWER_TIMEOUT, answered).await.with_context(|| format!("{url} does not answer"))?
    }
}
