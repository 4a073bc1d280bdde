//! `/api/v1/audit-log`: the entries of the audit log.

use axum::extract::State;
use fanfare_domain::ids::{ApplicationId, AuditId, KeyId};
use fanfare_store::{AuditEntry, NewAuditEntry};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Page,
        authentication::Scope,
        error::{ApiError, ErrorCode, Failures},
        paging::Paging,
        parameters::{APPLICATION, Query},
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
    /// The name of the visitor, for a change over the web pages.
    pub visitor: Option<String>,
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
        let NewAuditEntry { id, application, key, visitor, origin, action, path, request } = of;
        let request = request.and_then(|text| RawValue::from_string(text).ok());
        let subject = subject.iter().flat_map(|ids| ids.split_whitespace()).map(str::to_owned).collect();
        Self { id, at, application, key, visitor, origin, action, path, request, subject, outcome }
    }
}

/// Selects entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only entries about the thing with this id, such as a webhook. Requires an application.
    pub subject: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the audit log, newest first: entries of the key's application; with an admin key, of all applications, or of
/// the application in the query. A page of a list by subject searches at most 1,000 entries: the page may have few
/// entries or none, and still a `next`.
#[utoipa::path(get, path = "/audit-log", operation_id = "list_audit_log", tag = "audit log",
    params(Filter), responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Query(filter): Query<Filter>,
) -> Result<Page<Shown>, ApiError> {
    let Filter { subject, before, limit } = filter;
    let (before, size) = Paging { before, limit }.parse()?;
    if let Some(subject) = subject {
        let message = "`subject` requires an application: name it by ?application=app_…";
        let missing = || ApiError::new(ErrorCode::MissingApplication, message).at(APPLICATION);
        if !is_id(&subject) {
            return Err(ApiError::invalid("subject", "must be an id, such as wh_01h455vb4pex5vsknk084sn02q"));
        }
        let application = application.ok_or_else(missing)?;
        let page = api.store.audit_log_of(application, &subject, before, size.rows()).await?;
        let entries = page.entries.into_iter().map(Shown::from).collect();
        return Ok(Page::of(entries, size, |entry| entry.id.to_string()).or_next(page.passed.map(|id| id.to_string())));
    }
    let entries = api.store.audit_log(application, before, size.rows()).await?;
    Ok(Page::of(entries.into_iter().map(Shown::from).collect(), size, |entry| entry.id.to_string()))
}

/// True for a text in the form of an id: a search for another text would match by chance.
fn is_id(text: &str) -> bool {
    let form = text.split_once('_');
    form.is_some_and(|(_, rest)| {
        rest.len() == 26 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
