//! Events, as they are looked at.

use fanfare_domain::ids::{ApplicationId, EventId};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    Store, StoreError,
    deliveries::{LISTED_BODY, SHOWN_BODY},
    store::row_count,
};

/// An event that was taken in.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// Its id.
    pub id: EventId,
    /// What happened.
    pub event_type: String,
    /// The publisher's own id of it.
    pub key: Option<String>,
    /// When it happened, in the publisher's words.
    pub occurred_at: Option<Timestamp>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How many endpoints wanted it when it was fanned out.
    pub matches: i32,
    /// Whether the deliveries of all of them have been written.
    pub fanned_out: bool,
    /// Whether it was sent once to test an endpoint.
    pub is_test: bool,
    /// What is sent, without redacted members; in a list none that is long.
    pub body: Option<String>,
    /// Since when what was in it is gone.
    pub erased_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, type, key, occurred_at, accepted_at, matches, fanned_out, is_test, erased_at";

impl Store {
    /// A page of an application's events, those accepted last first: of one type, if one is given, and
    /// before the event at which the page before ended. None where there is no such event.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn events(
        &self,
        application: ApplicationId,
        event_type: Option<&str>,
        before: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Vec<EventRow>>, StoreError> {
        let (mut accepted_before, mut id_before) = (None, None);
        if let Some(before) = before {
            let Some(accepted_at) = self.accepted_at(before).await? else { return Ok(None) };
            (accepted_before, id_before) = (Some(accepted_at), Some(before.0));
        }
        let statement = format!(
            "SELECT {COLUMNS}, {LISTED_BODY} FROM events e
             WHERE application_id = $1 AND ($2::text IS NULL OR type = $2)
               AND ($3::timestamptz IS NULL OR (accepted_at, id) < ($3, $4::uuid))
             ORDER BY accepted_at DESC, id DESC LIMIT $5"
        );
        let limit = row_count(limit);
        let connection = self.connection().await?;
        let rows =
            connection.query(&statement, &[&application.0, &event_type, &accepted_before, &id_before, &limit]).await?;
        Ok(Some(rows.iter().map(read).collect()))
    }

    /// An event of an application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn event(&self, application: ApplicationId, id: EventId) -> Result<Option<EventRow>, StoreError> {
        let Some(accepted_at) = self.accepted_at(id).await? else { return Ok(None) };
        let statement = format!(
            "SELECT {COLUMNS}, {SHOWN_BODY} FROM events e WHERE id = $1 AND accepted_at = $2 AND application_id = $3"
        );
        let row = self.connection().await?.query_opt(&statement, &[&id.0, &accepted_at, &application.0]).await?;
        Ok(row.as_ref().map(read))
    }

    /// When an event was accepted, which tells its partition.
    pub(crate) async fn accepted_at(&self, event: EventId) -> Result<Option<Timestamp>, StoreError> {
        if let Some(moment) = event.accepted_at() {
            return Ok(Some(moment));
        }
        let statement = "SELECT accepted_at FROM event_keys WHERE event_id = $1";
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
