//! Parts of the statements that open deliveries, of new events and of due events.

use fanfare_domain::{
    delivery::{FailureReason, QueueReason, READ_BY_FEED, State},
    endpoint::template::Shaped,
    ids::{DeliveryId, EventId},
};
use tokio_postgres::Row;

use super::{NewDelivery, Persisted, Start, sequence};
use crate::{
    Keyring, KeyringError,
    connection::store::milliseconds,
    pipeline::{
        backlogs::{touched, with_backlogs},
        bodies::StoredBody,
        columns::Columns,
    },
};

/// Writes the own bodies of the deliveries `wanted`, and the notices of the deliveries without a body.
const KEEP_BODIES: &str = ", kept_bodies AS (
    INSERT INTO delivery_bodies (id, body, body_key_name, body_ciphertext, fault)
    SELECT id, own_body, own_key_name, own_ciphertext, fault FROM wanted WHERE shaped ORDER BY id
), noticed AS (
    INSERT INTO failure_notices (delivery_id, application_id, endpoint_id)
    SELECT id, application_id, endpoint_id FROM wanted WHERE notifies
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)";

/// Class, key and number of an open delivery: only a delivery that waits for the delivery before has a place in the
/// order.
const PLACE: &str =
    ", CASE WHEN reason = 'in_order' THEN 2 ELSE 0 END, CASE WHEN reason = 'in_order' THEN ordering_key END,
           CASE WHEN reason = 'in_order' THEN sequence END";

/// Adds the keys of the deliveries that wait for the delivery before to the work list.
const SIGNAL: &str = ", signalled AS (
    INSERT INTO ordering_signals (endpoint_id, key)
    SELECT DISTINCT endpoint_id, ordering_key FROM wanted WHERE reason = 'in_order'
)";

/// Opens the deliveries of the CTE `wanted`, with the columns of [`Deliveries::columns`] and `application_id`; with
/// deliveries in order also with the columns `ordering_key` and `sequence`.
pub(crate) fn open_wanted(process: &str, deliveries: &Deliveries<'_>) -> String {
    let backlogs = with_backlogs(process);
    let (ends, shaped, keep_bodies) = match deliveries.has_bodies {
        true => ("state IN ('skipped', 'failed')", ", shaped", KEEP_BODIES),
        false => ("state = 'skipped'", "", ""),
    };
    let (places, place, signal, backlogged) = match deliveries.has_order {
        true => (", class, ordering_key, sequence", PLACE, SIGNAL, " AND reason <> 'in_order'"),
        false => ("", "", "", ""),
    };
    format!(
        "blocked AS MATERIALIZED (
    SELECT b.endpoint_id FROM endpoint_backlogs b
    WHERE b.endpoint_id IN (SELECT endpoint_id FROM wanted) AND NOT b.is_ending ORDER BY b.endpoint_id FOR KEY SHARE
), placed AS MATERIALIZED (
    SELECT w.*, w.state = 'sending' AND w.endpoint_id NOT IN (SELECT endpoint_id FROM blocked) AS at_once FROM wanted w
), opened AS (
    INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, lease_id, lease_until,
                                 expires_at{shaped}{places})
    SELECT id, event_id, application_id, endpoint_id, CASE WHEN at_once THEN 'sending' ELSE 'queued' END,
           CASE WHEN at_once THEN NULL ELSE coalesce(reason, 'backlog') END,
           NOT at_once OR delivery_accepted_at(id) < now() - interval '1 s',
           CASE WHEN at_once THEN lease_id END,
           CASE WHEN at_once THEN now() + lease_ms * interval '1 millisecond' END, expires_at{shaped}{place}
    FROM placed WHERE NOT {ends} ORDER BY id
    RETURNING id, endpoint_id, application_id, state, reason
), queued AS (
    SELECT id, endpoint_id, application_id, reason FROM opened WHERE state = 'queued'{backlogged}
), skipped AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures)
    SELECT application_id, id, event_id, endpoint_id, state, reason, 0, 0 FROM wanted
    WHERE {ends} ORDER BY id
), listed AS (
    INSERT INTO feed_entries (endpoint_id, id, application_id, event_id)
    SELECT endpoint_id, id, application_id, event_id FROM wanted WHERE in_feed ORDER BY id
){keep_bodies}{signal}, {backlogs}"
    )
}

/// Result rows of a statement with [`open_wanted`], beside the rows of kind `event`.
pub(crate) const RESULT: &str = "
SELECT 'queued' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner,
       NULL::bigint AS sequence
FROM queued WHERE reason = 'backlog'
UNION ALL SELECT 'backlog', NULL, endpoint_id, application_id, owner, NULL FROM touched";

/// Deliveries to open, sorted by id.
pub(crate) struct Deliveries<'a> {
    rows: Vec<Opening<'a>>,
    /// True with a delivery that has a body of its own. Other batches have the text of the statement without the parts
    /// of such bodies.
    has_bodies: bool,
    /// True with a delivery that waits for the delivery before.
    has_order: bool,
}

/// A delivery to open.
pub(crate) struct Opening<'a> {
    pub(crate) event: EventId,
    new: &'a NewDelivery,
    /// Stored form of the delivery's own body.
    own: Option<StoredBody<'a>>,
}

impl<'a> Deliveries<'a> {
    /// Sorts the deliveries, and encrypts their bodies where necessary.
    pub(crate) fn of(
        pairs: impl Iterator<Item = (EventId, &'a NewDelivery)>,
        keyring: &Keyring,
    ) -> Result<Self, KeyringError> {
        let opening = |(event, new): (EventId, &'a NewDelivery)| {
            let shaped = new.shaped.as_deref().map(|shaped| StoredBody::of_delivery(new.id, shaped, keyring));
            Ok(Opening { event, new, own: shaped.transpose()?.flatten() })
        };
        let mut rows = pairs.map(opening).collect::<Result<Vec<_>, KeyringError>>()?;
        rows.sort_unstable_by_key(|row| row.new.id);
        let has_bodies = rows.iter().any(|row| row.new.shaped.is_some());
        let has_order = rows.iter().any(|row| row.new.start == Start::InOrder);
        Ok(Self { rows, has_bodies, has_order })
    }

    /// Columns of the deliveries, from the parameter `first` on.
    pub(crate) fn columns(&'a self, first: usize) -> Columns<'a, Opening<'a>> {
        let columns = delivery_columns(&self.rows, first);
        if !self.has_bodies {
            return columns;
        }
        let fault = |new: &'a NewDelivery| match new.shaped.as_deref() {
            Some(Shaped::Failed(sentence)) => Some(sentence.as_str()),
            _ => None,
        };
        columns
            .column("shaped", "bool", |row| row.new.shaped.is_some())
            .column("own_body", "text", |row| row.own.as_ref().map(|own| own.shown))
            .column("own_key_name", "text", |row| row.own.as_ref().and_then(StoredBody::key_name))
            .column("own_ciphertext", "bytea", |row| row.own.as_ref().and_then(StoredBody::ciphertext))
            .column("fault", "text", move |row| fault(row.new))
            .column("notifies", "bool", |row| row.new.start == Start::NotRendered { notifies_owner: true })
    }
}

fn delivery_columns<'a>(rows: &'a [Opening<'a>], first: usize) -> Columns<'a, Opening<'a>> {
    let lease = |new: &NewDelivery| if let Start::Sending(lease) = new.start { Some(lease) } else { None };
    Columns::new(rows, first)
        .column("id", "uuid", |row| row.new.id.0)
        .column("event_id", "uuid", |row| row.event.0)
        .column("endpoint_id", "uuid", |row| row.new.endpoint.0)
        .column("state", "text", |row| row.new.start.state().as_str())
        .column("reason", "text", |row| row.new.start.reason())
        .column("lease_id", "uuid", move |row| lease(row.new).map(|lease| lease.id.0))
        .column("lease_ms", "bigint", move |row| lease(row.new).map(|lease| milliseconds(lease.duration)))
        .column("expires_at", "timestamptz", |row| row.new.expires_at)
        .column("in_feed", "bool", |row| row.new.in_feed)
}

pub(crate) fn persisted(rows: &[Row]) -> Persisted {
    let mut persisted = Persisted::default();
    for row in rows {
        match row.get::<_, &str>("kind") {
            "event" => drop(persisted.new.insert(EventId(row.get("id")))),
            "queued" => drop(persisted.queued.insert(DeliveryId(row.get("id")))),
            "number" => drop(persisted.sequences.insert(DeliveryId(row.get("id")), sequence(row))),
            _ => persisted.backlogs.push(touched(row)),
        }
    }
    persisted
}

impl Start {
    fn state(self) -> State {
        match self {
            Self::Sending(_) => State::Sending,
            Self::Queued(_) | Self::InOrder => State::Queued,
            Self::Skipped | Self::Read => State::Skipped,
            Self::NotRendered { .. } => State::Failed,
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Queued(reason) => Some(reason.as_str()),
            Self::InOrder => Some(QueueReason::InOrder.as_str()),
            Self::Read => Some(READ_BY_FEED),
            Self::NotRendered { .. } => Some(FailureReason::NotRendered.as_str()),
            Self::Sending(_) | Self::Skipped => None,
        }
    }
}
