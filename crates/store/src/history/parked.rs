//! Parked messages: unreadable messages, moved from the broker into a table.

use std::time::Duration;

use fanfare_domain::{
    event::parked::Origin,
    ids::{ParkedId, first_id},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};

use crate::{Store, StoreError, connection::store::row_count};

/// A message to park.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// Id of the parked message.
    pub id: ParkedId,
    /// Code of the fault.
    pub reason: String,
    /// Description of the fault, for people.
    pub message: String,
    /// Exchange of the message, if known.
    pub origin: Option<Origin>,
    /// Routing key of the message.
    pub routing_key: Option<String>,
    /// `message_id` of the message.
    pub message_id: Option<String>,
    /// Kept headers of the message, as a JSON object.
    pub headers: String,
    /// Body of the message, or its beginning.
    pub body: Vec<u8>,
    /// Bytes of the whole body.
    pub bytes: usize,
}

/// A parked message in a list, without headers and bytes.
#[derive(Debug, Clone)]
pub struct ParkedRow {
    /// Id of the parked message.
    pub id: ParkedId,
    /// Time of parking.
    pub parked_at: Timestamp,
    /// Code of the fault.
    pub reason: String,
    /// Description of the fault, for people.
    pub message: String,
    /// Exchange from which the message came; a put-back publishes to this exchange.
    pub origin: Origin,
    /// Routing key of the message.
    pub routing_key: Option<String>,
    /// `message_id` of the message.
    pub message_id: Option<String>,
    /// Bytes of the whole body, of which the beginning may be kept only.
    pub bytes: i32,
}

/// Selects parked messages.
#[derive(Debug, Clone, Default)]
pub struct ParkedFilter {
    /// Messages with these ids; `None` for all ids.
    pub ids: Option<Vec<ParkedId>>,
    /// Messages with this reason.
    pub reason: Option<String>,
    /// Messages with this routing key; an empty key selects the messages without a routing key.
    pub routing_key: Option<String>,
    /// Messages parked from this time on.
    pub since: Option<Timestamp>,
    /// Last message of the previous page.
    pub before: Option<ParkedId>,
    /// Size of the page; the newest messages first.
    pub limit: usize,
}

/// Parked messages with the same reason and routing key.
#[derive(Debug, Clone)]
pub struct ParkedGroup {
    /// Code of the fault.
    pub reason: String,
    /// Routing key of the messages; `None` for messages without a routing key.
    pub routing_key: Option<String>,
    /// Number of messages.
    pub messages: i64,
    /// Time of parking of the oldest message.
    pub oldest: Timestamp,
    /// Time of parking of the newest message.
    pub newest: Timestamp,
}

/// Groups of parked messages.
#[derive(Debug, Clone)]
pub struct ParkedGroups {
    /// The largest groups first.
    pub groups: Vec<ParkedGroup>,
    /// True if there are more groups.
    pub has_more: bool,
    /// Time back to which messages were counted; `None` if all messages were counted.
    pub searched_until: Option<Timestamp>,
}

/// Parked messages that a count of groups looks through.
const MAX_WALKED: usize = 20_000;

/// Groups in an answer.
const MAX_GROUPS: usize = 100;

/// Reasons of messages that are sound: their consumers died, or no process could read the application.
const NOT_THEIRS: [&str; 2] = ["delivery_limit", "application_unreadable"];

/// Tolerance for the clock of the process that made an id: ids begin with the process's time, and `parked_at` is the
/// database's.
const CLOCKS: Duration = Duration::from_secs(600);

// The routing key tells the origin of a message without `origin`.
const COLUMNS: &str = "id, parked_at, reason, message, routing_key, message_id,
                       coalesce(bytes, octet_length(body)) AS bytes,
                       coalesce(origin, CASE WHEN routing_key LIKE '%.%' THEN 'events' ELSE 'deliveries' END) AS origin";

impl Store {
    /// Stores a parked message. A known id changes nothing.
    pub async fn park(&self, parked: &ParkedMessage) -> Result<(), StoreError> {
        // PostgreSQL stores no NUL in a text, and any publisher may send NUL.
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let routing_key = parked.routing_key.as_deref().map(text);
        let message_id = parked.message_id.as_deref().map(text);
        let statement =
            "INSERT INTO parked (id, reason, message, routing_key, message_id, headers, body, bytes, origin)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
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
                    &i32::try_from(parked.bytes).unwrap_or(i32::MAX),
                    &parked.origin.map(Origin::as_str),
                ],
            )
            .await?;
        Ok(())
    }

    /// Lists parked messages, newest first.
    pub async fn parked(&self, filter: &ParkedFilter) -> Result<Vec<ParkedRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM parked
             WHERE ($1::uuid[] IS NULL OR id = ANY($1)) AND ($2::text IS NULL OR reason = $2)
               AND ($3::uuid IS NULL OR id < $3) AND ($5::text IS NULL OR coalesce(routing_key, '') = $5)
               AND ($6::timestamptz IS NULL OR parked_at >= $6 AND id >= $7)
             ORDER BY id DESC LIMIT $4"
        );
        let ids = filter.ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
        let before = filter.before.map(|id| id.0);
        let limit = row_count(filter.limit);
        let least = filter.since.map(|since| first_id(since - CLOCKS));
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&ids, &filter.reason, &before, &limit, &filter.routing_key, &filter.since, &least];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        rows.iter().map(read).collect()
    }

    /// Counts the parked messages by reason and routing key, the largest groups first. Looks through a bounded number
    /// of messages, newest first.
    pub async fn parked_groups(&self) -> Result<ParkedGroups, StoreError> {
        let statement = format!(
            "WITH walked AS MATERIALIZED (
                 -- A message over AMQP has at least an empty key.
                 SELECT reason, nullif(routing_key, '') AS routing_key, parked_at FROM parked
                 ORDER BY id DESC LIMIT {MAX_WALKED}
             )
             SELECT reason, routing_key, count(*) AS messages, min(parked_at) AS oldest, max(parked_at) AS newest,
                    (SELECT CASE WHEN count(*) = {MAX_WALKED} THEN min(parked_at) END FROM walked) AS searched_until
             FROM walked GROUP BY 1, 2 ORDER BY messages DESC, newest DESC LIMIT {}",
            MAX_GROUPS + 1
        );
        let rows = self.connection().await?.query(&statement, &[]).await?;
        let group = |row: &Row| ParkedGroup {
            reason: row.get("reason"),
            routing_key: row.get("routing_key"),
            messages: row.get("messages"),
            oldest: row.get("oldest"),
            newest: row.get("newest"),
        };
        Ok(ParkedGroups {
            groups: rows.iter().take(MAX_GROUPS).map(group).collect(),
            has_more: rows.len() > MAX_GROUPS,
            searched_until: rows.first().and_then(|row| row.get("searched_until")),
        })
    }

    /// Finds a parked message, with its kept headers as a JSON object and its bytes.
    pub async fn parked_message(&self, id: ParkedId) -> Result<Option<(ParkedRow, String, Vec<u8>)>, StoreError> {
        let statement = format!("SELECT {COLUMNS}, headers, body FROM parked WHERE id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        row.map(|row| Ok((read(&row)?, row.get("headers"), row.get("body")))).transpose()
    }

    /// Deletes the oldest parked messages beyond `rows` messages, or beyond `bytes` of kept bodies, up to `most` at
    /// once. Returns the number of deleted messages. Keeps messages that are not their publisher's fault.
    pub async fn trim_parked(&self, rows: usize, bytes: usize, most: usize) -> Result<u64, StoreError> {
        let statement = "DELETE FROM parked WHERE id IN (
                             SELECT id FROM (SELECT id, row_number() OVER newer AS rows,
                                                    sum(octet_length(body)) OVER newer AS bytes
                                             FROM parked WHERE reason <> ALL ($3)
                                             WINDOW newer AS (ORDER BY id DESC)) p
                             WHERE rows > $1 OR bytes > $2 ORDER BY id LIMIT $4)";
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&row_count(rows), &row_count(bytes), &NOT_THEIRS.as_slice(), &row_count(most)];
        Ok(self.connection().await?.execute(statement, &parameters).await?)
    }

    /// Deletes a parked message; false if there is none.
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
