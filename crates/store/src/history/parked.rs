//! Messages that could not be read, kept off the broker.

use fanfare_domain::{ids::ParkedId, parked::Origin};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Store, StoreError, connection::store::row_count};

/// A message that could not be read.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// Its id.
    pub id: ParkedId,
    /// The code of what is wrong with it.
    pub reason: String,
    /// What is wrong with it, for people.
    pub message: String,
    /// Where it came from, as far as that is known.
    pub origin: Option<Origin>,
    /// Its routing key.
    pub routing_key: Option<String>,
    /// Its `message_id`.
    pub message_id: Option<String>,
    /// What is kept of the headers that it was published with, as a JSON object.
    pub headers: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A parked message as it is listed: without its headers and bytes.
#[derive(Debug, Clone)]
pub struct ParkedRow {
    /// Its id.
    pub id: ParkedId,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// The code of what is wrong with it.
    pub reason: String,
    /// What is wrong with it, for people.
    pub message: String,
    /// Where it came from, and is put back to.
    pub origin: Origin,
    /// Its routing key.
    pub routing_key: Option<String>,
    /// Its `message_id`.
    pub message_id: Option<String>,
    /// How many bytes it has.
    pub bytes: i32,
}

/// Which parked messages are meant.
#[derive(Debug, Clone, Default)]
pub struct ParkedFilter {
    /// These; none for all that the rest of the filter finds.
    pub ids: Option<Vec<ParkedId>>,
    /// Those with this reason.
    pub reason: Option<String>,
    /// Those parked before this one.
    pub before: Option<ParkedId>,
    /// This many at the most, the newest ones.
    pub limit: usize,
}

// A message of the releases before says by its routing key where it came from.
const COLUMNS: &str = "id, parked_at, reason, message, routing_key, message_id, octet_length(body) AS bytes,
                       coalesce(origin, CASE WHEN routing_key LIKE '%.%' THEN 'events' ELSE 'deliveries' END) AS origin";

impl Store {
    /// Keeps a parked message. The same id again changes nothing.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn park(&self, parked: &ParkedMessage) -> Result<(), StoreError> {
        // Postgres stores no NUL in a text, and these come from anybody.
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let routing_key = parked.routing_key.as_deref().map(text);
        let message_id = parked.message_id.as_deref().map(text);
        let statement = "INSERT INTO parked (id, reason, message, routing_key, message_id, headers, body, origin)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
        self.connection()
            .await?
            .execute(
                statement,
                &[
                    &parked.id.0,
                    &parked.reason,
                    &text(&parked.message),
                    &routing_key,
                    &message_id,
                    &text(&parked.headers),
                    &parked.body,
                    &parked.origin.map(Origin::as_str),
                ],
            )
            .await?;
        Ok(())
    }

    /// The parked messages that are meant, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn parked(&self, filter: &ParkedFilter) -> Result<Vec<ParkedRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM parked
             WHERE ($1::uuid[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR reason = $2)
               AND ($3::uuid IS NULL OR id < $3)
             ORDER BY id DESC LIMIT $4"
        );
        let ids = filter.ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
        let before = filter.before.map(|id| id.0);
        let limit = row_count(filter.limit);
        let rows = self.connection().await?.query(&statement, &[&ids, &filter.reason, &before, &limit]).await?;
        rows.iter().map(read).collect()
    }

    /// A parked message, with the headers that are kept of it, as a JSON object, and its bytes.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn parked_message(&self, id: ParkedId) -> Result<Option<(ParkedRow, String, Vec<u8>)>, StoreError> {
        let statement = format!("SELECT {COLUMNS}, headers, body FROM parked WHERE id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        row.map(|row| Ok((read(&row)?, row.get("headers"), row.get("body")))).transpose()
    }

    /// Forgets a parked message; false where there is none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn discard_parked(&self, id: ParkedId) -> Result<bool, StoreError> {
        let statement = "DELETE FROM parked WHERE id = $1";
        Ok(self.connection().await?.execute(statement, &[&id.0]).await? == 1)
    }
}

fn read(row: &Row) -> Result<ParkedRow, StoreError> {
    let origin: &str = row.get("origin");
    Ok(ParkedRow {
        id: ParkedId(row.get("id")),
        parked_at: row.get("parked_at"),
        reason: row.get("reason"),
        message: row.get("message"),
        origin: Origin::parse(origin).ok_or_else(|| StoreError::corrupt("parked", format!("origin {origin:?}")))?,
        routing_key: row.get("routing_key"),
        message_id: row.get("message_id"),
        bytes: row.get("bytes"),
    })
}
