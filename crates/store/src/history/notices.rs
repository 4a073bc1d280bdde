//! Notices: failed deliveries and changed conditions to report by mail, and the recipients.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use fanfare_domain::{
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
    operational::{Change, Condition},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
};

/// Content of a mail to one recipient.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    /// Reported deliveries, oldest failure first.
    pub notified: Vec<Notice>,
    /// Details of the first reported deliveries.
    pub failures: Vec<FailedDelivery>,
    /// Endpoints of the reported deliveries, most failures first, up to [`NoticeBounds::endpoints`].
    pub endpoints: Vec<FailedEndpoint>,
    /// Number of all endpoints of the reported deliveries.
    pub endpoint_count: usize,
    /// Reported changes of conditions, the oldest first.
    pub conditions: Vec<ChangedCondition>,
}

/// A changed condition of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionNotice {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The condition.
    pub condition: Condition,
    /// Beginning or end.
    pub change: Change,
    /// Beginning of the condition, or of its absence.
    pub since: Timestamp,
    /// Reason of a status that Fanfare has set, or of the end of the condition.
    pub reason: Option<String>,
}

/// A changed condition to report, with the present names of the endpoint.
#[derive(Debug, Clone)]
pub struct ChangedCondition {
    /// The change.
    pub notice: ConditionNotice,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Display name of the endpoint.
    pub name: Option<String>,
    /// Current URL of the endpoint.
    pub url: String,
    /// Time of the notice.
    pub told_at: Timestamp,
}

/// A failed delivery to report.
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Application of the delivery.
    pub application: ApplicationId,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Time of the failure.
    pub failed_at: Timestamp,
}

/// Details of a failed delivery, for a mail.
#[derive(Debug, Clone)]
pub struct FailedDelivery {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Type of the event.
    pub event_type: String,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Display name of the endpoint.
    pub endpoint_name: Option<String>,
    /// Current URL of the endpoint.
    pub url: String,
    /// Reason of the failure; `None` if the delivery was requested again since.
    pub reason: Option<String>,
    /// Time of the failure.
    pub failed_at: Timestamp,
    /// Number of attempts.
    pub attempts: u32,
    /// Outcome of the last attempt; `None` without an attempt.
    pub outcome: Option<String>,
    /// Status of the last response.
    pub status: Option<i32>,
    /// Description of the last outcome.
    pub error: Option<String>,
    /// Beginning of the last response's body.
    pub response_body: Vec<u8>,
}

/// An endpoint with its number of reported deliveries.
#[derive(Debug, Clone)]
pub struct FailedEndpoint {
    /// Id of the endpoint.
    pub id: EndpointId,
    /// Display name.
    pub name: Option<String>,
    /// Current URL.
    pub url: String,
    /// Number of reported deliveries to the endpoint.
    pub failures: usize,
}

/// Bounds of a mail.
#[derive(Debug, Clone, Copy)]
pub struct NoticeBounds {
    /// Maximum of reported deliveries; the next mail reports the others.
    pub deliveries: usize,
    /// Maximum of deliveries reported with details.
    pub in_detail: usize,
    /// Maximum of endpoints named with their number of failures.
    pub endpoints: usize,
    /// Maximum of bytes of a response's body.
    pub body_bytes: usize,
    /// Maximum of changes of conditions; the next mail reports the others.
    pub conditions: usize,
}

/// Endpoints with notices, and their recipients. The recursion costs a look-up by the primary key per endpoint, for
/// any number of notices.
const NOTICED: &str = "
WITH RECURSIVE noticed(id) AS (
    (SELECT endpoint_id FROM failure_notices ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM failure_notices WHERE endpoint_id > noticed.id ORDER BY endpoint_id LIMIT 1)
    FROM noticed WHERE noticed.id IS NOT NULL
), addressed AS (
    SELECT e.id, coalesce(e.email, a.email) AS address
    FROM (SELECT id FROM noticed UNION SELECT endpoint_id FROM condition_notices) n
    JOIN endpoints e ON e.id = n.id JOIN applications a ON a.id = e.application_id
)";

// `d` is the finished row, `o` the open row of a delivery requested again since. Attempt 1 may be inline in `d`.
const DETAILS: &str = "
SELECT n.id, d.event_id, coalesce(e.type, '') AS type, d.endpoint_id, p.name, p.url,
       CASE WHEN o.id IS NULL AND d.state = 'failed' THEN d.reason END AS reason, n.failed_at,
       coalesce(o.attempt - (o.state <> 'sending')::int, d.attempt) AS attempts,
       CASE WHEN last.attempt IS NOT NULL THEN last.outcome WHEN d.started_at IS NOT NULL THEN 'answered' END AS outcome,
       CASE WHEN last.attempt IS NOT NULL THEN last.status ELSE d.status END AS status, last.error,
       substring(CASE WHEN last.attempt IS NOT NULL THEN last.response_body ELSE d.response_body END FOR $4)
           AS response_body
FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS n(id, application_id, failed_at, place)
JOIN deliveries d ON d.application_id = n.application_id AND d.id = n.id
JOIN endpoints p ON p.id = d.endpoint_id
LEFT JOIN open_deliveries o ON o.id = n.id
LEFT JOIN LATERAL (
    SELECT e.type FROM events e
    WHERE e.application_id = n.application_id AND e.accepted_at = delivery_accepted_at(n.id) AND e.id = d.event_id
    LIMIT 1) e ON true
LEFT JOIN LATERAL (
    SELECT a.attempt, a.outcome, a.status, a.error, a.response_body FROM attempts a WHERE a.delivery_id = n.id
    ORDER BY a.attempt DESC LIMIT 1) last ON true
ORDER BY n.place";

impl Store {
    /// Finds up to `limit` recipients owed a mail: a failure or a change is at least `gathering` old, and the last mail
    /// at least `interval`. The longest wait comes first.
    pub async fn owed_mails(
        &self,
        interval: Duration,
        gathering: Duration,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let statement = format!(
            "{NOTICED}
             SELECT r.address FROM addressed r LEFT JOIN mailed m ON m.address = r.address
             WHERE r.address IS NOT NULL
               AND (m.last_at IS NULL OR m.last_at <= now() - $1::bigint * interval '1 millisecond')
               AND (EXISTS (SELECT FROM failure_notices n WHERE n.endpoint_id = r.id
                            AND n.failed_at <= now() - $2::bigint * interval '1 millisecond')
                    OR EXISTS (SELECT FROM condition_notices n WHERE n.endpoint_id = r.id
                               AND n.told_at <= now() - $2::bigint * interval '1 millisecond'))
             GROUP BY r.address ORDER BY min(m.last_at) NULLS FIRST LIMIT $3"
        );
        let (interval, gathering) = (milliseconds(interval), milliseconds(gathering));
        let rows = self.connection().await?.query(&statement, &[&interval, &gathering, &row_count(limit)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Reads the content of the next mail to a recipient.
    pub async fn notices(&self, address: &str, bounds: NoticeBounds) -> Result<Notices, StoreError> {
        let statement = format!(
            "{NOTICED}
             SELECT n.delivery_id, n.application_id, n.endpoint_id, n.failed_at
             FROM addressed r JOIN failure_notices n ON n.endpoint_id = r.id
             WHERE r.address = $1 ORDER BY n.failed_at, n.delivery_id LIMIT $2"
        );
        let rows = self.connection().await?.query(&statement, &[&address, &row_count(bounds.deliveries)]).await?;
        let notified: Vec<Notice> = rows.iter().map(read_notice).collect();
        let mut failures: HashMap<EndpointId, usize> = HashMap::new();
        for notice in &notified {
            *failures.entry(notice.endpoint).or_default() += 1;
        }
        Ok(Notices {
            failures: self.failed_deliveries(notified.iter().take(bounds.in_detail), bounds.body_bytes).await?,
            endpoint_count: failures.len(),
            endpoints: self.failed_endpoints(failures, bounds.endpoints).await?,
            conditions: self.changed_conditions(address, bounds.conditions).await?,
            notified,
        })
    }

    async fn changed_conditions(&self, address: &str, limit: usize) -> Result<Vec<ChangedCondition>, StoreError> {
        let statement = "SELECT n.*, e.application_id, e.name, e.url FROM condition_notices n
                         JOIN endpoints e ON e.id = n.endpoint_id JOIN applications a ON a.id = e.application_id
                         WHERE coalesce(e.email, a.email) = $1
                         ORDER BY n.told_at, n.endpoint_id, n.condition LIMIT $2";
        let rows = self.connection().await?.query(statement, &[&address, &row_count(limit)]).await?;
        Ok(rows.iter().filter_map(read_changed_condition).collect())
    }

    async fn failed_deliveries(
        &self,
        notices: impl Iterator<Item = &Notice> + Clone,
        body_bytes: usize,
    ) -> Result<Vec<FailedDelivery>, StoreError> {
        let ids: Vec<Uuid> = notices.clone().map(|notice| notice.delivery.0).collect();
        let applications: Vec<Uuid> = notices.clone().map(|notice| notice.application.0).collect();
        let failed: Vec<Timestamp> = notices.map(|notice| notice.failed_at).collect();
        let body_bytes = i32::try_from(body_bytes).unwrap_or(i32::MAX);
        let rows = self.writer().await?.query(DETAILS, &[&ids, &applications, &failed, &body_bytes]).await?;
        Ok(rows.iter().map(read_failed_delivery).collect())
    }

    async fn failed_endpoints(
        &self,
        failures: HashMap<EndpointId, usize>,
        limit: usize,
    ) -> Result<Vec<FailedEndpoint>, StoreError> {
        let mut most: Vec<(EndpointId, usize)> = failures.into_iter().collect();
        most.sort_unstable_by_key(|&(id, failures)| (Reverse(failures), id));
        most.truncate(limit);
        let ids: Vec<Uuid> = most.iter().map(|(id, _)| id.0).collect();
        let failures: Vec<i64> = most.iter().map(|&(_, failures)| row_count(failures)).collect();
        let statement = "SELECT e.id, e.name, e.url, n.failures
                         FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS n(id, failures, place)
                         JOIN endpoints e ON e.id = n.id ORDER BY n.place";
        let rows = self.connection().await?.query(statement, &[&ids, &failures]).await?;
        Ok(rows.iter().map(read_failed_endpoint).collect())
    }

    /// Reserves the next mail to a recipient: no other process writes a mail for `interval`. False if another process
    /// wrote a mail meanwhile.
    pub async fn reserve_mail(&self, address: &str, interval: Duration) -> Result<bool, StoreError> {
        let statement = "INSERT INTO mailed AS m (address, last_at) VALUES ($1, now())
                         ON CONFLICT (address) DO UPDATE SET last_at = now()
                         WHERE m.last_at <= now() - $2::bigint * interval '1 millisecond'";
        Ok(self.connection().await?.execute(statement, &[&address, &milliseconds(interval)]).await? == 1)
    }

    /// Deletes the notices of a mail. With `are_reported`, the deliveries record the mail. Otherwise no mail can report
    /// the failures. May be repeated.
    ///
    /// # Errors
    /// After any error the deletion may have committed.
    pub async fn settle_notices(&self, address: &str, notices: &Notices, are_reported: bool) -> Result<(), StoreError> {
        let (notified, changed) = (&notices.notified, &notices.conditions);
        let endpoints: Vec<Uuid> = notified.iter().map(|notice| notice.endpoint.0).collect();
        let deliveries: Vec<Uuid> = notified.iter().map(|notice| notice.delivery.0).collect();
        let applications: Vec<Uuid> = notified.iter().map(|notice| notice.application.0).collect();
        let statement = "WITH settled AS (
                             DELETE FROM failure_notices n
                             USING unnest($1::uuid[], $2::uuid[], $4::timestamptz[]) AS t(endpoint_id, delivery_id, failed_at)
                             WHERE n.endpoint_id = t.endpoint_id AND n.delivery_id = t.delivery_id
                               -- A delivery that has failed again meanwhile is reported again.
                               AND n.failed_at <= t.failed_at
                         ), reported_conditions AS MATERIALIZED (
                             SELECT n.endpoint_id, n.condition FROM condition_notices n
                             JOIN unnest($7::uuid[], $8::text[], $9::timestamptz[]) AS t(endpoint_id, condition, told_at)
                               ON n.endpoint_id = t.endpoint_id AND n.condition = t.condition
                             -- A condition that has changed again meanwhile is reported again.
                             WHERE n.told_at <= t.told_at
                             -- The order of a change.
                             ORDER BY n.endpoint_id, n.condition FOR UPDATE OF n
                         ), told AS (
                             DELETE FROM condition_notices n USING reported_conditions r
                             WHERE n.endpoint_id = r.endpoint_id AND n.condition = r.condition
                         ), reported AS (
                             UPDATE deliveries d SET mailed_at = now(), mailed_to = $3
                             FROM unnest($5::uuid[], $2::uuid[]) AS t(application_id, delivery_id)
                             WHERE $6 AND d.application_id = t.application_id AND d.id = t.delivery_id
                         )
                         UPDATE mailed SET last_at = now() WHERE address = $3";
        let failed: Vec<Timestamp> = notified.iter().map(|notice| notice.failed_at).collect();
        let subjects: Vec<Uuid> = changed.iter().map(|changed| changed.notice.endpoint.0).collect();
        let conditions: Vec<&str> = changed.iter().map(|changed| changed.notice.condition.as_str()).collect();
        let told: Vec<Timestamp> = changed.iter().map(|changed| changed.told_at).collect();
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&endpoints, &deliveries, &address, &failed, &applications, &are_reported, &subjects, &conditions, &told];
        self.writer().await?.execute(statement, &parameters).await?;
        Ok(())
    }

    /// Deletes up to `limit` notices of failures older than `age`, and all such notices of conditions. Returns the
    /// number of deleted notices.
    pub async fn forget_notices(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        let connection = self.connection().await?;
        let statement = "DELETE FROM condition_notices n USING (
                             SELECT endpoint_id, condition FROM condition_notices
                             WHERE told_at < now() - $1::bigint * interval '1 millisecond'
                             ORDER BY endpoint_id, condition FOR UPDATE) old
                         WHERE n.endpoint_id = old.endpoint_id AND n.condition = old.condition";
        let conditions = connection.execute(statement, &[&milliseconds(age)]).await?;
        let statement = "DELETE FROM failure_notices n
                         USING (SELECT endpoint_id, delivery_id FROM failure_notices
                                WHERE failed_at < now() - $1::bigint * interval '1 millisecond'
                                ORDER BY failed_at LIMIT $2) old
                         WHERE n.endpoint_id = old.endpoint_id AND n.delivery_id = old.delivery_id";
        Ok(conditions + connection.execute(statement, &[&milliseconds(age), &row_count(limit)]).await?)
    }

    /// Deletes up to `limit` notices without a recipient, and all records of mails older than `interval`, which delay
    /// no mail.
    pub async fn tidy_mails(&self, interval: Duration, limit: usize) -> Result<(), StoreError> {
        let statement = format!(
            "{NOTICED}
             DELETE FROM failure_notices n
             USING (SELECT f.endpoint_id, f.delivery_id
                    FROM addressed r JOIN failure_notices f ON f.endpoint_id = r.id
                    WHERE r.address IS NULL LIMIT $1) nobodys
             WHERE n.endpoint_id = nobodys.endpoint_id AND n.delivery_id = nobodys.delivery_id"
        );
        let connection = self.connection().await?;
        connection.execute(&statement, &[&row_count(limit)]).await?;
        let statement = "DELETE FROM condition_notices n USING (
                             SELECT n.endpoint_id, n.condition FROM condition_notices n
                             JOIN endpoints e ON e.id = n.endpoint_id JOIN applications a ON a.id = e.application_id
                             WHERE coalesce(e.email, a.email) IS NULL OR e.deleted_at IS NOT NULL
                             ORDER BY n.endpoint_id, n.condition FOR UPDATE OF n) nobodys
                         WHERE n.endpoint_id = nobodys.endpoint_id AND n.condition = nobodys.condition";
        connection.execute(statement, &[]).await?;
        let statement = "DELETE FROM mailed WHERE last_at < now() - $1::bigint * interval '1 millisecond'";
        connection.execute(statement, &[&milliseconds(interval)]).await?;
        Ok(())
    }
}

fn read_notice(row: &Row) -> Notice {
    Notice {
        delivery: DeliveryId(row.get("delivery_id")),
        application: ApplicationId(row.get("application_id")),
        endpoint: EndpointId(row.get("endpoint_id")),
        failed_at: row.get("failed_at"),
    }
}

/// `None` for a condition of a newer release.
fn read_changed_condition(row: &Row) -> Option<ChangedCondition> {
    let notice = ConditionNotice {
        endpoint: EndpointId(row.get("endpoint_id")),
        condition: Condition::parse(row.get("condition"))?,
        change: if row.get("begins") { Change::Begins } else { Change::Ends },
        since: row.get("since"),
        reason: row.get("reason"),
    };
    Some(ChangedCondition {
        notice,
        application: ApplicationId(row.get("application_id")),
        name: row.get("name"),
        url: row.get("url"),
        told_at: row.get("told_at"),
    })
}

fn read_failed_delivery(row: &Row) -> FailedDelivery {
    FailedDelivery {
        delivery: DeliveryId(row.get("id")),
        event: EventId(row.get("event_id")),
        event_type: row.get("type"),
        endpoint: EndpointId(row.get("endpoint_id")),
        endpoint_name: row.get("name"),
        url: row.get("url"),
        reason: row.get("reason"),
        failed_at: row.get("failed_at"),
        attempts: row.get::<_, i32>("attempts").cast_unsigned(),
        outcome: row.get("outcome"),
        status: row.get("status"),
        error: row.get("error"),
        response_body: row.get::<_, Option<Vec<u8>>>("response_body").unwrap_or_default(),
    }
}

fn read_failed_endpoint(row: &Row) -> FailedEndpoint {
    FailedEndpoint {
        id: EndpointId(row.get("id")),
        name: row.get("name"),
        url: row.get("url"),
        failures: usize::try_from(row.get::<_, i64>("failures")).unwrap_or(usize::MAX),
    }
}
