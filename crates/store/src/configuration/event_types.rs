//! Event types described by an application, beside the event types of its dialect, and their schemas.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    event::{
        EventType,
        catalogue::EventTypeDescription,
        description::{Effect, KnownSchema, KnownType, KnownTypes, PlannedType},
    },
    ids::ApplicationId,
};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Store, StoreError};

/// A version of an event type's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRow {
    /// Number of the version.
    pub version: u32,
    /// Compact JSON.
    pub schema: String,
    /// Time of the write.
    pub created_at: Timestamp,
}

/// The newest version of each type's schema.
const NEWEST: &str = "LEFT JOIN LATERAL (
    SELECT version, schema, sample FROM event_schemas s
    WHERE s.application_id = t.application_id AND s.name = t.name ORDER BY version DESC LIMIT 1) newest ON true";

/// Holds the application, so that changes of its types and schemas come one after the other.
const LOCK: &str = "SELECT FROM applications WHERE id = $1 FOR NO KEY UPDATE";

impl Store {
    /// Event types described by an application, by name. A type with a schema and without a sample has the sample that
    /// was generated from the schema.
    pub async fn event_types(&self, application: ApplicationId) -> Result<Vec<EventTypeDescription>, StoreError> {
        let statement = format!(
            "SELECT t.name, category, description, newest.version,
                    CASE WHEN t.sample = '{{}}' THEN coalesce(newest.sample, t.sample) ELSE t.sample END
             FROM event_types t {NEWEST} WHERE t.application_id = $1 ORDER BY t.name"
        );
        let rows = self.connection().await?.query(&statement, &[&application.0]).await?;
        rows.iter()
            .map(|row| {
                Ok(EventTypeDescription {
                    name: name(application, row)?,
                    category: row.get(1),
                    description: row.get(2),
                    schema_version: row.get::<_, Option<i32>>(3).map(i32::cast_unsigned),
                    sample: row.get(4),
                })
            })
            .collect()
    }

    /// A version of an event type's schema, by default the newest; `None` if there is none.
    pub async fn event_schema(
        &self,
        application: ApplicationId,
        name: &EventType,
        version: Option<u32>,
    ) -> Result<Option<SchemaRow>, StoreError> {
        let statement = "SELECT version, schema, created_at FROM event_schemas
                         WHERE application_id = $1 AND name = $2 AND version = coalesce($3, version)
                         ORDER BY version DESC LIMIT 1";
        let version = version.map(|version| i32::try_from(version).unwrap_or(i32::MAX));
        let row = self.connection().await?.query_opt(statement, &[&application.0, &name.as_str(), &version]).await?;
        Ok(row.map(|row| SchemaRow {
            version: row.get::<_, i32>(0).cast_unsigned(),
            schema: row.get(1),
            created_at: row.get(2),
        }))
    }

    /// Changes event types of an application in one commit. `plan` gets the present state of the named types, and
    /// decides, also whether the changes are written.
    ///
    /// # Errors
    /// [`StoreError::Data`] for an unknown application.
    pub async fn change_event_types(
        &self,
        application: ApplicationId,
        names: &[EventType],
        plan: impl FnOnce(&KnownTypes) -> (Vec<PlannedType>, bool),
    ) -> Result<Vec<PlannedType>, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        transaction.execute(LOCK, &[&application.0]).await?;
        let known = known_types(&transaction, application, names).await?;
        let (planned, is_written) = plan(&known);
        for planned in planned.iter().filter(|planned| is_written && planned.effect != Effect::Unchanged) {
            write(&transaction, application, planned).await?;
        }
        transaction.commit().await?;
        Ok(planned)
    }

    /// Removes the description and the schemas of an event type; false if there is none. Subscriptions stay.
    pub async fn remove_event_type(&self, application: ApplicationId, name: &EventType) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        transaction.execute(LOCK, &[&application.0]).await?;
        let statement = "DELETE FROM event_types WHERE application_id = $1 AND name = $2";
        let removed = transaction.execute(statement, &[&application.0, &name.as_str()]).await?;
        transaction.commit().await?;
        Ok(removed == 1)
    }
}

fn name(application: ApplicationId, row: &Row) -> Result<EventType, StoreError> {
    EventType::parse(row.get(0)).map_err(|fault| StoreError::corrupt("event_types", format!("{application}: {fault}")))
}

async fn known_types(
    client: &impl GenericClient,
    application: ApplicationId,
    names: &[EventType],
) -> Result<KnownTypes, StoreError> {
    let sums = "SELECT (SELECT count(*) FROM event_types WHERE application_id = $1),
                       (SELECT coalesce(sum(size), 0) FROM event_schemas WHERE application_id = $1)";
    let sums = client.query_one(sums, &[&application.0]).await?;
    let count = |column| usize::try_from(sums.get::<_, i64>(column)).unwrap_or_default();
    let statement = format!(
        "SELECT t.name, category, description, t.sample, newest.version, newest.schema, newest.sample,
                (SELECT coalesce(sum(size), 0) FROM event_schemas s
                 WHERE s.application_id = t.application_id AND s.name = t.name)
         FROM event_types t {NEWEST} WHERE t.application_id = $1 AND t.name = ANY($2)"
    );
    let names: Vec<&str> = names.iter().map(EventType::as_str).collect();
    let rows = client.query(&statement, &[&application.0, &names]).await?;
    let mut types = HashMap::new();
    for row in &rows {
        let schema = row.get::<_, Option<i32>>(4).map(|version| KnownSchema {
            version: version.cast_unsigned(),
            text: row.get(5),
            sample: row.get(6),
        });
        let known = KnownType {
            category: row.get(1),
            description: row.get(2),
            sample: row.get(3),
            schema,
            size: usize::try_from(row.get::<_, i64>(7)).unwrap_or_default(),
        };
        types.insert(name(application, row)?, known);
    }
    Ok(KnownTypes { types, count: count(0), size: count(1) })
}

async fn write(
    client: &impl GenericClient,
    application: ApplicationId,
    planned: &PlannedType,
) -> Result<(), StoreError> {
    let Some(KnownType { category, description, sample, .. }) = &planned.after else { return Ok(()) };
    let name = planned.name.as_str();
    let statement = "INSERT INTO event_types (application_id, name, category, description, sample)
                     VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (application_id, name) DO UPDATE
                     SET category = excluded.category, description = excluded.description, sample = excluded.sample";
    client.execute(statement, &[&application.0, &name, category, description, sample]).await?;
    if planned.removes_schemas {
        let statement = "DELETE FROM event_schemas WHERE application_id = $1 AND name = $2";
        client.execute(statement, &[&application.0, &name]).await?;
    }
    if let Some((appended, size)) = &planned.appends {
        let statement = "INSERT INTO event_schemas (application_id, name, version, schema, sample, size)
                         VALUES ($1, $2, $3, $4, $5, $6)";
        let version = appended.version.cast_signed();
        let size = i32::try_from(*size).unwrap_or(i32::MAX);
        client.execute(statement, &[&application.0, &name, &version, &appended.text, &appended.sample, &size]).await?;
    }
    Ok(())
}
