//! Bodies of events, and of deliveries by a template. With redacted members, the readable column lacks their values,
//! and a second column holds the complete body encrypted.

use std::collections::HashMap;

use fanfare_domain::{
    endpoint::template::Shaped,
    ids::{DeliveryId, EventId, LeaseId},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Keyring, KeyringError, NewEvent, Store, StoreError, connection::keyring::Sealed};

/// Stored body of an event or a delivery.
pub(crate) struct StoredBody<'a> {
    /// Readable body.
    pub(crate) shown: &'a str,
    /// Encrypted complete body, if members are redacted.
    pub(crate) sealed: Option<Sealed>,
}

impl<'a> StoredBody<'a> {
    pub(crate) fn of(new: &'a NewEvent, keyring: &Keyring) -> Result<Self, KeyringError> {
        Self::seal(&new.body, new.redacted.as_deref(), keyring, &identity(new.event.id))
    }

    /// Stored body of a delivery; `None` if the template has no body for the event.
    pub(crate) fn of_delivery(
        id: DeliveryId,
        shaped: &'a Shaped,
        keyring: &Keyring,
    ) -> Result<Option<Self>, KeyringError> {
        match shaped {
            Shaped::Body { body, shown } => {
                Self::seal(body, shown.as_deref(), keyring, &delivery_identity(id)).map(Some)
            }
            Shaped::Failed(_) => Ok(None),
        }
    }

    fn seal(body: &'a str, shown: Option<&'a str>, keyring: &Keyring, identity: &[u8]) -> Result<Self, KeyringError> {
        let Some(shown) = shown else { return Ok(Self { shown: body, sealed: None }) };
        Ok(Self { shown, sealed: Some(keyring.seal(body.as_bytes(), identity)?) })
    }

    pub(crate) fn key_name(&self) -> Option<&str> {
        self.sealed.as_ref().map(|sealed| sealed.key_name.as_str())
    }

    pub(crate) fn ciphertext(&self) -> Option<&[u8]> {
        self.sealed.as_ref().map(|sealed| sealed.ciphertext.as_slice())
    }
}

/// Reads the complete body from `body`, `body_key_name` and `body_ciphertext`.
pub(crate) fn open_body(keyring: &Keyring, event: EventId, row: &Row) -> Result<String, StoreError> {
    let Some(key_name) = row.get::<_, Option<&str>>("body_key_name") else { return Ok(row.get("body")) };
    keyring.open_body(event, key_name, row.get("body_ciphertext"))
}

impl Keyring {
    /// Decrypts the complete body of an event, of `body_key_name` and `body_ciphertext`.
    ///
    /// # Errors
    /// If the key is missing or another key, or the ciphertext is another event's.
    pub fn open_body(&self, event: EventId, key_name: &str, ciphertext: &[u8]) -> Result<String, StoreError> {
        let plain = self.open(key_name, ciphertext, &identity(event))?;
        String::from_utf8(plain).map_err(|_| StoreError::corrupt("events", format!("{event}: body")))
    }
}

/// Associated data of a body: binds the ciphertext to its row.
pub(crate) fn identity(event: EventId) -> Vec<u8> {
    [b"events.body".as_slice(), event.0.as_bytes()].concat()
}

/// Associated data of a delivery's own body.
pub(crate) fn delivery_identity(delivery: DeliveryId) -> Vec<u8> {
    [b"delivery_bodies.body".as_slice(), delivery.0.as_bytes()].concat()
}

/// A delivery's own body, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnBody {
    /// Body as sent, without the values of redacted members; `None` for a long body in a list, and if the template had
    /// no body for the event.
    pub body: Option<String>,
    /// True if `body` lacks the values of redacted members.
    pub is_redacted: bool,
    /// Why the template had no body for the event.
    pub fault: Option<String>,
}

impl Store {
    /// Reads the own bodies of deliveries. A body of more than `longest` bytes is left out.
    pub(crate) async fn own_bodies(
        &self,
        deliveries: impl IntoIterator<Item = DeliveryId>,
        longest: i32,
    ) -> Result<HashMap<DeliveryId, OwnBody>, StoreError> {
        let ids: Vec<Uuid> = deliveries.into_iter().map(|delivery| delivery.0).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let statement = "SELECT id, CASE WHEN octet_length(body) <= $2 THEN body END AS body,
                                body_key_name IS NOT NULL AS is_redacted, fault
                         FROM delivery_bodies WHERE id = ANY ($1)";
        let rows = self.query_by_kept_plan(statement, &[&ids, &longest]).await?;
        let own =
            |row: &Row| OwnBody { body: row.get("body"), is_redacted: row.get("is_redacted"), fault: row.get("fault") };
        Ok(rows.iter().map(|row| (DeliveryId(row.get("id")), own(row))).collect())
    }

    /// Reads the complete own bodies of deliveries, to send. A delivery without an entry is not yet rendered, or its
    /// template had no body for the event. A body of a missing key is an error of the entry.
    pub(crate) async fn bodies_to_send(
        &self,
        deliveries: impl IntoIterator<Item = DeliveryId>,
    ) -> Result<HashMap<DeliveryId, Result<String, StoreError>>, StoreError> {
        let ids: Vec<Uuid> = deliveries.into_iter().map(|delivery| delivery.0).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let statement = "SELECT id, body, body_key_name, body_ciphertext FROM delivery_bodies
                         WHERE id = ANY ($1) AND body IS NOT NULL";
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(statement).await?;
        let rows = connection.query(&statement, &[&ids]).await?;
        let read = |row: &Row| {
            let id = DeliveryId(row.get("id"));
            let Some(key_name) = row.get::<_, Option<&str>>("body_key_name") else { return (id, Ok(row.get("body"))) };
            let plain = self.keyring.open(key_name, row.get("body_ciphertext"), &delivery_identity(id));
            let text = plain.map_err(StoreError::from).and_then(|plain| {
                String::from_utf8(plain).map_err(|_| StoreError::corrupt("delivery_bodies", format!("{id}: body")))
            });
            (id, text)
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Keeps the body, or the fault, of a leased delivery that had no body yet. False if the lease has ended, or
    /// another process has written the body.
    pub async fn keep_body(&self, delivery: DeliveryId, lease: LeaseId, shaped: &Shaped) -> Result<bool, StoreError> {
        let stored = StoredBody::of_delivery(delivery, shaped, &self.keyring)?;
        let fault = match shaped {
            Shaped::Failed(sentence) => Some(sentence.as_str()),
            Shaped::Body { .. } => None,
        };
        // The lock: an erasure ends the delivery before, or deletes the body after. A feed lists the delivery with its
        // body.
        let statement = "
WITH leased AS MATERIALIZED (
    SELECT o.id, o.endpoint_id, o.application_id, o.event_id FROM open_deliveries o
    WHERE o.id = $1 AND o.lease_id = $2 AND o.state || '' = 'sending' FOR NO KEY UPDATE
), kept AS (
    INSERT INTO delivery_bodies AS b (id, body, body_key_name, body_ciphertext, fault)
    SELECT id, $3, $4, $5, $6 FROM leased
    ON CONFLICT (id) DO UPDATE
    SET body = excluded.body, body_key_name = excluded.body_key_name, body_ciphertext = excluded.body_ciphertext,
        fault = excluded.fault
    WHERE b.body IS NULL RETURNING b.id, b.body
), listed AS (
    INSERT INTO feed_entries (endpoint_id, id, application_id, event_id)
    SELECT l.endpoint_id, l.id, l.application_id, l.event_id FROM leased l JOIN kept ON kept.id = l.id
    JOIN endpoints p ON p.id = l.endpoint_id AND p.feed <> 'none' WHERE kept.body IS NOT NULL
)
SELECT FROM kept";
        let (body, key_name, ciphertext) = (
            stored.as_ref().map(|stored| stored.shown),
            stored.as_ref().and_then(StoredBody::key_name),
            stored.as_ref().and_then(StoredBody::ciphertext),
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(statement).await?;
        let written =
            connection.query(&statement, &[&delivery.0, &lease.0, &body, &key_name, &ciphertext, &fault]).await?;
        Ok(!written.is_empty())
    }
}
