//! Events, as the API shows them.

use fanfare_domain::ids::{ApplicationId, EventId};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};

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
    /// The publisher's time of the event.
    pub occurred_at: Option<Timestamp>,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// Number of endpoints that matched.
    pub matches: i32,
    /// True if all deliveries have been inserted.
    pub fanned_out: bool,
    /// True if the event was sent once to test an endpoint.
    pub is_test: bool,
    /// Body as sent, without redacted members; `None` for a long body in a list.
    pub body: Option<String>,
    /// Time of erasure; the content is gone since.
    pub erased_at: Option<Timestamp>,
}

const COLUMNS: &str = "e.id, e.type, e.key, e.occurred_at, e.accepted_at, e.matches, e.is_test, e.erased_at, \
                       (SELECT f.event_id FROM fan_outs f WHERE f.event_id = e.id) IS NULL AS fanned_out";

/// Body in a list, at most 64 KiB: a page of longer bodies would fill the memory of the process.
pub(crate) const LISTED_BODY: &str =
    "CASE WHEN octet_length(e.body) <= 65536 AND e.erased_at IS NULL THEN e.body END AS body";

/// Body of a single event.
pub(crate) const SHOWN_BODY: &str = "CASE WHEN e.erased_at IS NULL THEN e.body END AS body";

/// Maximum of events of other types that a page of a list by type may pass.
const MAX_PASSED: usize = 10_000;

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Events, newest first.
    pub events: Vec<EventRow>,
    /// Last event passed by a list by type, if `MAX_PASSED` ended the page early. The next page begins behind it.
    pub passed: Option<EventId>,
}

impl Store {
    /// Lists an application's events, newest first: one page of events older than `before`, of `event_type` if given.
    /// `None` if the event `before` does not exist.
    pub async fn events(
        &self,
        application: ApplicationId,
        event_type: Option<&str>,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Option<EventPage>, StoreError> {
        let bound = match before {
            None => None,
            Some(before) => match self.accepted_at(before).await? {
                Some(accepted_at) => Some((accepted_at, before.0)),
                None => return Ok(None),
            },
        };
        let (accepted_before, id_before) = bound.unzip();
        // `accepted_at <=` prunes the partitions; the comparison of rows does not.
        let place = match bound {
            Some(_) => "accepted_at <= $2 AND (accepted_at, id) < ($2, $3)",
            None => "$2::timestamptz IS NULL AND $3::uuid IS NULL",
        };
        let walk = |columns: &str| {
            format!(
                "SELECT {columns} FROM events WHERE application_id = $1 AND {place} ORDER BY accepted_at DESC, id DESC"
            )
        };
        let most = if event_type.is_some() { MAX_PASSED } else { limit };
        let statement = format!(
            "WITH walked AS MATERIALIZED ({} LIMIT $4), page AS MATERIALIZED (
                 SELECT id, accepted_at FROM walked WHERE $5::text IS NULL OR type = $5
                 ORDER BY accepted_at DESC, id DESC LIMIT $6
             )
             SELECT {COLUMNS}, {LISTED_BODY} FROM page
             CROSS JOIN LATERAL (
                 SELECT * FROM events e
                 WHERE e.application_id = $1 AND e.accepted_at = page.accepted_at AND e.id = page.id LIMIT 1) e
             ORDER BY e.accepted_at DESC, e.id DESC",
            walk("id, accepted_at, type")
        );
        let mut connection = self.connection().await?;
        // One snapshot for both statements: the next page begins exactly behind the last passed event.
        let transaction = connection
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let (most, limit) = (row_count(most), row_count(limit));
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&application.0, &accepted_before, &id_before, &most, &event_type, &limit];
        let rows = transaction.query(&statement, &parameters).await?;
        let mut passed = None;
        if event_type.is_some() && row_count(rows.len()) < limit {
            let statement = format!("{} OFFSET $4 LIMIT 1", walk("id"));
            let parameters: [&(dyn ToSql + Sync); 4] = [&application.0, &accepted_before, &id_before, &(most - 1)];
            passed = transaction.query_opt(&statement, &parameters).await?.map(|row| EventId(row.get(0)));
        }
        transaction.commit().await?;
        Ok(Some(EventPage { events: rows.iter().map(read).collect(), passed }))
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

fn read(row: &Row) -> EventRow {
    EventRow {
        id: EventId(row.get("id")),
        event_type: row.get("type"),
        key: row.get("key"),
        occurred_at: row.get("occurred_at"),
        accepted_at: row.get("accepted_at"),
        matches: row.get("matches"),
        fanned_out: row.get("fanned_out"),
        is_test: row.get("is_test"),
        body: row.get("body"),
        erased_at: row.get("erased_at"),
    }
}
