//! Deliveries and their attempts, as they are looked at.

use fanfare_domain::{
    delivery::State,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Store, StoreError, store::row_count};

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those in this state.
    pub state: Option<State>,
    /// Those before this one, which is where the page before ended.
    pub before: Option<DeliveryId>,
    /// Whether they are listed with their bodies.
    pub with_bodies: bool,
    /// This many at the most.
    pub limit: usize,
}

/// A delivery with what its endpoint and event add to it.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Where the endpoint is now.
    pub url: String,
    /// Where the delivery stands.
    pub state: State,
    /// Why, where there is a reason beside the last attempt.
    pub reason: Option<String>,
    /// The number of the attempt that is being made, or is next, or was the last.
    pub attempt: u32,
    /// Failed attempts that the endpoint answers for.
    pub failures: u32,
    /// `Waiting`: when the next attempt is due.
    pub due_at: Option<Timestamp>,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// When the delivery ended.
    pub finished_at: Option<Timestamp>,
    /// Attempts that were made, or are being made.
    pub attempts: u32,
    /// The status that the last answer had.
    pub response_status: Option<i32>,
    /// What is sent; in a list none that is long.
    pub body: Option<String>,
}

/// One attempt of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its number, from 1 on.
    pub attempt: u32,
    /// Where it was sent; unknown where its process died.
    pub url: Option<String>,
    /// When it was sent.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i32>,
    /// The outcome's code.
    pub outcome: String,
    /// The response's status.
    pub status: Option<i32>,
    /// The outcome in words.
    pub error: Option<String>,
    /// A JSON object of the response's headers that are kept.
    pub response_headers: Option<String>,
    /// What is kept of the response's body.
    pub response_body: Option<Vec<u8>>,
    /// When the next attempt was due then.
    pub next_due_at: Option<Timestamp>,
}

const COLUMNS: &str = "d.id, d.event_id, e.type, d.endpoint_id, p.url, d.state, d.reason, d.attempt, d.failures, d.due_at, \
                       d.accepted_at, d.finished_at, made.attempts, made.status AS response_status";

/// The body in a list: none that has more than 64 KiB, or a page of them would fill the memory of a process that
/// takes events in.
pub(crate) const LISTED_BODY: &str =
    "CASE WHEN octet_length(e.body) <= 65536 AND e.erased_at IS NULL THEN e.body END AS body";

/// The body of an event that is looked at.
pub(crate) const SHOWN_BODY: &str = "CASE WHEN e.erased_at IS NULL THEN e.body END AS body";

/// The attempts of each delivery, by the primary key.
const MADE: &str = "CROSS JOIN LATERAL (
    SELECT count(*)::int AS attempts, (array_agg(a.status ORDER BY a.attempt DESC))[1] AS status
    FROM attempts a WHERE a.delivery_id = d.id AND a.accepted_at = d.accepted_at) made";

/// An attempt with what it was an attempt of.
#[derive(Debug, Clone)]
pub struct LoggedAttempt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What was sent; none that is long.
    pub body: Option<String>,
    /// The attempt.
    pub attempt: AttemptRow,
}

/// Which attempts to list.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// Those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those before this attempt of this delivery, which is where the page before ended.
    pub before: Option<(DeliveryId, u32)>,
    /// This many at the most.
    pub limit: usize,
}

const ATTEMPT_COLUMNS: &str = "a.attempt, a.url, a.started_at, a.duration_ms, a.outcome, a.status, a.error, \
                               a.response_headers, a.response_body, a.next_due_at";

impl Store {
    /// A page of an application's deliveries, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn deliveries(
        &self,
        application: ApplicationId,
        filter: &DeliveryFilter,
    ) -> Result<Vec<DeliveryRow>, StoreError> {
        let (mut least, mut greatest) = (Uuid::nil(), Uuid::max());
        if let Some(event) = filter.event {
            // The ids of an event's deliveries start with the moment of its acceptance.
            let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Vec::new()) };
            let (first, last) = DeliveryId::bounds(accepted_at);
            (least, greatest) = (first.0, last.0);
        }
        if let Some(before) = filter.before {
            greatest = greatest.min(Uuid::from_u128(before.0.as_u128().saturating_sub(1)));
        }
        let body = if filter.with_bodies { LISTED_BODY } else { "NULL AS body" };
        let statement = format!(
            "SELECT {COLUMNS}, {body} FROM deliveries d
             JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
             JOIN endpoints p ON p.id = d.endpoint_id
             {MADE}
             WHERE d.application_id = $1 AND d.id BETWEEN $2 AND $3
               AND ($4::uuid IS NULL OR d.endpoint_id = $4) AND ($5::uuid IS NULL OR d.event_id = $5)
               AND ($6::text IS NULL OR d.state = $6)
             ORDER BY d.id DESC LIMIT $7"
        );
        let endpoint = filter.endpoint.map(|id| id.0);
        let event = filter.event.map(|id| id.0);
        let state = filter.state.map(State::as_str);
        let limit = row_count(filter.limit);
        let rows = self
            .connection()
            .await?
            .query(&statement, &[&application.0, &least, &greatest, &endpoint, &event, &state, &limit])
            .await?;
        rows.iter().map(delivery).collect()
    }

    /// A delivery of an application with its attempts, first to last.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delivery(
        &self,
        application: ApplicationId,
        id: DeliveryId,
    ) -> Result<Option<(DeliveryRow, Vec<AttemptRow>)>, StoreError> {
        let mut connection = self.connection().await?;
        // One snapshot of both, or the delivery would stand beside an attempt that it does not know of.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let statement = format!(
            "SELECT {COLUMNS}, {SHOWN_BODY} FROM deliveries d
             JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
             JOIN endpoints p ON p.id = d.endpoint_id
             {MADE}
             WHERE d.id = $1 AND d.accepted_at = $2 AND d.application_id = $3"
        );
        let Some(row) = transaction.query_opt(&statement, &[&id.0, &id.accepted_at(), &application.0]).await? else {
            return Ok(None);
        };
        let statement = format!(
            "SELECT {ATTEMPT_COLUMNS} FROM attempts a WHERE delivery_id = $1 AND accepted_at = $2 ORDER BY attempt"
        );
        let attempts = transaction.query(&statement, &[&id.0, &id.accepted_at()]).await?;
        transaction.commit().await?;
        Ok(Some((delivery(&row)?, attempts.iter().map(attempt).collect())))
    }

    /// A page of an application's attempts: those of its newest deliveries first, and of each delivery the last
    /// first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn attempt_log(
        &self,
        application: ApplicationId,
        filter: &AttemptFilter,
    ) -> Result<Vec<LoggedAttempt>, StoreError> {
        let (mut least, mut greatest) = (Uuid::nil(), Uuid::max());
        if let Some(event) = filter.event {
            let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Vec::new()) };
            let (first, last) = DeliveryId::bounds(accepted_at);
            (least, greatest) = (first.0, last.0);
        }
        let (before, before_attempt) =
            filter.before.map_or((Uuid::max(), i32::MAX), |(delivery, attempt)| (delivery.0, attempt.cast_signed()));
        greatest = greatest.min(before);
        let statement = format!(
            "SELECT d.id, d.event_id, e.type, d.endpoint_id, {LISTED_BODY}, {ATTEMPT_COLUMNS} FROM deliveries d
             JOIN attempts a ON a.delivery_id = d.id AND a.accepted_at = d.accepted_at
             JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
             WHERE d.application_id = $1 AND d.id BETWEEN $2 AND $3 AND (d.id, a.attempt) < ($4, $5)
               AND ($6::uuid IS NULL OR d.endpoint_id = $6) AND ($7::uuid IS NULL OR d.event_id = $7)
             ORDER BY d.id DESC, a.attempt DESC LIMIT $8"
        );
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let limit = row_count(filter.limit);
        let rows = self
            .connection()
            .await?
            .query(
                &statement,
                &[&application.0, &least, &greatest, &before, &before_attempt, &endpoint, &event, &limit],
            )
            .await?;
        Ok(rows.iter().map(logged).collect())
    }

    /// The attempts that were made to an endpoint last, of whatever delivery.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn last_attempts(&self, endpoint: EndpointId, limit: usize) -> Result<Vec<LoggedAttempt>, StoreError> {
        let statement = format!(
            "SELECT d.id, d.event_id, e.type, d.endpoint_id, {LISTED_BODY}, {ATTEMPT_COLUMNS} FROM attempts a
             JOIN deliveries d ON d.id = a.delivery_id AND d.accepted_at = a.accepted_at
             JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
             WHERE a.endpoint_id = $1 ORDER BY a.started_at DESC LIMIT $2"
        );
        let limit = row_count(limit);
        let rows = self.connection().await?.query(&statement, &[&endpoint.0, &limit]).await?;
        Ok(rows.iter().map(logged).collect())
    }
}

fn attempt(row: &Row) -> AttemptRow {
    AttemptRow {
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        url: row.get("url"),
        started_at: row.get("started_at"),
        duration_ms: row.get("duration_ms"),
        outcome: row.get("outcome"),
        status: row.get("status"),
        error: row.get("error"),
        response_headers: row.get("response_headers"),
        response_body: row.get("response_body"),
        next_due_at: row.get("next_due_at"),
    }
}

fn logged(row: &Row) -> LoggedAttempt {
    LoggedAttempt {
        delivery: DeliveryId(row.get("id")),
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        body: row.get("body"),
        attempt: attempt(row),
    }
}

fn delivery(row: &Row) -> Result<DeliveryRow, StoreError> {
    let state: &str = row.get("state");
    Ok(DeliveryRow {
        id: DeliveryId(row.get("id")),
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        url: row.get("url"),
        state: State::parse(state).ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
        reason: row.get("reason"),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        due_at: row.get("due_at"),
        accepted_at: row.get("accepted_at"),
        finished_at: row.get("finished_at"),
        attempts: row.get::<_, i32>("attempts").cast_unsigned(),
        response_status: row.get("response_status"),
        body: row.get("body"),
    })
}
