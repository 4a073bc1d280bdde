//! Endpoints in trouble: an open breaker, or only failures in the last minutes.

use std::collections::HashMap;

use fanfare_domain::{
    diagnosis::{
        changes::{CHANGES, causes_of},
        findings::{ChangeFact, EndpointFact, MAX_WAITING},
        rollup::{BUCKETS, Histogram, KEPT},
    },
    endpoint::url::host_of,
    ids::{ApplicationId, EndpointId, KeyId, first_id},
    time::saturating_sub,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError, history::health::failing_since, operations::rollups::FAILED, pipeline::columns::Columns,
};

/// Maximum of endpoints with an open breaker, and of endpoints without a success.
const MAX_LISTED: i64 = 25;

/// Maximum of entries of the audit log that are searched for the change before a failure, the newest first.
const MAX_ENTRIES: i64 = 1000;

/// Attempts of deliveries accepted within this time are searched for the cause: an older day is another partition.
const CAUSE_DAYS: std::time::Duration = std::time::Duration::from_secs(2 * 86400);

/// Time of the newest rollups: an endpoint without a success in them is a candidate.
const NEWEST: std::time::Duration = std::time::Duration::from_secs(1800);

/// An endpoint in trouble.
#[derive(Debug, Clone)]
pub struct TroubledEndpoint {
    /// Facts for findings.
    pub fact: EndpointFact,
    /// Display name of the endpoint.
    pub name: Option<String>,
    /// URL of the endpoint.
    pub url: String,
    /// Reason of the backlog; `None` without a backlog.
    pub reason: Option<String>,
    /// Consecutive failures; known only of a backlog.
    pub failures: u32,
    /// Durations of the attempts of the last half hour.
    pub durations: Histogram,
}

impl Store {
    /// Endpoints in trouble, of an application or of all: the longest open breakers first.
    pub async fn troubled_endpoints(
        &self,
        application: Option<ApplicationId>,
    ) -> Result<Vec<TroubledEndpoint>, StoreError> {
        let now = self.now();
        let buckets: Vec<String> =
            (0..BUCKETS).map(|bucket| format!("coalesce(sum(r.d{bucket}), 0)::bigint AS d{bucket}")).collect();
        let statement = format!(
            "WITH open AS MATERIALIZED (
    SELECT endpoint_id AS id FROM endpoint_backlogs
    WHERE next_probe IS NOT NULL AND ($1::uuid IS NULL OR application_id = $1) ORDER BY since LIMIT $2
), failing AS MATERIALIZED (
    SELECT r.subject AS id FROM rollups r JOIN endpoints p ON p.id = r.subject
    WHERE r.kind = 2 AND r.taken = 0 AND r.at >= $5 AND {FAILED} > 0
      AND ($1::uuid IS NULL OR p.application_id = $1) GROUP BY 1 ORDER BY max(r.at) DESC, 1 LIMIT $2
), e AS (SELECT id FROM open UNION SELECT id FROM failing)
SELECT p.id, p.application_id, p.name, p.url, failing.since AS failing_since, b.since, b.reason, b.failures, b.next_probe,
       q.count AS waiting, a.outcome, a.status, d.*
FROM e JOIN endpoints p ON p.id = e.id AND p.status = 'enabled' AND p.deleted_at IS NULL
{}
LEFT JOIN endpoint_backlogs b ON b.endpoint_id = e.id
CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT FROM open_deliveries o WHERE o.endpoint_id = e.id AND o.state = 'queued'
                                          LIMIT {MAX_WAITING}) rows) q
LEFT JOIN LATERAL (SELECT a.outcome, a.status FROM attempts a WHERE a.endpoint_id = e.id AND a.delivery_id >= $3
                     AND NOT a.taken AND NOT a.is_test
                   ORDER BY a.started_at DESC LIMIT 1) a ON true
CROSS JOIN LATERAL (SELECT {} FROM rollups r WHERE r.subject = e.id AND r.at >= $5) d
WHERE b.next_probe IS NOT NULL OR failing.since IS NOT NULL
ORDER BY least(failing.since, b.since), p.id",
            failing_since("$4"),
            buckets.join(", ")
        );
        let application = application.map(|id| id.0);
        let recent = first_id(saturating_sub(now, CAUSE_DAYS));
        let (oldest, newest) = (saturating_sub(now, KEPT), saturating_sub(now, NEWEST));
        let parameters: [&(dyn ToSql + Sync); 5] = [&application, &MAX_LISTED, &recent, &oldest, &newest];
        let rows = self.query_by_kept_plan(&statement, &parameters).await?;
        let mut endpoints: Vec<TroubledEndpoint> = rows.iter().map(read).collect();
        let mut changes = self.changes_before(&endpoints).await?;
        for endpoint in &mut endpoints {
            endpoint.fact.change = changes.remove(&endpoint.fact.endpoint);
        }
        Ok(endpoints)
    }

    /// The last change of each endpoint that may have caused its failure.
    async fn changes_before(
        &self,
        endpoints: &[TroubledEndpoint],
    ) -> Result<HashMap<EndpointId, ChangeFact>, StoreError> {
        let failing: Vec<_> = endpoints
            .iter()
            .filter_map(|endpoint| {
                let (first, last) = causes_of(endpoint.fact.since?);
                Some((&endpoint.fact, first, last))
            })
            .collect();
        let columns = Columns::new(&failing, 1)
            .column("endpoint_id", "uuid", |failing| failing.0.endpoint.0)
            .column("name", "text", |failing| failing.0.endpoint.to_string())
            .column("application_id", "uuid", |failing| failing.0.application.0)
            // Ids of entries begin with the time of the request.
            .column("first", "uuid", |failing| first_id(failing.1))
            .column("last", "uuid", |failing| first_id(failing.2));
        let statement = format!(
            "SELECT f.endpoint_id, change.* FROM {} CROSS JOIN LATERAL (
                 SELECT at, action, visitor, key_id, origin FROM (
                     SELECT id, at, action, visitor, key_id, origin, path, subject, outcome FROM audit_log
                     WHERE application_id = f.application_id AND id >= f.first AND id < f.last
                     ORDER BY id DESC LIMIT {MAX_ENTRIES}) entries
                 WHERE outcome = 'done' AND action = ANY (${})
                   AND (position(f.name IN subject) > 0 OR position(f.name IN path) > 0)
                 ORDER BY id DESC LIMIT 1) change",
            columns.table("f"),
            columns.end()
        );
        let operations = CHANGES.as_slice();
        let parameters: Vec<&(dyn ToSql + Sync)> = columns.values().chain([&operations as _]).collect();
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        Ok(rows.iter().map(|row| (EndpointId(row.get("endpoint_id")), change(row))).collect())
    }
}

fn change(row: &Row) -> ChangeFact {
    let key = row.get::<_, Option<Uuid>>("key_id").map(|key| KeyId(key).to_string());
    ChangeFact {
        at: row.get("at"),
        action: row.get("action"),
        by: row.get::<_, Option<String>>("visitor").or(key).unwrap_or_else(|| row.get("origin")),
    }
}

/// Host of an endpoint's URL.
pub(super) fn host(url: &str) -> String {
    host_of(url).unwrap_or_else(|| url.to_owned())
}

fn read(row: &Row) -> TroubledEndpoint {
    let url: String = row.get("url");
    let next_probe: Option<Timestamp> = row.get("next_probe");
    let (failing, backlog): (Option<Timestamp>, Option<Timestamp>) = (row.get("failing_since"), row.get("since"));
    // Counts lag by minutes: a breaker may have opened since.
    let since = failing.or(backlog.filter(|_| next_probe.is_some()));
    let outcome: Option<String> = row.get("outcome");
    let status: Option<i32> = row.get("status");
    let mut durations = Histogram::default();
    for (bucket, number) in durations.0.iter_mut().zip(0..) {
        *bucket = row.get::<_, i64>(format!("d{number}").as_str()).unsigned_abs();
    }
    TroubledEndpoint {
        fact: EndpointFact {
            application: ApplicationId(row.get("application_id")),
            endpoint: EndpointId(row.get("id")),
            host: host(&url),
            since,
            cause: status.map(|status| status.to_string()).or(outcome),
            waiting: row.get::<_, i64>("waiting").unsigned_abs(),
            next_probe,
            change: None,
        },
        name: row.get("name"),
        url,
        reason: row.get("reason"),
        failures: row.get::<_, Option<i32>>("failures").unwrap_or_default().unsigned_abs(),
        durations,
    }
}
