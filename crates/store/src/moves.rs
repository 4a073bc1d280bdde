//! What a due claim does to its delivery: take it, defer it, hold it, skip it or end it.

use std::time::Duration;

use fanfare_domain::{
    claim::Claim,
    delivery::{DeferralReason, FailureReason, MAX_UNKNOWN_ATTEMPTS, State},
    event::EventType,
    ids::{DeliveryId, EventId, ReplayId, TakingId},
    traceparent::Traceparent,
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Keyring, Store, StoreError, bodies::open_body, store::milliseconds};

/// A delivery that a claim has reached, and what is to become of it.
#[derive(Debug, Clone)]
pub struct Move {
    /// The claim; the move happens only if the row still waits for exactly this one, or was taken for it
    /// by a process that has not recorded an outcome within its hold.
    pub claim: Claim,
    /// What is to become of it.
    pub to: MoveTo,
    /// When it expires, where that does not stand in its row: it was released or sent again.
    pub expires_at: Option<Timestamp>,
    /// Whether somebody is to be told where it is given up.
    pub notifies_owner: bool,
}

/// What is to become of a delivery.
#[derive(Debug, Clone, Copy)]
pub enum MoveTo {
    /// Attempt it: nobody else may, for the time of the hold.
    Sending {
        /// Whose it is.
        taking: TakingId,
        /// For how long.
        hold: Duration,
    },
    /// Let it wait on, for a reason of our own.
    Waiting {
        /// Until when.
        due: Timestamp,
        /// Why.
        reason: DeferralReason,
    },
    /// Its endpoint is paused.
    Held,
    /// Its endpoint is disabled.
    Skipped,
    /// Give it up.
    Failed(FailureReason),
}

/// A delivery after its move.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Where it stands now: where the move said, or failed as aborted or expired.
    pub state: State,
    /// Why it failed, or waits.
    pub reason: Option<String>,
    /// The number of the attempt that it is at: one more than the claim's after taking over.
    pub attempt: u32,
    /// Its sequence, for the next claim or the record.
    pub sequence: u32,
    /// Failed attempts that the endpoint answers for.
    pub failures: u32,
    /// When it fails as expired, whatever it waits for.
    pub expires_at: Option<Timestamp>,
    /// What happened.
    pub event_type: EventType,
    /// What is sent; none where it is encrypted with a key that this process was not given.
    pub body: Option<String>,
    /// The trace that it belongs to.
    pub traceparent: Option<Traceparent>,
    /// The replay that it was last sent by.
    pub replay: Option<ReplayId>,
}

/// A delivery that was taken and is not attempted after all.
#[derive(Debug, Clone, Copy)]
pub struct GiveBack {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its attempt.
    pub attempt: u32,
    /// Its sequence.
    pub sequence: u32,
    /// The taking that ends.
    pub taking: TakingId,
    /// When it is due again.
    pub due: Timestamp,
    /// Why it was not attempted.
    pub reason: DeferralReason,
}

// The predicates match no partial index, so that the plan can only be a look-up by primary key. Rows
// are locked in the order of the input, which is sorted. `unknown` is the attempt of a process that did
// not record within its hold: it is written in the same commit in which its delivery is taken over. A
// row that has our own taking already was taken by us in a commit that we did not hear of.
const MOVE: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[], $5::text[], $6::text[],
                         $7::timestamptz[], $8::uuid[], $9::bigint[], $11::uuid[], $12::bool[], $13::timestamptz[])
    AS i(id, accepted_at, attempt, sequence, state, reason, due_at, taken_by, hold_ms, endpoint_id, notifies,
         expires_at)
), reached AS MATERIALIZED (
    SELECT d.id, d.accepted_at, d.event_id, d.attempt, d.taken_at, d.endpoint_id, d.unknowns,
           coalesce(d.expires_at, i.expires_at) AS expires_at,
           d.state = 'sending' AND d.taken_by IS DISTINCT FROM i.taken_by AS abandoned,
           i.state, i.reason, i.due_at, i.taken_by, i.hold_ms, i.notifies
    FROM input i
    JOIN deliveries d ON d.id = i.id AND d.accepted_at = i.accepted_at AND d.endpoint_id = i.endpoint_id
    WHERE d.attempt = i.attempt AND d.sequence = i.sequence
          AND (d.state = 'waiting' OR d.state || '' = 'sending' AND d.due_at < now())
       OR d.taken_by = i.taken_by
    FOR UPDATE OF d
), current AS MATERIALIZED (
    SELECT *, CASE WHEN EXISTS (SELECT FROM events e WHERE e.id = event_id AND e.accepted_at = reached.accepted_at
                                                       AND e.erased_at IS NOT NULL) THEN 'erased'
                   WHEN abandoned AND unknowns + 1 >= $10 THEN 'aborted'
                   WHEN state IN ('sending', 'waiting') AND expires_at < now() THEN 'expired' END AS ended
    FROM reached
), unknown AS (
    INSERT INTO attempts (delivery_id, attempt, accepted_at, endpoint_id, started_at, outcome)
    SELECT id, attempt, accepted_at, endpoint_id, taken_at, 'unknown' FROM current WHERE abandoned
    ON CONFLICT DO NOTHING
), moved AS (
    UPDATE deliveries d
    SET state = CASE WHEN c.ended IS NULL THEN c.state ELSE 'failed' END,
        reason = coalesce(c.ended, c.reason),
        attempt = d.attempt + (c.abandoned AND c.ended IS NULL)::int,
        sequence = d.sequence + 1,
        unknowns = d.unknowns + c.abandoned::int,
        deferrals = d.deferrals + (c.state = 'waiting')::int,
        due_at = CASE WHEN c.ended IS NOT NULL THEN NULL
                      WHEN c.state = 'sending' THEN now() + c.hold_ms * interval '1 millisecond'
                      WHEN c.state = 'held' THEN now()
                      ELSE c.due_at END,
        expires_at = c.expires_at,
        taken_by = CASE WHEN c.ended IS NULL THEN c.taken_by END,
        taken_at = CASE WHEN c.ended IS NULL AND c.state = 'sending' THEN now() END,
        finished_at = CASE WHEN c.ended IS NOT NULL OR c.state IN ('failed', 'skipped') THEN now() END
    FROM current c WHERE d.id = c.id AND d.accepted_at = c.accepted_at
    RETURNING d.id, d.accepted_at, d.event_id, d.application_id, d.endpoint_id, d.state, d.reason, d.attempt, d.sequence,
              d.failures, d.expires_at, d.replay_id, c.notifies
), noticed AS (
    INSERT INTO failure_notices (delivery_id, accepted_at, application_id, endpoint_id)
    SELECT id, accepted_at, application_id, endpoint_id FROM moved WHERE notifies AND state = 'failed'
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)
SELECT m.id, m.event_id, m.state, m.reason, m.attempt, m.sequence, m.failures, m.expires_at, m.replay_id, e.type, e.body,
       e.body_key_name, e.body_ciphertext, e.traceparent
FROM moved m JOIN events e ON e.id = m.event_id AND e.accepted_at = m.accepted_at";

const GIVE_BACK: &str = "
UPDATE deliveries d
SET state = 'waiting', reason = i.reason, sequence = d.sequence + 1, deferrals = d.deferrals + 1,
    due_at = i.due_at, taken_by = NULL, taken_at = NULL
FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[], $5::uuid[], $6::timestamptz[], $7::text[])
AS i(id, accepted_at, attempt, sequence, taken_by, due_at, reason)
WHERE d.id = i.id AND d.accepted_at = i.accepted_at
  AND d.attempt = i.attempt AND d.sequence = i.sequence AND d.taken_by = i.taken_by
RETURNING d.id";

impl Store {
    /// Moves a batch of deliveries, each as a compare-and-set on its claim. Returns those that moved; the
    /// rest no longer wait for their claim. A batch may be tried again after an unknown commit: what was
    /// taken by it is taken again.
    ///
    /// The batch must be sorted by delivery, without a duplicate, or replicas deadlock.
    ///
    /// # Errors
    /// When the database is away; a commit may then have happened.
    pub async fn move_deliveries(&self, batch: &[Move]) -> Result<Vec<Moved>, StoreError> {
        let ids: Vec<Uuid> = batch.iter().map(|one| one.claim.delivery.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|one| one.claim.delivery.accepted_at()).collect();
        let attempts: Vec<i32> = batch.iter().map(|one| one.claim.attempt.cast_signed()).collect();
        let sequences: Vec<i32> = batch.iter().map(|one| one.claim.sequence.cast_signed()).collect();
        let states: Vec<&str> = batch.iter().map(|one| one.to.state().as_str()).collect();
        let reasons: Vec<Option<&str>> = batch.iter().map(|one| one.to.reason()).collect();
        let due: Vec<Option<Timestamp>> = batch.iter().map(|one| one.to.due()).collect();
        let takings: Vec<Option<Uuid>> = batch.iter().map(|one| one.to.taking().map(|(taking, _)| taking.0)).collect();
        let holds: Vec<Option<i64>> =
            batch.iter().map(|one| one.to.taking().map(|(_, hold)| milliseconds(hold))).collect();
        let endpoints: Vec<Uuid> = batch.iter().map(|one| one.claim.endpoint.0).collect();
        let notifies: Vec<bool> = batch.iter().map(|one| one.notifies_owner).collect();
        let expiries: Vec<Option<Timestamp>> = batch.iter().map(|one| one.expires_at).collect();
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(MOVE).await?;
        let unknowns = MAX_UNKNOWN_ATTEMPTS.cast_signed();
        let rows = writer
            .query(
                &statement,
                &[
                    &ids, &accepted, &attempts, &sequences, &states, &reasons, &due, &takings, &holds, &unknowns,
                    &endpoints, &notifies, &expiries,
                ],
            )
            .await?;
        rows.iter().map(|row| moved(&self.keyring, row)).collect()
    }

    /// Gives deliveries back that had been taken and were not attempted. Returns those that were still
    /// the giver's.
    ///
    /// # Errors
    /// When the database is away; a commit may then have happened.
    pub async fn give_back(&self, batch: &[GiveBack]) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<Uuid> = batch.iter().map(|one| one.delivery.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|one| one.delivery.accepted_at()).collect();
        let attempts: Vec<i32> = batch.iter().map(|one| one.attempt.cast_signed()).collect();
        let sequences: Vec<i32> = batch.iter().map(|one| one.sequence.cast_signed()).collect();
        let takings: Vec<Uuid> = batch.iter().map(|one| one.taking.0).collect();
        let due: Vec<Timestamp> = batch.iter().map(|one| one.due).collect();
        let reasons: Vec<&str> = batch.iter().map(|one| one.reason.as_str()).collect();
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(GIVE_BACK).await?;
        let rows =
            writer.query(&statement, &[&ids, &accepted, &attempts, &sequences, &takings, &due, &reasons]).await?;
        Ok(rows.iter().map(|row| DeliveryId(row.get(0))).collect())
    }
}

impl MoveTo {
    fn state(self) -> State {
        match self {
            Self::Sending { .. } => State::Sending,
            Self::Waiting { .. } => State::Waiting,
            Self::Held => State::Held,
            Self::Skipped => State::Skipped,
            Self::Failed(_) => State::Failed,
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Waiting { reason, .. } => Some(reason.as_str()),
            Self::Failed(reason) => Some(reason.as_str()),
            Self::Sending { .. } | Self::Held | Self::Skipped => None,
        }
    }

    fn due(self) -> Option<Timestamp> {
        match self {
            Self::Waiting { due, .. } => Some(due),
            _ => None,
        }
    }

    fn taking(self) -> Option<(TakingId, Duration)> {
        match self {
            Self::Sending { taking, hold } => Some((taking, hold)),
            _ => None,
        }
    }
}

fn moved(keyring: &Keyring, row: &Row) -> Result<Moved, StoreError> {
    let (state, event_type): (&str, &str) = (row.get("state"), row.get("type"));
    let event = EventId(row.get("event_id"));
    // The others of the batch have moved, and so has this one: it is put off by whoever takes it.
    let body = open_body(keyring, event, row)
        .inspect_err(|error| tracing::error!(%error, %event, "cannot read what is to be sent"))
        .ok();
    Ok(Moved {
        delivery: DeliveryId(row.get("id")),
        state: State::parse(state).ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        sequence: row.get::<_, i32>("sequence").cast_unsigned(),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        reason: row.get("reason"),
        expires_at: row.get("expires_at"),
        event_type: EventType::parse(event_type)
            .map_err(|fault| StoreError::corrupt("events", format!("type {event_type:?}, which {}", fault.message)))?,
        body,
        traceparent: row.get::<_, &str>("traceparent").parse().ok(),
        replay: row.get::<_, Option<Uuid>>("replay_id").map(ReplayId),
    })
}
