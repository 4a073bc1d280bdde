//! Endpoints in trouble: an open breaker, or only failures in the last minutes.

use fanfare_domain::{
    diagnosis::{
        findings::{CAUSE_WITHIN, ChangeFact, EndpointFact},
        rollup::{BUCKETS, Histogram, KEPT, STEP},
    },
    endpoint::url::host_of,
    ids::{ApplicationId, EndpointId, KeyId},
    time::{saturating_add, saturating_sub},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    history::health::failing_since,
    operations::{partitions::first_id, rollups::FAILED},
};

/// Bound of the count of an endpoint's queued deliveries.
pub(super) const MAX_COUNTED: i64 = 1000;

/// Maximum of endpoints with an open breaker, and of endpoints without a success.
const MAX_LISTED: i64 = 25;

/// Maximum of changes of an application that are searched for the endpoint.
const MAX_CHANGES: i64 = 50;

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
    WHERE r.kind = 2 AND r.taken = 0 AND r.at >= $6 AND {FAILED} > 0
      AND ($1::uuid IS NULL OR p.application_id = $1) GROUP BY 1 ORDER BY max(r.at) DESC, 1 LIMIT $2
), e AS (SELECT id FROM open UNION SELECT id FROM failing)
SELECT p.id, p.application_id, p.name, p.url, failing.since AS failing_since, b.since, b.reason, b.failures, b.next_probe,
       q.count AS waiting, a.outcome, a.status, d.*
FROM e JOIN endpoints p ON p.id = e.id AND p.status = 'enabled' AND p.deleted_at IS NULL
{}
LEFT JOIN endpoint_backlogs b ON b.endpoint_id = e.id
CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT FROM open_deliveries o WHERE o.endpoint_id = e.id AND o.state = 'queued'
                                          LIMIT $3) rows) q
LEFT JOIN LATERAL (SELECT a.outcome, a.status FROM attempts a WHERE a.endpoint_id = e.id AND a.delivery_id >= $4
                     AND NOT a.taken AND NOT a.is_test
                   ORDER BY a.started_at DESC LIMIT 1) a ON true
CROSS JOIN LATERAL (SELECT {} FROM rollups r WHERE r.subject = e.id AND r.at >= $6) d
WHERE b.next_probe IS NOT NULL OR failing.since IS NOT NULL
ORDER BY least(failing.since, b.since), p.id",
            failing_since("$5"),
            buckets.join(", ")
        );
        let application = application.map(|id| id.0);
        let recent = first_id(saturating_sub(now, CAUSE_DAYS));
        let (oldest, newest) = (saturating_sub(now, KEPT), saturating_sub(now, NEWEST));
        let parameters: [&(dyn ToSql + Sync); 6] = [&application, &MAX_LISTED, &MAX_COUNTED, &recent, &oldest, &newest];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        let mut endpoints: Vec<TroubledEndpoint> = rows.iter().map(read).collect();
        for endpoint in &mut endpoints {
            if let Some(since) = endpoint.fact.since {
                endpoint.fact.change = self.change_before(&endpoint.fact, since).await?;
            }
        }
        Ok(endpoints)
    }

    /// The last change of an endpoint that may have caused its failure.
    async fn change_before(&self, fact: &EndpointFact, since: Timestamp) -> Result<Option<ChangeFact>, StoreError> {
        let statement = "SELECT at, action, key_id, origin FROM (
                             SELECT at, action, key_id, origin, path, subject FROM audit_log
                             WHERE application_id = $1 AND id >= $2 AND id < $3 AND outcome = 'done'
                             ORDER BY id DESC LIMIT $4) changes
                         WHERE (subject LIKE '%' || $5 || '%' OR path LIKE '%' || $5 || '%') AND action NOT IN
                             ('test_webhook', 'resend_delivery', 'resend_deliveries')
                         LIMIT 1";
        // Ids of entries begin with the time of the request.
        let (from, to) = (first_id(saturating_sub(since, CAUSE_WITHIN)), first_id(saturating_add(since, STEP)));
        let endpoint = fact.endpoint.to_string();
        let parameters: [&(dyn ToSql + Sync); 5] = [&fact.application.0, &from, &to, &MAX_CHANGES, &endpoint];
        let row = self.connection().await?.query_opt(statement, &parameters).await?;
        Ok(row.map(|row| ChangeFact {
            at: row.get("at"),
            action: row.get("action"),
            by: row.get::<_, Option<Uuid>>("key_id").map_or_else(|| row.get("origin"), |key| KeyId(key).to_string()),
        }))
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
