//! The audit log: every request that may change something is noted before it is served, with who asked for what and from
//! where; and `GET /api/v1/audit-log`, by which it is read.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    access::{Caller, Role},
    client_address::client_address,
    ids::{ApplicationId, AuditId, KeyId},
};
use fanfare_service::Peer;
use fanfare_store::{AuditEntry, AuditOutcome, Directory, NewAuditEntry, Store};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::{ToSchema, openapi::OpenApi};

use crate::{
    ApiError, Console, Failures,
    answer::Page,
    body::{MAX_MANAGEMENT_BODY, read_bytes},
    request::{Paging, Query, Scope, application_of, authenticate},
};

/// Bytes of a request that are kept; of a longer one the members that are long are not.
const MAX_KEPT: usize = 8 * 1024;

/// Bytes of a member of such a request.
const MAX_MEMBER: usize = 256;

/// Members of requests that are secrets, or hold them.
const SECRET: &str = "secret";
const HEADERS: &str = "headers";

/// What notes requests.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    directory: Directory,
    /// Proxies of the operator, whose `X-Forwarded-For` counts.
    proxies: Arc<[IpNet]>,
    /// What the API's description calls its operations, by method and path.
    names: Arc<HashMap<(Method, String), String>>,
}

impl Audit {
    /// Notes requests to the operations of this description.
    pub fn new(store: Store, directory: Directory, proxies: Vec<IpNet>, api: &OpenApi) -> Self {
        let mut names = HashMap::new();
        for (path, item) in &api.paths.paths {
            let operations = [
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in operations {
                if let Some(name) = operation.as_ref().and_then(|operation| operation.operation_id.clone()) {
                    names.insert((method, path.clone()), name);
                }
            }
        }
        Self { store, directory, proxies: proxies.into(), names: Arc::new(names) }
    }

    fn entry(&self, caller: &Caller, route: &str, parts: &Parts, body: &[u8]) -> NewAuditEntry {
        let asked: Option<Value> = serde_json::from_slice(body).ok();
        // Document 002 has its routes a second time, which are described once.
        let route = route.strip_prefix("/api/v2/admin").unwrap_or(route);
        let named = self.names.get(&(parts.method.clone(), route.to_owned())).cloned();
        NewAuditEntry {
            id: AuditId::new(self.store.now(), rand::random()),
            // A key that is bound has no say in whose log its requests stand.
            application: caller.application.or_else(|| named_application(caller, parts, &asked)),
            key: Some(caller.key),
            origin: self.origin(parts).map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            action: named.unwrap_or_else(|| format!("{} {route}", parts.method)),
            path: Some(parts.uri.path().to_owned()),
            request: asked.map(without_secrets),
        }
    }

    fn origin(&self, parts: &Parts) -> Option<IpAddr> {
        let Peer(peer) = parts.extensions.get()?;
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        Some(client_address(peer.ip(), forwarded, &self.proxies))
    }
}

/// Notes a request that may change something, and what came of it. Where it cannot be noted, it is not served.
pub async fn audited(State(audit): State<Audit>, route: MatchedPath, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // Whoever has no key changes nothing, and is told so by the route.
    let Ok(caller) = authenticate(request.headers(), &audit.directory, &Role::ALL) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let body = match read_bytes(body, MAX_MANAGEMENT_BODY).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let entry = audit.entry(&caller, route.as_str(), &parts, &body);
    if let Err(error) = audit.store.begin_audit(&entry).await {
        return ApiError::from(error).into_response();
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let outcome = match response.status().as_u16() {
        200..300 => AuditOutcome::Done,
        400..500 => AuditOutcome::Refused,
        _ => AuditOutcome::Failed,
    };
    let (head, body) = response.into_parts();
    // All of it is in memory already.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let subject = (outcome == AuditOutcome::Done).then(|| subject(&body)).flatten();
    // What was done has been done: the answer says so, also where this cannot be written down any more.
    if let Err(error) = audit.store.end_audit(entry.id, outcome, subject.as_deref()).await {
        tracing::warn!(%error, entry = %entry.id, "the audit log does not tell the outcome of a request");
    }
    Response::from_parts(head, Body::from(body))
}

/// The application that an administrator's request names in its query, its path or its body.
fn named_application(caller: &Caller, parts: &Parts, asked: &Option<Value>) -> Option<ApplicationId> {
    let of_query = application_of(caller, parts.uri.query()).ok();
    let of_path = || parts.uri.path().split('/').find_map(|segment| segment.parse().ok());
    let of_body = || asked.as_ref()?.get("application")?.as_str()?.parse().ok();
    of_query.or_else(of_path).or_else(of_body)
}

/// What was asked, as text, without what must not be read, and not too long.
fn without_secrets(mut asked: Value) -> String {
    hide_secrets(&mut asked);
    let text = asked.to_string();
    if text.len() <= MAX_KEPT {
        return text;
    }
    shorten(&mut asked);
    let text = asked.to_string();
    if text.len() <= MAX_KEPT { text } else { Value::from(format!("({} bytes)", text.len())).to_string() }
}

fn hide_secrets(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    (SECRET, value) => *value = Value::from("…"),
                    (HEADERS, Value::Object(headers)) => {
                        headers.values_mut().for_each(|value| *value = Value::from("…"));
                    }
                    (HEADERS, value) => *value = Value::from("…"),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => {
            for value in members.values_mut() {
                let length = value.to_string().len();
                if length > MAX_MEMBER {
                    *value = Value::from(format!("({length} bytes)"));
                }
            }
        }
        _ => {}
    }
}

/// The ids of what a request was done to, as its answer names them.
fn subject(answer: &Bytes) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let id = |thing: &Value| Some(thing.get("id")?.as_str()?.to_owned());
    match answer.get("data")? {
        Value::Array(things) => Some(things.iter().filter_map(id).collect::<Vec<_>>().join(" ")),
        thing => id(thing),
    }
}

/// A change that was made, or tried.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct Shown {
    #[schema(value_type = String, example = "aud_01h455vb4pex5vsknk084sn02q")]
    id: AuditId,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = Option<String>)]
    application: Option<ApplicationId>,
    /// The key that asked for it; `null` for an operator's command, and for Fanfare itself.
    #[schema(value_type = Option<String>)]
    key: Option<KeyId>,
    /// From where: an IP address; `user@host` of a command; `fanfare`.
    #[schema(example = "203.0.113.7")]
    origin: String,
    /// The name of the operation in this document, or the command.
    #[schema(example = "change_webhook")]
    action: String,
    path: Option<String>,
    /// What was asked, without secrets.
    #[schema(value_type = Value)]
    request: Option<Box<RawValue>>,
    /// The ids of what it was done to.
    subject: Vec<String>,
    /// `done`, `refused` or `failed`; `null` where it is under way, or the process did not live to tell.
    #[schema(example = "done")]
    outcome: Option<String>,
}

impl From<AuditEntry> for Shown {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, application, key, origin, action, path, request, subject, outcome } = entry;
        let request = request.and_then(|text| RawValue::from_string(text).ok());
        let subject = subject.iter().flat_map(|ids| ids.split_whitespace()).map(str::to_owned).collect();
        Self { id, at, application, key, origin, action, path, request, subject, outcome }
    }
}

/// Lists who changed what, newest first: of the key's application; with an admin key of all, or of the one that is named.
#[utoipa::path(get, path = "/audit-log", operation_id = "list_audit_log", tag = "audit log",
    params(Paging), responses((status = 200, body = Page<Shown>), Failures))]
pub(crate) async fn list(
    State(console): State<Console>,
    Scope(application): Scope,
    Query(paging): Query<Paging>,
) -> Result<Page<Shown>, ApiError> {
    let (before, size) = paging.parse()?;
    let entries = console.store.audit_log(application, before, size.rows()).await?;
    Ok(Page::of(entries.into_iter().map(Shown::from).collect(), size, |entry| entry.id.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        let asked =
            json!({ "url": "https://a.example", "secret": "whsec_x", "headers": { "authorization": "Bearer x" } });
        let kept = json!({ "url": "https://a.example", "secret": "…", "headers": { "authorization": "…" } });
        assert_eq!(without_secrets(asked.clone()), kept.to_string());
        assert_eq!(without_secrets(json!([asked.clone(), asked])), json!([kept.clone(), kept]).to_string());
        assert_eq!(without_secrets(json!({ "headers": ["x"] })), r#"{"headers":"…"}"#);
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "x".repeat(10_000);
        assert_eq!(without_secrets(json!({ "name": "a", "data": long })), r#"{"data":"(10002 bytes)","name":"a"}"#);
        assert_eq!(without_secrets(json!(long)), r#""(10002 bytes)""#);
        let many: Vec<_> = (0..2000).map(|number| json!({ "id": number })).collect();
        assert!(without_secrets(json!(many)).len() < 100);
    }
}
