//! `/api/v1/applications/{id}/signing-keys` and `/jwks.json`: Ed25519 keys of an application.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fanfare_domain::{
    application::signing_key::{CACHED, KeySet, MIN_OVERLAP},
    ids::ApplicationId,
};
use fanfare_store::{Directory, KeyRotation, SigningKeyRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::KeyApplication,
        body::OptionalJsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id},
    },
    routes::{
        applications::{no_such_application, reached},
        webhooks::secrets::{MAX_OVERLAP, overlap},
    },
    state::ApiState,
};

/// The Ed25519 keys of an application. The keys sign the deliveries to webhooks with `asymmetric`.
#[derive(Serialize, ToSchema)]
pub struct SigningKeys {
    /// The path of the key set (JWKS) at this API, which needs no API key. The path never changes.
    #[schema(example = "/api/v1/applications/app_01h455vb4pex5vsknk084sn02q/jwks.json")]
    pub jwks_path: String,
    /// The keys in force, newest first; empty until a webhook asks for asymmetric signatures, or the first rotation.
    pub keys: Vec<SigningKey>,
}

/// The public part of an Ed25519 key.
#[derive(Serialize, ToSchema)]
pub struct SigningKey {
    /// The key's id in the key set: the thumbprint of RFC 7638.
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    pub kid: String,
    /// The public key in the form of Standard Webhooks.
    #[schema(example = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")]
    pub public_key: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The end of the rotation's overlap, for the previous key; `null` for the current key.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}

impl SigningKeys {
    fn new(application: ApplicationId, rows: Vec<SigningKeyRow>) -> Self {
        let key = |row: SigningKeyRow| SigningKey {
            kid: row.public.id(),
            public_key: row.public.text(),
            created_at: row.created_at,
            expires_at: row.expires_at,
        };
        let jwks_path = format!("/api/v1/applications/{application}/jwks.json");
        Self { jwks_path, keys: rows.into_iter().map(key).collect() }
    }
}

/// Rotation of an application's signing key.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SigningKeyRotation)]
pub struct New {
    /// The time until the previous key ends, in seconds: 7200 to 2592000, or 0 for a leaked key. Default: 86400 (a
    /// day).
    pub overlap_seconds: Option<u64>,
}

/// Lists the signing keys of an application.
#[utoipa::path(get, path = "/applications/{id}/signing-keys", operation_id = "list_signing_keys", tag = "applications",
    params(("id" = String, Path)), responses((status = 200, body = Answer<SigningKeys>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
) -> Result<Answer<SigningKeys>, ApiError> {
    let application = reached(&application, application_of_key)?;
    api.store.application(application).await?.ok_or_else(no_such_application)?;
    Ok(Answer::of(SigningKeys::new(application, api.store.signing_keys(application).await?)))
}

/// Makes a new signing key. The new key is in the key set and signs at once. The previous key is listed and signs, too,
/// until the end of the overlap, so that a receiver with an older key set finds a right signature. With an overlap of 0
/// all earlier keys end at once: receivers refuse deliveries until they fetch the key set again.
#[utoipa::path(post, path = "/applications/{id}/signing-keys/rotate", operation_id = "rotate_signing_key",
    tag = "applications", params(("id" = String, Path)), request_body = Option<New>,
    responses((status = 200, body = Answer<SigningKeys>), Failures))]
pub async fn rotate(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
    OptionalJsonBody(new): OptionalJsonBody<New>,
) -> Result<Answer<SigningKeys>, ApiError> {
    let application = reached(&application, application_of_key)?;
    let overlap = overlap(new.overlap_seconds)?;
    if !overlap.is_zero() && overlap < MIN_OVERLAP {
        let message = format!(
            "must be 0, or between {} and {MAX_OVERLAP}: receivers use a key set for up to an hour",
            MIN_OVERLAP.as_secs()
        );
        return Err(ApiError::invalid("overlap_seconds", message));
    }
    api.rotate_signing_keys(application, overlap).await.map(Answer::of)
}

/// Ends the overlap of a rotation at once. From then on only the current key signs, and is in the key set.
#[utoipa::path(post, path = "/applications/{id}/signing-keys/end-rotation", operation_id = "end_signing_key_rotation",
    tag = "applications", params(("id" = String, Path)), responses((status = 200, body = Answer<SigningKeys>), Failures))]
pub async fn end(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
) -> Result<Answer<SigningKeys>, ApiError> {
    let application = reached(&application, application_of_key)?;
    if !api.store.end_key_rotation(application).await? {
        return Err(no_such_application());
    }
    Ok(Answer::of(SigningKeys::new(application, api.store.signing_keys(application).await?)))
}

/// Serves the public keys of an application as a key set (JWKS) at `/api/v1/applications/{id}/jwks.json`, from the
/// snapshot. Needs no API key. The form is that of RFC 7517, without the envelope of the API's other answers.
pub fn key_set_routes(directory: Directory) -> Router {
    Router::new().route("/api/v1/applications/{id}/jwks.json", get(key_set)).with_state(directory)
}

/// Shows the key set. No cache may keep a fault: the first key of an application ends it.
async fn key_set(
    State(directory): State<Directory>,
    Path(application): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ([(HeaderName, &'static str); 1], ApiError)> {
    let uncached = |fault| ([(header::CACHE_CONTROL, "no-store")], fault);
    shown_key_set(&directory, &application, &headers).map_err(uncached)
}

/// An unknown application and an application without keys get the same 404.
fn shown_key_set(directory: &Directory, application: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let application: ApplicationId = id("id", application)?;
    if directory.is_unreadable(application) {
        return Err(ApiError::unreadable_application());
    }
    let keys = directory.application(application).and_then(|application| application.signing_keys.clone());
    let Some(KeySet { document, tag }) = keys.as_ref().and_then(|keys| keys.key_set(directory.now())) else {
        return Err(ApiError::not_found("id", "no application with signing keys has this id"));
    };
    let is_known = |given: &HeaderValue| given.to_str().is_ok_and(|given| names_tag(given, tag));
    let is_unchanged = headers.get_all(header::IF_NONE_MATCH).iter().any(is_known);
    let of_cache =
        [(header::CACHE_CONTROL, format!("public, max-age={}", CACHED.as_secs())), (header::ETAG, tag.clone())];
    if is_unchanged {
        return Ok((StatusCode::NOT_MODIFIED, of_cache).into_response());
    }
    Ok((of_cache, [(header::CONTENT_TYPE, "application/jwk-set+json")], document.clone()).into_response())
}

/// True if `If-None-Match` names the tag, by the weak comparison of RFC 9110.
fn names_tag(given: &str, tag: &str) -> bool {
    given.split(',').map(str::trim).any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

impl ApiState {
    async fn rotate_signing_keys(
        &self,
        application: ApplicationId,
        overlap: Duration,
    ) -> Result<SigningKeys, ApiError> {
        match self.store.rotate_signing_keys(application, &rand::random(), overlap).await? {
            KeyRotation::Done(rows) => Ok(SigningKeys::new(application, rows)),
            KeyRotation::NoSuchApplication => Err(no_such_application()),
            KeyRotation::UnderWay => {
                let message = "the previous key still signs: end the previous key with POST …/end-rotation first, or \
                               all earlier keys with `overlap_seconds` 0";
                Err(ApiError::new(ErrorCode::RotationUnderWay, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_each_form() {
        for given in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(names_tag(given, "\"a\""), "{given}");
        }
        assert!(!names_tag("\"b\"", "\"a\"") && !names_tag("a", "\"a\""));
    }
}
