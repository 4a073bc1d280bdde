//! Numbers for operators: counts of rows, partitions ahead, and storage.

use crate::{Store, StoreError, connection::store::row_count, operations::partitions::DAILY};

/// Bound of each count: an exact large number helps nobody, and costs a scan.
const COUNTED: usize = 100_000;

/// Days from today on for which all partitions of the tables $1 exist, and days that wait for the archive.
pub(crate) const DAYS: &str = "
SELECT ahead.days AS ahead, (
           SELECT count(DISTINCT right(c.relname::text, 8)) FROM pg_class c, retention r
           WHERE r.archives AND c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
             AND c.relname ~ '^(events|deliveries|attempts)_p[0-9]{8}$'
             AND right(c.relname::text, 8) < to_char(r.line AT TIME ZONE 'UTC', 'YYYYMMDD')
             AND right(c.relname::text, 8) NOT IN (SELECT to_char(day, 'YYYYMMDD') FROM archived_days)) AS to_archive
FROM (SELECT min(coalesce(newest, today)) - today AS days FROM (
          SELECT max(to_date(substring(c.relname FROM 'p([0-9]{8})$'), 'YYYYMMDD')) AS newest,
                 (now() AT TIME ZONE 'UTC')::date AS today
          FROM unnest($1::text[]) AS parent LEFT JOIN pg_inherits i ON i.inhparent = to_regclass(parent)
          LEFT JOIN pg_class c ON c.oid = i.inhrelid GROUP BY parent) tables GROUP BY today) ahead";

/// Numbers of a deployment. Counts of deliveries, messages and notices end at 100,000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Deliveries held for paused endpoints.
    pub held: i64,
    /// Parked messages.
    pub parked: i64,
    /// Failure notices that wait for a mail.
    pub notices: i64,
    /// Delayed events that are not yet due, or due for less than a minute.
    pub delayed: i64,
    /// Delayed events that are due for longer.
    pub overdue: i64,
    /// Parked ordering keys.
    pub parked_keys: i64,
    /// Signals of ordering keys that have waited for more than a minute.
    pub overdue_signals: i64,
    /// Running replays.
    pub replays: i64,
    /// Endpoints that are enabled, paused and disabled.
    pub endpoints: [i64; 3],
    /// Days from today on for which all partitions exist.
    pub partitions_ahead: i32,
    /// Days below the line of retention that wait for the archive.
    pub days_to_archive: i64,
}

impl Store {
    /// Counts rows and partitions.
    pub async fn census(&self) -> Result<Census, StoreError> {
        let statement = "
SELECT (SELECT count(*) FROM (
            SELECT FROM endpoint_backlogs b JOIN endpoints p ON p.id = b.endpoint_id AND p.status = 'paused'
            CROSS JOIN LATERAL (SELECT FROM open_deliveries o
                                WHERE o.endpoint_id = b.endpoint_id AND o.state = 'queued' LIMIT $1) o
            LIMIT $1) rows) AS held,
       (SELECT count(*) FROM (SELECT FROM parked LIMIT $1) rows) AS parked,
       (SELECT count(*) FROM (SELECT FROM failure_notices LIMIT $1) rows)
           + (SELECT count(*) FROM (SELECT FROM condition_notices LIMIT $1) rows) AS notices,
       (SELECT count(*) FROM (SELECT FROM delayed_events WHERE due_at >= now() - interval '1 minute' LIMIT $1) rows)
           AS delayed,
       (SELECT count(*) FROM (SELECT FROM delayed_events WHERE due_at < now() - interval '1 minute' LIMIT $1) rows)
           AS overdue,
       (SELECT count(*) FROM (SELECT FROM ordering_keys WHERE parked_at IS NOT NULL LIMIT $1) rows) AS parked_keys,
       (SELECT count(*) FROM (SELECT added_at FROM ordering_signals ORDER BY id LIMIT 1000) rows
        WHERE added_at < now() - interval '1 minute') AS overdue_signals,
       (SELECT count(*) FROM replays WHERE state = 'running') AS replays,
       e.*
FROM (SELECT count(*) FILTER (WHERE status = 'enabled') AS enabled, count(*) FILTER (WHERE status = 'paused') AS paused,
             count(*) FILTER (WHERE status = 'disabled') AS disabled
      FROM endpoints WHERE deleted_at IS NULL) e";
        let connection = self.connection().await?;
        let row = connection.query_one(statement, &[&row_count(COUNTED)]).await?;
        let days = connection.query_one(DAYS, &[&DAILY.as_slice()]).await?;
        Ok(Census {
            held: row.get("held"),
            parked: row.get("parked"),
            notices: row.get("notices"),
            delayed: row.get("delayed"),
            overdue: row.get("overdue"),
            parked_keys: row.get("parked_keys"),
            overdue_signals: row.get("overdue_signals"),
            replays: row.get("replays"),
            endpoints: [row.get("enabled"), row.get("paused"), row.get("disabled")],
            partitions_ahead: days.get("ahead"),
            days_to_archive: days.get("to_archive"),
        })
    }

    /// Bytes of each table on disk, with indexes and partitions.
    pub async fn storage(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let statement = "
SELECT coalesce(t.relname, c.relname)::text AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.inhparent
WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace GROUP BY 1 ORDER BY 1";
        let rows = self.connection().await?.query(statement, &[]).await?;
        Ok(rows.iter().map(|row| (row.get("name"), row.get("bytes"))).collect())
    }
}
