//! Leases of queued deliveries, for the drains and for suspects, which are sent alone.

use std::time::Duration;

use fanfare_domain::{
    delivery::{ALONE_FROM, FailureReason},
    event::{
        EventType,
        ordering::{OrderingKey, Sequence},
        trace_context::TraceContext,
    },
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, LeaseId, ProcessId, ReplayId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Keyring, Store, StoreError,
    connection::store::milliseconds,
    pipeline::{access_tokens::LACKS_TOKEN, bodies::open_body, columns::Columns, fifo::IN_ORDER},
};

/// Condition on queued deliveries `o` to be sent alone. A delivery unreadable in one process rests for a minute instead
/// of a second: another process may be able to read the delivery. An endpoint with OAuth 2.0 needs a token first: no
/// place is closed for a delivery that would come back. The drain, which looks at the backlog, keeps the token fetched.
fn suspects() -> String {
    format!(
        "o.unknowns >= {ALONE_FROM} AND o.state || '' = 'queued'
           AND EXISTS (SELECT FROM endpoints p
                       WHERE p.id = o.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL
                         AND NOT ({LACKS_TOKEN}))
           AND o.since < now() - CASE o.reason WHEN 'application_unreadable' THEN interval '1 minute'
                                               ELSE interval '1 s' END"
    )
}

/// Place in a backlog where a drain continues: class and id of the last leased delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// Class in the backlog.
    pub class: i16,
    /// Id of the delivery.
    pub delivery: DeliveryId,
}

/// Demand of a drain for an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Endpoint of the backlog.
    pub endpoint: EndpointId,
    /// Maximum of deliveries.
    pub count: usize,
    /// Leases only deliveries behind this place.
    pub after: Floor,
    /// Duration of the lease.
    pub lease: Duration,
    /// Lifetime of a delivery from a resumption of the endpoint on.
    pub lifetime: Duration,
}

/// A leased delivery.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Application of the delivery.
    pub application: ApplicationId,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Class in the backlog.
    pub class: i16,
    /// Number of the attempt to make.
    pub attempt: u32,
    /// Failed attempts caused by the endpoint.
    pub failures: u32,
    /// Time at which the delivery fails as expired.
    pub expires_at: Timestamp,
    /// True if the delivery has expired and must not be sent.
    pub is_expired: bool,
    /// Replay that requested the delivery last.
    pub replay: Option<ReplayId>,
    /// The event; `None` if its partition is gone, or its content was erased.
    pub payload: Option<LeasedEvent>,
    /// True if the event was erased.
    pub is_erased: bool,
}

/// Event of a leased delivery.
#[derive(Debug, Clone)]
pub struct LeasedEvent {
    /// Type of the event; `None` if the row is corrupt.
    pub event_type: Option<EventType>,
    /// Payload; `None` if this process lacks the encryption key.
    pub body: Option<String>,
    /// True if the delivery has no body of its own yet, and must get one. `body` is then the event's.
    pub is_unshaped: bool,
    /// True if the event is stored encrypted, as members were hidden at its acceptance.
    pub is_sealed: bool,
    /// Trace of the event.
    pub trace: Option<TraceContext>,
    /// True for a test event, whose delivery was requested again.
    pub is_test: bool,
    /// Place in the order of the event's ordering key.
    pub sequence: Option<Sequence>,
    /// Time of delivery of a delayed event.
    pub deliver_at: Option<Timestamp>,
}

impl Leased {
    /// Reason not to send the delivery, if any.
    pub fn end(&self) -> Option<FailureReason> {
        if self.is_erased {
            return Some(FailureReason::Erased);
        }
        (self.is_expired || self.payload.is_none()).then_some(FailureReason::Expired)
    }
}

impl Floor {
    /// Place before all deliveries of a backlog.
    pub const START: Self = Self { class: -1, delivery: DeliveryId(Uuid::nil()) };
}

/// Columns of a leased row `o`.
pub(crate) const LEASED_COLUMNS: &str = "o.id, o.event_id, o.application_id, o.endpoint_id, o.class, o.attempt, o.failures, o.expires_at, \
                       o.expires_at < now() AS is_expired, o.replay_id, o.shaped";

/// Rows of the CTE `leased`, with the events.
pub(crate) const LEASED_WITH_EVENTS: &str = "
SELECT l.*, e.type, e.body, e.body_key_name, e.body_ciphertext, e.traceparent, e.tracestate, e.erased_at,
       e.is_test, e.ordering_key,
       CASE WHEN e.ordering_key IS NOT NULL THEN (SELECT s.sequence FROM delivery_sequences s WHERE s.id = l.id) END
           AS sequence, e.deliver_at
FROM leased l LEFT JOIN events e ON e.application_id = l.application_id
    AND e.accepted_at = delivery_accepted_at(l.id) AND e.id = l.event_id";

impl Store {
    /// Leases the next deliveries of many backlogs, at most [`Demand::count`] of each. A backlog owned by another
    /// process yields nothing; rows locked by another transaction are skipped. The result is sorted by class and id.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may have been leased; [`Store::leased_under`] finds them.
    pub async fn lease(
        &self,
        process: ProcessId,
        lease: LeaseId,
        demands: &[Demand],
    ) -> Result<Vec<Leased>, StoreError> {
        let columns = Columns::new(demands, 3)
            .column("endpoint_id", "uuid", |demand| demand.endpoint.0)
            .column("count", "int", |demand| i32::try_from(demand.count).unwrap_or(i32::MAX))
            .column("class", "smallint", |demand| demand.after.class)
            .column("after", "uuid", |demand| demand.after.delivery.0)
            .column("lease_ms", "bigint", |demand| milliseconds(demand.lease))
            .column("lifetime_ms", "bigint", |demand| milliseconds(demand.lifetime));
        let statement = format!(
            "WITH demand AS MATERIALIZED (SELECT * FROM {}), mine AS MATERIALIZED (
    SELECT b.endpoint_id, b.resumed_at FROM endpoint_backlogs b
    WHERE b.endpoint_id = ANY ({}) AND b.owner = $1 ORDER BY b.endpoint_id FOR SHARE
), next AS MATERIALIZED (
    SELECT n.id FROM demand d JOIN mine m ON m.endpoint_id = d.endpoint_id
    CROSS JOIN LATERAL (
        SELECT o.id FROM open_deliveries o
        WHERE o.endpoint_id = d.endpoint_id AND o.state = 'queued' AND (o.class, o.id) > (d.class, d.after)
          AND o.class < {IN_ORDER} AND o.unknowns < {ALONE_FROM}
        ORDER BY o.class, o.id LIMIT d.count FOR UPDATE SKIP LOCKED) n
), leased AS (
    -- No join: with the statistics of an emptied table, the planner would scan all open deliveries.
    UPDATE open_deliveries o
    SET state = 'sending', reason = NULL, lease_id = $2, since = now(),
        lease_until = now() + {} * interval '1 millisecond',
        expires_at = coalesce((SELECT greatest(o.expires_at, b.resumed_at + {} * interval '1 millisecond')
                               FROM mine b
                               WHERE b.endpoint_id = o.endpoint_id AND o.since < b.resumed_at), o.expires_at)
    WHERE o.id = ANY (ARRAY(SELECT id FROM next))
    RETURNING {LEASED_COLUMNS}
) {LEASED_WITH_EVENTS}",
            columns.table("d"),
            columns.parameter("endpoint_id"),
            columns.value("lease_ms", "endpoint_id", "o.endpoint_id"),
            columns.value("lifetime_ms", "endpoint_id", "o.endpoint_id"),
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _, &lease.0 as _].into_iter().chain(columns.values()).collect();
        let rows = connection.query(&statement, &parameters).await?;
        drop(connection);
        self.read_leased(&rows).await
    }

    /// Lists the deliveries in state `sending` under a lease, after a commit of unknown outcome.
    pub async fn leased_under(&self, lease: LeaseId) -> Result<Vec<Leased>, StoreError> {
        let statement = format!(
            "WITH leased AS (SELECT {LEASED_COLUMNS} FROM open_deliveries o WHERE o.state = 'sending' AND o.lease_id = $1)
             {LEASED_WITH_EVENTS}"
        );
        let rows = self.connection().await?.query(&statement, &[&lease.0]).await?;
        self.read_leased(&rows).await
    }

    /// Leases the oldest suspect: a queued delivery with which processes have died. The caller holds the lock of
    /// [`Job::Suspects`](crate::Job::Suspects), and sends nothing else until the outcome is recorded.
    pub async fn lease_suspect(&self, lease: LeaseId, duration: Duration) -> Result<Option<Leased>, StoreError> {
        let statement = format!(
            "WITH next AS MATERIALIZED (
                 SELECT o.id FROM open_deliveries o WHERE {}
                 ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED
             ), leased AS (
                 UPDATE open_deliveries o SET state = 'sending', reason = NULL, lease_id = $1, since = now(),
                                              lease_until = now() + $2::bigint * interval '1 millisecond'
                 WHERE o.id = ANY (ARRAY(SELECT id FROM next)) RETURNING {LEASED_COLUMNS}
             ) {LEASED_WITH_EVENTS}",
            suspects()
        );
        let rows = self.writer().await?.query(&statement, &[&lease.0, &milliseconds(duration)]).await?;
        Ok(self.read_leased(&rows).await?.pop())
    }

    /// True if a suspect is queued.
    pub async fn has_suspect(&self) -> Result<bool, StoreError> {
        let statement = format!("SELECT EXISTS (SELECT FROM open_deliveries o WHERE {})", suspects());
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        Ok(connection.query_one(&statement, &[]).await?.get(0))
    }

    /// Reads rows of [`LEASED_WITH_EVENTS`], sorted by class and id. Deliveries with a body of their own cost a further
    /// statement together.
    pub(crate) async fn read_leased<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a Row>,
    ) -> Result<Vec<Leased>, StoreError> {
        let mut leased: Vec<_> = rows.into_iter().map(|row| read(&self.keyring, row)).collect();
        leased.sort_unstable_by_key(|leased| (leased.class, leased.delivery));
        // Until its own body is read, a delivery counts as without.
        let is_unshaped = |leased: &&Leased| leased.payload.as_ref().is_some_and(|payload| payload.is_unshaped);
        let unshaped = leased.iter().filter(is_unshaped).map(|leased| leased.delivery);
        let mut bodies = self.bodies_to_send(unshaped).await?;
        for Leased { delivery, payload, .. } in &mut leased {
            if let (Some(body), Some(payload)) = (bodies.remove(delivery), payload) {
                let refused = |error: &StoreError| tracing::error!(%error, %delivery, "cannot decrypt a payload");
                (payload.body, payload.is_unshaped) = (body.inspect_err(refused).ok(), false);
            }
        }
        Ok(leased)
    }
}

fn read(keyring: &Keyring, row: &Row) -> Leased {
    let event = EventId(row.get("event_id"));
    Leased {
        delivery: DeliveryId(row.get("id")),
        event,
        application: ApplicationId(row.get("application_id")),
        endpoint: EndpointId(row.get("endpoint_id")),
        class: row.get("class"),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        expires_at: row.get("expires_at"),
        is_expired: row.get("is_expired"),
        replay: row.get::<_, Option<Uuid>>("replay_id").map(ReplayId),
        payload: payload(keyring, event, row),
        is_erased: row.get::<_, Option<Timestamp>>("erased_at").is_some(),
    }
}

/// The event of a leased row. An unreadable event is leased like all others of the batch: the caller gives the delivery
/// back, and the others are sent.
fn payload(keyring: &Keyring, event: EventId, row: &Row) -> Option<LeasedEvent> {
    let event_type: &str = row.get::<_, Option<&str>>("type")?;
    if row.get::<_, Option<Timestamp>>("erased_at").is_some() {
        return None;
    }
    let body = open_body(keyring, event, row)
        .inspect_err(|error| tracing::error!(%error, %event, "cannot decrypt a payload"))
        .ok();
    let event_type = EventType::parse(event_type)
        .inspect_err(|fault| tracing::error!(%event, %fault, "cannot read the type of an event"))
        .ok();
    Some(LeasedEvent {
        event_type,
        body,
        is_unshaped: row.get("shaped"),
        is_sealed: row.get::<_, Option<&str>>("body_key_name").is_some(),
        trace: trace_context(row),
        is_test: row.get("is_test"),
        sequence: sequence(row),
        deliver_at: row.get("deliver_at"),
    })
}

/// Place of a row's delivery in the order of its event's ordering key. A delivery of a replay has none, unless the
/// delivery was made with its event.
pub(crate) fn sequence(row: &Row) -> Option<Sequence> {
    let key = OrderingKey::parse("ordering_key", row.get::<_, Option<&str>>("ordering_key")?).ok()?;
    Some(Sequence { key, number: row.get::<_, Option<i64>>("sequence")?.unsigned_abs() })
}

/// The trace context of an event's row, if the event has one.
pub(super) fn trace_context(row: &Row) -> Option<TraceContext> {
    TraceContext::of_headers(row.get("traceparent"), row.get("tracestate"))
}
