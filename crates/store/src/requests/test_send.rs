//! Test sends: the process that serves the request sends an event once to one endpoint, and then records the result.

use fanfare_domain::{
    delivery::{FailureReason, State},
    endpoint::template::Shaped,
};

use crate::{
    AttemptRecord, NewEvent, NextState, Store, StoreError,
    connection::store::milliseconds,
    pipeline::{bodies::StoredBody, persist::statement::traceparent},
};

// The attempt has a row of its own, also a success: charts count each attempt that is inline in a delivery's row.
const RECORD_TEST_SEND: &str = "
WITH event AS (
    INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content, is_test,
                        body_key_name, body_ciphertext)
    VALUES ($1, $2, $3, $4, $5, 1, $6, $7, true, $8, $9)
), delivery AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures)
    VALUES ($3, $10, $1, $11, $20, $21, 1, ($20::text = 'failed')::int)
), own_body AS (
    INSERT INTO delivery_bodies (id, body, body_key_name, body_ciphertext)
    SELECT $10, $22, $23, $24 WHERE $22::text IS NOT NULL
)
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome,
                      status, error, response_headers, response_body, taken, is_test)
VALUES ($10, 1, $1, $3, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20 = 'delivered', true)";

impl Store {
    /// Records a test event with its only attempt. `shaped` is the body by the endpoint's template.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the database refuses the event.
    pub async fn record_test_send(
        &self,
        new: &NewEvent,
        record: &AttemptRecord,
        shaped: Option<&Shaped>,
    ) -> Result<(), StoreError> {
        let event = &new.event;
        let own = shaped.map(|shaped| StoredBody::of_delivery(record.delivery, shaped, &self.keyring));
        let own = own.transpose()?.flatten();
        let body = StoredBody::of(new, &self.keyring)?;
        let (state, reason) = match record.next {
            NextState::Delivered => (State::Delivered, None),
            // A test has no second attempt.
            NextState::Scheduled { .. } => (State::Failed, Some(FailureReason::TestFailed)),
            NextState::Failed(reason) => (State::Failed, Some(reason)),
        };
        self.connection()
            .await?
            .execute(
                RECORD_TEST_SEND,
                &[
                    &event.id.0,
                    &new.accepted_at,
                    &event.application.0,
                    &event.event_type.as_str(),
                    &body.shown,
                    &traceparent(event),
                    &new.content.as_ref().map(|content| content.0.as_slice()),
                    &body.key_name(),
                    &body.ciphertext(),
                    &record.delivery.0,
                    &record.endpoint.0,
                    &record.url,
                    &record.started_at,
                    &i32::try_from(milliseconds(record.duration)).unwrap_or(i32::MAX),
                    &record.outcome.code(),
                    &record.outcome.status().map(i32::from),
                    &record.error,
                    &record.response_headers,
                    &record.response_body,
                    &state.as_str(),
                    &reason.map(FailureReason::as_str),
                    &own.as_ref().map(|own| own.shown),
                    &own.as_ref().and_then(StoredBody::key_name),
                    &own.as_ref().and_then(StoredBody::ciphertext),
                ],
            )
            .await?;
        Ok(())
    }
}
