//! The headers of an attempt's request, rebuilt: the database does not keep them.

use std::time::Duration;

use fanfare_domain::{dialect::Sending, event::EventType};
use fanfare_outbound::attempt_headers;
use fanfare_store::DeliveryRow;

use crate::{
    http::{authentication::AuthorizedApplication, error::ApiError},
    routes::{
        deliveries::Attempt,
        webhooks::{secrets::MAX_OVERLAP, test_sends::shown},
    },
    state::ApiState,
};

/// Bytes that are signed for a page. With a long body, only the last attempts get headers.
const MAX_SIGNED: usize = 2 * 1024 * 1024;

/// Attempts that get headers, the last first.
const MAX_ATTEMPTS: usize = 50;

impl ApiState {
    /// Rebuilds the headers of the last attempts, unless a signature may differ.
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
            let sending = Sending {
                event: delivery.event,
                event_type: &event_type,
                application: authorized.application,
                delivery: delivery.id,
                attempt: attempt.attempt,
                replay: None,
                trace: None,
                at: attempt.started_at,
            };
            let headers = attempt_headers(endpoint, &sending, body.as_bytes());
            attempt.request_headers = Some(shown(headers, &endpoint.headers));
        }
        Ok(())
    }
}
