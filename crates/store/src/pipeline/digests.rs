//! Daily digests: counts the deliveries of a feed's day, and writes the event that tells the counts.
//!
//! A day is read page by page up to a horizon, the oldest running transaction at the beginning. All entries below the
//! horizon are committed: pages agree without a common transaction, and later entries are found by their numbers.

use fanfare_domain::{
    delivery::{
        digest::{self, DayCount, DayEntry},
        feed::FeedPlace,
    },
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, ProcessId},
    time::day_of,
};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{NewEvent, Persisted, Store, StoreError, connection::store::row_count, pipeline::columns::Columns};

/// Maximum of entries in a page.
const PAGE: i64 = 10_000;

/// Days for which a told day is kept below the line of retention. The row of a day names an event of the next day, or
/// of the day after.
const KEPT_BELOW_LINE: i64 = 2;

/// An endpoint whose digest is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueDigest {
    /// Endpoint of the digest.
    pub endpoint: EndpointId,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// First day with digests.
    pub from: Date,
}

/// Number of the oldest running transaction: all entries of a feed with smaller numbers are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon(i64);

/// A digest to tell.
#[derive(Debug)]
pub struct NewDigest<'a> {
    /// Endpoint of the digest.
    pub endpoint: EndpointId,
    /// The last ended day, which the digest tells first.
    pub day: Date,
    /// Entries of this day and of earlier days, counted up to `horizon`.
    pub days: &'a [DayEntry],
    /// End of the counts.
    pub horizon: Horizon,
    /// Event of the digest, with a delivery to the endpoint.
    pub event: &'a NewEvent,
}

/// The last told digest of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldDay {
    /// The last told day.
    pub day: Date,
    /// Number of deliveries.
    pub count: i64,
    /// Event that told the day first.
    pub event: EventId,
    /// Time of the last count.
    pub told_at: Timestamp,
}

/// Parameters: day, endpoint before the page, limit.
const DUE: &str = "
SELECT e.id, e.application_id, e.digest_from FROM endpoints e
WHERE e.digest_from <= $1 AND e.digest_from IS NOT NULL AND e.deleted_at IS NULL AND e.feed <> 'none' AND e.id > $2
  AND NOT EXISTS (SELECT FROM digests d WHERE d.endpoint_id = e.id AND d.day = $1)
ORDER BY e.id LIMIT $3";

/// Days never told, and days with entries behind the last count. Parameters: endpoint, horizon, then days with bounds.
const UNTOLD: &str = "
SELECT w.day FROM unnest($3::date[], $4::uuid[], $5::uuid[]) AS w(day, first, behind)
LEFT JOIN digests d ON d.endpoint_id = $1 AND d.day = w.day
WHERE d.day IS NULL OR EXISTS (
    SELECT FROM feed_entries f
    WHERE f.endpoint_id = $1 AND f.written >= d.counted_to AND f.written < $2 AND f.id >= w.first AND f.id < w.behind)
ORDER BY w.day";

/// Parameters: endpoint, transaction and delivery of the place, horizon, bounds of the day, limit.
const ENTRIES: &str = "
SELECT f.written, f.id, f.event_id FROM feed_entries f
WHERE f.endpoint_id = $1 AND (f.written, f.id) > ($2, $3) AND f.written < $4 AND f.id >= $5 AND f.id < $6
ORDER BY f.written, f.id LIMIT $7";

/// Digests whose events were accepted on a day. Parameters: endpoint, bounds of the day.
const OWN_EVENTS: &str = "
SELECT DISTINCT event_id FROM digests WHERE endpoint_id = $1 AND event_id >= $2 AND event_id < $3";

/// Notes the told days, unless the last ended day is told already, or the endpoint has no digests any more.
fn note_statement(days: &Columns<'_, DayEntry>) -> String {
    format!(
        "WITH input AS MATERIALIZED (SELECT * FROM {}), told AS (
    INSERT INTO digests (endpoint_id, day, event_id, deliveries, hash, counted_to)
    SELECT $1, i.day, $2, i.deliveries, decode(i.hash, 'hex'), $3 FROM input i
    WHERE i.day = $4 AND EXISTS (SELECT FROM endpoints e WHERE e.id = $1 AND e.digest_from <= $4 AND e.deleted_at IS NULL)
    ON CONFLICT DO NOTHING RETURNING day
), earlier AS (
    INSERT INTO digests AS d (endpoint_id, day, event_id, deliveries, hash, counted_to)
    SELECT $1, i.day, $2, i.deliveries, decode(i.hash, 'hex'), $3 FROM input i
    WHERE i.day <> $4 AND EXISTS (SELECT FROM told)
    ON CONFLICT (endpoint_id, day) DO UPDATE
    SET deliveries = excluded.deliveries, hash = excluded.hash, counted_to = excluded.counted_to, told_at = now()
)
SELECT day FROM told",
        days.table("i")
    )
}

impl Store {
    /// Lists endpoints behind `after`, in the order of ids, whose digest of the day is not told yet.
    pub async fn due_digests(&self, day: Date, after: EndpointId, limit: usize) -> Result<Vec<DueDigest>, StoreError> {
        let rows = self.query_by_kept_plan(DUE, &[&day, &after.0, &row_count(limit)]).await?;
        let due = |row: &Row| DueDigest {
            endpoint: EndpointId(row.get("id")),
            application: ApplicationId(row.get("application_id")),
            from: row.get("digest_from"),
        };
        Ok(rows.iter().map(due).collect())
    }

    /// The end of the counts that begin now.
    pub async fn horizon(&self) -> Result<Horizon, StoreError> {
        let statement = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        Ok(Horizon(self.connection().await?.query_one(statement, &[]).await?.get(0)))
    }

    /// Selects days never told, and days with further deliveries since.
    pub async fn untold_days(
        &self,
        endpoint: EndpointId,
        days: &[Date],
        Horizon(horizon): Horizon,
    ) -> Result<Vec<Date>, StoreError> {
        let (first, behind): (Vec<Uuid>, Vec<Uuid>) =
            days.iter().map(|day| digest::bounds(*day)).map(|(first, behind)| (first.0, behind.0)).unzip();
        let parameters: [&(dyn ToSql + Sync); 5] = [&endpoint.0, &horizon, &days, &first, &behind];
        let rows = self.query_by_kept_plan(UNTOLD, &parameters).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Counts the deliveries of a day, without the digests themselves.
    pub async fn count_day(
        &self,
        endpoint: EndpointId,
        day: Date,
        Horizon(horizon): Horizon,
    ) -> Result<DayEntry, StoreError> {
        let (first, behind) = digest::bounds(day);
        let rows = self.query_by_kept_plan(OWN_EVENTS, &[&endpoint.0, &first.0, &behind.0]).await?;
        let digests: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let (mut count, mut place) = (DayCount::default(), (0_i64, Uuid::nil()));
        loop {
            let parameters: [&(dyn ToSql + Sync); 7] =
                [&endpoint.0, &place.0, &place.1, &horizon, &first.0, &behind.0, &PAGE];
            let rows = self.query_by_kept_plan(ENTRIES, &parameters).await?;
            for row in &rows {
                place = (row.get("written"), row.get("id"));
                let event = row.get("event_id");
                if !digests.contains(&event) {
                    count.add(FeedPlace { written: place.0, delivery: DeliveryId(place.1) }, EventId(event));
                }
            }
            if row_count(rows.len()) < PAGE {
                break;
            }
        }
        // A million ids take a tenth of a second to sort and hash.
        let hashing = tokio::task::spawn_blocking(move || count.finish(day));
        match hashing.await {
            Ok(entry) => Ok(entry),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process stops.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Notes a digest and writes its event, in one commit; `None` if the day is told already. A new backlog gets the
    /// owner `process`.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the digest may have been told; another call tells no second digest.
    pub async fn tell_digest(&self, process: ProcessId, new: &NewDigest<'_>) -> Result<Option<Persisted>, StoreError> {
        let columns = Columns::new(new.days, 5)
            .column("day", "date", |entry| entry.day)
            .column("deliveries", "bigint", |entry| row_count(entry.count))
            .column("hash", "text", |entry| entry.hash.as_str());
        let first: [&(dyn ToSql + Sync); 4] = [&new.endpoint.0, &new.event.event.id.0, &new.horizon.0, &new.day];
        let parameters: Vec<_> = first.into_iter().chain(columns.values()).collect();
        let mut connection = self.inserter().await?;
        let transaction = connection.transaction().await?;
        let note = transaction.prepare_cached(&note_statement(&columns)).await?;
        if transaction.query_opt(&note, &parameters).await?.is_none() {
            return Ok(None);
        }
        // Last: the statement locks the backlog, and the commit follows at once.
        let persisted = self.persist_in(&transaction, process, &[new.event]).await?;
        transaction.commit().await?;
        Ok(Some(persisted))
    }

    /// The last told day of an endpoint.
    pub async fn told_day(&self, endpoint: EndpointId) -> Result<Option<ToldDay>, StoreError> {
        let statement = "SELECT day, deliveries, event_id, told_at FROM digests
                         WHERE endpoint_id = $1 ORDER BY day DESC LIMIT 1";
        let row = self.connection().await?.query_opt(statement, &[&endpoint.0]).await?;
        Ok(row.map(|row| ToldDay {
            day: row.get("day"),
            count: row.get("deliveries"),
            event: EventId(row.get("event_id")),
            told_at: row.get("told_at"),
        }))
    }

    /// Forgets told days below the line of retention. Returns the number of forgotten days.
    pub async fn forget_digests(&self, line: Timestamp) -> Result<u64, StoreError> {
        let before = day_of(line).saturating_sub(jiff::Span::new().days(KEPT_BELOW_LINE));
        let statement = "DELETE FROM digests WHERE day < $1";
        Ok(self.connection().await?.execute(statement, &[&before]).await?)
    }
}
