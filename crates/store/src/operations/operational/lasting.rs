//! Lasting conditions of endpoints: disabled, failing, an open breaker, deliveries near a limit.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    diagnosis::rollup::{HOUR, KEPT, STEP},
    ids::{ApplicationId, EndpointId},
    operational::{Condition, Figures, state::Found},
    time::{saturating_add, saturating_sub},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{OperationalKey, OperationalMark};
use crate::{
    Store, StoreError, connection::store::row_count, history::health::failing_since, operations::rollups::FAILED,
};

/// Failed attempts within this time make an endpoint a candidate.
const NEWEST: Duration = Duration::from_secs(1800);

/// Backlogs that are looked at for the expiry of their first delivery: the oldest. Paused backlogs whose deliveries are
/// counted.
const MAX_BACKLOGS: i64 = 10_000;
const MAX_PAUSED: i64 = 1000;

/// Interval of the looks at held deliveries, and rows that such a look reads, beside the rows of its last endpoint.
const HELD_EVERY: Duration = Duration::from_secs(300);
const HELD_ROWS: i64 = 500_000;

/// Bounds on held deliveries, as the dispatchers have them.
#[derive(Debug, Clone, Copy)]
pub struct HeldBounds {
    /// Maximum number of held deliveries.
    pub most: usize,
    /// Longest time in state `held`.
    pub max_age: Duration,
}

impl HeldBounds {
    /// Number that is near the limit: four fifths.
    fn near_most(self) -> usize {
        (self.most - self.most / 5).max(1)
    }

    /// Age that is near the limit: four fifths.
    fn near_age(self) -> Duration {
        self.max_age / 5 * 4
    }
}

/// What a look needs to know.
pub struct OperationalLook<'a> {
    /// The operator's application.
    pub mark: OperationalMark,
    /// Bounds on held deliveries.
    pub held: HeldBounds,
    /// Endpoints that fail until a success, with the earliest time of this success.
    pub failing: &'a [(EndpointId, Timestamp)],
    /// Endpoints whose held deliveries were near a limit at the last look.
    pub near_held: &'a [EndpointId],
    /// Lifetime of a delivery to an endpoint, which begins anew when the endpoint is resumed.
    pub lifetime: &'a (dyn Fn(ApplicationId, EndpointId) -> Duration + Sync),
}

/// Result of a look at the lasting conditions.
#[derive(Debug, Default)]
pub struct LastingConditions {
    /// The conditions that hold, without disabled endpoints whose state is told.
    pub found: Vec<FoundCondition>,
    /// Conditions that the look has left out.
    pub unknown: Vec<OperationalKey>,
}

/// A lasting condition of an endpoint that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCondition {
    /// Endpoint and condition.
    pub key: OperationalKey,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Beginning and figures.
    pub found: Found,
}

/// Leaves out told states, as the states do. Parameters: operator's application, first look.
const DISABLED: &str = "
SELECT e.id, e.application_id, e.status_since AS since, e.status_reason AS reason FROM endpoints e
WHERE e.status = 'disabled' AND e.deleted_at IS NULL AND e.status_since >= $2 AND e.application_id <> $1
  AND NOT EXISTS (SELECT FROM operational_states s
                  WHERE s.subject = e.id AND s.condition = 'disabled' AND s.holds AND s.told)";

/// Parameters: operator's application.
const BREAKERS: &str = "
SELECT b.endpoint_id AS id, b.application_id, b.since, b.failures FROM endpoint_backlogs b
CROSS JOIN LATERAL (SELECT FROM endpoints p WHERE p.id = b.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL
                    LIMIT 1) p
WHERE b.next_probe IS NOT NULL AND b.application_id <> $1";

/// A delivery that was queued before a resumption gets a new lifetime then, as its lease decides. Parameters:
/// operator's application, newest beginning of a backlog, maximum of backlogs, latest expiry.
const EXPIRING: &str = "
WITH oldest AS MATERIALIZED (
    SELECT endpoint_id, resumed_at FROM endpoint_backlogs WHERE since < $2 AND application_id <> $1 ORDER BY since LIMIT $3
)
SELECT p.id, p.application_id, o.expires_at, CASE WHEN o.since < oldest.resumed_at THEN oldest.resumed_at END AS resumed_at
FROM oldest
CROSS JOIN LATERAL (SELECT p.id, p.application_id FROM endpoints p
                    WHERE p.id = oldest.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL LIMIT 1) p
CROSS JOIN LATERAL (SELECT o.expires_at, o.since FROM open_deliveries o
                    WHERE o.endpoint_id = p.id AND o.state = 'queued' AND o.class < 2 ORDER BY o.class, o.id LIMIT 1) o
WHERE o.expires_at < $4";

/// Moves the time of the last look at held deliveries, if the look is due. Parameter: interval in seconds.
const HELD_DUE: &str = "
UPDATE operational_marks SET held_at = now() WHERE held_at <= now() - $1::float8 * interval '1 second'";

/// Counts the held deliveries of paused endpoints one endpoint after the other, until the rows to read are used up:
/// `held` is NULL for the other endpoints. Parameters: operator's application, maximum of backlogs, number near the
/// limit, rows to read, endpoints to count first.
const HELD: &str = "
WITH RECURSIVE paused AS MATERIALIZED (
    SELECT p.id, p.application_id, row_number() OVER (ORDER BY p.id = ANY ($5) DESC, random()) AS place
    FROM endpoint_backlogs b
    CROSS JOIN LATERAL (SELECT p.id, p.application_id FROM endpoints p
                        WHERE p.id = b.endpoint_id AND p.status = 'paused' AND p.deleted_at IS NULL LIMIT 1) p
    WHERE b.application_id <> $1 ORDER BY place LIMIT $2
), counted AS (
    SELECT 0::bigint AS place, $4::bigint AS rows, 0::bigint AS held
    UNION ALL
    SELECT p.place, c.rows - q.held, q.held FROM counted c JOIN paused p ON p.place = c.place + 1
    CROSS JOIN LATERAL (SELECT count(*) AS held FROM (SELECT FROM open_deliveries o WHERE o.endpoint_id = p.id
                                                      AND o.state = 'queued' LIMIT $3) n) q
    WHERE c.rows > 0
)
SELECT p.id, p.application_id, c.held, first.since FROM paused p LEFT JOIN counted c USING (place)
LEFT JOIN LATERAL (SELECT o.since FROM open_deliveries o WHERE o.endpoint_id = p.id AND o.state = 'queued'
                   ORDER BY o.class, o.id LIMIT 1) first ON true";

/// Parameters: known endpoints with the earliest time of a success, oldest rollup, operator's application.
const STILL_FAILING: &str = "
SELECT k.id, p.application_id, k.since FROM unnest($1::uuid[], $2::timestamptz[]) AS k(id, since)
CROSS JOIN LATERAL (SELECT p.application_id FROM endpoints p
                    WHERE p.id = k.id AND p.status = 'enabled' AND p.deleted_at IS NULL
                      AND p.application_id <> $4 LIMIT 1) p
WHERE NOT EXISTS (SELECT FROM rollups r WHERE r.subject = k.id AND r.at >= $3 AND r.at > k.since AND r.taken > 0)";

/// Endpoints whose every attempt failed for longer than an hour. Parameters: operator's application, newest rollups,
/// oldest rollups, latest beginning.
fn failing() -> String {
    format!(
        "WITH e AS MATERIALIZED (
    SELECT DISTINCT r.subject AS id FROM rollups r WHERE r.kind = 2 AND r.taken = 0 AND r.at >= $2 AND {FAILED} > 0
)
SELECT e.id, p.application_id, failing.since FROM e
CROSS JOIN LATERAL (SELECT p.application_id FROM endpoints p WHERE p.id = e.id AND p.status = 'enabled'
                      AND p.deleted_at IS NULL AND p.application_id <> $1 LIMIT 1) p
{}
WHERE failing.since <= $4",
        failing_since("$3")
    )
}

impl Store {
    /// The lasting conditions that hold.
    pub async fn lasting_conditions(&self, look: &OperationalLook<'_>) -> Result<LastingConditions, StoreError> {
        let LastingConditions { mut found, unknown } = self.near_held_limit(look).await?;
        found.extend(self.disabled(&look.mark).await?);
        found.extend(self.failing(&look.mark, look.failing).await?);
        found.extend(self.open_breakers(&look.mark).await?);
        found.extend(self.expiring(look).await?);
        Ok(LastingConditions { found, unknown })
    }

    async fn disabled(&self, mark: &OperationalMark) -> Result<Vec<FoundCondition>, StoreError> {
        let rows = self.query_by_kept_plan(DISABLED, &[&mark.application.0, &mark.begun_at]).await?;
        let figures = |row: &Row| Figures { reason: row.get("reason"), ..Figures::default() };
        Ok(rows.iter().map(|row| found(row, Condition::Disabled, row.get("since"), figures(row))).collect())
    }

    async fn failing(
        &self,
        mark: &OperationalMark,
        known: &[(EndpointId, Timestamp)],
    ) -> Result<Vec<FoundCondition>, StoreError> {
        let now = self.now();
        let (newest, oldest) = (saturating_sub(now, NEWEST), saturating_sub(now, KEPT));
        // A rollup names the beginning of its step.
        let since = saturating_sub(now, HOUR + STEP);
        let parameters: [&(dyn ToSql + Sync); 4] = [&mark.application.0, &newest, &oldest, &since];
        let mut rows = self.query_by_kept_plan(&failing(), &parameters).await?;
        if !known.is_empty() {
            let (ids, times): (Vec<Uuid>, Vec<Timestamp>) = known.iter().map(|(id, since)| (id.0, *since)).unzip();
            rows.extend(self.query_by_kept_plan(STILL_FAILING, &[&ids, &times, &oldest, &mark.application.0]).await?);
        }
        let found: BTreeMap<OperationalKey, FoundCondition> = rows
            .iter()
            .rev()
            .map(|row| found(row, Condition::Failing, row.get("since"), Figures::default()))
            .map(|found| (found.key, found))
            .collect();
        Ok(found.into_values().collect())
    }

    async fn open_breakers(&self, mark: &OperationalMark) -> Result<Vec<FoundCondition>, StoreError> {
        let rows = self.connection().await?.query(BREAKERS, &[&mark.application.0]).await?;
        let failures = |row: &Row| u64::from(row.get::<_, i32>("failures").unsigned_abs());
        let figures = |row: &Row| Figures { failures: Some(failures(row)), ..Figures::default() };
        Ok(rows.iter().map(|row| found(row, Condition::BreakerOpen, row.get("since"), figures(row))).collect())
    }

    async fn expiring(&self, look: &OperationalLook<'_>) -> Result<Vec<FoundCondition>, StoreError> {
        let now = self.now();
        let (newest, latest) = (saturating_sub(now, HOUR), saturating_add(now, HOUR));
        let parameters: [&(dyn ToSql + Sync); 4] = [&look.mark.application.0, &newest, &MAX_BACKLOGS, &latest];
        let rows = self.connection().await?.query(EXPIRING, &parameters).await?;
        let found = |row: &Row| {
            let ids = (ApplicationId(row.get("application_id")), EndpointId(row.get("id")));
            let renewed = |resumed_at| saturating_add(resumed_at, (look.lifetime)(ids.0, ids.1));
            let renewed: Option<Timestamp> = row.get::<_, Option<Timestamp>>("resumed_at").map(renewed);
            let expires_at = row.get::<_, Timestamp>("expires_at").max(renewed.unwrap_or(Timestamp::MIN));
            let figures = Figures { expires_at: Some(expires_at), ..Figures::default() };
            let since = saturating_sub(expires_at, HOUR);
            (expires_at < latest).then(|| found(row, Condition::BacklogNearLimit, since, figures))
        };
        Ok(rows.iter().filter_map(found).collect())
    }

    /// Looks at held deliveries seldom: the look reads many rows. Between, the known conditions are unknown.
    async fn near_held_limit(&self, look: &OperationalLook<'_>) -> Result<LastingConditions, StoreError> {
        let (now, bounds) = (self.now(), look.held);
        let key = |subject| OperationalKey { subject, condition: Condition::HeldNearLimit };
        let connection = self.connection().await?;
        if connection.execute(HELD_DUE, &[&HELD_EVERY.as_secs_f64()]).await? == 0 {
            let unknown = look.near_held.iter().map(|endpoint| key(endpoint.0)).collect();
            return Ok(LastingConditions { unknown, ..LastingConditions::default() });
        }
        let (near, old) = (row_count(bounds.near_most()), saturating_sub(now, bounds.near_age()));
        let known: Vec<Uuid> = look.near_held.iter().map(|endpoint| endpoint.0).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&look.mark.application.0, &MAX_PAUSED, &near, &HELD_ROWS, &known];
        let mut looked = LastingConditions::default();
        for row in connection.query(HELD, &parameters).await? {
            let Some(since) = row.get::<_, Option<Timestamp>>("since") else { continue };
            let held: Option<i64> = row.get("held");
            if held.is_none_or(|held| held < near) && since > old {
                looked.unknown.extend(held.is_none().then(|| key(row.get("id"))));
                continue;
            }
            let figures = Figures {
                held: held.map(i64::unsigned_abs),
                max_held: u64::try_from(bounds.most).ok(),
                held_until: Some(saturating_add(since, bounds.max_age)),
                ..Figures::default()
            };
            let since = saturating_add(since, bounds.near_age()).min(now);
            looked.found.push(found(&row, Condition::HeldNearLimit, since, figures));
        }
        Ok(looked)
    }
}

fn found(row: &Row, condition: Condition, since: Timestamp, figures: Figures) -> FoundCondition {
    FoundCondition {
        key: OperationalKey { subject: row.get("id"), condition },
        application: ApplicationId(row.get("application_id")),
        found: Found { since, figures },
    }
}
