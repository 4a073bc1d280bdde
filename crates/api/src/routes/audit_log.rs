//! `/api/v1/audit-log`: the entries of the audit log.

use axum::extract::State;
use fanfare_domain::{
    diagnosis::changes::CHANGES,
    ids::{ApplicationId, AuditId, KeyId},
};
use fanfare_store::{AuditEntry, AuditFilter, AuditOutcome, NewAuditEntry};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Page,
        authentication::Scope,
        error::{ApiError, Failures},
        paging::Paging,
        parameters::{Query, check_display_name, timestamp},
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

/// Selects entries. An entry must meet all conditions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only entries about the object with this id, such as a webhook.
    pub subject: Option<String>,
    /// Only entries of this action, or of one of several actions separated by commas.
    pub action: Option<String>,
    /// Only entries with this outcome: `done`, `refused` or `failed`; `unknown`: without an outcome.
    pub outcome: Option<String>,
    /// Only entries from this time on.
    pub since: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

impl Filter {
    /// Selects changes that may explain a failure, about an object or all, since a moment.
    pub fn of_changes(subject: Option<String>, since: Option<Timestamp>) -> Self {
        Self {
            subject,
            action: Some(CHANGES.join(",")),
            outcome: Some(AuditOutcome::Done.as_str().to_owned()),
            since: since.map(|since| since.to_string()),
            before: None,
            limit: Some(100),
        }
    }
}

/// Lists the audit log, newest first: entries of the key's application; with an admin key, of all applications, or of
/// the application in the query. A list by `subject`, `action` or `outcome` is a search: a page looks through at most
/// 1,000 entries. The page may have few entries or none, and still a `next`.
#[utoipa::path(get, path = "/audit-log", operation_id = "list_audit_log", tag = "audit log",
    params(Filter), responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Query(filter): Query<Filter>,
) -> Result<Page<Shown>, ApiError> {
    let Filter { subject, action, outcome, since, before, limit } = filter;
    let (before, size) = Paging { before, limit }.parse()?;
    if subject.as_deref().is_some_and(|subject| !is_id(subject)) {
        return Err(ApiError::invalid("subject", "must be an id, such as wh_01h455vb4pex5vsknk084sn02q"));
    }
    let filter = AuditFilter {
        application,
        subject,
        actions: action.as_deref().map(actions).transpose()?.unwrap_or_default(),
        outcome: outcome.as_deref().map(audit_outcome).transpose()?,
        since: since.as_deref().map(|text| timestamp("since", text)).transpose()?,
        before,
        limit: size.rows(),
    };
    let page = api.store.audit_log(&filter).await?;
    let entries = page.entries.into_iter().map(Shown::from).collect();
    Ok(Page::of(entries, size, |entry| entry.id.to_string()).or_next(page.passed.map(|id| id.to_string())))
}

/// The word for entries without an outcome.
const UNKNOWN: &str = "unknown";

/// The maximum number of actions in a list.
const MAX_ACTIONS: usize = 50;

fn actions(text: &str) -> Result<Vec<String>, ApiError> {
    let actions: Vec<String> = text.split(',').map(|action| action.trim().to_owned()).collect();
    actions.iter().try_for_each(|action| check_display_name("action", action))?;
    if actions.len() > MAX_ACTIONS {
        return Err(ApiError::invalid("action", format!("must have at most {MAX_ACTIONS} actions")));
    }
    Ok(actions)
}

/// Parses an outcome; `None` for entries without an outcome.
fn audit_outcome(text: &str) -> Result<Option<AuditOutcome>, ApiError> {
    if text == UNKNOWN {
        return Ok(None);
    }
    let known = AuditOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text);
    let words = AuditOutcome::ALL.map(AuditOutcome::as_str).join(", ");
    known.map(Some).ok_or_else(|| ApiError::invalid("outcome", format!("must be one of {words}, {UNKNOWN}")))
}

/// True for a text in the form of an id: a search for another text would match by chance.
fn is_id(text: &str) -> bool {
    let form = text.split_once('_');
    form.is_some_and(|(_, rest)| {
        rest.len() == 26 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
