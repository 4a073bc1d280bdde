//! The request of a delivery: the headers of an attempt, rebuilt, as the database does not keep them; and the request
//! as it would be sent now.

use std::time::Duration;

use axum::extract::State;
use fanfare_domain::{dialect::Sending, endpoint::Endpoint, event::EventType, ids::DeliveryId};
use fanfare_outbound::attempt_headers;
use fanfare_store::DeliveryRow;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id},
    },
    routes::{
        deliveries::{Attempt, no_such_delivery},
        webhooks::{secrets::MAX_OVERLAP, test_sends::shown},
    },
    state::ApiState,
};

/// Bytes that are signed for a page. With a long body, only the last attempts get headers.
const MAX_SIGNED: usize = 2 * 1024 * 1024;

/// Attempts that get headers, the last first.
const MAX_ATTEMPTS: usize = 50;

/// The request of a delivery, as it would be sent now.
#[derive(Serialize, ToSchema)]
pub struct SignedRequest {
    pub url: String,
    /// Names and values of the headers. The values of the webhook's own headers are hidden.
    #[schema(value_type = Vec<Vec<String>>)]
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The time in the signature. Most receivers accept a signature for five minutes.
    #[schema(value_type = String, format = DateTime)]
    pub signed_at: Timestamp,
}

/// Signs the request of a delivery with the present time, to try a receiver by hand. Nothing is sent.
#[utoipa::path(get, path = "/deliveries/{id}/request", operation_id = "sign_request", tag = "deliveries",
    params(("id" = String, Path)), responses((status = 200, body = Answer<SignedRequest>), Failures))]
pub async fn sign(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(delivery): Path<String>,
) -> Result<Answer<SignedRequest>, ApiError> {
    let delivery: DeliveryId = id("id", &delivery)?;
    let (row, _) = api.store.delivery(authorized.application, delivery).await?.ok_or_else(no_such_delivery)?;
    let Some(body) = row.body.clone() else {
        return Err(ApiError::new(ErrorCode::EventErased, "the event is erased"));
    };
    if row.is_redacted {
        let message = "the event has hidden members: a signature over hidden values would permit to guess them";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    if api.directory.is_unreadable(authorized.application) {
        let message = "the settings of the application cannot be read: see the log of ingest";
        return Err(ApiError::new(ErrorCode::ApplicationUnavailable, message));
    }
    let known = api.directory.application(authorized.application);
    let endpoint = known.as_ref().and_then(|known| known.endpoint(row.endpoint));
    let Some(endpoint) = endpoint else {
        return Err(ApiError::new(ErrorCode::EndpointDisabled, "the webhook of the delivery is disabled or deleted"));
    };
    let event_type = EventType::parse(&row.event_type).map_err(|fault| ApiError::from(fault).at("id"))?;
    let signed_at = api.store.now();
    let sending = sending(&authorized, &row, &event_type, (row.attempt, signed_at));
    let headers = shown(attempt_headers(endpoint, &sending, body.as_bytes()), &endpoint.headers);
    Ok(Answer::of(SignedRequest { url: row.url, headers, body, signed_at }))
}

/// An attempt as it is signed: its number and its time.
fn sending<'a>(
    authorized: &AuthorizedApplication,
    delivery: &'a DeliveryRow,
    event_type: &'a EventType,
    (attempt, at): (u32, Timestamp),
) -> Sending<'a> {
    Sending {
        event: delivery.event,
        event_type,
        application: authorized.application,
        delivery: delivery.id,
        attempt,
        replay: None,
        sequence: delivery.sequence.as_ref(),
        trace: None,
        at,
    }
}

impl ApiState {
    /// Rebuilds the headers of the last attempts, unless a signature may differ. Asymmetric signatures are left out:
    /// the database does not keep the time at which a webhook began or ceased to ask for them.
    pub(super) async fn rebuild_headers(
        &self,
        authorized: &AuthorizedApplication,
        delivery: &DeliveryRow,
        attempts: &mut [Attempt],
    ) -> Result<(), ApiError> {
        let (Some(body), Ok(event_type)) = (&delivery.body, EventType::parse(&delivery.event_type)) else {
            return Ok(());
        };
        // A signature over hidden values would permit to guess the values.
        if delivery.is_redacted || self.directory.is_unreadable(authorized.application) {
            return Ok(());
        }
        let known = self.directory.application(authorized.application);
        let Some(endpoint) = known.as_ref().and_then(|known| known.endpoint(delivery.endpoint)) else { return Ok(()) };
        let endpoint = Endpoint { signing_keys: None, ..Endpoint::clone(endpoint) };
        let Some(row) = self.store.endpoint(authorized.application, delivery.endpoint).await? else { return Ok(()) };
        let previous_end = self.store.previous_secret_end(delivery.endpoint).await?;
        let count = (MAX_SIGNED / body.len().max(1)).min(MAX_ATTEMPTS);
        for attempt in attempts.iter_mut().rev().take(count) {
            // Without a row, the end of the previous secret is unknown: the overlap may have been the longest.
            let overlap = Duration::from_secs(MAX_OVERLAP);
            let latest = || endpoint.secrets.first().map(|newest| newest.created_at + overlap);
            let Some(previous_until) = previous_end.or_else(latest) else { return Ok(()) };
            let is_known = endpoint.knows_signatures_of(attempt.started_at, row.created_at, previous_until);
            // An attempt without a URL died with its process, perhaps before the request.
            if !is_known || attempt.url.is_none() {
                continue;
            }
            let sending = sending(authorized, delivery, &event_type, (attempt.attempt, attempt.started_at));
            let headers = attempt_headers(&endpoint, &sending, body.as_bytes());
            attempt.request_headers = Some(shown(headers, &endpoint.headers));
        }
        Ok(())
    }
}
