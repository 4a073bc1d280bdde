//! `/api/v1/keys`: API keys.

use std::time::Duration;

use axum::extract::State;
use fanfare_domain::{
    access::api_key::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use fanfare_store::KeyRow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Created, Page},
        authentication::{Administrator, Scope},
        body::{JsonBody, OptionalJsonBody, missing},
        error::{ApiError, ErrorCode, Failures},
        paging::Paging,
        parameters::{Path, Query, id},
    },
    routes::webhooks::secrets::overlap,
    state::ApiState,
};

/// Lifetimes that a key may have, in seconds.
const LIFETIMES: std::ops::RangeInclusive<u64> = 60..=366 * 24 * 3600;

/// An API key to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub struct New {
    /// `publish`, `manage` or `admin`.
    #[schema(example = "publish")]
    pub role: String,
    /// The application of the key. Required for `publish` and `manage`; an admin key has no application.
    pub application: Option<String>,
    /// The lifetime in seconds, 60 to 31622400, for example of a key for a customer's page. Default: until the key is
    /// revoked.
    pub expires_in_seconds: Option<u64>,
}

/// Rotation of an API key.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRotation)]
pub struct NewRotation {
    /// The time until the previous key expires, in seconds: 0 to 2592000. Default: 86400 (a day).
    pub overlap_seconds: Option<u64>,
}

/// Selects the keys of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// A new API key.
#[derive(Serialize, ToSchema)]
pub struct Key {
    #[serde(flatten)]
    pub shown: Shown,
    /// The text of the key, shown only in this answer.
    pub key: String,
}

/// An API key, without the text of the key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct Shown {
    #[schema(value_type = String)]
    pub id: KeyId,
    #[schema(example = "publish")]
    pub role: &'static str,
    #[schema(value_type = Option<String>)]
    pub application: Option<ApplicationId>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The time of expiry, in the future or the past.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// The time of the last use, accurate to a few seconds.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

impl From<KeyRow> for Shown {
    fn from(row: KeyRow) -> Self {
        let KeyRow { id, role, application, created_at, expires_at, revoked_at, last_used_at } = row;
        Self { id, role: role.as_str(), application, created_at, expires_at, revoked_at, last_used_at }
    }
}

/// Creates an API key. Requires an admin key.
#[utoipa::path(post, path = "/keys", operation_id = "create_key", tag = "applications",
    request_body = New, responses((status = 201, body = Answer<Key>), Failures))]
pub async fn create(
    State(api): State<ApiState>,
    _: Administrator,
    JsonBody(new): JsonBody<New>,
) -> Result<Created<Key>, ApiError> {
    create_as(&api, api.new_key(), new).await.map(Created)
}

/// Creates an API key under an id.
///
/// # Errors
/// Errors of the same request to the API. Also if the id is known: an earlier request created the key.
pub async fn create_as(api: &ApiState, key: KeyId, new: New) -> Result<Key, ApiError> {
    let role = Role::parse(&new.role).ok_or_else(|| ApiError::invalid("role", "must be publish, manage or admin"))?;
    let application = new.application.as_deref().map(|text| id::<ApplicationId>("application", text)).transpose()?;
    match (role, application) {
        (Role::Admin, Some(_)) => {
            return Err(ApiError::invalid("application", "must be absent for an admin key"));
        }
        (Role::Publish | Role::Manage, None) => return Err(missing("application")),
        _ => {}
    }
    if let Some(application) = application
        && api.store.application(application).await?.is_none()
    {
        return Err(ApiError::invalid("application", "is not the id of an application"));
    }
    if new.expires_in_seconds.is_some_and(|seconds| !LIFETIMES.contains(&seconds)) {
        let message = format!("must be between {} and {}", LIFETIMES.start(), LIFETIMES.end());
        return Err(ApiError::invalid("expires_in_seconds", message));
    }
    api.check_unknown(key).await?;
    let token = Token::from_random(key, rand::random());
    let lifetime = new.expires_in_seconds.map(Duration::from_secs);
    let shown = api.store.create_key(&token, role, application, lifetime).await?.into();
    Ok(Key { shown, key: token.reveal() })
}

/// Shows an API key, without the text of the key. Requires an admin key.
#[utoipa::path(get, path = "/keys/{id}", operation_id = "show_key", tag = "applications",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    _: Administrator,
    Path(key): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    let found = api.store.key(id("id", &key)?).await?;
    Ok(Answer::of(found.ok_or_else(no_such_key)?.into()))
}

/// Lists API keys, newest first, with expired and revoked keys. Requires an admin key.
#[utoipa::path(get, path = "/keys", operation_id = "list_keys", tag = "applications",
    params(("application" = Option<String>, Query, description = "Only keys of this application."), Filter),
    responses((status = 200, body = Page<Shown>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    _: Administrator,
    Scope(application): Scope,
    Query(filter): Query<Filter>,
) -> Result<Page<Shown>, ApiError> {
    let (before, size) = Paging { before: filter.before, limit: filter.limit }.parse()?;
    let rows = api.store.keys(application, before, size.rows()).await?;
    Ok(Page::of(rows.into_iter().map(Shown::from).collect(), size, |key| key.id.to_string()))
}

/// Rotates an API key: creates a key with the same role and application. The old key expires after the overlap.
/// Requires an admin key.
#[utoipa::path(post, path = "/keys/{id}/rotate", operation_id = "rotate_key", tag = "applications",
    params(("id" = String, Path)), request_body = Option<NewRotation>,
    responses((status = 201, body = Answer<Key>), Failures))]
pub async fn rotate(
    State(api): State<ApiState>,
    _: Administrator,
    Path(key): Path<String>,
    OptionalJsonBody(new): OptionalJsonBody<NewRotation>,
) -> Result<Created<Key>, ApiError> {
    rotate_as(&api, id("id", &key)?, api.new_key(), new).await.map(Created)
}

/// Rotates an API key. The new key gets the id `next`.
///
/// # Errors
/// Errors of the same request to the API. Also if `next` is known: an earlier request rotated the key.
pub async fn rotate_as(api: &ApiState, key: KeyId, next: KeyId, new: NewRotation) -> Result<Key, ApiError> {
    let overlap = overlap(new.overlap_seconds)?;
    api.check_unknown(next).await?;
    let token = Token::from_random(next, rand::random());
    let rotated = api.store.rotate_key(key, &token, overlap).await?;
    let gone = || ApiError::not_found("id", "no valid key has this id");
    Ok(Key { shown: rotated.ok_or_else(gone)?.into(), key: token.reveal() })
}

/// Revokes an API key. All processes refuse the key within seconds. Requires an admin key.
#[utoipa::path(delete, path = "/keys/{id}", operation_id = "revoke_key", tag = "applications",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Shown>), Failures))]
pub async fn revoke(
    State(api): State<ApiState>,
    _: Administrator,
    Path(key): Path<String>,
) -> Result<Answer<Shown>, ApiError> {
    let revoked = api.store.revoke_key(id("id", &key)?).await?;
    Ok(Answer::of(revoked.ok_or_else(no_such_key)?.into()))
}

fn no_such_key() -> ApiError {
    ApiError::not_found("id", "no key has this id")
}

impl ApiState {
    fn new_key(&self) -> KeyId {
        KeyId::new(self.store.now(), rand::random())
    }

    /// Refuses the id of a known key: the text of a key is shown once, and no second request may replace the key.
    async fn check_unknown(&self, key: KeyId) -> Result<(), ApiError> {
        match self.store.key(key).await? {
            None => Ok(()),
            Some(_) => {
                let message = format!("{key} was created by an earlier request: rotate the key if its text is lost");
                Err(ApiError::new(ErrorCode::InvalidField, message))
            }
        }
    }
}
