//! A POST, bounded in time, size and reach.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fanfare_credentials::Secret;
use fanfare_domain::{
    delivery::outcome::Outcome,
    dialect::Sending,
    endpoint::{
        Endpoint,
        authentication::ClientCertificate,
        header::OF_THE_MESSAGE,
        url::{UrlFault, UrlPolicy},
    },
    ids::EndpointId,
};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use jiff::Timestamp;
use rustls::{ClientConfig, client::Resumption};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use url::Url;

use crate::{
    exchange::{Credential, Exchange, HIDDEN},
    failure::{EgressUnavailable, classify, suspect},
    network::{
        certificates::{Certified, with_certificate},
        connect::{Connector, Route, refusal},
        egress::{Proxy, ProxyAddress},
        evidence::Suspect,
        name_servers::{NameServer, NameServers},
        names::Names,
        tls::{SetupError, client_config},
    },
    sign::delivery_headers,
    timings::{Stopwatch, Timings},
};

/// Longest response head, and size of a connection's buffer. `hyper` compares between two reads, so a head of up to
/// twice this size may pass.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// Idle time of an unused connection. Node, Apache and uvicorn close after 5 s: a request that crosses their end would
/// be a failed attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Age after which connections serve no new requests, by default: a host that moved is looked up again, also while
/// requests come steadily.
const MAX_AGE: Duration = Duration::from_secs(120);

/// Maximum number of unused connections, per scheme, host and port, and in total unless the settings say less. Many
/// endpoints may share a host: with fewer connections than used at once, most attempts would need a new connection.
pub const MAX_IDLE: usize = 512;

/// Lateness from which a deadline counts as noticed late, because the whole process was held up.
const LATE: Duration = Duration::from_millis(50);

/// Further time for a response after a deadline that was noticed late.
const SECOND_CHANCE: Duration = Duration::from_secs(1);

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Fanfare/", env!("CARGO_PKG_VERSION")));
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Permissions and trust of the deployment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Permitted URLs and addresses.
    pub policy: UrlPolicy,
    /// PEM file with root certificates to trust in addition to the system's.
    pub extra_roots: Option<PathBuf>,
    /// Name servers; empty for the system's.
    pub name_servers: Vec<NameServer>,
    /// Proxy for all requests, if any.
    pub proxy: Option<Proxy>,
    /// Maximum number of unused connections in total. Beyond, a request closes its connection.
    pub max_idle: usize,
    /// Maximum bytes of all response bodies in memory. Beyond, an exchange keeps the beginning of its body.
    pub answer_bytes: usize,
    /// Age after which connections serve no new requests.
    pub max_age: Duration,
}

impl Settings {
    /// Settings of a deployment, with the usual bounds. `proxy` is the proxy's address, its URL, and true if the proxy
    /// gets names.
    pub fn new(
        policy: UrlPolicy,
        extra_roots: Option<PathBuf>,
        name_servers: Vec<NameServer>,
        proxy: Option<((ProxyAddress, Secret), bool)>,
    ) -> Self {
        let proxy = proxy.map(|((address, url), gives_names)| Proxy { address, url, gives_names });
        Self { policy, extra_roots, name_servers, proxy, ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: UrlPolicy::default(),
            extra_roots: None,
            name_servers: Vec::new(),
            proxy: None,
            max_idle: MAX_IDLE,
            answer_bytes: Semaphore::MAX_PERMITS,
            max_age: MAX_AGE,
        }
    }
}

/// A POST to be made.
pub struct Request {
    /// Destination, as returned by [`check_url`](fanfare_domain::endpoint::url::check_url).
    pub url: Url,
    /// The endpoint's own headers and the signatures. The client itself sets the headers that describe the message.
    pub headers: HeaderMap,
    /// Media type of the body.
    pub content_type: HeaderValue,
    /// Rendered JSON.
    pub body: Bytes,
    /// Time from the call to the last byte read of the response body.
    pub deadline: Duration,
    /// Client certificate, and the endpoint whose connections show it.
    pub certificate: Option<(EndpointId, Arc<ClientCertificate>)>,
}

impl Request {
    /// Creates an attempt of a delivery: the rendered body, signed now.
    pub fn of_delivery(endpoint: &Endpoint, sending: &Sending<'_>, body: Bytes) -> Self {
        Self {
            url: endpoint.url.clone(),
            headers: delivery_headers(endpoint, sending, &body),
            content_type: endpoint.dialect.content_type.clone(),
            body,
            deadline: endpoint.policy.timeout,
            certificate: endpoint.certificate.as_ref().map(|certificate| (endpoint.id, Arc::clone(certificate))),
        }
    }

    /// Adds the token of a token server.
    pub fn with_token(mut self, token: HeaderValue) -> Self {
        self.headers.insert(header::AUTHORIZATION, token);
        self
    }
}

/// Headers of an attempt's request, by name, as [`Probe::request_headers`] has them. Every attempt with the same
/// arguments has the same headers.
pub fn attempt_headers(endpoint: &Endpoint, sending: &Sending<'_>, body: &[u8]) -> Vec<(String, String)> {
    let mut headers = delivery_headers(endpoint, sending, body);
    if endpoint.oauth2().is_some() {
        // The token of the attempt is not kept.
        let mut token = HeaderValue::from_static("");
        token.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, token);
    }
    set_our_headers(&mut headers, endpoint.dialect.content_type.clone());
    listed(&headers)
}

/// Result of a POST that tests an endpoint.
///
/// Not `Debug`, since the headers may contain the endpoint's credentials.
#[derive(Clone)]
pub struct Probe {
    /// Result, the same as for a delivery.
    pub exchange: Exchange,
    /// Duration of each phase. The sum is at most [`Exchange::duration`], which also covers the response body.
    pub timings: Timings,
    /// Request headers that were sent, or would have been sent if the endpoint had been reached. Names are lower-case
    /// and sorted; the values of a name keep their order; bytes that are not UTF-8 are replaced. The value of
    /// `authorization` by the endpoint's authentication is hidden. `host` and
    /// `content-length` are absent, since the HTTP library adds both. Empty if the URL allows no request.
    pub request_headers: Vec<(String, String)>,
}

type Message = http::Request<Full<Bytes>>;
type HttpClient = legacy::Client<Connector, Full<Bytes>>;

/// Connections of a time. Older connections end when their requests have ended.
struct Pool {
    http: HttpClient,
    since: Instant,
}

impl Pool {
    fn new(connector: &Connector) -> Self {
        Self { http: http_client(connector.clone()), since: Instant::now() }
    }

    /// The present connections, replaced at `max_age`.
    fn present(&mut self, connector: &Connector, max_age: Duration) -> HttpClient {
        if self.since.elapsed() > max_age {
            *self = Self::new(connector);
        }
        self.http.clone()
    }
}

/// Connections that show a client certificate.
#[derive(Clone)]
struct CertifiedPool {
    pool: Arc<Mutex<Pool>>,
    connector: Connector,
}

/// Makes the POSTs of a process. A clone shares the connections.
#[derive(Clone)]
pub struct Client {
    http: Arc<Mutex<Pool>>,
    /// Connector of the pool.
    connector: Connector,
    /// Connections and parsed keys of client certificates.
    certified: Arc<Certified<CertifiedPool>>,
    /// TLS configuration of deliveries without a client certificate.
    tls: Arc<ClientConfig>,
    max_age: Duration,
    /// Route and TLS configuration of probes; each probe makes a new connection.
    route: Arc<Route>,
    probe_tls: Arc<ClientConfig>,
    max_idle: usize,
    /// Bytes for response bodies, each until its last use.
    answers: Arc<Semaphore>,
}

impl Client {
    /// Creates a client without connections. Reads the root certificates and the name servers.
    ///
    /// # Errors
    /// If certificates or name servers cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let Settings { policy, extra_roots, name_servers, proxy, max_idle, answer_bytes, max_age } = settings;
        let route = Arc::new(Route::new(Names::new(NameServers::new(name_servers)?), policy.clone(), proxy.clone()));
        let tls = client_config(extra_roots.as_deref(), policy.https_only)?;
        let mut probe_tls = tls.clone();
        // A resumed session shows no certificate, but a probe must check the certificate.
        probe_tls.resumption = Resumption::disabled();
        let tls = Arc::new(tls);
        let connector = Connector::new(Arc::clone(&route), Arc::clone(&tls), Stopwatch::default());
        Ok(Self {
            http: Arc::new(Mutex::new(Pool::new(&connector))),
            connector,
            certified: Arc::new(Certified::new()),
            tls,
            max_age: *max_age,
            route,
            probe_tls: Arc::new(probe_tls),
            max_idle: *max_idle,
            answers: Arc::new(Semaphore::new((*answer_bytes).min(Semaphore::MAX_PERMITS))),
        })
    }

    /// Makes the POST, once; follows no redirect. Dropping the future drops the connection.
    ///
    /// # Errors
    /// If no connection was made for a reason of ours.
    pub async fn post(&self, request: Request) -> Result<Exchange, EgressUnavailable> {
        let credential = credential(&request.headers);
        let mut exchange = self.post_openly(request).await?;
        credential.inspect(|credential| exchange.hide(credential));
        Ok(exchange)
    }

    /// Makes the POST like [`post`](Self::post), and leaves the answer as it is: an echoed credential is not hidden.
    ///
    /// # Errors
    /// If no connection was made for a reason of ours.
    pub(crate) async fn post_openly(&self, request: Request) -> Result<Exchange, EgressUnavailable> {
        let deadline = request.deadline;
        let (http, message) = match &request.certificate {
            None => (self.pooled(), self.message(request)),
            Some((endpoint, certificate)) => match self.certified(*endpoint, certificate) {
                Ok(http) => (http, self.message(request)),
                Err(refusal) => (self.pooled(), Err(refusal)),
            },
        };
        self.exchange(&http, message, deadline, &Stopwatch::default()).await
    }

    /// Makes the POST like [`post`](Self::post), but over a new connection for this request only. Also reports the
    /// request headers and the duration of each phase.
    ///
    /// # Errors
    /// If no connection was made for a reason of ours.
    pub async fn probe(&self, request: Request) -> Result<Probe, EgressUnavailable> {
        let deadline = request.deadline;
        let credential = credential(&request.headers);
        let stopwatch = Stopwatch::new();
        let tls = match &request.certificate {
            None => Ok(Arc::clone(&self.probe_tls)),
            Some((_, certificate)) => certified_tls(&self.probe_tls, certificate),
        };
        let (tls, refusal) = match tls {
            Ok(tls) => (tls, None),
            Err(refusal) => (Arc::clone(&self.probe_tls), Some(refusal)),
        };
        let http = http_client(Connector::new(Arc::clone(&self.route), tls, stopwatch.clone()));
        let message = self.message(request);
        let request_headers = message.as_ref().map(|message| listed(message.headers())).unwrap_or_default();
        let message = refusal.map_or(message, Err);
        let mut exchange = self.exchange(&http, message, deadline, &stopwatch).await?;
        credential.inspect(|credential| exchange.hide(credential));
        Ok(Probe { exchange, timings: stopwatch.timings(), request_headers })
    }

    /// The pool of the present connections.
    fn pooled(&self) -> HttpClient {
        // No holder of this lock can panic halfway.
        let mut pool = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        pool.present(&self.connector, self.max_age)
    }

    /// The pool of the connections that show an endpoint's certificate.
    fn certified(
        &self,
        endpoint: EndpointId,
        certificate: &Arc<ClientCertificate>,
    ) -> Result<HttpClient, (Outcome, String)> {
        let CertifiedPool { pool, connector } = self.certified.get(endpoint, certificate, || {
            let tls = certified_tls(&self.tls, certificate)?;
            let connector = Connector::new(Arc::clone(&self.route), tls, Stopwatch::default());
            Ok(CertifiedPool { pool: Arc::new(Mutex::new(Pool::new(&connector))), connector })
        })?;
        check_end(certificate)?;
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(pool.present(&connector, self.max_age))
    }

    /// Sends a message, or records the reason why there is none.
    async fn exchange(
        &self,
        http: &HttpClient,
        message: Result<Message, (Outcome, String)>,
        deadline: Duration,
        stopwatch: &Stopwatch,
    ) -> Result<Exchange, EgressUnavailable> {
        let started = Instant::now();
        stopwatch.start();
        let is_full = self.route.connections.idle() >= self.max_idle;
        let _in_use = self.route.connections.begin();
        let mut exchange = match message {
            Ok(mut message) => {
                if is_full {
                    message.headers_mut().insert(header::CONNECTION, CLOSE);
                }
                let host = message.uri().host().unwrap_or_default().to_owned();
                // Not dropped before the question: the drop ends the look-up.
                let mut answer = std::pin::pin!(http.request(message));
                match with_deadline(deadline, answer.as_mut()).await {
                    Some(Ok(response)) => {
                        stopwatch.lap(|timings| &mut timings.first_byte);
                        let remaining = deadline.saturating_sub(started.elapsed());
                        Exchange::answered(response, remaining, Arc::clone(&self.answers)).await
                    }
                    Some(Err(error)) => {
                        let (outcome, text) = classify(&error);
                        self.blame(suspect(&error), started, &text).await?;
                        Exchange::unanswered(outcome, text)
                    }
                    None => {
                        let text = format!("no complete response head within {deadline:?}");
                        self.blame(self.route.awaited(&host), started, &text).await?;
                        Exchange::unanswered(Outcome::TimedOut, text)
                    }
                }
            }
            Err((outcome, reason)) => Exchange::unanswered(outcome, reason),
        };
        exchange.duration = started.elapsed();
        Ok(exchange)
    }

    /// Waits for the next new connection to an endpoint.
    pub async fn connected(&self) {
        self.route.connected.notified().await;
    }

    /// Finds out whether the suspected part of ours is at fault that an exchange since `began` failed.
    async fn blame(&self, suspect: Option<Suspect>, began: Instant, text: &str) -> Result<(), EgressUnavailable> {
        let Some(suspect) = suspect else { return Ok(()) };
        if self.route.is_ours(suspect, began).await { Err(EgressUnavailable(text.to_owned())) } else { Ok(()) }
    }

    /// The reason why the URL is refused by the present addresses of the host, although [`UrlPolicy::check`] accepts
    /// the URL. `None` if permitted, and if the name cannot be looked up now: every attempt is guarded anyway.
    pub async fn refusal(&self, url: &Url) -> Option<String> {
        let uri: Uri = url.as_str().parse().ok()?;
        refusal(&self.route, &uri).await
    }

    /// Builds the message. The error is an outcome and a text for people.
    fn message(&self, request: Request) -> Result<Message, (Outcome, String)> {
        self.route.policy.check(&request.url).map_err(|fault| (refused(&fault), fault.to_string()))?;
        let unusable = |_| (Outcome::NotSendable, "the URL cannot be used for a request".to_owned());
        let uri: Uri = request.url.as_str().parse().map_err(unusable)?;
        let mut message = http::Request::new(Full::new(request.body));
        *message.method_mut() = Method::POST;
        *message.uri_mut() = uri;
        *message.headers_mut() = request.headers;
        set_our_headers(message.headers_mut(), request.content_type);
        Ok(message)
    }
}

/// The TLS configuration of connections that show a certificate.
fn certified_tls(base: &ClientConfig, certificate: &ClientCertificate) -> Result<Arc<ClientConfig>, (Outcome, String)> {
    check_end(certificate)?;
    let unusable =
        |fault| (Outcome::NotSendable, format!("the client certificate of the webhook cannot be used: {fault}"));
    with_certificate(base, certificate).map(Arc::new).map_err(unusable)
}

/// Refuses a certificate that has ended: the receiver is not asked.
fn check_end(certificate: &ClientCertificate) -> Result<(), (Outcome, String)> {
    let end = certificate.shown.not_after;
    if end > Timestamp::now() {
        return Ok(());
    }
    let text =
        format!("the client certificate of the webhook has ended at {end}: give the renewed `client_certificate`");
    Err((Outcome::NotSendable, text))
}

/// The credential of the request's authentication, without the scheme.
fn credential(headers: &HeaderMap) -> Option<Credential> {
    let value = headers.get(header::AUTHORIZATION).filter(|value| value.is_sensitive())?;
    value.as_bytes().split(|byte| *byte == b' ').nth(1).and_then(Credential::new)
}

/// Outcome for a saved URL that may not be called (any more).
fn refused(fault: &UrlFault) -> Outcome {
    match fault {
        UrlFault::LocalName(_) | UrlFault::AddressForbidden { .. } => Outcome::AddressForbidden,
        _ => Outcome::NotSendable,
    }
}

fn http_client(connector: Connector) -> HttpClient {
    legacy::Client::builder(TokioExecutor::new())
        // Without a timer, the idle timeout has no effect.
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_RESPONSE_HEAD)
        // Despite the name, nothing is sent twice. `hyper` returns a request only while the request waits in the queue
        // of a pooled connection that turns out to be closed. `hyper-util` sends the returned, untouched request over
        // another connection. Once a connection takes the request to write the first byte, an error is final, whatever
        // was written. Without this setting, each keep-alive timeout of a receiver could cost an attempt.
        //
        // A receiver that closes while our bytes are in transit still fails the attempt: a receiver that accepted the
        // event and died looks the same.
        .retry_canceled_requests(true)
        .build(connector)
}

/// Runs `answer` with a time limit. A response that arrived in time counts, even if the process was held up and reads
/// late: the receiver is not at fault.
async fn with_deadline<T>(limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let started = Instant::now();
    let mut answer = std::pin::pin!(answer);
    if let Ok(answer) = timeout(limit, &mut answer).await {
        return Some(answer);
    }
    if started.elapsed() < limit + LATE {
        return None;
    }
    timeout(SECOND_CHANCE, answer).await.ok()
}

/// Sets Fanfare's headers and removes headers that belong to `hyper`, or would change the meaning of the message.
fn set_our_headers(headers: &mut HeaderMap, content_type: HeaderValue) {
    for name in OF_THE_MESSAGE {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::USER_AGENT, USER_AGENT);
}

/// All headers, by name, as text. Values of authentication are hidden.
fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut listed: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            let shown = match value.is_sensitive() {
                true => HIDDEN.to_owned(),
                false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            (name.as_str().to_owned(), shown)
        })
        .collect();
    // A stable sort keeps the order of a name's values.
    listed.sort_by(|(left, _), (right, _)| left.cmp(right));
    listed
}

#[cfg(test)]
mod tests {
    use fanfare_domain::endpoint::url::check_url;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stored_header_cannot_change_the_message() {
        let mut headers = HeaderMap::new();
        for name in ["host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-type"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert("authorization", HeaderValue::from_static("Bearer token"));
        set_our_headers(&mut headers, HeaderValue::from_static("application/json"));
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["authorization"], "Bearer token");
        assert_eq!(headers["content-type"], "application/json");
    }

    proptest! {
        /// A URL that may be saved can be sent to: both URL parsers agree on the host.
        #[test]
        fn a_url_that_may_be_saved_can_be_requested(rest in "[a-z0-9.-]{1,12}(:[0-9]{1,5})?[/?]\\PC{0,40}") {
            if let Ok(url) = check_url(&format!("https://{rest}"), &UrlPolicy::default()) {
                let uri: Uri = url.as_str().parse().expect("a URI");
                prop_assert_eq!(uri.host(), url.host_str());
                prop_assert_eq!(uri.port_u16(), url.port());
            }
        }
    }
}
