//! Reads the rows of a delivery and of a backlog.

use fanfare_domain::ids::{DeliveryId, EndpointId, ProcessId};
use jiff::Timestamp;
use uuid::Uuid;

use super::Database;

/// A row of `open_deliveries`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Open {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) attempt: i32,
    pub(crate) failures: i32,
    pub(crate) unknowns: i32,
    pub(crate) listed: bool,
    pub(crate) finished_once: bool,
    pub(crate) lease: Option<Uuid>,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) expires_at: Timestamp,
}

/// A row of `deliveries`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finished {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) attempt: i32,
    pub(crate) failures: i32,
    pub(crate) inline: bool,
    pub(crate) status: Option<i32>,
}

impl Open {
    /// State, and number of the attempt.
    pub(crate) fn place(&self) -> (&str, i32) {
        (&self.state, self.attempt)
    }
}

impl Database {
    pub(crate) async fn open(&self, delivery: DeliveryId) -> Option<Open> {
        let rows = self.rows("SELECT * FROM open_deliveries WHERE id = $1", &[&delivery.0]).await;
        rows.first().map(|row| Open {
            state: row.get("state"),
            reason: row.get("reason"),
            attempt: row.get("attempt"),
            failures: row.get("failures"),
            unknowns: row.get("unknowns"),
            listed: row.get("listed"),
            finished_once: row.get("finished_once"),
            lease: row.get("lease_id"),
            due_at: row.get("due_at"),
            expires_at: row.get("expires_at"),
        })
    }

    pub(crate) async fn finished(&self, delivery: DeliveryId) -> Option<Finished> {
        let rows = self.rows("SELECT * FROM deliveries WHERE id = $1", &[&delivery.0]).await;
        assert!(rows.len() <= 1);
        rows.first().map(|row| Finished {
            state: row.get("state"),
            reason: row.get("reason"),
            attempt: row.get("attempt"),
            failures: row.get("failures"),
            inline: row.get::<_, Option<Timestamp>>("started_at").is_some(),
            status: row.get("status"),
        })
    }

    /// The rows of `attempts`: number, outcome, status.
    pub(crate) async fn attempts(&self, delivery: DeliveryId) -> Vec<(i32, String, Option<i32>)> {
        let statement = "SELECT attempt, outcome, status FROM attempts WHERE delivery_id = $1 ORDER BY attempt";
        let rows = self.rows(statement, &[&delivery.0]).await;
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// Owner of a backlog; the outer `None` if there is no backlog.
    pub(crate) async fn owner(&self, endpoint: EndpointId) -> Option<Option<ProcessId>> {
        let rows = self.rows("SELECT owner FROM endpoint_backlogs WHERE endpoint_id = $1", &[&endpoint.0]).await;
        rows.first().map(|row| row.get::<_, Option<Uuid>>(0).map(ProcessId))
    }

    /// Number of queued deliveries to endpoints without a backlog.
    pub(crate) async fn queued_without_backlog(&self) -> i64 {
        self.count(
            "open_deliveries o WHERE state = 'queued'
             AND NOT EXISTS (SELECT FROM endpoint_backlogs b WHERE b.endpoint_id = o.endpoint_id)",
        )
        .await
    }
}
