//! `/api/v1/keys`

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use fanfare_domain::{
    access::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use fanfare_store::KeyRow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ApiError, Console, Failures,
    answer::{Answer, Page},
    body::{Fields, OptionalFields, missing},
    request::{Administrator, Path, Query, id, page_size},
    secrets::overlap,
};

/// How long a key that is made to end lives, in seconds.
const LIFETIMES: std::ops::RangeInclusive<u64> = 60..=366 * 24 * 3600;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(crate) struct New {
    /// `publish`, `manage` or `admin`.
    #[schema(example = "publish")]
    role: String,
    /// The application that it is bound to; an admin key is bound to none.
    application: Option<String>,
    /// After so many seconds it ends, 60 to 31622400: for a customer's page, say. Without it, it ends when it is revoked.
    expires_in_seconds: Option<u64>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRotation)]
pub(crate) struct NewRotation {
    /// How long the key that was stays valid, in seconds: 0 to 2592000, and 86400 (a day) where it is left out.
    overlap_seconds: Option<u64>,
}

/// Which keys are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Those of this application.
    application: Option<String>,
    /// The `next` of the page before.
    before: Option<String>,
    /// 1 to 100, 50 where it is left out.
    limit: Option<usize>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Key {
    #[serde(flatten)]
    shown: Shown,
    /// The key itself. It is not shown again.
    key: String,
}

/// A key, without what opens.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct Shown {
    #[schema(value_type = String)]
    id: KeyId,
    #[schema(example = "publish")]
    role: &'static str,
    #[schema(value_type = Option<String>)]
    application: Option<ApplicationId>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself, or ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// Within some seconds.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

impl From<KeyRow> for Shown {
    fn from(row: KeyRow) -> Self {
        let KeyRow { id, role, application, created_at, expires_at, revoked_at, last_used_at } = row;
        Self { id, role: role.as_str(), application, created_at, expires_at, revoked_at, last_used_at }
    }
}

/// Creates an API key. Takes an admin key.
#[utoipa::path(post, path = "/keys", operation_id = "create_key", tag = "applications",
    request_body = New, responses((status = 201, body = Answer<Key>), Failures))]
pub(crate) async fn create(
    State(console): State<Console>,
    _: Administrator,
    Fields(new): Fields<New>,
) -> Result<Response, ApiError> {
    let role = Role::parse(&new.role).ok_or_else(|| ApiError::invalid("role", "must be publish, manage or admin"))?;
    let application = new.application.as_deref().map(|text| id::<ApplicationId>("application", text)).transpose()?;
    match (role, application) {
        (Role::Admin, Some(_)) => {
            return Err(ApiError::invalid("application", "does not go with an admin key, which is bound to none"));
        }
        (Role::Publish | Role::Manage, None) => return Err(missing("application")),
        _ => {}
    }
    if let Some(application) = application
        && console.store.application(application).await?.is_none()
    {
        return Err(ApiError::invalid("application", "is no application"));
    }
    if new.expires_in_seconds.is_some_and(|seconds| !LIFETIMES.contains(&seconds)) {
        let message = format!("must be between {} and {}", LIFETIMES.start(), LIFETIMES.end());
        return Err(ApiError::invalid("expires_in_seconds", message));
    }
    let token = console.token();
    let lifetime = new.expires_in_seconds.map(Duration::from_secs);
    let shown = console.store.create_key(&token, role, application, lifetime).await?.into();
    Ok(Answer::of(Key { shown, key: token.reveal() }).with(StatusCode::CREATED))
}

/// Lists API keys, newest first, those that have ended among them. Takes an admin key.
#[utoipa::path(get, path = "/keys", operation_id = "list_keys", tag = "applications",
    params(Filter), responses((status = 200, body = Page<Shown>), Failures))]
pub(crate) async fn list(
    State(console): State<Console>,
    _: Administrator,
    Query(filter): Query<Filter>,
) -> Result<Page<Shown>, ApiError> {
    let size = page_size(filter.limit)?;
    let application = filter.application.as_deref().map(|text| id("application", text)).transpose()?;
    let before = filter.before.as_deref().map(|text| id("before", text)).transpose()?;
    let rows = console.store.keys(application, before, size.rows()).await?;
    Ok(Page::of(rows.into_iter().map(Shown::from).collect(), size, |key| key.id.to_string()))
}

/// Makes another API key with the role and the application of this one, which ends after the overlap. Takes an admin key.
#[utoipa::path(post, path = "/keys/{id}/rotate", operation_id = "rotate_key", tag = "applications",
    params(("id" = String, Path)), request_body = Option<NewRotation>,
    responses((status = 201, body = Answer<Key>), Failures))]
pub(crate) async fn rotate(
    State(console): State<Console>,
    _: Administrator,
    Path(key): Path<String>,
    OptionalFields(new): OptionalFields<NewRotation>,
) -> Result<Response, ApiError> {
    let overlap = overlap(new.overlap_seconds)?;
    let token = console.token();
    let rotated = console.store.rotate_key(id("id", &key)?, &token, overlap).await?;
    let gone = || ApiError::not_found("id", "there is no such key, or it has ended");
    let shown = rotated.ok_or_else(gone)?.into();
    Ok(Answer::of(Key { shown, key: token.reveal() }).with(StatusCode::CREATED))
}

/// Revokes an API key: within seconds it opens nothing any more, anywhere. Takes an admin key.
#[utoipa::path(delete, path = "/keys/{id}", operation_id = "revoke_key", tag = "applications",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub(crate) async fn revoke(
    State(console): State<Console>,
    _: Administrator,
    Path(key): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    let revoked = console.store.revoke_key(id("id", &key)?).await?;
    Ok(Answer::of(revoked.ok_or_else(|| ApiError::not_found("id", "there is no such key"))?.into()))
}

impl Console {
    fn token(&self) -> Token {
        Token::from_random(KeyId::new(self.store.now(), rand::random()), rand::random())
    }
}
