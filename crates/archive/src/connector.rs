//! HTTP for the clouds: hyper and rustls, as for all other connections of Fanfare. `object_store` brings reqwest
//! otherwise.

use std::{error::Error, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect},
    rt::TokioExecutor,
};
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::ClientConfig;
use tokio::time::timeout;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the head of a response: an object of 32 MiB passes a line of 4 Mbit/s in 70 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// Options of `object_store` that only its own client knows. A silently ignored proxy would be a wrong way out.
const UNKNOWN: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ProxyUrl, "a proxy"), (ClientConfigKey::ProxyCaCertificate, "a proxy's certificate")];

/// Makes clients with the roots of [`fanfare_tls`].
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) tls: Arc<ClientConfig>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_set = |key| options.get_config_value(&key).is_some_and(|value| value != "false");
        if let Some((_, name)) = UNKNOWN.into_iter().find(|(key, _)| is_set(*key)) {
            let source = format!("Fanfare reaches object storage without {name}: remove the variable").into();
            return Err(object_store::Error::NotSupported { source });
        }
        if is_set(ClientConfigKey::AllowInvalidCertificates) {
            let source = "Fanfare checks certificates: trust the authority by FANFARE_CA_FILE".into();
            return Err(object_store::Error::NotSupported { source });
        }
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(ClientConfig::clone(&self.tls));
        let builder = if is_set(ClientConfigKey::AllowHttp) { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        Ok(HttpClient::new(Service(Client::builder(TokioExecutor::new()).build(connector))))
    }
}

#[derive(Debug)]
struct Service(Client<HttpsConnector<connect::HttpConnector>, HttpRequestBody>);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = timeout(RESPONSE_TIMEOUT, self.0.request(request)).await;
        let answer = answered.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new_boxed(kind, with_causes(&error).into())
        })?;
        Ok(answer.map(|body| {
            let broken =
                |error: hyper::Error| HttpError::new_boxed(HttpErrorKind::Interrupted, with_causes(&error).into());
            HttpResponseBody::new(body.map_err(broken))
        }))
    }
}

/// An error with all causes: hyper's own text names no cause.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
