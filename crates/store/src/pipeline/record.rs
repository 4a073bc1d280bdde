//! Records outcomes of attempts: the attempts' rows, and the next states of the deliveries.

use std::{collections::HashSet, time::Duration};

use fanfare_domain::{
    delivery::{FailureReason, State, outcome::Outcome},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, LeaseId},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::milliseconds, pipeline::columns::Columns};

/// Greatest age of a delivery at the start of an inline attempt. A success of attempt 1 within this time has no row in
/// `attempts`: the delivery's row holds the attempt. Lists of attempts merge both tables by time, and look back as far.
pub const INLINE_WITHIN: Duration = Duration::from_secs(10);

/// An attempt made, with the next state of the delivery.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Application of the delivery.
    pub application: ApplicationId,
    /// Endpoint of the attempt.
    pub endpoint: EndpointId,
    /// Number of the attempt.
    pub attempt: u32,
    /// Lease of the attempt.
    pub lease: LeaseId,
    /// URL of the request.
    pub url: String,
    /// Start of the attempt.
    pub started_at: Timestamp,
    /// Duration of the attempt.
    pub duration: Duration,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Description of the outcome, for people.
    pub error: Option<String>,
    /// Kept headers of the response, as a JSON object.
    pub response_headers: String,
    /// Kept part of the response's body, as received.
    pub response_body: Vec<u8>,
    /// State of the delivery after the attempt.
    pub next: NextState,
    /// True if the endpoint's owner gets a notice of a failure.
    pub notifies_owner: bool,
    /// True for a test event: charts do not count the attempt.
    pub is_test: bool,
}

/// State of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    /// Accepted by the endpoint.
    Delivered,
    /// Waiting for the next attempt.
    Scheduled {
        /// Due time of the next attempt.
        due: Timestamp,
    },
    /// Failed for this reason.
    Failed(FailureReason),
}

/// Completes the row of each attempt, even if the delivery was recovered and the row is `unknown`. Only the current
/// lease changes the delivery; a success ends the delivery under any lease.
const RECORD: &str = "
ended AS (
    DELETE FROM open_deliveries o USING input i
    WHERE o.id = i.id AND o.id = ANY ($1) AND i.state <> 'scheduled'
      AND (o.attempt = i.attempt AND o.lease_id = i.lease_id
           -- In order, the next delivery must not be sent beside the attempt of another lease.
           OR i.state = 'delivered' AND (o.ordering_key IS NULL OR o.state <> 'sending'))
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.finished_once, o.replay_id, i.notifies,
              greatest(i.attempt, CASE o.state WHEN 'sending' THEN o.attempt ELSE o.attempt - 1 END) AS attempt,
              o.failures + (i.state = 'failed')::int AS failures, i.state, i.reason,
              i.state = 'delivered' AND i.prompt AND o.attempt = 1 AND i.attempt = 1 AND NOT o.finished_once AS inline,
              i.url, i.started_at, i.duration_ms, i.status, i.response_headers, i.response_body
), finished AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, replay_id, url,
                            started_at, duration_ms, status, response_headers, response_body)
    SELECT application_id, id, event_id, endpoint_id, state, reason, attempt, failures, replay_id,
           CASE WHEN inline THEN url END, CASE WHEN inline THEN started_at END, CASE WHEN inline THEN duration_ms END,
           CASE WHEN inline THEN status END, CASE WHEN inline THEN response_headers END,
           CASE WHEN inline THEN response_body END
    FROM ended WHERE NOT finished_once ORDER BY id
), finished_again AS (
    UPDATE deliveries d
    SET state = e.state, reason = e.reason, attempt = e.attempt, failures = e.failures, replay_id = e.replay_id,
        finished_at = now()
    FROM ended e WHERE e.finished_once AND d.application_id = e.application_id AND d.id = e.id
), scheduled AS (
    UPDATE open_deliveries o
    SET state = 'scheduled', attempt = o.attempt + 1, failures = o.failures + 1, unknowns = 0, since = now(),
        due_at = i.due_at, lease_id = NULL, lease_until = NULL, listed = true, reason = NULL
    FROM input i
    WHERE o.id = i.id AND o.id = ANY ($1) AND i.state = 'scheduled' AND o.attempt = i.attempt AND o.lease_id = i.lease_id
    RETURNING o.id, o.endpoint_id, o.ordering_key
), signalled AS (
    -- The endpoint may skip the delivery from now on.
    INSERT INTO ordering_signals (endpoint_id, key)
    SELECT endpoint_id, ordering_key FROM scheduled WHERE ordering_key IS NOT NULL
), logged AS (
    INSERT INTO attempts AS a (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms,
                               outcome, status, error, response_headers, response_body, next_due_at, taken, is_test)
    SELECT id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome, status, error,
           response_headers, response_body, due_at, state = 'delivered', is_test
    FROM input i
    WHERE NOT EXISTS (SELECT FROM ended e WHERE e.id = i.id AND e.inline)
      -- A repetition after an unknown commit finds the inline success of the first record.
      AND NOT (i.prompt AND i.state = 'delivered' AND i.attempt = 1 AND i.id NOT IN (SELECT id FROM ended)
               AND EXISTS (SELECT FROM deliveries d WHERE d.application_id = i.application_id AND d.id = i.id
                                                      AND d.started_at IS NOT NULL))
    ORDER BY id
    ON CONFLICT (delivery_id, attempt) DO UPDATE
    SET url = excluded.url, started_at = excluded.started_at, duration_ms = excluded.duration_ms,
        outcome = excluded.outcome, status = excluded.status, error = excluded.error,
        response_headers = excluded.response_headers, response_body = excluded.response_body, taken = excluded.taken,
        is_test = excluded.is_test
    -- An event erased meanwhile keeps nothing of its attempts.
    WHERE a.outcome = 'unknown' AND a.error IS DISTINCT FROM 'erased'
), noticed AS (
    INSERT INTO failure_notices (delivery_id, application_id, endpoint_id)
    SELECT id, application_id, endpoint_id FROM ended WHERE notifies AND state = 'failed'
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)
SELECT id FROM ended UNION ALL SELECT id FROM scheduled";

/// Turns a failed delivery into a delivered delivery: a success under an expired lease counts. A separate statement,
/// whose snapshot includes the end for which the record waited.
const LATE_SUCCESS: &str = "
UPDATE deliveries d SET state = 'delivered', reason = NULL, finished_at = now()
FROM unnest($1::uuid[], $2::uuid[]) AS i(application_id, id)
WHERE d.application_id = i.application_id AND d.id = i.id AND d.state || '' = 'failed'";

impl Store {
    /// Records a batch of attempts in one commit. Returns the deliveries with a new state.
    ///
    /// May be repeated after an unknown commit: an attempt has one row, and a delivery changes its state once. The
    /// batch must be sorted by delivery, without a duplicate.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the database refuses any row; no row of the batch is then stored.
    pub async fn record(&self, batch: &[&AttemptRecord]) -> Result<HashSet<DeliveryId>, StoreError> {
        let columns = Columns::new(batch, 1)
            .column("id", "uuid", |record| record.delivery.0)
            .column("event_id", "uuid", |record| record.event.0)
            .column("application_id", "uuid", |record| record.application.0)
            .column("endpoint_id", "uuid", |record| record.endpoint.0)
            .column("attempt", "int", |record| record.attempt.cast_signed())
            .column("lease_id", "uuid", |record| record.lease.0)
            .column("url", "text", |record| record.url.as_str())
            .column("started_at", "timestamptz", |record| record.started_at)
            .column("duration_ms", "int", |record| i32::try_from(milliseconds(record.duration)).unwrap_or(i32::MAX))
            .column("outcome", "text", |record| record.outcome.code())
            .column("status", "int", |record| record.outcome.status().map(i32::from))
            .column("error", "text", |record| record.error.as_deref())
            .column("response_headers", "text", |record| record.response_headers.as_str())
            .column("response_body", "bytea", |record| record.response_body.as_slice())
            .column("state", "text", |record| record.next.state().as_str())
            .column("reason", "text", |record| record.next.reason())
            .column("due_at", "timestamptz", |record| record.next.due())
            .column("notifies", "bool", |record| record.notifies_owner)
            .column("prompt", "bool", |record| record.is_prompt())
            .column("is_test", "bool", |record| record.is_test);
        let statement = format!("WITH input AS MATERIALIZED (SELECT * FROM {}), {RECORD}", columns.table("i"));
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let rows = writer.query(&statement, &columns.values().collect::<Vec<_>>()).await?;
        let moved: HashSet<DeliveryId> = rows.iter().map(|row| DeliveryId(row.get(0))).collect();
        let late =
            batch.iter().filter(|record| record.next == NextState::Delivered && !moved.contains(&record.delivery));
        let (applications, ids): (Vec<Uuid>, Vec<Uuid>) =
            late.map(|record| (record.application.0, record.delivery.0)).unzip();
        if !ids.is_empty() {
            let statement = writer.prepare_cached(LATE_SUCCESS).await?;
            writer.execute(&statement, &[&applications, &ids]).await?;
        }
        Ok(moved)
    }

    /// Removes an open delivery whose partition has been dropped. True if the delivery was open.
    pub async fn forget_dropped(&self, delivery: DeliveryId) -> Result<bool, StoreError> {
        let statement = "DELETE FROM open_deliveries WHERE id = $1";
        Ok(self.connection().await?.execute(statement, &[&delivery.0]).await? > 0)
    }

    /// Shows deliveries in lists while they are still being sent, as their attempts are slow.
    pub async fn list_slow(&self, deliveries: &[DeliveryId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let statement = "UPDATE open_deliveries SET listed = true WHERE id = ANY ($1) AND NOT listed";
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(statement).await?;
        writer.execute(&statement, &[&ids]).await?;
        Ok(())
    }
}

impl AttemptRecord {
    /// True if the attempt began soon enough after acceptance to be inline in the delivery's row.
    pub(crate) fn is_prompt(&self) -> bool {
        let age = Duration::try_from(self.started_at.duration_since(self.delivery.accepted_at()));
        age.is_ok_and(|age| age <= INLINE_WITHIN)
    }
}

impl NextState {
    pub(crate) fn state(self) -> State {
        match self {
            Self::Delivered => State::Delivered,
            Self::Scheduled { .. } => State::Scheduled,
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
            Self::Scheduled { due } => Some(due),
            _ => None,
        }
    }
}
