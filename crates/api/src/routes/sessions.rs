//! `/api/v1/sessions`: sessions of the web pages.

pub mod portal_links;

use axum::extract::State;
use fanfare_domain::{
    access::session::{Face, Session},
    ids::{ApplicationId, KeyId, SessionId},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::Scope,
        error::{ApiError, Failures},
        paging::Paging,
        parameters::{Path, Query, id},
    },
    state::ApiState,
};

/// A session of the web pages, or a link that nobody has opened yet.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub struct Shown {
    #[schema(value_type = String, example = "ses_01h455vb4pex5vsknk084sn02q")]
    pub id: SessionId,
    /// `console` or `portal`.
    #[schema(example = "portal")]
    pub pages: &'static str,
    /// `null` for all applications.
    #[schema(value_type = Option<String>)]
    pub application: Option<ApplicationId>,
    /// The rights of the session, such as `view` and `resend`.
    pub rights: Vec<&'static str>,
    /// The name of the visitor.
    pub name: String,
    /// The proof of the visitor: `key`, `link`, `proxy` or `provider`.
    #[schema(example = "link")]
    pub sign_in: &'static str,
    /// Until this time the link opens; `null` for an open session.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub opens_until: Option<Timestamp>,
    /// The API key of the sign-in. The session ends with the key.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The time of the last request, accurate to a minute.
    #[schema(value_type = String, format = DateTime)]
    pub seen_at: Timestamp,
    /// The end of the session, used or not.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
}

impl From<Session> for Shown {
    fn from(session: Session) -> Self {
        let Session { id, face, application, rights, key, name, sign_in, opens_until, .. } = session;
        let Session { created_at, seen_at, ends_at, .. } = session;
        let (pages, rights, sign_in) = (face.as_str(), rights.names(), sign_in.as_str());
        Self { id, pages, application, rights, name, sign_in, opens_until, key, created_at, seen_at, ends_at }
    }
}

/// Selects the sessions of a list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only sessions of these pages: `console` or `portal`.
    pub pages: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the open sessions of the web pages, newest first: sessions of the key's application; with an admin key, all
/// sessions, or the sessions of the application in the query.
#[utoipa::path(get, path = "/sessions", operation_id = "list_sessions", tag = "web pages",
    params(Filter), responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Query(filter): Query<Filter>,
) -> Result<Page<Shown>, ApiError> {
    let (before, size) = Paging { before: filter.before, limit: filter.limit }.parse()?;
    let invalid = || ApiError::invalid("pages", "must be console or portal");
    let face = filter.pages.as_deref().map(|text| Face::parse(text).ok_or_else(invalid)).transpose()?;
    let rows = api.store.sessions(application, face, before, size.rows()).await?;
    Ok(Page::of(rows.into_iter().map(Shown::from).collect(), size, |session| session.id.to_string()))
}

/// Result of the end of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = EndedSession)]
pub struct Ended {
    #[schema(value_type = String)]
    pub id: SessionId,
    #[schema(example = true)]
    pub ended: bool,
}

/// Ends a session of the web pages at once, in all processes.
#[utoipa::path(delete, path = "/sessions/{id}", operation_id = "end_session", tag = "web pages",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Ended>), Failures))]
pub async fn end(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Path(session): Path<String>,
) -> Result<Answer<Ended>, ApiError> {
    let session = id("id", &session)?;
    if !api.store.end_session(session, application).await? {
        return Err(ApiError::not_found("id", "no session has this id, or the session has another application"));
    }
    Ok(Answer::of(Ended { id: session, ended: true }))
}
