//! `/api/v1/keys`

use axum::{extract::State, http::StatusCode, response::Response};
use fanfare_domain::{
    access::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ApiError, Console, Failures,
    answer::Answer,
    body::{Fields, missing},
    request::{Administrator, id},
};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(crate) struct New {
    /// `publish`, `manage` or `admin`.
    #[schema(example = "publish")]
    role: String,
    /// The application that it is bound to; an admin key is bound to none.
    application: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Key {
    #[schema(value_type = String)]
    id: KeyId,
    #[schema(example = "publish")]
    role: &'static str,
    #[schema(value_type = Option<String>)]
    application: Option<ApplicationId>,
    /// The key itself. It is not shown again.
    key: String,
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
    let token = Token::from_random(KeyId::new(console.store.now(), rand::random()), rand::random());
    console.store.create_key(&token, role, application).await?;
    let key = Key { id: token.key, role: role.as_str(), application, key: token.reveal() };
    Ok(Answer::of(key).with(StatusCode::CREATED))
}
