//! Who is to be told of failed deliveries, and of which.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
};

/// What one recipient is to be told.
#[derive(Debug, Clone)]
pub struct Notices {
    /// The deliveries that are told of, those that failed first at the beginning.
    pub told: Vec<Notice>,
    /// The first of them in detail.
    pub failures: Vec<FailedDelivery>,
    /// Their endpoints, those with the most failures at the beginning; not all, where there are many.
    pub endpoints: Vec<FailedEndpoint>,
    /// How many endpoints there are in all.
    pub endpoint_count: usize,
}

/// A delivery that failed and whose owner is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its application.
    pub application: ApplicationId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// When it was given up.
    pub failed_at: Timestamp,
}

/// A failed delivery, as its owner is told of it.
#[derive(Debug, Clone)]
pub struct FailedDelivery {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The event.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What people call the endpoint.
    pub endpoint_name: Option<String>,
    /// Where the endpoint is now.
    pub url: String,
    /// Why it was given up; none where it has been sent again since.
    pub reason: Option<String>,
    /// When it was given up.
    pub failed_at: Timestamp,
    /// Attempts that were made.
    pub attempts: u32,
    /// The last attempt's outcome, where any was made.
    pub outcome: Option<String>,
    /// The status that came back from it.
    pub status: Option<i32>,
    /// Its outcome in words.
    pub error: Option<String>,
    /// The beginning of what came back from it.
    pub response_body: Vec<u8>,
}

/// An endpoint, and how many of the deliveries that are told of were to it.
#[derive(Debug, Clone)]
pub struct FailedEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// What people call it.
    pub name: Option<String>,
    /// Where it is now.
    pub url: String,
    /// How many.
    pub failures: usize,
}

/// How much of all this one mail holds.
#[derive(Debug, Clone, Copy)]
pub struct NoticeBounds {
    /// Deliveries that are told of; the others are told of by the next mail.
    pub deliveries: usize,
    /// Those of them that are told of in detail.
    pub in_detail: usize,
    /// Endpoints that are named with their number of failures.
    pub endpoints: usize,
    /// Bytes of a response's body.
    pub body_bytes: usize,
}

/// The endpoints with notices, one look-up by the primary key for each however many it has, and who is told.
const NOTICED: &str = "
WITH RECURSIVE noticed(id) AS (
    (SELECT endpoint_id FROM failure_notices ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM failure_notices WHERE endpoint_id > noticed.id ORDER BY endpoint_id LIMIT 1)
    FROM noticed WHERE noticed.id IS NOT NULL
), addressed AS (
    SELECT e.id, coalesce(e.email, a.email) AS address
    FROM noticed JOIN endpoints e ON e.id = noticed.id JOIN applications a ON a.id = e.application_id
)";

// The finished row, and the open row of a delivery that was requested again since. Attempt 1 may be inline in the former.
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
    /// Up to `limit` recipients who are to be told of something that failed at least `gathering` ago, and got no
    /// mail for the time of `interval`; those that have waited longest first.
    ///
    /// # Errors
    /// When the database is away.
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
               AND EXISTS (SELECT FROM failure_notices n WHERE n.endpoint_id = r.id
                           AND n.failed_at <= now() - $2::bigint * interval '1 millisecond')
             GROUP BY r.address ORDER BY min(m.last_at) NULLS FIRST LIMIT $3"
        );
        let (interval, gathering) = (milliseconds(interval), milliseconds(gathering));
        let rows = self.connection().await?.query(&statement, &[&interval, &gathering, &row_count(limit)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What a recipient is to be told.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn notices(&self, address: &str, bounds: NoticeBounds) -> Result<Notices, StoreError> {
        let statement = format!(
            "{NOTICED}
             SELECT n.delivery_id, n.application_id, n.endpoint_id, n.failed_at
             FROM addressed r JOIN failure_notices n ON n.endpoint_id = r.id
             WHERE r.address = $1 ORDER BY n.failed_at, n.delivery_id LIMIT $2"
        );
        let rows = self.connection().await?.query(&statement, &[&address, &row_count(bounds.deliveries)]).await?;
        let told: Vec<Notice> = rows.iter().map(read_notice).collect();
        let mut failures: HashMap<EndpointId, usize> = HashMap::new();
        for notice in &told {
            *failures.entry(notice.endpoint).or_default() += 1;
        }
        Ok(Notices {
            failures: self.failed_deliveries(told.iter().take(bounds.in_detail), bounds.body_bytes).await?,
            endpoint_count: failures.len(),
            endpoints: self.failed_endpoints(failures, bounds.endpoints).await?,
            told,
        })
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

    /// Makes the next mail of a recipient its caller's: for the time of `interval` nobody else writes one. False
    /// where somebody has written one meanwhile.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn reserve_mail(&self, address: &str, interval: Duration) -> Result<bool, StoreError> {
        let statement = "INSERT INTO mailed AS m (address, last_at) VALUES ($1, now())
                         ON CONFLICT (address) DO UPDATE SET last_at = now()
                         WHERE m.last_at <= now() - $2::bigint * interval '1 millisecond'";
        Ok(self.connection().await?.execute(statement, &[&address, &milliseconds(interval)]).await? == 1)
    }

    /// Notes that a recipient was told of exactly these, or never can be. May be repeated.
    ///
    /// # Errors
    /// When the database is away; a commit may then have happened.
    pub async fn settle_notices(&self, address: &str, told: &[Notice]) -> Result<(), StoreError> {
        let endpoints: Vec<Uuid> = told.iter().map(|notice| notice.endpoint.0).collect();
        let deliveries: Vec<Uuid> = told.iter().map(|notice| notice.delivery.0).collect();
        let statement = "WITH settled AS (
                             DELETE FROM failure_notices n
                             USING unnest($1::uuid[], $2::uuid[], $4::timestamptz[]) AS t(endpoint_id, delivery_id, failed_at)
                             WHERE n.endpoint_id = t.endpoint_id AND n.delivery_id = t.delivery_id
                               -- One that has failed again meanwhile is told of again.
                               AND n.failed_at <= t.failed_at
                         )
                         UPDATE mailed SET last_at = now() WHERE address = $3";
        let failed: Vec<Timestamp> = told.iter().map(|notice| notice.failed_at).collect();
        self.writer().await?.execute(statement, &[&endpoints, &deliveries, &address, &failed]).await?;
        Ok(())
    }

    /// Deletes up to `limit` notices of what failed longer than `age` ago, and tells how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn forget_notices(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        let statement = "DELETE FROM failure_notices n
                         USING (SELECT endpoint_id, delivery_id FROM failure_notices
                                WHERE failed_at < now() - $1::bigint * interval '1 millisecond'
                                ORDER BY failed_at LIMIT $2) old
                         WHERE n.endpoint_id = old.endpoint_id AND n.delivery_id = old.delivery_id";
        Ok(self.connection().await?.execute(statement, &[&milliseconds(age), &row_count(limit)]).await?)
    }

    /// Deletes up to `limit` notices that nobody is there for any more, and what is known of mails that the next
    /// one need not wait for.
    ///
    /// # Errors
    /// When the database is away.
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
