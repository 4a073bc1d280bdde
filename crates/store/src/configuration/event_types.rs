//! Event types described by an application, beside the event types of its dialect.

use fanfare_domain::{
    event::{EventType, catalogue::EventTypeDescription},
    ids::ApplicationId,
};

use crate::{Store, StoreError, connection::store::row_count};

impl Store {
    /// Event types described by an application, by name.
    pub async fn event_types(&self, application: ApplicationId) -> Result<Vec<EventTypeDescription>, StoreError> {
        let statement =
            "SELECT name, category, description, sample FROM event_types WHERE application_id = $1 ORDER BY name";
        let rows = self.connection().await?.query(statement, &[&application.0]).await?;
        rows.iter()
            .map(|row| {
                let corrupt = |fault| StoreError::corrupt("event_types", format!("{application}: {fault}"));
                Ok(EventTypeDescription {
                    name: EventType::parse(row.get(0)).map_err(corrupt)?,
                    category: row.get(1),
                    description: row.get(2),
                    sample: row.get(3),
                })
            })
            .collect()
    }

    /// Describes an event type, or replaces the description. False if the application already has `most` others.
    ///
    /// # Errors
    /// [`StoreError::Data`] for an unknown application.
    pub async fn describe_event_type(
        &self,
        application: ApplicationId,
        described: &EventTypeDescription,
        most: usize,
    ) -> Result<bool, StoreError> {
        let statement = "INSERT INTO event_types (application_id, name, category, description, sample)
                         SELECT $1, $2, $3, $4, $5
                         WHERE (SELECT count(*) FROM event_types WHERE application_id = $1 AND name <> $2) < $6
                         ON CONFLICT (application_id, name) DO UPDATE
                         SET category = excluded.category, description = excluded.description, sample = excluded.sample";
        let most = row_count(most);
        let EventTypeDescription { name, category, description, sample } = described;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&application.0, &name.as_str(), category, description, sample, &most];
        Ok(self.connection().await?.execute(statement, &parameters).await? == 1)
    }

    /// Removes the description of an event type; false if there is none. Subscriptions stay.
    pub async fn remove_event_type(&self, application: ApplicationId, name: &EventType) -> Result<bool, StoreError> {
        let statement = "DELETE FROM event_types WHERE application_id = $1 AND name = $2";
        Ok(self.connection().await?.execute(statement, &[&application.0, &name.as_str()]).await? == 1)
    }
}
