//! Feeds of endpoints: deliveries in the order of writing transactions, for receivers that read.

use fanfare_domain::{
    delivery::{digest, feed::FeedPlace},
    event::{EventType, ordering::Sequence},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::row_count,
    pipeline::{bodies::open_body, lease::sequence},
};

/// Bodies of a page before its last body, in bytes.
const MAX_BYTES: i64 = 1024 * 1024;

/// Own bodies read at once: few are read in vain behind the last body of a page.
const OWN_AT_ONCE: usize = 8;

/// Statement of a page. Parameters: endpoint, transaction and delivery of the place, limit, bytes; with a day the
/// bounds of its deliveries. A day is read from its partition only.
///
/// Entries of the oldest running transaction and of later ones are left out: such a transaction may still commit
/// entries before them. The oldest running transaction is `pg_snapshot_xmin`.
fn page_statement(has_day: bool) -> String {
    let day = if has_day { "AND f.id >= $6 AND f.id < $7" } else { "" };
    format!(
        "WITH horizon AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
), page AS MATERIALIZED (
    SELECT f.written, f.id, f.event_id, f.application_id FROM feed_entries f
    WHERE f.endpoint_id = $1 AND (f.written, f.id) > ($2, $3) AND f.written < (SELECT oldest FROM horizon)
      {day}
    ORDER BY f.written, f.id LIMIT $4
), sized AS (
    SELECT p.written, p.id, p.event_id, e.type, e.body, e.body_key_name, e.body_ciphertext, e.ordering_key,
           e.id IS NULL OR e.erased_at IS NOT NULL AS is_erased,
           sum(octet_length(e.body) + coalesce(octet_length(e.body_ciphertext), 0))
               OVER (ORDER BY p.written, p.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM page p
    LEFT JOIN LATERAL (
        SELECT * FROM events e
        WHERE e.application_id = p.application_id AND e.accepted_at = delivery_accepted_at(p.id) AND e.id = p.event_id
        LIMIT 1) e ON true
)
SELECT $2 > horizon.next AS is_ahead, s.*,
       CASE WHEN s.ordering_key IS NOT NULL THEN (SELECT n.sequence FROM delivery_sequences n WHERE n.id = s.id) END
           AS sequence,
       coalesce((SELECT p.had_template FROM endpoints p WHERE p.id = $1), false) AS had_template
FROM horizon
LEFT JOIN sized s ON coalesce(s.before, 0) < $5 ORDER BY s.written, s.id"
    )
}

/// Selects the entries of a page.
#[derive(Debug, Clone, Copy, Default)]
pub struct FeedRange {
    /// Place before the page; `None` for the beginning.
    pub after: Option<FeedPlace>,
    /// UTC day of acceptance; `None` for all days.
    pub day: Option<Date>,
}

/// A page of a feed.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// Entries, in the order of their transactions.
    pub entries: Vec<FeedEntry>,
    /// Place behind the last entry; `None` without a further entry.
    pub next: Option<FeedPlace>,
    /// True if the place of the request lies in the future: the place is of another database.
    pub is_ahead: bool,
}

/// A delivery in a feed.
#[derive(Debug, Clone)]
pub struct FeedEntry {
    /// Place behind the entry.
    pub place: FeedPlace,
    /// Event of the delivery.
    pub event: EventId,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// Type and complete body; `None` for an erased event.
    pub content: Option<(EventType, String)>,
    /// Place in the order of the event's ordering key.
    pub sequence: Option<Sequence>,
}

impl Store {
    /// Lists the deliveries of an endpoint's feed in a range, at most `limit`, with about a MiB of bodies.
    ///
    /// # Errors
    /// [`StoreError::Keyring`] if this process lacks the key of an encrypted body.
    pub async fn feed(&self, endpoint: EndpointId, range: FeedRange, limit: usize) -> Result<FeedPage, StoreError> {
        let (written, delivery) = range.after.map_or((0, Uuid::nil()), |place| (place.written, place.delivery.0));
        let bounds = range.day.map(digest::bounds).map(|(first, behind)| (first.0, behind.0));
        let limit = row_count(limit);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&endpoint.0, &written, &delivery, &limit, &MAX_BYTES];
        if let Some((first, behind)) = &bounds {
            parameters.extend([first as &(dyn ToSql + Sync), behind]);
        }
        let rows = self.query_by_kept_plan(&page_statement(bounds.is_some()), &parameters).await?;
        let is_ahead = rows.first().is_some_and(|row| row.get("is_ahead"));
        let found = rows.iter().filter(|row| row.get::<_, Option<i64>>("written").is_some());
        let mut entries = found.map(|row| self.feed_entry(row)).collect::<Result<Vec<_>, _>>()?;
        if rows.first().is_some_and(|row| row.get("had_template")) {
            self.put_own_bodies_of_feed(&mut entries).await?;
        }
        Ok(FeedPage { next: entries.last().map(|entry| entry.place), entries, is_ahead })
    }

    /// Replaces the events' bodies by the deliveries' own. Keeps the entries with about a MiB of bodies.
    async fn put_own_bodies_of_feed(&self, entries: &mut Vec<FeedEntry>) -> Result<(), StoreError> {
        let (mut bytes, mut kept) = (0, 0);
        for entries in entries.chunks_mut(OWN_AT_ONCE) {
            if bytes > MAX_BYTES {
                break;
            }
            let ids = entries.iter().filter(|entry| entry.content.is_some()).map(|entry| entry.place.delivery);
            let mut own = self.bodies_to_send(ids.collect::<Vec<_>>()).await?;
            for entry in entries {
                if bytes > MAX_BYTES {
                    break;
                }
                if let (Some(own), Some((_, body))) = (own.remove(&entry.place.delivery), &mut entry.content) {
                    *body = own?;
                }
                let length = entry.content.as_ref().map_or(0, |(_, body)| body.len());
                bytes += i64::try_from(length).unwrap_or(i64::MAX);
                kept += 1;
            }
        }
        entries.truncate(kept);
        Ok(())
    }

    fn feed_entry(&self, row: &Row) -> Result<FeedEntry, StoreError> {
        let (delivery, event) = (DeliveryId(row.get("id")), EventId(row.get("event_id")));
        let content = if row.get("is_erased") {
            None
        } else {
            let text: &str = row.get("type");
            let event_type = EventType::parse(text)
                .map_err(|fault| StoreError::corrupt("events", format!("type {text:?}, which {}", fault.message)))?;
            Some((event_type, open_body(&self.keyring, event, row)?))
        };
        Ok(FeedEntry {
            place: FeedPlace { written: row.get("written"), delivery },
            event,
            accepted_at: delivery.accepted_at(),
            content,
            sequence: sequence(row),
        })
    }

    /// Lists temporary endpoints behind their expiry, at most `limit`.
    pub async fn expired_endpoints(&self, limit: usize) -> Result<Vec<(ApplicationId, EndpointId)>, StoreError> {
        let statement = "SELECT application_id, id FROM endpoints
                         WHERE expires_at < now() AND deleted_at IS NULL ORDER BY expires_at LIMIT $1";
        let rows = self.connection().await?.query(statement, &[&row_count(limit)]).await?;
        Ok(rows.iter().map(|row| (ApplicationId(row.get(0)), EndpointId(row.get(1)))).collect())
    }
}
