//! `/api/v1/audit-log`: the entries of the audit log.

use axum::extract::State;
use fanfare_domain::ids::{ApplicationId, AuditId, KeyId};
use fanfare_store::{AuditEntry, NewAuditEntry};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Page,
        authentication::Scope,
        error::{ApiError, Failures},
        paging::Paging,
        parameters::Query,
    },
    state::ApiState,
};

/// A change, or an attempt at a change.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Shown {
    #[schema(value_type = String, example = "aud_01h455vb4pex5vsknk084sn02q")]
    pub id: AuditId,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    #[schema(value_type = Option<String>)]
    pub application: Option<ApplicationId>,
    /// The API key of the request; `null` for an operator's command, and for Fanfare itself.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The IP address of the client, `user@host` of a command, or `fanfare`.
    #[schema(example = "203.0.113.7")]
    pub origin: String,
    /// The `operationId` in this document, or the command.
    #[schema(example = "change_webhook")]
    pub action: String,
    pub path: Option<String>,
    /// The body of the request, or the arguments of the command, without secrets.
    #[schema(value_type = Value)]
    pub request: Option<Box<RawValue>>,
    /// The ids of the changed objects.
    pub subject: Vec<String>,
    /// `done`, `refused` or `failed`; `null` while the request runs, or after the process died during the request.
    #[schema(example = "done")]
    pub outcome: Option<String>,
}

impl From<AuditEntry> for Shown {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { of, at, subject, outcome } = entry;
        let NewAuditEntry { id, application, key, origin, action, path, request } = of;
        let request = request.and_then(|text| RawValue::from_string(text).ok());
        let subject = subject.iter().flat_map(|ids| ids.split_whitespace()).map(str::to_owned).collect();
        Self { id, at, application, key, origin, action, path, request, subject, outcome }
    }
}

/// Lists the audit log, newest first: entries of the key's application; with an admin key, of all applications, or of
/// the application in the query.
#[utoipa::path(get, path = "/audit-log", operation_id = "list_audit_log", tag = "audit log",
    params(Paging), responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Query(paging): Query<Paging>,
) -> Result<Page<Shown>, ApiError> {
    let (before, size) = paging.parse()?;
    let entries = api.store.audit_log(application, before, size.rows()).await?;
    Ok(Page::of(entries.into_iter().map(Shown::from).collect(), size, |entry| entry.id.to_string()))
}
