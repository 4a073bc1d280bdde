//! `/api/v1/keys`

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    access::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    ApiError, Console,
    request::{Fields, authenticate, id, missing},
    success,
};

pub(crate) async fn create(
    State(console): State<Console>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    authenticate(&headers, &console.directory, &[Role::Admin])?;
    let mut fields = Fields::read(&headers, body).await?;
    let role = fields.required_text("role")?;
    let application = fields.text("application")?.map(|text| id::<ApplicationId>("application", &text)).transpose()?;
    fields.finish()?;
    let role = Role::parse(&role).ok_or_else(|| ApiError::invalid("role", "must be publish, manage or admin"))?;
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
    let token = Token::from_random(KeyId::new(Timestamp::now(), rand::random()), rand::random());
    console.store.create_key(&token, role, application).await?;
    let data = json!({ "id": token.key, "role": role.as_str(), "application": application, "key": token.reveal() });
    Ok((StatusCode::CREATED, success(data)).into_response())
}
