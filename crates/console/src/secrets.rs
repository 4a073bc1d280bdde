//! `/api/v1/webhooks/{id}/rotate-secret`

use std::time::Duration;

use axum::extract::State;
use fanfare_domain::ids::{EndpointId, SecretId};
use fanfare_store::Rotation;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ApiError, Console, ErrorCode, Failures,
    answer::Answer,
    body::OptionalFields,
    request::{Manager, Path, id},
    webhooks::{Webhook, no_such_webhook},
};

/// How long what is replaced by a rotation stays valid where nobody says otherwise, and at the most, in seconds.
const OVERLAP: u64 = 24 * 3600;
const MAX_OVERLAP: u64 = 30 * 24 * 3600;

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretRotation)]
pub(crate) struct New {
    /// How long the secret that was signs, too, in seconds: 0 to 2592000, and 86400 (a day) where it is left out.
    overlap_seconds: Option<u64>,
    /// The new secret; it is made where it is left out.
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Rotated {
    #[schema(value_type = String)]
    id: EndpointId,
    /// The new secret. It is not shown again.
    secret: String,
    /// Until then `webhook-signature` holds a signature by both secrets, and the dialect's own header one by the
    /// secret that was.
    #[schema(value_type = String, format = DateTime)]
    previous_secret_expires_at: Timestamp,
}

/// How long what is replaced stays valid, as it was asked for.
pub(crate) fn overlap(seconds: Option<u64>) -> Result<Duration, ApiError> {
    let seconds = seconds.unwrap_or(OVERLAP);
    if seconds > MAX_OVERLAP {
        return Err(ApiError::invalid("overlap_seconds", format!("must be between 0 and {MAX_OVERLAP}")));
    }
    Ok(Duration::from_secs(seconds))
}

/// Gives a webhook another secret.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret", operation_id = "rotate_secret", tag = "webhooks",
    params(("id" = String, Path)), request_body = Option<New>,
    responses((status = 200, body = Answer<Rotated>), Failures))]
pub(crate) async fn rotate(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
    OptionalFields(new): OptionalFields<New>,
) -> Result<Answer<Rotated>, ApiError> {
    let webhook: EndpointId = id("id", &webhook)?;
    let overlap = overlap(new.overlap_seconds)?;
    let secret = console.secret(new.secret)?;
    let now = console.store.now();
    let secret_id = SecretId::new(now, rand::random());
    match console.store.rotate_secret(manager.application, webhook, (secret_id, &secret), overlap).await? {
        Rotation::Done => Ok(Answer::of(Rotated {
            id: webhook,
            secret: secret.text().to_owned(),
            previous_secret_expires_at: fanfare_domain::moment::later(now, overlap),
        })),
        Rotation::NoSuchEndpoint => Err(no_such_webhook()),
        Rotation::UnderWay => {
            let message = "the secret before the current one still signs: end that with POST …/end-rotation first";
            Err(ApiError::new(ErrorCode::RotationUnderWay, message))
        }
    }
}

/// Ends the overlap of a rotation at once: only the current secret signs from here on.
#[utoipa::path(post, path = "/webhooks/{id}/end-rotation", operation_id = "end_rotation", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn end(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    if !console.store.end_rotation(manager.application, id("id", &webhook)?).await? {
        return Err(no_such_webhook());
    }
    Ok(Answer::of(Webhook::new(console.endpoint(&manager, &webhook).await?, None)))
}
