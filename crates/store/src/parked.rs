//! Messages that could not be read, kept off the broker.

use fanfare_domain::ids::ParkedId;

use crate::{Store, StoreError};

/// A message that could not be read.
#[derive(Debug, Clone)]
pub struct ParkedMessage {
    /// Its id.
    pub id: ParkedId,
    /// The code of what is wrong with it.
    pub reason: String,
    /// What is wrong with it, for people.
    pub message: String,
    /// Its routing key.
    pub routing_key: Option<String>,
    /// Its `message_id`.
    pub message_id: Option<String>,
    /// What is kept of the headers that it was published with, as a JSON object.
    pub headers: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Store {
    /// Keeps a parked message. The same id again changes nothing.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn park(&self, parked: &ParkedMessage) -> Result<(), StoreError> {
        // Postgres stores no NUL in a text, and these come from anybody.
        let text = |text: &str| text.replace('\0', "\u{fffd}");
        let routing_key = parked.routing_key.as_deref().map(text);
        let message_id = parked.message_id.as_deref().map(text);
        let statement = "INSERT INTO parked (id, reason, message, routing_key, message_id, headers, body)
                         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        self.connection()
            .await?
            .execute(
                statement,
                &[
                    &parked.id.0,
                    &parked.reason,
                    &text(&parked.message),
                    &routing_key,
                    &message_id,
                    &text(&parked.headers),
                    &parked.body,
                ],
            )
            .await?;
        Ok(())
    }
}
