//! Applications: create, change, list.

use std::collections::BTreeMap;

use fanfare_domain::{application::plan::Limits, ids::ApplicationId};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{Store, StoreError, configuration::plans::limits, connection::store::row_count};

/// An application to create.
#[derive(Debug, Clone)]
pub struct NewApplication {
    /// Id of the new application.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// Name of a known dialect.
    pub dialect: String,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Address for mails to the owners of endpoints.
    pub email: Option<String>,
}

/// Changes of an application; `None` leaves a value unchanged.
#[derive(Debug, Clone, Default)]
pub struct ApplicationChange {
    /// New display name.
    pub name: Option<String>,
    /// New dialect, by the name of a known dialect.
    pub dialect: Option<String>,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: Option<bool>,
    /// New address for mails to the owners of endpoints; `Some(None)` removes the address.
    pub email: Option<Option<String>>,
    /// New limit of events a second; `Some(None)` for the limit of the plan or the deployment.
    pub publish_rate: Option<Option<u32>>,
    /// New quota of events a day; `Some(None)` for the plan's.
    pub events_per_day: Option<Option<u64>>,
    /// New quota of stored bytes; `Some(None)` for the plan's.
    pub stored_bytes: Option<Option<u64>>,
    /// New maximum of webhooks; `Some(None)` for the maximum of the plan or the deployment.
    pub max_webhooks: Option<Option<u32>>,
    /// New plan, by the name of a known plan; `Some(None)` for none.
    pub plan: Option<Option<String>>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Paths of the redacted members.
    pub redacted: Option<Vec<String>>,
}

/// An application.
#[derive(Debug, Clone)]
pub struct ApplicationRow {
    /// Id of the application.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// Name of the dialect.
    pub dialect: String,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Address for mails to the owners of endpoints.
    pub email: Option<String>,
    /// Own limits, which replace those of the plan.
    pub limits: Limits,
    /// Name of the plan.
    pub plan: Option<String>,
    /// Labels of the application.
    pub labels: BTreeMap<String, String>,
    /// Paths of the redacted members.
    pub redacted: Vec<String>,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Labels and plan of the applications in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// Only applications with all these labels.
    pub labels: BTreeMap<String, String>,
    /// Only applications in this plan.
    pub plan: Option<String>,
}

impl Selected {
    /// The labels as the parameter of [`Self::condition`].
    pub(crate) fn labels_json(&self) -> Option<String> {
        (!self.labels.is_empty()).then(|| json_of(&self.labels))
    }

    /// Condition on an application `a`, to be joined by AND, and its parameters. Only what is selected is in the
    /// statement, so that the planner finds the index.
    pub(crate) fn condition<'a>(
        &'a self,
        labels: Option<&'a String>,
        parameters: &mut Vec<&'a (dyn ToSql + Sync)>,
    ) -> String {
        let mut condition = String::new();
        if let Some(labels) = labels {
            parameters.push(labels);
            let number = parameters.len();
            condition += &format!(" AND a.labels <> '{{}}' AND a.labels @> ${number}::text::jsonb");
        }
        if let Some(plan) = &self.plan {
            parameters.push(plan);
            condition += &format!(" AND a.plan = ${}", parameters.len());
        }
        condition
    }
}

/// Selects the applications of a list.
#[derive(Debug, Clone, Default)]
pub struct ApplicationFilter {
    /// Only applications older than this.
    pub before: Option<ApplicationId>,
    /// Only applications with this text in their names.
    pub name: Option<String>,
    /// Only applications with these.
    pub selected: Selected,
    /// Maximum of applications.
    pub limit: usize,
}

/// A page of applications.
#[derive(Debug, Clone)]
pub struct ApplicationPage {
    /// Applications, newest first.
    pub applications: Vec<ApplicationRow>,
    /// Last application that a list by name looked at, if its bound ended the page early.
    pub passed: Option<ApplicationId>,
}

/// Applications that a page by name looks through.
const MAX_WALKED: usize = 10_000;

const COLUMNS: &str =
    "id, name, dialect, strict, email, publish_rate, events_per_day, stored_bytes, max_webhooks, plan,
                       labels::text AS labels, redacted, created_at";

/// Locks application $2. Each change of an application's configuration takes this lock first, since the change raises
/// the application's version last. Two changes with another order of locks could deadlock.
pub(crate) const OWNER: &str = "WITH owner AS MATERIALIZED (
    SELECT id AS application FROM applications WHERE id = $2 FOR NO KEY UPDATE
)";

/// Locks application $1, as [`OWNER`] does.
pub(crate) const LOCK_OWNER: &str = "SELECT FROM applications WHERE id = $1 FOR NO KEY UPDATE";

impl Store {
    /// Creates an application.
    pub async fn create_application(&self, new: &NewApplication) -> Result<ApplicationRow, StoreError> {
        let statement = format!(
            "INSERT INTO applications (id, name, dialect, strict, email) VALUES ($1, $2, $3, $4, $5) RETURNING {COLUMNS}"
        );
        let connection = self.connection().await?;
        let row =
            connection.query_one(&statement, &[&new.id.0, &new.name, &new.dialect, &new.is_strict, &new.email]).await?;
        read(&row)
    }

    /// Finds an application.
    pub async fn application(&self, id: ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM applications WHERE id = $1");
        let row = self.connection().await?.query_opt(&statement, &[&id.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Changes an application; `None` if the application does not exist.
    pub async fn change_application(
        &self,
        id: ApplicationId,
        change: &ApplicationChange,
    ) -> Result<Option<ApplicationRow>, StoreError> {
        let statement = format!(
            "UPDATE applications
             SET name = coalesce($2, name), dialect = coalesce($3, dialect), strict = coalesce($4, strict),
                 email = CASE WHEN $5 THEN $6 ELSE email END,
                 publish_rate = CASE WHEN $7 THEN $8 ELSE publish_rate END, redacted = coalesce($9, redacted),
                 events_per_day = CASE WHEN $10 THEN $11 ELSE events_per_day END,
                 stored_bytes = CASE WHEN $12 THEN $13 ELSE stored_bytes END,
                 max_webhooks = CASE WHEN $14 THEN $15 ELSE max_webhooks END,
                 plan = CASE WHEN $16 THEN $17 ELSE plan END,
                 labels = coalesce($18::text::jsonb, labels), version = version + 1
             WHERE id = $1 RETURNING {COLUMNS}"
        );
        let (email, plan) = (change.email.clone().flatten(), change.plan.clone().flatten());
        let rate = change.publish_rate.flatten().map(u32::cast_signed);
        let events = change.events_per_day.flatten().map(u64::cast_signed);
        let bytes = change.stored_bytes.flatten().map(u64::cast_signed);
        let webhooks = change.max_webhooks.flatten().map(u32::cast_signed);
        let labels = change.labels.as_ref().map(json_of);
        let parameters: [&(dyn ToSql + Sync); 18] = [
            &id.0,
            &change.name,
            &change.dialect,
            &change.is_strict,
            &change.email.is_some(),
            &email,
            &change.publish_rate.is_some(),
            &rate,
            &change.redacted,
            &change.events_per_day.is_some(),
            &events,
            &change.stored_bytes.is_some(),
            &bytes,
            &change.max_webhooks.is_some(),
            &webhooks,
            &change.plan.is_some(),
            &plan,
            &labels,
        ];
        let row = self.connection().await?.query_opt(&statement, &parameters).await?;
        row.as_ref().map(read).transpose()
    }

    /// Limits of an application: its own, or else the plan's; `None` if the application does not exist.
    pub async fn limits(&self, id: ApplicationId) -> Result<Option<Limits>, StoreError> {
        let statement = "SELECT coalesce(a.publish_rate, p.publish_rate) AS publish_rate,
                                coalesce(a.events_per_day, p.events_per_day) AS events_per_day,
                                coalesce(a.stored_bytes, p.stored_bytes) AS stored_bytes,
                                coalesce(a.max_webhooks, p.max_webhooks) AS max_webhooks
                         FROM applications a LEFT JOIN plans p ON p.name = a.plan WHERE a.id = $1";
        Ok(self.connection().await?.query_opt(statement, &[&id.0]).await?.as_ref().map(limits))
    }

    /// Lists applications, newest first. A page by name looks through a bounded number of applications.
    pub async fn applications(&self, filter: &ApplicationFilter) -> Result<ApplicationPage, StoreError> {
        let (name, labels) = (filter.name.as_deref(), filter.selected.labels_json());
        let walked = row_count(if name.is_some() { MAX_WALKED } else { filter.limit });
        let (before, limit) = (filter.before.map(|id| id.0), row_count(filter.limit));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&before, &walked, &name, &limit];
        let selected = filter.selected.condition(labels.as_ref(), &mut parameters);
        let statement = format!(
            "WITH walked AS MATERIALIZED (
                 SELECT {COLUMNS} FROM applications a WHERE ($1::uuid IS NULL OR id < $1){selected}
                 ORDER BY id DESC LIMIT $2),
             page AS MATERIALIZED (
                 SELECT * FROM walked WHERE $3::text IS NULL OR strpos(lower(name), lower($3)) > 0
                 ORDER BY id DESC LIMIT $4)
             SELECT last.id AS passed, page.*
             FROM (VALUES (true)) AS one
             LEFT JOIN (SELECT id FROM walked ORDER BY id DESC OFFSET $2 - 1 LIMIT 1) last
                 ON $3::text IS NOT NULL AND (SELECT count(*) FROM page) < $4
             LEFT JOIN page ON true ORDER BY page.id DESC"
        );
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        let passed = rows.first().and_then(|row| row.get::<_, Option<Uuid>>("passed")).map(ApplicationId);
        let found = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some());
        Ok(ApplicationPage { applications: found.map(read).collect::<Result<_, _>>()?, passed })
    }
}

fn read(row: &Row) -> Result<ApplicationRow, StoreError> {
    Ok(ApplicationRow {
        id: ApplicationId(row.get("id")),
        name: row.get("name"),
        dialect: row.get("dialect"),
        is_strict: row.get("strict"),
        email: row.get("email"),
        limits: limits(row),
        plan: row.get("plan"),
        labels: labels(row)?,
        redacted: row.get("redacted"),
        created_at: row.get("created_at"),
    })
}

/// Labels in a column of text.
pub(crate) fn labels(row: &Row) -> Result<BTreeMap<String, String>, StoreError> {
    let corrupt = |error: serde_json::Error| {
        StoreError::corrupt("applications", format!("{}: labels: {error}", ApplicationId(row.get("id"))))
    };
    serde_json::from_str(row.get("labels")).map_err(corrupt)
}

/// Labels as JSON text.
fn json_of(labels: &BTreeMap<String, String>) -> String {
    let members = labels.iter().map(|(key, value)| (key.clone(), serde_json::Value::from(value.as_str())));
    serde_json::Value::Object(members.collect()).to_string()
}
