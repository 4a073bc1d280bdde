//! Bodies of events. With redacted members, the readable column lacks their values, and a second column holds the
//! complete body encrypted.

use fanfare_domain::ids::EventId;
use tokio_postgres::Row;

use crate::{Keyring, KeyringError, NewEvent, StoreError, connection::keyring::Sealed};

/// Stored body of an event.
pub(crate) struct StoredBody<'a> {
    /// Readable body.
    pub(crate) shown: &'a str,
    /// Encrypted complete body, if members are redacted.
    pub(crate) sealed: Option<Sealed>,
}

impl<'a> StoredBody<'a> {
    pub(crate) fn of(new: &'a NewEvent, keyring: &Keyring) -> Result<Self, KeyringError> {
        let Some(shown) = &new.redacted else { return Ok(Self { shown: &new.body, sealed: None }) };
        let sealed = keyring.seal(new.body.as_bytes(), &identity(new.event.id))?;
        Ok(Self { shown, sealed: Some(sealed) })
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
