//! Events, as the API shows them.

use fanfare_domain::{
    event::subscription::Subscription,
    ids::{ApplicationId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// An accepted event.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// Id of the event.
    pub id: EventId,
    /// Type of the event.
    pub event_type: String,
    /// The publisher's id of the event.
    pub key: Option<String>,
    /// Ordering key of the event.
    pub ordering_key: Option<String>,
    /// The publisher's time of the event.
    pub occurred_at: Option<Timestamp>,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// Number of endpoints that matched.
    pub matches: i32,
    /// Time of delivery of a delayed event.
    pub deliver_at: Option<Timestamp>,
    /// True while the event is neither due nor cancelled.
    pub is_delayed: bool,
    /// Time of the cancellation.
    pub cancelled_at: Option<Timestamp>,
    /// Author of the cancellation: a key, or a visitor of the web pages.
    pub cancelled_by: Option<String>,
    /// True if all deliveries have been inserted.
    pub fanned_out: bool,
    /// True if the event was sent once to test an endpoint.
    pub is_test: bool,
    /// Body as sent, without redacted members; `None` for a long body in a list.
    pub body: Option<String>,
    /// Time of erasure; the content is gone since.
    pub erased_at: Option<Timestamp>,
}

const COLUMNS: &str = "e.id, e.type, e.key, e.ordering_key, e.occurred_at, e.accepted_at, e.matches, e.is_test, e.erased_at, \
                       e.deliver_at, e.cancelled_at, e.cancelled_by, \
                       e.deliver_at IS NOT NULL AND (SELECT d.event_id FROM delayed_events d WHERE d.event_id = e.id) \
                       IS NOT NULL AS is_delayed, \
                       (SELECT f.event_id FROM fan_outs f WHERE f.event_id = e.id) IS NULL AS fanned_out";

/// Longest body of a delivery in a list, in bytes, as in [`LISTED_BODY`].
pub(crate) const LONGEST_LISTED: i32 = 65_536;

/// Body in a list, at most 64 KiB: a page of longer bodies would fill the memory of the process.
pub(crate) const LISTED_BODY: &str =
    "CASE WHEN octet_length(e.body) <= 65536 AND e.erased_at IS NULL THEN e.body END AS body";

/// Body of a single event.
pub(crate) const SHOWN_BODY: &str = "CASE WHEN e.erased_at IS NULL THEN e.body END AS body";

/// Exact type and prefix of a condition on types.
pub(crate) fn type_condition(types: Option<&Subscription>) -> (Option<&str>, Option<&str>) {
    match types {
        None | Some(Subscription::All) => (None, None),
        Some(Subscription::Prefix(prefix)) => (None, Some(prefix)),
        Some(Subscription::Exact(exact)) => (Some(exact.as_str()), None),
    }
}

/// Events that a page of a search walks.
const MAX_WALKED: usize = 10_000;

/// Place of an event in the order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// Id of the event.
    pub event: EventId,
}

/// Selects the events of a list. An event must meet all conditions.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Events of these types.
    pub event_type: Option<Subscription>,
    /// Only this event.
    pub only: Option<EventPlace>,
    /// Events accepted from this moment on.
    pub since: Option<Timestamp>,
    /// Events accepted before this moment.
    pub until: Option<Timestamp>,
    /// True for events without a matching endpoint. Leaves out events that were not matched yet, or never.
    pub is_unmatched: bool,
    /// True for events that are neither due nor cancelled.
    pub is_delayed: bool,
    /// True for cancelled events.
    pub is_cancelled: bool,
    /// Events older than this event.
    pub before: Option<EventPlace>,
    /// Events newer than this event.
    pub after: Option<EventPlace>,
    /// Size of the page.
    pub limit: usize,
}

impl EventFilter {
    /// True if no index serves the filter: a page looks through a bounded number of events.
    pub fn is_search(&self) -> bool {
        self.event_type.is_some() || self.is_unmatched || self.is_delayed || self.is_cancelled
    }
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Events, newest first.
    pub events: Vec<EventRow>,
    /// Last event that a search looked at, if its bound ended the page early. The next page begins behind it.
    pub passed: Option<EventPlace>,
}

/// Types of an application's newest events.
#[derive(Debug, Clone)]
pub struct RecentTypes {
    /// Type, number of events, number of events of the last hour.
    pub types: Vec<(String, i64, i64)>,
    /// Acceptance of the oldest event.
    pub since: Option<Timestamp>,
}

impl Store {
    /// Counts the newest `most` events of an application by type, without tests.
    pub async fn recent_types(&self, application: ApplicationId, most: usize) -> Result<RecentTypes, StoreError> {
        let statement = "SELECT type, count(*), count(*) FILTER (WHERE accepted_at >= now() - interval '1 hour'),
                                min(accepted_at)
                         FROM (SELECT type, accepted_at, is_test FROM events WHERE application_id = $1
                               ORDER BY accepted_at DESC, id DESC LIMIT $2) newest
                         WHERE NOT is_test GROUP BY type";
        let rows = self.connection().await?.query(statement, &[&application.0, &row_count(most)]).await?;
        let since = rows.iter().map(|row| row.get(3)).min();
        Ok(RecentTypes { types: rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(), since })
    }

    /// Lists an application's events, newest first.
    pub async fn events(&self, application: ApplicationId, filter: &EventFilter) -> Result<EventPage, StoreError> {
        let place = |place: Option<EventPlace>| place.map(|place| (place.accepted_at, place.event.0)).unzip();
        let ((before_at, before), (after_at, after), (only_at, only)) =
            (place(filter.before), place(filter.after), place(filter.only));
        let (exact, prefix) = type_condition(filter.event_type.as_ref());
        let limit = row_count(filter.limit);
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &application.0,
            &before_at,
            &before,
            &limit,
            &exact,
            &prefix,
            &filter.is_unmatched,
            &after_at,
            &after,
            &filter.since,
            &filter.until,
            &only_at,
            &only,
        ];
        let rows = self.connection().await?.query(&list_statement(filter), &parameters).await?;
        let passed = rows.first().and_then(|row| {
            let event = row.get::<_, Option<Uuid>>("passed").map(EventId)?;
            Some(EventPlace { accepted_at: row.get("passed_at"), event })
        });
        let found = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some());
        Ok(EventPage { events: found.map(read).collect(), passed })
    }

    /// Finds the place of an event in lists; `None` if the application has no event with this id.
    pub async fn event_place(
        &self,
        application: ApplicationId,
        event: EventId,
    ) -> Result<Option<EventPlace>, StoreError> {
        let accepted_at = match event.accepted_at() {
            Some(moment) => Some(moment),
            // Anybody can derive the id of another application's key: the answer must not tell whether the event
            // exists.
            None => self.event(application, event).await?.map(|event| event.accepted_at),
        };
        Ok(accepted_at.map(|accepted_at| EventPlace { accepted_at, event }))
    }

    /// Finds an event of an application.
    pub async fn event(&self, application: ApplicationId, id: EventId) -> Result<Option<EventRow>, StoreError> {
        let Some(accepted_at) = self.accepted_at(id).await? else { return Ok(None) };
        let statement = format!(
            "SELECT {COLUMNS}, {SHOWN_BODY} FROM events e
             WHERE e.application_id = $1 AND e.accepted_at = $2 AND e.id = $3"
        );
        let row = self.connection().await?.query_opt(&statement, &[&application.0, &accepted_at, &id.0]).await?;
        Ok(row.as_ref().map(read))
    }

    /// Finds an event's moment of acceptance, and thereby the partition. The oldest key of the event decides.
    pub(crate) async fn accepted_at(&self, event: EventId) -> Result<Option<Timestamp>, StoreError> {
        if let Some(moment) = event.accepted_at() {
            return Ok(Some(moment));
        }
        let statement = "SELECT accepted_at FROM event_keys WHERE event_id = $1 ORDER BY month LIMIT 1";
        Ok(self.connection().await?.query_opt(statement, &[&event.0]).await?.map(|row| row.get(0)))
    }
}

/// Statement of a list. Parameters: application, place before, limit, exact type, prefix of types, unmatched, place
/// after, first moment, end of the moments, place of the only event.
///
/// Each row has the last event walked in `passed`, if the bound of a step ended a search early. Without an event, the
/// only row has NULL as id.
fn list_statement(filter: &EventFilter) -> String {
    // The comparison of moments prunes the partitions; the comparison of rows does not.
    let before = match filter.before {
        Some(_) => "accepted_at <= $2 AND (accepted_at, id) < ($2, $3)",
        None => "$2::timestamptz IS NULL AND $3::uuid IS NULL",
    };
    let after = match filter.after {
        Some(_) => "accepted_at >= $8 AND (accepted_at, id) > ($8, $9)",
        None => "$8::timestamptz IS NULL AND $9::uuid IS NULL",
    };
    let conditions = status_conditions(filter);
    let walked = if filter.is_search() { MAX_WALKED } else { filter.limit };
    format!(
        "WITH walked AS MATERIALIZED (
             SELECT id, accepted_at, type, matches, deliver_at, cancelled_at FROM events
             WHERE application_id = $1 AND {before} AND {after}
               AND ($10::timestamptz IS NULL OR accepted_at >= $10) AND ($11::timestamptz IS NULL OR accepted_at < $11)
               AND ($12::timestamptz IS NULL OR accepted_at = $12) AND ($13::uuid IS NULL OR id = $13)
             ORDER BY accepted_at DESC, id DESC LIMIT {walked}
         ), page AS MATERIALIZED (
             SELECT id, accepted_at FROM walked
             WHERE ($5::text IS NULL OR type = $5) AND ($6::text IS NULL OR starts_with(type, $6))
               AND (NOT $7::boolean OR matches = 0){conditions}
             ORDER BY accepted_at DESC, id DESC LIMIT $4
         ), last AS MATERIALIZED (
             SELECT id, accepted_at FROM walked ORDER BY accepted_at DESC, id DESC OFFSET {} LIMIT 1
         )
         SELECT last.id AS passed, last.accepted_at AS passed_at, shown.*
         FROM (VALUES (true)) AS one
         LEFT JOIN last ON {} AND (SELECT count(*) FROM page) < $4
         LEFT JOIN (
             SELECT {COLUMNS}, {LISTED_BODY} FROM page
             CROSS JOIN LATERAL (
                 SELECT * FROM events e
                 WHERE e.application_id = $1 AND e.accepted_at = page.accepted_at AND e.id = page.id LIMIT 1) e) shown
             ON true
         ORDER BY shown.accepted_at DESC, shown.id DESC",
        walked.saturating_sub(1),
        filter.is_search()
    )
}

/// Conditions on the state of a delayed event in a row of `walked`, from AND on.
fn status_conditions(filter: &EventFilter) -> String {
    const IS_DELAYED: &str = "deliver_at IS NOT NULL AND cancelled_at IS NULL
                              AND (SELECT d.event_id FROM delayed_events d WHERE d.event_id = walked.id) IS NOT NULL";
    let unmatched = format!(" AND cancelled_at IS NULL AND NOT ({IS_DELAYED})");
    let delayed = format!(" AND {IS_DELAYED}");
    [
        (filter.is_unmatched, unmatched.as_str()),
        (filter.is_delayed, delayed.as_str()),
        (filter.is_cancelled, " AND cancelled_at IS NOT NULL"),
    ]
    .into_iter()
    .filter_map(|(is_asked, condition)| is_asked.then_some(condition))
    .collect()
}

fn read(row: &Row) -> EventRow {
    EventRow {
        id: EventId(row.get("id")),
        event_type: row.get("type"),
        key: row.get("key"),
        ordering_key: row.get("ordering_key"),
        occurred_at: row.get("occurred_at"),
        accepted_at: row.get("accepted_at"),
        matches: row.get("matches"),
        deliver_at: row.get("deliver_at"),
        is_delayed: row.get("is_delayed"),
        cancelled_at: row.get("cancelled_at"),
        cancelled_by: row.get("cancelled_by"),
        fanned_out: row.get("fanned_out"),
        is_test: row.get("is_test"),
        body: row.get("body"),
        erased_at: row.get("erased_at"),
    }
}
