//! The audit log. An entry records each request that may change something: caller, origin, operation and body before
//! the request is served, the outcome afterwards. `crate::routes::audit_log` lists the entries.

mod kept;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    access::{
        api_key::{Caller, Role},
        client_address::client_address,
    },
    ids::{ApplicationId, AuditId, KeyId},
};
use fanfare_service::{Labels, Metric, MetricKind, Peer};
use fanfare_store::{AuditOutcome, Directory, NewAuditEntry, Store, spawn_for_caller};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use crate::http::{
    authentication::{application_of, authenticate},
    body::{MAX_MANAGEMENT_BODY, read_bytes},
    error::{ApiError, ErrorCode},
};

use kept::KeptMembers;

/// Writes the entries of requests.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    directory: Directory,
    /// The operator's proxies: the only trusted sources of `X-Forwarded-For`.
    proxies: Arc<[IpNet]>,
    /// Operations of the OpenAPI document, by method and path.
    operations: Arc<HashMap<(Method, String), Operation>>,
}

/// Operations of the management API that keys of all roles may call.
const PUBLISHERS_CHANGE: [&str; 2] = ["cancel_event", "cancel_event_by_key"];

/// An operation that may change something.
struct Operation {
    /// Name of the action in entries.
    name: String,
    kept: KeptMembers,
    /// True if keys of all roles may call the operation.
    is_for_publishers: bool,
}

impl Audit {
    /// Names the action of an entry by the operation ids of `api`. Trusts `X-Forwarded-For` of `proxies`.
    pub fn new(store: Store, directory: Directory, proxies: Vec<IpNet>, api: &OpenApi) -> Self {
        Self { store, directory, proxies: proxies.into(), operations: Arc::new(operations(api)) }
    }

    /// The same log, written over other connections.
    pub fn over(&self, store: Store) -> Self {
        Self { store, ..self.clone() }
    }

    /// The roles that may call an operation.
    fn roles(&self, route: &MatchedPath, method: &Method) -> &'static [Role] {
        let operation = self.operations.get(&(method.clone(), route.as_str().to_owned()));
        if operation.is_some_and(|operation| operation.is_for_publishers) {
            &Role::ALL
        } else {
            &[Role::Manage, Role::Admin]
        }
    }

    fn entry(&self, caller: &Caller, route: &str, parts: &Parts, body: &[u8]) -> NewAuditEntry {
        let asked: Option<Value> = serde_json::from_slice(body).ok();
        // Nudj's configuration API has two paths; the OpenAPI document describes only the path without prefix.
        let route = route.strip_prefix("/api/v2/admin").unwrap_or(route);
        let operation = self.operations.get(&(parts.method.clone(), route.to_owned()));
        let nothing = KeptMembers::default();
        let kept = operation.map_or(&nothing, |operation| &operation.kept);
        NewAuditEntry {
            id: AuditId::new(self.store.now(), rand::random()),
            // A request with an application's key cannot choose the log of another application.
            application: caller.application.or_else(|| named_application(caller, parts, asked.as_ref())),
            key: Some(caller.key),
            visitor: None,
            origin: origin_text(self.origin(parts)),
            action: operation.map_or_else(|| format!("{} {route}", parts.method), |operation| operation.name.clone()),
            path: Some(parts.uri.path().to_owned()),
            request: asked.map(|asked| kept.text(asked)),
        }
    }

    /// Address of the client, behind the operator's proxies.
    pub fn origin(&self, parts: &Parts) -> Option<IpAddr> {
        let Peer(peer) = parts.extensions.get()?;
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        Some(client_address(peer.ip(), forwarded, &self.proxies))
    }
}

/// Counter of changes that were refused.
pub const AUDIT_FAILURES: Metric = Metric {
    name: "fanfare_audit_failures_total",
    kind: MetricKind::Counter,
    labels: Labels::None,
    meaning: "changes over the API that were refused because the audit log could not be written",
};

/// Records a request with an unsafe method before serving, and the outcome afterwards. Refuses a request if the record
/// fails.
pub async fn audited(State(audit): State<Audit>, route: MatchedPath, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // The route itself refuses a key without the right to change something.
    let Ok(caller) = authenticate(request.headers(), &audit.directory, audit.roles(&route, request.method())) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let body = match read_bytes(body, MAX_MANAGEMENT_BODY).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let entry = audit.entry(&caller, route.as_str(), &parts, &body);
    // A separate task: the change goes on even if the client hangs up, and its outcome is recorded.
    let request = Request::from_parts(parts, Body::from(body));
    let served = spawn_for_caller(async move {
        if let Err(error) = audit.begin(&entry).await {
            return error.into_response();
        }
        let response = next.run(request).await;
        audit.finish(entry.id, response).await
    });
    served.await.unwrap_or_else(|_| ended().into_response())
}

fn ended() -> ApiError {
    ApiError::new(ErrorCode::InternalError, "internal fault, logged: report the request to the operator")
}

/// Author of a change over the web pages.
#[derive(Debug, Clone)]
pub struct Author {
    /// Application of the change; `None` for a change that concerns no single application.
    pub application: Option<ApplicationId>,
    /// Key of the session's sign-in.
    pub key: Option<KeyId>,
    /// Name of the session's visitor.
    pub visitor: String,
    /// Address of the client.
    pub origin: Option<IpAddr>,
    /// Path of the request.
    pub path: String,
}

impl Audit {
    /// Makes a change over the web pages, with an entry like the entry of a request to the API. `operation` is the name
    /// in the OpenAPI document, `asked` the request's body. The change goes on even if the client hangs up.
    ///
    /// # Errors
    /// Errors of `work`; an error before `work` begins if the audit log cannot be written.
    pub async fn around<T: Serialize + Send + 'static>(
        &self,
        author: Author,
        operation: &'static str,
        asked: Value,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let kept = self.operations.values().find(|known| known.name == operation).map(|known| &known.kept);
        let entry = NewAuditEntry {
            id: AuditId::new(self.store.now(), rand::random()),
            application: author.application,
            key: author.key,
            visitor: Some(author.visitor),
            origin: origin_text(author.origin),
            action: operation.to_owned(),
            path: Some(author.path),
            request: kept.filter(|_| !asked.is_null()).map(|kept| kept.text(asked)),
        };
        let audit = self.clone();
        let served = spawn_for_caller(async move {
            audit.begin(&entry).await?;
            let done = work.await;
            let outcome = match &done {
                Ok(_) => AuditOutcome::Done,
                Err(error) => outcome_of(error.status().as_u16()),
            };
            let data = done.as_ref().ok().and_then(|data| serde_json::to_value(data).ok());
            audit.end(entry.id, outcome, data.as_ref()).await;
            done
        });
        served.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn begin(&self, entry: &NewAuditEntry) -> Result<(), ApiError> {
        self.store.begin_audit(entry).await.map_err(|error| {
            metrics::counter!(AUDIT_FAILURES.name).increment(1);
            error.into()
        })
    }

    async fn finish(&self, entry: AuditId, response: Response) -> Response {
        let outcome = outcome_of(response.status().as_u16());
        let (head, body) = response.into_parts();
        // The whole body is in memory already, so a limit would save nothing.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        self.end(entry, outcome, answer.as_ref().and_then(|answer| answer.get("data"))).await;
        Response::from_parts(head, Body::from(body))
    }

    async fn end(&self, entry: AuditId, outcome: AuditOutcome, data: Option<&Value>) {
        let subject = data.and_then(subject);
        let application = data.and_then(|data| data.get("application")?.as_str()?.parse().ok());
        // The request is served: the client gets the answer even if the outcome cannot be recorded.
        if let Err(error) = self.store.end_audit(entry, outcome, subject.as_deref(), application).await {
            tracing::warn!(%error, %entry, "cannot record the outcome of a request in the audit log");
        }
    }
}

fn outcome_of(status: u16) -> AuditOutcome {
    match status {
        200..300 => AuditOutcome::Done,
        400..500 => AuditOutcome::Refused,
        _ => AuditOutcome::Failed,
    }
}

fn origin_text(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

/// The application of an administrator's request: from the path, else from the body, else from the query.
fn named_application(caller: &Caller, parts: &Parts, asked: Option<&Value>) -> Option<ApplicationId> {
    let of_path = parts.uri.path().split('/').find_map(|segment| segment.parse().ok());
    let of_body = || asked?.get("application")?.as_str()?.parse().ok();
    of_path.or_else(of_body).or_else(|| application_of(caller, parts.uri.query()).ok())
}

/// The operations of the document with unsafe methods.
fn operations(api: &OpenApi) -> HashMap<(Method, String), Operation> {
    let document = serde_json::to_value(api).expect("an OpenAPI document has only texts as names of members");
    let mut operations = HashMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let methods =
            [(Method::PUT, "put"), (Method::POST, "post"), (Method::PATCH, "patch"), (Method::DELETE, "delete")];
        for (method, member) in methods {
            let Some(name) = item[member]["operationId"].as_str() else { continue };
            let kept = KeptMembers::of_request(&document, &item[member]);
            // Publishing itself is not audited.
            let is_for_publishers = PUBLISHERS_CHANGE.contains(&name);
            operations.insert((method, path.clone()), Operation { name: name.to_owned(), kept, is_for_publishers });
        }
    }
    operations
}

/// The ids of the changed objects, from the answer.
fn subject(data: &Value) -> Option<String> {
    let id = |thing: &Value| Some(thing.get("id")?.as_str()?.to_owned());
    match data {
        Value::Array(things) => Some(things.iter().filter_map(id).collect::<Vec<_>>().join(" ")),
        thing => id(thing),
    }
}
