//! Deliveries, as the API shows them, from two tables: `deliveries` holds finished deliveries, `open_deliveries` all
//! others.
//!
//! A finished delivery that is requested again has a row in both tables; lists show the open row. Each list is one
//! statement, and so one snapshot: a delivery moved between the tables meanwhile appears once.

use fanfare_domain::{
    delivery::State,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::row_count,
    history::{
        attempts::{AttemptRow, SELECT_ATTEMPTS, read_attempt},
        events::{LISTED_BODY, SHOWN_BODY},
    },
};

/// Selects the deliveries of a list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Deliveries to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Deliveries of this event.
    pub event: Option<EventId>,
    /// Deliveries in this state.
    pub state: Option<State>,
    /// Last delivery of the previous page.
    pub before: Option<DeliveryId>,
    /// True for rows with bodies.
    pub with_bodies: bool,
    /// Size of the page.
    pub limit: usize,
}

/// A delivery, with details of its endpoint and event.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Type of the event.
    pub event_type: String,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Current URL of the endpoint.
    pub url: String,
    /// State of the delivery.
    pub state: State,
    /// Reason of the state, if the last attempt does not show the reason.
    pub reason: Option<String>,
    /// Number of the current, next or last attempt.
    pub attempt: u32,
    /// Failed attempts caused by the endpoint.
    pub failures: u32,
    /// Due time of the next attempt; `None` unless `Scheduled`.
    pub due_at: Option<Timestamp>,
    /// Acceptance of the event.
    pub accepted_at: Timestamp,
    /// End of the delivery.
    pub finished_at: Option<Timestamp>,
    /// Number of attempts, including the current attempt.
    pub attempts: u32,
    /// Status of the last response.
    pub response_status: Option<i32>,
    /// Body as sent; `None` for a long body in a list.
    pub body: Option<String>,
}

/// Columns of a finished delivery on a page.
const FINISHED: &str = "d.id, d.event_id, d.endpoint_id, d.state, d.reason, d.attempt, d.failures, \
                        NULL::timestamptz AS due_at, d.finished_at, d.attempt AS attempts, d.status, \
                        d.started_at IS NOT NULL AS is_inline, false AS is_open, false AS finished_once";

/// Columns of an open delivery, in the order of [`FINISHED`].
const OPEN: &str = "o.id, o.event_id, o.endpoint_id, o.state, o.reason, o.attempt, o.failures, o.due_at, \
                    NULL::timestamptz AS finished_at, o.attempt - (o.state <> 'sending')::int AS attempts, \
                    NULL::int AS status, false AS is_inline, true AS is_open, o.finished_once";

/// Paused endpoints of application $1.
const PAUSED_ENDPOINTS: &str =
    "ARRAY(SELECT id FROM endpoints WHERE application_id = $1 AND status = 'paused' AND deleted_at IS NULL)";

/// True if a row of `deliveries d` has an open row, too. A scalar subquery is always a look-up by key, never a join.
pub(crate) const IS_OPEN: &str = "coalesce((SELECT true FROM open_deliveries once WHERE once.id = d.id), false)";

impl Store {
    /// Lists an application's deliveries, newest first.
    pub async fn deliveries(
        &self,
        application: ApplicationId,
        filter: &DeliveryFilter,
    ) -> Result<Vec<DeliveryRow>, StoreError> {
        let (mut least, mut greatest) = (Uuid::nil(), Uuid::max());
        if let Some(event) = filter.event {
            // The ids of an event's deliveries begin with the event's moment of acceptance.
            let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Vec::new()) };
            let (first, last) = DeliveryId::bounds(accepted_at);
            (least, greatest) = (first.0, last.0);
        }
        if let Some(before) = filter.before {
            greatest = greatest.min(Uuid::from_u128(before.0.as_u128().saturating_sub(1)));
        }
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let limit = row_count(filter.limit);
        let parameters: [&(dyn ToSql + Sync); 6] = [&application.0, &least, &greatest, &limit, &endpoint, &event];
        let rows = self.connection().await?.query(&list_statement(filter), &parameters).await?;
        rows.iter().map(read).collect()
    }

    /// Finds a delivery of an application, with its attempts from first to last.
    pub async fn delivery(
        &self,
        application: ApplicationId,
        id: DeliveryId,
    ) -> Result<Option<(DeliveryRow, Vec<AttemptRow>)>, StoreError> {
        let mut connection = self.connection().await?;
        // One snapshot for both statements, so that the delivery counts exactly the attempts returned.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let page = format!(
            "SELECT {FINISHED} FROM deliveries d WHERE d.application_id = $1 AND d.id = $2
             UNION ALL
             SELECT {OPEN} FROM open_deliveries o WHERE o.id = $2 AND o.application_id = $1
             ORDER BY is_open DESC LIMIT 1"
        );
        let statement = with_details(&page, SHOWN_BODY);
        let Some(row) = transaction.query_opt(&statement, &[&application.0, &id.0]).await? else { return Ok(None) };
        let attempts = transaction.query(SELECT_ATTEMPTS, &[&application.0, &id.0]).await?;
        transaction.commit().await?;
        Ok(Some((read(&row)?, attempts.iter().map(read_attempt).collect())))
    }
}

/// Statement of a list. Parameters: application, least id, greatest id, limit, endpoint, event.
fn list_statement(filter: &DeliveryFilter) -> String {
    let body = if filter.with_bodies { LISTED_BODY } else { "NULL AS body" };
    let finished = format!(
        "SELECT {FINISHED} FROM deliveries d
         WHERE {} AND d.id BETWEEN $2 AND $3 AND ($6::uuid IS NULL OR d.event_id = $6) {}
         ORDER BY d.id DESC LIMIT $4",
        scope(filter, "d"),
        finished_condition(filter.state)
    );
    let page = match filter.state {
        Some(state) if state.is_finished() => finished,
        Some(_) => open_rows(filter),
        None => format!(
            "SELECT DISTINCT ON (id) * FROM (({finished}) UNION ALL ({})) AS both_tables
             ORDER BY id DESC, is_open DESC LIMIT $4",
            open_rows(filter)
        ),
    };
    with_details(&page, body)
}

/// Condition for an index on the endpoint or on the application.
fn scope(filter: &DeliveryFilter, table: &str) -> String {
    match filter.endpoint {
        // Without a condition on `application_id`, the planner does not choose the application's index.
        Some(_) if filter.state.is_none_or(|state| !is_not_delivered(state)) => {
            format!("{table}.endpoint_id = $5 AND (SELECT p.application_id FROM endpoints p WHERE p.id = $5) = $1")
        }
        Some(_) => format!("{table}.application_id = $1 AND {table}.endpoint_id = $5"),
        None => format!("{table}.application_id = $1 AND $5::uuid IS NULL"),
    }
}

/// True if the partial indexes by state contain rows of `state`.
fn is_not_delivered(state: State) -> bool {
    matches!(state, State::Failed | State::Skipped)
}

/// Condition on the state of a finished row. A list by state omits deliveries requested again.
fn finished_condition(state: Option<State>) -> String {
    match state {
        None => String::new(),
        // The statement repeats the index's own condition: the planner need not derive it.
        Some(state) if is_not_delivered(state) => {
            format!("AND d.state <> 'delivered' AND d.state = '{}' AND NOT {IS_OPEN}", state.as_str())
        }
        Some(state) => format!("AND d.state = '{}' AND NOT {IS_OPEN}", state.as_str()),
    }
}

/// Newest open rows.
fn open_rows(filter: &DeliveryFilter) -> String {
    let state = match filter.state {
        Some(State::Held) if filter.endpoint.is_none() => return held_rows(),
        Some(State::Held) => format!("AND o.state = 'queued' AND o.endpoint_id = ANY ({PAUSED_ENDPOINTS})"),
        Some(State::Queued) => format!("AND o.state = 'queued' AND o.endpoint_id <> ALL ({PAUSED_ENDPOINTS})"),
        Some(state) => format!("AND o.state = '{}'", state.as_str()),
        None => String::new(),
    };
    // The few rows of one event are found by their ids, listed or not.
    let listed = if filter.event.is_some() { "" } else { "AND o.listed" };
    let conditions = format!(
        "{} AND o.id BETWEEN $2 AND $3 AND ($6::uuid IS NULL OR o.event_id = $6)",
        scope(&DeliveryFilter { state: None, ..filter.clone() }, "o")
    );
    let rows = |condition: &str| {
        format!(
            "SELECT {OPEN} FROM open_deliveries o WHERE {conditions} {condition} {state} ORDER BY o.id DESC LIMIT $4"
        )
    };
    if filter.event.is_some() || !filter.state.is_none_or(|state| state == State::Sending) {
        return rows(listed);
    }
    format!(
        "({}) UNION ALL ({}) ORDER BY id DESC LIMIT $4",
        rows(listed),
        rows(&format!("AND NOT o.listed AND {RECENT}"))
    )
}

/// Bound for rows that are sent at once and not listed. Such a row is younger than 10 s, or has become slow and is
/// listed. The primary key finds the younger rows, so that no page passes a row unseen.
const RECENT: &str = "o.id >= (lpad(to_hex((extract(epoch FROM now() - interval '10 s') * 1000)::bigint), 12, '0')
                               || repeat('0', 20))::uuid";

/// Newest held rows of an application. The walk begins at the paused endpoints: among many queued rows, few may be
/// held.
fn held_rows() -> String {
    format!(
        "SELECT held.* FROM endpoints p CROSS JOIN (VALUES (0::smallint), (1::smallint)) AS c(class)
         CROSS JOIN LATERAL (
             SELECT {OPEN} FROM open_deliveries o
             WHERE o.endpoint_id = p.id AND o.state = 'queued' AND o.class = c.class AND o.id BETWEEN $2 AND $3
               AND ($6::uuid IS NULL OR o.event_id = $6)
             ORDER BY o.id DESC LIMIT $4) held
         WHERE p.application_id = $1 AND p.status = 'paused' AND p.deleted_at IS NULL AND $5::uuid IS NULL
         ORDER BY held.id DESC LIMIT $4"
    )
}

/// Adds details to the rows of a page, and to no others, by look-ups by primary key. $1 is the application.
fn with_details(page: &str, body: &str) -> String {
    format!(
        "WITH page AS MATERIALIZED ({page})
         SELECT page.id, page.event_id, coalesce(e.type, '') AS type, page.endpoint_id, p.url, page.reason, page.attempt,
                CASE WHEN page.state = 'queued' AND p.status = 'paused' AND p.deleted_at IS NULL THEN 'held'
                     ELSE page.state END AS state,
                page.failures, page.due_at, page.finished_at, page.attempts, e.body,
                CASE WHEN last.attempt IS NOT NULL THEN last.status ELSE coalesce(page.status, once.status) END
                    AS response_status
         FROM page
         JOIN endpoints p ON p.id = page.endpoint_id
         LEFT JOIN LATERAL (
             SELECT e.type, {body} FROM events e
             WHERE e.application_id = $1 AND e.accepted_at = delivery_accepted_at(page.id) AND e.id = page.event_id
             LIMIT 1) e ON true
         LEFT JOIN LATERAL (
             SELECT a.attempt, a.status FROM attempts a WHERE a.delivery_id = page.id
             ORDER BY a.attempt DESC LIMIT 1) last ON page.attempts > page.is_inline::int
         LEFT JOIN LATERAL (
             SELECT d.status FROM deliveries d WHERE d.application_id = $1 AND d.id = page.id
             LIMIT 1) once ON page.finished_once
         ORDER BY page.id DESC"
    )
}

fn read(row: &Row) -> Result<DeliveryRow, StoreError> {
    let state: &str = row.get("state");
    let id = DeliveryId(row.get("id"));
    Ok(DeliveryRow {
        id,
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        url: row.get("url"),
        state: State::parse(state).ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
        reason: row.get("reason"),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        due_at: row.get("due_at"),
        accepted_at: id.accepted_at(),
        finished_at: row.get("finished_at"),
        attempts: u32::try_from(row.get::<_, i32>("attempts")).unwrap_or_default(),
        response_status: row.get("response_status"),
        body: row.get("body"),
    })
}
