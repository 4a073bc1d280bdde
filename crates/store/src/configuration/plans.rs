//! Plans: named limits of applications. A change of a plan writes one row, whatever the number of its applications.

use fanfare_domain::application::plan::Limits;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Store, StoreError};

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// Name of the plan.
    pub name: String,
    /// Limits of the plan's applications.
    pub limits: Limits,
    /// Number of applications in the plan.
    pub applications: i64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub changed_at: Timestamp,
}

/// Result of the removal of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanRemoval {
    /// The plan is removed.
    Done,
    /// No plan has the name.
    NoSuchPlan,
    /// So many applications are in the plan.
    InUse(i64),
}

const COLUMNS: &str =
    "p.name, p.publish_rate, p.events_per_day, p.stored_bytes, p.max_webhooks, p.created_at, p.changed_at,
                       (SELECT count(*) FROM applications a WHERE a.plan = p.name) AS applications";

impl Store {
    /// All plans, by name.
    pub async fn plans(&self) -> Result<Vec<PlanRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM plans p ORDER BY p.name");
        Ok(self.connection().await?.query(&statement, &[]).await?.iter().map(read).collect())
    }

    /// Finds a plan.
    pub async fn plan(&self, name: &str) -> Result<Option<PlanRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM plans p WHERE p.name = $1");
        Ok(self.connection().await?.query_opt(&statement, &[&name]).await?.as_ref().map(read))
    }

    /// Creates or replaces a plan.
    pub async fn put_plan(&self, name: &str, limits: &Limits) -> Result<PlanRow, StoreError> {
        let statement = format!(
            "WITH p AS (
                 INSERT INTO plans AS known (name, publish_rate, events_per_day, stored_bytes, max_webhooks)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (name) DO UPDATE
                     SET publish_rate = $2, events_per_day = $3, stored_bytes = $4, max_webhooks = $5, changed_at = now()
                 RETURNING *)
             SELECT {COLUMNS} FROM p"
        );
        let rate = limits.publish_rate.map(u32::cast_signed);
        let (events, bytes) = (limits.events_per_day.map(u64::cast_signed), limits.stored_bytes.map(u64::cast_signed));
        let webhooks = limits.max_webhooks.map(u32::cast_signed);
        let connection = self.connection().await?;
        Ok(read(&connection.query_one(&statement, &[&name, &rate, &events, &bytes, &webhooks]).await?))
    }

    /// Removes a plan without applications. The foreign key decides about an application that enters meanwhile.
    ///
    /// # Errors
    /// [`StoreError::breaks_reference`] if an application enters the plan at the same moment.
    pub async fn remove_plan(&self, name: &str) -> Result<PlanRemoval, StoreError> {
        let Some(plan) = self.plan(name).await? else { return Ok(PlanRemoval::NoSuchPlan) };
        if plan.applications > 0 {
            return Ok(PlanRemoval::InUse(plan.applications));
        }
        let removed = self.connection().await?.execute("DELETE FROM plans WHERE name = $1", &[&name]).await?;
        Ok(if removed > 0 { PlanRemoval::Done } else { PlanRemoval::NoSuchPlan })
    }
}

/// Limits in the columns of a plan or an application.
pub(crate) fn limits(row: &Row) -> Limits {
    Limits {
        publish_rate: row.get::<_, Option<i32>>("publish_rate").map(i32::cast_unsigned),
        events_per_day: row.get::<_, Option<i64>>("events_per_day").map(i64::cast_unsigned),
        stored_bytes: row.get::<_, Option<i64>>("stored_bytes").map(i64::cast_unsigned),
        max_webhooks: row.get::<_, Option<i32>>("max_webhooks").map(i32::cast_unsigned),
    }
}

fn read(row: &Row) -> PlanRow {
    PlanRow {
        name: row.get("name"),
        limits: limits(row),
        applications: row.get("applications"),
        created_at: row.get("created_at"),
        changed_at: row.get("changed_at"),
    }
}
