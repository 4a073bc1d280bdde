//! Test sends: the process that serves the request sends an event once to one endpoint, and then records the result.

use fanfare_domain::delivery::{FailureReason, State};

use crate::{
    AttemptRecord, NewEvent, NextState, Store, StoreError,
    connection::store::milliseconds,
    pipeline::{bodies::StoredBody, persist::traceparent},
};

// A success is inline in the delivery's row, as any prompt success of attempt 1.
const RECORD_TEST_SEND: &str = "
WITH event AS (
    INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content, is_test,
                        body_key_name, body_ciphertext)
    VALUES ($1, $2, $3, $4, $5, 1, $6, $7, true, $8, $9)
), attempt AS (
    SELECT $10::uuid AS delivery_id, $11::uuid AS endpoint_id, $12::text AS url, $13::timestamptz AS started_at,
           $14::int AS duration_ms, $15::text AS outcome, $16::int AS status, $17::text AS error,
           $18::text AS response_headers, $19::bytea AS response_body, $20::text AS state
), delivered AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures, url, started_at,
                            duration_ms, status, response_headers, response_body)
    SELECT $3, delivery_id, $1, endpoint_id, state, 1, 0, url, started_at, duration_ms, status, response_headers,
           response_body
    FROM attempt WHERE state = 'delivered'
), failed AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures)
    SELECT $3, delivery_id, $1, endpoint_id, state, $21, 1, 1 FROM attempt WHERE state <> 'delivered'
)
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome,
                      status, error, response_headers, response_body)
SELECT delivery_id, 1, $1, $3, endpoint_id, url, started_at, duration_ms, outcome, status, error, response_headers,
       response_body
FROM attempt WHERE state <> 'delivered'";

impl Store {
    /// Records a test event with its only attempt.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the database refuses the event.
    pub async fn record_test_send(&self, new: &NewEvent, record: &AttemptRecord) -> Result<(), StoreError> {
        let event = &new.event;
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
                ],
            )
            .await?;
        Ok(())
    }
}
