//! Test events: sent once to one endpoint, by whoever asked for it, and then written down.

use fanfare_domain::delivery::State;

use crate::{AttemptRecord, NewEvent, Store, StoreError, bodies::StoredBody, store::milliseconds};

const KEEP_TRIAL: &str = "
WITH event AS (
    INSERT INTO events (id, accepted_at, application_id, type, body, matches, fanned_out, traceparent, content,
                        is_test, body_key_name, body_ciphertext)
    VALUES ($1, $2, $3, $4, $5, 1, true, $6, $7, true, $21, $22)
), delivery AS (
    INSERT INTO deliveries (id, accepted_at, event_id, application_id, endpoint_id, state, reason, attempt, sequence,
                            failures, finished_at)
    VALUES ($8, $2, $1, $3, $9, $10, $11, 1, 1, $12, now())
)
INSERT INTO attempts (delivery_id, attempt, accepted_at, endpoint_id, url, started_at, duration_ms, outcome, status, error,
                      response_headers, response_body)
VALUES ($8, 1, $2, $9, $13, $14, $15, $16, $17, $18, $19, $20)";

impl Store {
    /// Writes down a test event with the one attempt that was made of it.
    ///
    /// # Errors
    /// [`StoreError::Data`] when it cannot be stored.
    pub async fn keep_trial(&self, new: &NewEvent, record: &AttemptRecord) -> Result<(), StoreError> {
        let event = &new.event;
        let body = StoredBody::of(new, &self.keyring)?;
        let (state, reason) = (record.next.state(), record.next.reason());
        self.connection()
            .await?
            .execute(
                KEEP_TRIAL,
                &[
                    &event.id.0,
                    &new.accepted_at,
                    &event.application.0,
                    &event.event_type.as_str(),
                    &body.shown,
                    &event.traceparent.to_string(),
                    &new.content.as_ref().map(|content| content.0.as_slice()),
                    &record.delivery.0,
                    &record.endpoint.0,
                    &state.as_str(),
                    &reason,
                    &i32::from(state == State::Failed),
                    &record.url,
                    &record.started_at,
                    &i32::try_from(milliseconds(record.duration)).unwrap_or(i32::MAX),
                    &record.outcome.code(),
                    &record.outcome.status().map(i32::from),
                    &record.error,
                    &record.response_headers,
                    &record.response_body,
                    &body.key_name(),
                    &body.ciphertext(),
                ],
            )
            .await?;
        Ok(())
    }
}
