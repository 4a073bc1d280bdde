//! `/api/v1/webhooks/{id}/rotate-secret` and `/end-rotation`.

use std::time::Duration;

use axum::extract::State;
use fanfare_domain::ids::{EndpointId, SecretId};
use fanfare_store::Rotation;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::OptionalJsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id},
    },
    routes::webhooks::{Webhook, no_such_webhook},
    state::ApiState,
};

/// The default and the longest overlap of a rotation, in seconds. The previous key or secret stays valid meanwhile.
const OVERLAP: u64 = 24 * 3600;
pub(crate) const MAX_OVERLAP: u64 = 30 * 24 * 3600;

/// Rotation of a signing secret.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretRotation)]
pub struct New {
    /// The time until the previous secret expires, in seconds: 0 to 2592000. Default: 86400 (a day).
    pub overlap_seconds: Option<u64>,
    /// The new secret. Default: a generated secret.
    #[schema(write_only)]
    pub secret: Option<String>,
}

/// Result of a rotation.
#[derive(Serialize, ToSchema)]
pub struct Rotated {
    #[schema(value_type = String)]
    pub id: EndpointId,
    /// The new secret, shown only in this answer.
    pub secret: String,
    /// The end of the overlap. Until then, `webhook-signature` has a signature by each secret, and the dialect's own
    /// header a signature by the previous secret.
    #[schema(value_type = String, format = DateTime)]
    pub previous_secret_expires_at: Timestamp,
}

/// Checks the requested overlap of a rotation.
pub(crate) fn overlap(seconds: Option<u64>) -> Result<Duration, ApiError> {
    let seconds = seconds.unwrap_or(OVERLAP);
    if seconds > MAX_OVERLAP {
        return Err(ApiError::invalid("overlap_seconds", format!("must be between 0 and {MAX_OVERLAP}")));
    }
    Ok(Duration::from_secs(seconds))
}

/// Rotates the secret of a webhook. The previous secret stays valid during the overlap.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", operation_id = "rotate_secret", tag = "webhooks",
    params(("id" = String, Path)), request_body = Option<New>,
    responses((status = 200, body = Answer<Rotated>), Failures))]
pub async fn rotate(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    OptionalJsonBody(new): OptionalJsonBody<New>,
) -> Result<Answer<Rotated>, ApiError> {
    let webhook: EndpointId = id("id", &webhook)?;
    let overlap = overlap(new.overlap_seconds)?;
    let secret = api.secret(new.secret)?;
    let now = api.store.now();
    let secret_id = SecretId::new(now, rand::random());
    match api.store.rotate_secret(authorized.application, webhook, (secret_id, &secret), overlap).await? {
        Rotation::Done => Ok(Answer::of(Rotated {
            id: webhook,
            secret: secret.text().to_owned(),
            previous_secret_expires_at: fanfare_domain::time::saturating_add(now, overlap),
        })),
        Rotation::NoSuchEndpoint => Err(no_such_webhook()),
        Rotation::UnderWay => {
            let message = "the previous secret still signs: end the rotation with POST …/end-rotation first";
            Err(ApiError::new(ErrorCode::RotationUnderWay, message))
        }
    }
}

/// Ends the overlap of a rotation at once. From then on only the current secret signs.
#[utoipa::path(post, path = "/webhooks/{id}/end-rotation", operation_id = "end_rotation", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub async fn end(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    if !api.store.end_rotation(authorized.application, id("id", &webhook)?).await? {
        return Err(no_such_webhook());
    }
    Ok(Answer::of(Webhook::new(api.endpoint(&authorized, &webhook).await?, None)))
}
