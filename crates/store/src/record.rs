//! What came of attempts: their rows, and where their deliveries stand after them.

use std::time::Duration;

use fanfare_domain::{
    delivery::{FailureReason, State},
    ids::{DeliveryId, EndpointId, TakingId},
    outcome::Outcome,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, store::milliseconds};

/// An attempt that was made, and what follows from it.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt's number.
    pub attempt: u32,
    /// The sequence of the row when it was taken.
    pub sequence: u32,
    /// The taking that the attempt was made under.
    pub taking: TakingId,
    /// The endpoint that it was made to.
    pub endpoint: EndpointId,
    /// Where it was sent.
    pub url: String,
    /// When it was sent.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What came of it.
    pub outcome: Outcome,
    /// The outcome in words, for people.
    pub error: Option<String>,
    /// The response's headers that are kept, as a JSON object.
    pub response_headers: String,
    /// What of the response's body is kept, as received.
    pub response_body: Vec<u8>,
    /// Where the delivery stands after it.
    pub next: NextState,
    /// Whether somebody is to be told where it is given up.
    pub notifies_owner: bool,
}

/// Where a delivery stands after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    /// The endpoint has it.
    Delivered,
    /// It waits for its next attempt.
    Waiting {
        /// When that is due.
        due: Timestamp,
    },
    /// It was given up.
    Failed(FailureReason),
}

// Every attempt completes its own row, also one whose delivery was taken over meanwhile and whose row
// says `unknown`. Only the taking that still holds the delivery moves it, but for a success, which ends
// the delivery whoever got it.
const RECORD: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[], $5::uuid[], $6::text[], $7::timestamptz[],
                         $8::bigint[], $9::text[], $10::int[], $11::text[], $12::text[], $13::bytea[], $14::text[],
                         $15::text[], $16::timestamptz[], $17::uuid[], $18::bool[])
    AS i(id, accepted_at, attempt, sequence, taken_by, url, started_at, duration_ms, outcome, status, error,
         response_headers, response_body, state, reason, due_at, endpoint_id, notifies)
), logged AS (
    INSERT INTO attempts AS a (delivery_id, attempt, accepted_at, endpoint_id, url, started_at, duration_ms, outcome,
                               status, error, response_headers, response_body, next_due_at)
    SELECT id, attempt, accepted_at, endpoint_id, url, started_at, duration_ms, outcome, status, error,
           response_headers, response_body, due_at
    FROM input
    ON CONFLICT (delivery_id, attempt, accepted_at) DO UPDATE
    SET url = excluded.url, started_at = excluded.started_at, duration_ms = excluded.duration_ms,
        outcome = excluded.outcome, status = excluded.status, error = excluded.error,
        response_headers = excluded.response_headers, response_body = excluded.response_body
    -- Of an event that was erased meanwhile nothing is kept.
    WHERE a.outcome = 'unknown' AND a.error IS DISTINCT FROM 'erased'
), moved AS (
    UPDATE deliveries d
    SET state = i.state, reason = i.reason, sequence = d.sequence + 1, due_at = i.due_at,
        attempt = d.attempt + (i.state = 'waiting')::int,
        failures = d.failures + (i.state <> 'delivered')::int,
        unknowns = 0, deferrals = 0, taken_by = NULL, taken_at = NULL,
        finished_at = CASE WHEN i.state <> 'waiting' THEN now() END
    FROM input i
    WHERE d.id = i.id AND d.accepted_at = i.accepted_at
      AND (d.attempt = i.attempt AND d.sequence = i.sequence AND d.taken_by = i.taken_by
           OR i.state = 'delivered' AND d.state NOT IN ('delivered', 'skipped'))
    RETURNING d.id, d.accepted_at, d.application_id, d.endpoint_id, d.state, i.notifies
), noticed AS (
    INSERT INTO failure_notices (delivery_id, accepted_at, application_id, endpoint_id)
    SELECT id, accepted_at, application_id, endpoint_id FROM moved WHERE notifies AND state = 'failed'
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)
SELECT id FROM moved";

impl Store {
    /// Records a batch of attempts in one commit. Returns the deliveries that moved, for which the
    /// caller publishes the next claim, if there is one.
    ///
    /// May be repeated after an unknown commit: an attempt has one row, and a moved delivery does not
    /// move again. The batch must be sorted by delivery, without a duplicate.
    ///
    /// # Errors
    /// [`StoreError::Data`] when one row of the batch cannot be stored; then none is.
    pub async fn record(&self, batch: &[&AttemptRecord]) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<Uuid> = batch.iter().map(|one| one.delivery.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|one| one.delivery.accepted_at()).collect();
        let attempts: Vec<i32> = batch.iter().map(|one| one.attempt.cast_signed()).collect();
        let sequences: Vec<i32> = batch.iter().map(|one| one.sequence.cast_signed()).collect();
        let takings: Vec<Uuid> = batch.iter().map(|one| one.taking.0).collect();
        let urls: Vec<&str> = batch.iter().map(|one| one.url.as_str()).collect();
        let started: Vec<Timestamp> = batch.iter().map(|one| one.started_at).collect();
        let durations: Vec<i64> = batch.iter().map(|one| milliseconds(one.duration)).collect();
        let outcomes: Vec<&str> = batch.iter().map(|one| one.outcome.code()).collect();
        let statuses: Vec<Option<i32>> = batch.iter().map(|one| one.outcome.status().map(i32::from)).collect();
        let errors: Vec<Option<&str>> = batch.iter().map(|one| one.error.as_deref()).collect();
        let headers: Vec<&str> = batch.iter().map(|one| one.response_headers.as_str()).collect();
        let bodies: Vec<&[u8]> = batch.iter().map(|one| one.response_body.as_slice()).collect();
        let states: Vec<&str> = batch.iter().map(|one| one.next.state().as_str()).collect();
        let reasons: Vec<Option<&str>> = batch.iter().map(|one| one.next.reason()).collect();
        let due: Vec<Option<Timestamp>> = batch.iter().map(|one| one.next.due()).collect();
        let endpoints: Vec<Uuid> = batch.iter().map(|one| one.endpoint.0).collect();
        let notifies: Vec<bool> = batch.iter().map(|one| one.notifies_owner).collect();
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(RECORD).await?;
        let rows = writer
            .query(
                &statement,
                &[
                    &ids, &accepted, &attempts, &sequences, &takings, &urls, &started, &durations, &outcomes,
                    &statuses, &errors, &headers, &bodies, &states, &reasons, &due, &endpoints, &notifies,
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| DeliveryId(row.get(0))).collect())
    }
}

impl NextState {
    pub(crate) fn state(self) -> State {
        match self {
            Self::Delivered => State::Delivered,
            Self::Waiting { .. } => State::Waiting,
            Self::Failed(_) => State::Failed,
        }
    }

    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Failed(reason) => Some(reason.as_str()),
            _ => None,
        }
    }

    fn due(self) -> Option<Timestamp> {
        match self {
            Self::Waiting { due } => Some(due),
            _ => None,
        }
    }
}
