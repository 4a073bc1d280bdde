//! Health of endpoints: the last day, and deliveries that wait.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Object;
use fanfare_domain::{
    diagnosis::rollup::{HOUR, KEPT, floor},
    ids::{ApplicationId, DeliveryId, EndpointId},
    time::saturating_sub,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count, operations::rollups::FAILED};

/// Hours of the chart.
const HOURS: u32 = 24;

/// Health of an endpoint.
#[derive(Debug, Clone, Default)]
pub struct EndpointHealth {
    /// Attempts taken and failed, by hour, for the last 24 hours with any attempt.
    pub hours: BTreeMap<Timestamp, (u64, u64)>,
    /// Time since which each attempt failed, to five minutes; `None` after a success, and two days after the last
    /// failure.
    pub failing_since: Option<Timestamp>,
    /// Queued deliveries, counted up to a bound.
    pub queued: i64,
    /// Reason of the backlog, if queued.
    pub reason: Option<String>,
    /// Beginning of the backlog.
    pub waiting_since: Option<Timestamp>,
    /// Consecutive failures; known only of a backlog.
    pub failures: u32,
    /// Time of the next probe; `None` if the breaker is closed.
    pub next_probe: Option<Timestamp>,
    /// The newest failed delivery.
    pub last_failed: Option<LastFailed>,
}

/// The newest failed delivery of an endpoint.
#[derive(Debug, Clone)]
pub struct LastFailed {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Type of the event; `None` after the end of its retention.
    pub event_type: Option<String>,
    /// Reason of the failure.
    pub reason: Option<String>,
    /// Outcome of the last attempt; `None` without an attempt.
    pub outcome: Option<String>,
    /// Status of the last answer.
    pub status: Option<i32>,
    /// Time of the failure.
    pub at: Timestamp,
}

impl EndpointHealth {
    /// True if the breaker is open.
    pub fn is_breaker_open(&self) -> bool {
        self.next_probe.is_some()
    }
}

/// Time since which each attempt to the endpoint e.id failed. `$oldest` is a parameter, the beginning of the kept
/// rollups: with `now()`, the planner would look at each day.
pub(crate) fn failing_since(oldest: &str) -> String {
    format!(
        "CROSS JOIN LATERAL (SELECT max(r.at) AS at FROM rollups r
                             WHERE r.subject = e.id AND r.at >= {oldest} AND r.taken > 0) success
         CROSS JOIN LATERAL (SELECT min(r.at) AS since FROM rollups r
                             WHERE r.subject = e.id AND r.at >= {oldest} AND r.at > coalesce(success.at, '-infinity')
                               AND {FAILED} > 0) failing"
    )
}

impl Store {
    /// Health of endpoints of an application. Queued deliveries are counted up to `most`.
    pub async fn endpoint_health(
        &self,
        application: ApplicationId,
        endpoints: &[EndpointId],
        most: usize,
    ) -> Result<HashMap<EndpointId, EndpointHealth>, StoreError> {
        let ids: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let statement = format!(
            "SELECT e.id, failing.since AS failing_since, q.count AS queued, b.reason, b.since, b.failures, b.next_probe,
                    f.id AS delivery, f.event_id, f.reason AS failure, f.finished_at
             FROM unnest($1::uuid[]) AS e(id)
             {}
             LEFT JOIN endpoint_backlogs b ON b.endpoint_id = e.id
             CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT FROM open_deliveries o
                                 WHERE o.endpoint_id = e.id AND o.state = 'queued' LIMIT $3) c) q
             LEFT JOIN LATERAL (SELECT d.id, d.event_id, d.reason, d.finished_at FROM deliveries d
                                WHERE d.endpoint_id = e.id AND d.state = 'failed' ORDER BY d.id DESC LIMIT 1) f ON true",
            failing_since("$2")
        );
        let oldest = saturating_sub(self.now(), KEPT);
        let rows = self.query_by_kept_plan(&statement, &[&ids, &oldest, &row_count(most)]).await?;
        let mut found: HashMap<EndpointId, EndpointHealth> =
            rows.iter().map(|row| (EndpointId(row.get("id")), read(row))).collect();
        add_details(&*self.connection().await?, application, &rows, &mut found).await?;
        let since = floor(saturating_sub(self.now(), HOUR * (HOURS - 1)), HOUR);
        let statement = format!(
            "SELECT subject, at, taken::bigint, ({FAILED})::bigint AS failed FROM rollups_hourly
             WHERE subject = ANY ($1) AND at >= $2 AND at < (SELECT hourly FROM rollup_marks)
             UNION ALL
             SELECT subject, date_bin('1 hour', at, 'epoch'), sum(taken), sum({FAILED}) FROM rollups
             WHERE subject = ANY ($1) AND at >= greatest($2, (SELECT hourly FROM rollup_marks)) GROUP BY 1, 2"
        );
        for row in self.query_by_kept_plan(&statement, &[&ids, &since]).await? {
            let health = found.entry(EndpointId(row.get(0))).or_default();
            let count = |column| row.get::<_, i64>(column).unsigned_abs();
            health.hours.insert(row.get(1), (count(2), count(3)));
        }
        Ok(found)
    }
}

/// Adds outcome, status and event type of the failed deliveries. A statement of its own: with the ids as parameters,
/// the planner looks at few days.
async fn add_details(
    connection: &Object,
    application: ApplicationId,
    rows: &[Row],
    found: &mut HashMap<EndpointId, EndpointHealth>,
) -> Result<(), StoreError> {
    let failed = rows.iter().filter_map(|row| Some((row.get::<_, Option<Uuid>>("delivery")?, row)));
    let (mut endpoints, mut deliveries, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for (delivery, row) in failed {
        endpoints.push(row.get::<_, Uuid>("id"));
        deliveries.push(delivery);
        events.push(row.get::<_, Uuid>("event_id"));
    }
    let (Some(first), Some(last)) = (deliveries.iter().min(), deliveries.iter().max()) else { return Ok(()) };
    let (from, to) = (DeliveryId(*first).accepted_at(), DeliveryId(*last).accepted_at());
    let statement = "
SELECT f.endpoint_id, a.outcome, a.status, t.type
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS f(endpoint_id, id, event_id)
LEFT JOIN LATERAL (SELECT a.outcome, a.status FROM attempts a
                   WHERE a.delivery_id = f.id AND a.delivery_id BETWEEN $4 AND $5 ORDER BY a.attempt DESC LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT v.type FROM events v
                   WHERE v.application_id = $6 AND v.accepted_at = delivery_accepted_at(f.id)
                     AND v.accepted_at BETWEEN $7 AND $8 AND v.id = f.event_id LIMIT 1) t ON true";
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&endpoints, &deliveries, &events, first, last, &application.0, &from, &to];
    for row in connection.query(statement, &parameters).await? {
        let health = found.entry(EndpointId(row.get(0))).or_default();
        if let Some(last) = &mut health.last_failed {
            (last.outcome, last.status, last.event_type) = (row.get(1), row.get(2), row.get(3));
        }
    }
    Ok(())
}

fn read(row: &Row) -> EndpointHealth {
    let last_failed = row.get::<_, Option<Uuid>>("delivery").map(|delivery| LastFailed {
        delivery: DeliveryId(delivery),
        event_type: None,
        reason: row.get("failure"),
        outcome: None,
        status: None,
        at: row.get("finished_at"),
    });
    EndpointHealth {
        hours: BTreeMap::new(),
        failing_since: row.get("failing_since"),
        queued: row.get("queued"),
        reason: row.get("reason"),
        waiting_since: row.get("since"),
        failures: row.get::<_, Option<i32>>("failures").unwrap_or_default().unsigned_abs(),
        next_probe: row.get("next_probe"),
        last_failed,
    }
}
