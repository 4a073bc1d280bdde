//! Attempts, as the API shows them. An immediate success of attempt 1 is inline in `deliveries`; `attempts` has all
//! other attempts.
//!
//! A list merges both tables by an indexed moment: `started_at` in `attempts`, and the acceptance for an inline
//! success. The inline success began within 10 s of acceptance. A page of the log is cut and sorted by this moment.
//! Thereby no attempt is lost between two pages, and the page shows every row read. Only `last_attempts` sorts by
//! `started_at`.

use std::{fmt, str::FromStr};

use fanfare_domain::{
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
    time::{saturating_sub, to_milliseconds},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::row_count,
    history::events::{LISTED_BODY, LONGEST_LISTED},
    pipeline::record::INLINE_WITHIN,
};

/// An attempt of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// URL of the request; `None` if the sending process died.
    pub url: Option<String>,
    /// Start of the attempt.
    pub started_at: Timestamp,
    /// Duration in milliseconds.
    pub duration_ms: Option<i32>,
    /// Code of the outcome.
    pub outcome: String,
    /// Status of the response.
    pub status: Option<i32>,
    /// Description of the outcome.
    pub error: Option<String>,
    /// Kept headers of the response, as a JSON object.
    pub response_headers: Option<String>,
    /// Kept part of the response's body.
    pub response_body: Option<Vec<u8>>,
    /// Due time of the next attempt, as decided after this attempt.
    pub next_due_at: Option<Timestamp>,
}

/// An attempt with its delivery and event.
#[derive(Debug, Clone)]
pub struct LoggedAttempt {
    /// Delivery of the attempt.
    pub delivery: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Type of the event.
    pub event_type: String,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Body as sent; `None` for a long body.
    pub body: Option<String>,
    /// Place in the log.
    pub place: AttemptPlace,
    /// The attempt.
    pub attempt: AttemptRow,
}

/// Place of an attempt in the log, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptPlace {
    /// Start of the attempt; for an inline success, acceptance of the event.
    pub at: Timestamp,
    /// Delivery of the attempt.
    pub delivery: DeliveryId,
    /// Number of the attempt.
    pub attempt: u32,
}

impl fmt::Display for AttemptPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.at.as_microsecond(), self.delivery, self.attempt)
    }
}

/// A text that is not the place of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the `next` of a page")]
pub struct InvalidPosition;

impl FromStr for AttemptPlace {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let read = || {
            let (at, rest) = text.split_once('.')?;
            let (delivery, attempt) = rest.split_once('.')?;
            let attempt: u32 = attempt.parse().ok()?;
            Some(Self {
                // No attempt is older than 1970.
                at: Timestamp::from_microsecond(at.parse::<u64>().ok()?.try_into().ok()?).ok()?,
                delivery: delivery.parse().ok()?,
                attempt: i32::try_from(attempt).ok()?.cast_unsigned(),
            })
        };
        read().ok_or(InvalidPosition)
    }
}

/// Selects the attempts of a list.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// Attempts to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Attempts of this event.
    pub event: Option<EventId>,
    /// Attempts that started at or after this time.
    pub since: Option<Timestamp>,
    /// Attempts that started before this time.
    pub until: Option<Timestamp>,
    /// No attempts of test events, as in the rollups.
    pub without_tests: bool,
    /// Last attempt of the previous page.
    pub before: Option<AttemptPlace>,
    /// Size of the page.
    pub limit: usize,
}

/// Inline successes read beyond the requested number, to sort the last attempts by their start.
const LOOK_BACK: i64 = 200;

const LOGGED: &str = "a.delivery_id, a.attempt, a.event_id, a.endpoint_id, a.url, a.started_at, a.duration_ms, a.outcome, \
                      a.status, a.error, a.response_headers, a.response_body, a.next_due_at, a.started_at AS at";

/// Columns of an inline success, in the order of [`LOGGED`].
const INLINE: &str = "d.id AS delivery_id, 1 AS attempt, d.event_id, d.endpoint_id, d.url, d.started_at, d.duration_ms, \
                      'answered' AS outcome, d.status, NULL::text AS error, d.response_headers, d.response_body, \
                      NULL::timestamptz AS next_due_at, delivery_accepted_at(d.id) AS at";

/// Attempts of delivery $2 of application $1, first to last.
pub(crate) const SELECT_ATTEMPTS: &str = "
SELECT attempt, url, started_at, duration_ms, outcome, status, error, response_headers, response_body, next_due_at
FROM attempts WHERE delivery_id = $2 AND application_id = $1
UNION ALL
SELECT 1, url, started_at, duration_ms, 'answered', status, NULL, response_headers, response_body, NULL
FROM deliveries WHERE application_id = $1 AND id = $2 AND started_at IS NOT NULL
ORDER BY attempt";

impl Store {
    /// Lists an application's attempts, newest first.
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
        let since = filter.since.unwrap_or_default().max(Timestamp::UNIX_EPOCH);
        let until = filter.until.unwrap_or(Timestamp::MAX);
        // An inline success starts soon after its acceptance: the bounds spare the other partitions.
        let inline_least =
            filter.since.map_or(least, |since| least.max(DeliveryId::bounds(saturating_sub(since, INLINE_WITHIN)).0.0));
        let inline_greatest = filter.until.map_or(greatest, |until| greatest.min(DeliveryId::bounds(until).1.0));
        let inline_greatest = filter.before.map_or(inline_greatest, |place| inline_greatest.min(last_inline(place)));
        let before = filter.before.unwrap_or(AttemptPlace {
            at: Timestamp::MAX,
            delivery: DeliveryId(Uuid::max()),
            attempt: i32::MAX.cast_unsigned(),
        });
        let (before_delivery, before_attempt) = (before.delivery.0, before.attempt.cast_signed());
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &application.0,
            &endpoint,
            &event,
            &least,
            &greatest,
            &inline_greatest,
            &before.at,
            &before_delivery,
            &before_attempt,
            &row_count(filter.limit),
            &inline_least,
            &since,
            &until,
        ];
        // A plan for all parameters would walk all deliveries of a day without inline successes.
        let rows = self.connection().await?.query(&log_statement(filter), &parameters).await?;
        self.logged(&rows).await
    }

    /// Reads attempts, with the deliveries' own bodies. Reads nothing further unless an endpoint has had a template.
    async fn logged(&self, rows: &[Row]) -> Result<Vec<LoggedAttempt>, StoreError> {
        let may_have = |row: &&Row| row.get::<_, bool>("had_template");
        let ids = rows.iter().filter(may_have).map(|row| DeliveryId(row.get("delivery_id")));
        let own = self.own_bodies(ids.collect::<Vec<_>>(), LONGEST_LISTED).await?;
        let mut logged: Vec<LoggedAttempt> = rows.iter().map(read_logged).collect();
        for attempt in &mut logged {
            if let Some(own) = own.get(&attempt.delivery) {
                attempt.body.clone_from(&own.body);
            }
        }
        Ok(logged)
    }

    /// Lists the last attempts to an endpoint, of all its deliveries, by start.
    pub async fn last_attempts(
        &self,
        application: ApplicationId,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Vec<LoggedAttempt>, StoreError> {
        let rows = format!(
            "logged AS MATERIALIZED (
                 SELECT {LOGGED} FROM attempts a WHERE a.endpoint_id = $2 ORDER BY a.started_at DESC LIMIT $3
             ), inline AS MATERIALIZED ({}), page AS MATERIALIZED (
                 SELECT * FROM (SELECT * FROM logged UNION ALL SELECT * FROM inline) AS both_tables
                 ORDER BY started_at DESC, delivery_id DESC LIMIT $3
             )",
            inline(&format!("d.endpoint_id = $2 AND d.id >= {}", floor("$3::bigint", "interval '10 s'")), "$3 + $4")
        );
        let statement = with_details(&rows, "started_at");
        let parameters: [&(dyn ToSql + Sync); 4] = [&application.0, &endpoint.0, &row_count(limit), &LOOK_BACK];
        let rows = self.query_by_kept_plan(&statement, &parameters).await?;
        self.logged(&rows).await
    }
}

/// Greatest id of a delivery with an inline success behind `place` in the log.
fn last_inline(place: AttemptPlace) -> Uuid {
    let moment = to_milliseconds(place.at);
    let (first, last) = DeliveryId::bounds(moment);
    if moment < place.at {
        return last.0;
    }
    let before = |id: Uuid| Uuid::from_u128(id.as_u128().saturating_sub(1));
    match place.delivery.accepted_at() == moment {
        true if place.attempt > 1 => place.delivery.0,
        true => before(place.delivery.0),
        false => before(first.0),
    }
}

/// Statement of the log. Parameters: application, endpoint, event, least and greatest id, greatest id of an inline
/// success, place (three), limit, least id of an inline success, first and last start.
fn log_statement(filter: &AttemptFilter) -> String {
    let behind = "a.started_at <= $7 AND (a.started_at, a.delivery_id, a.attempt) < ($7, $8, $9)";
    let newest = "ORDER BY a.started_at DESC, a.delivery_id DESC, a.attempt DESC LIMIT $10";
    let conditions = |table: &str| {
        let scope = match filter.endpoint {
            Some(_) => {
                format!("{table}.endpoint_id = $2 AND (SELECT p.application_id FROM endpoints p WHERE p.id = $2) = $1")
            }
            None => format!("{table}.application_id = $1 AND $2::uuid IS NULL"),
        };
        format!("{scope} AND ($3::uuid IS NULL OR {table}.event_id = $3)")
    };
    let tests = if filter.without_tests { "AND NOT a.is_test" } else { "" };
    let of_attempts = format!(
        "{} AND a.delivery_id BETWEEN $4 AND $5 AND a.started_at >= $12 AND a.started_at < $13 {tests}",
        conditions("a")
    );
    let logged = match filter.event {
        // The few attempts of one event are found by the ids of its deliveries, and sorted afterwards.
        Some(_) => format!(
            "of_event AS MATERIALIZED (SELECT a.*, a.started_at AS at FROM attempts a WHERE {of_attempts}),
             logged AS MATERIALIZED (SELECT {LOGGED} FROM of_event a WHERE {behind} {newest})"
        ),
        None => format!(
            "logged AS MATERIALIZED (SELECT {LOGGED} FROM attempts a WHERE {of_attempts} AND {behind} {newest})"
        ),
    };
    let rows = format!(
        "{logged}, inline AS MATERIALIZED ({}), page AS MATERIALIZED (
             SELECT * FROM (SELECT * FROM logged UNION ALL SELECT * FROM inline) AS both_tables
             ORDER BY at DESC, delivery_id DESC, attempt DESC LIMIT $10
         )",
        inline(
            &format!(
                "{} AND d.id BETWEEN greatest($11, {}) AND $6
                 AND coalesce(d.started_at >= $12 AND d.started_at < $13, false)",
                conditions("d"),
                floor("$10", "interval '0'")
            ),
            "$10"
        )
    );
    with_details(&rows, "at")
}

/// Inline successes of the deliveries `d` with a condition, newest first.
///
/// COALESCE keeps the statistics of `started_at` out of the choice of a plan. On a day without inline successes, the
/// planner would expect a single row, and read and sort all deliveries of the endpoint (681 ms at 10,000,000).
fn inline(condition: &str, limit: &str) -> String {
    format!(
        "SELECT {INLINE} FROM deliveries d
         WHERE {condition} AND coalesce(d.started_at, '-infinity') > '-infinity' ORDER BY d.id DESC LIMIT {limit}"
    )
}

/// Least id of an inline success that can be on the page: if `attempts` fills the page, the walk ends there.
fn floor(limit: &str, margin: &str) -> String {
    format!(
        "(SELECT CASE WHEN count(*) >= {limit}
                 THEN (lpad(to_hex(floor(extract(epoch FROM min(at) - {margin}) * 1000)::bigint), 12, '0')
                       || repeat('0', 20))::uuid
                 ELSE '00000000-0000-0000-0000-000000000000'::uuid END FROM logged)"
    )
}

/// Adds details to the rows of the CTE `page`, and to no others, newest first by `moment`. $1 is the application.
fn with_details(rows: &str, moment: &str) -> String {
    format!(
        "WITH {rows}
         SELECT page.*, coalesce(e.type, '') AS type, e.body,
                coalesce((SELECT p.had_template FROM endpoints p WHERE p.id = page.endpoint_id), false) AS had_template
         FROM page
         LEFT JOIN LATERAL (
             SELECT e.type, {LISTED_BODY} FROM events e
             WHERE e.application_id = $1 AND e.accepted_at = delivery_accepted_at(page.delivery_id)
               AND e.id = page.event_id
             LIMIT 1) e ON true
         ORDER BY page.{moment} DESC, page.delivery_id DESC, page.attempt DESC"
    )
}

pub(crate) fn read_attempt(row: &Row) -> AttemptRow {
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

fn read_logged(row: &Row) -> LoggedAttempt {
    let (delivery, attempt) = (DeliveryId(row.get("delivery_id")), read_attempt(row));
    LoggedAttempt {
        delivery,
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        body: row.get("body"),
        place: AttemptPlace { at: row.get("at"), delivery, attempt: attempt.attempt },
        attempt,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(moment: Timestamp, rest: u128) -> DeliveryId {
        DeliveryId(Uuid::from_u128(DeliveryId::bounds(moment).0.0.as_u128() + rest))
    }

    #[test]
    fn places_round_trip_as_text() {
        let at = Timestamp::from_microsecond(1_700_000_000_123_456).expect("moment");
        let place = AttemptPlace { at, delivery: id(at, 7), attempt: 3 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "1", "1.2", "1.dlv_x.3", "x.y.z"] {
            assert_eq!(text.parse::<AttemptPlace>(), Err(InvalidPosition), "{text}");
        }
    }

    #[test]
    fn inline_successes_behind_a_place_end_at_the_place() {
        let moment = Timestamp::from_millisecond(1_700_000_000_000).expect("moment");
        let (first, last) = DeliveryId::bounds(moment);
        let own = id(moment, 5);
        let place = |at, delivery, attempt| AttemptPlace { at, delivery, attempt };
        assert_eq!(last_inline(place(moment, own, 1)), id(moment, 4).0);
        assert_eq!(last_inline(place(moment, own, 2)), own.0);
        let (later, older) = (moment + Duration::from_micros(7), id(moment - Duration::from_secs(9), 5));
        assert_eq!(last_inline(place(later, own, 2)), last.0);
        assert_eq!(last_inline(place(moment, older, 1)).as_u128(), first.0.as_u128() - 1);
    }
}
