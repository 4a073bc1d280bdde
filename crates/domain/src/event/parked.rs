//! Messages that could not be read.

use std::str;

use crate::{
    event::{EventFault, EventType, FaultCode, check_key},
    ids::ApplicationId,
    json,
};

/// Source of a parked message, and the destination if the message is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The events exchange: published by a client.
    Events,
    /// The deliveries exchange: a retry message, or mistaken for a retry message.
    Deliveries,
}

impl Origin {
    /// Name in messages and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Events, Self::Deliveries].into_iter().find(|origin| origin.as_str() == text)
    }
}

/// Changes to a parked message before the message is put back. Absent members stay unchanged.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// New routing key, `<application>.<event type>`.
    pub routing_key: Option<String>,
    /// New `message_id`.
    pub message_id: Option<String>,
    /// New body, complete.
    pub body: Option<Vec<u8>>,
}

impl Edit {
    /// True if a part is changed.
    pub fn is_change(&self) -> bool {
        let Self { routing_key, message_id, body } = self;
        routing_key.is_some() || message_id.is_some() || body.is_some()
    }

    /// Checks that the changed parts can be read. Otherwise the message would only be parked again.
    ///
    /// # Errors
    /// With the unreadable part.
    pub fn check(&self) -> Result<(), EventFault> {
        let invalid = |field: &'static str, message: &str| EventFault::new(FaultCode::InvalidField, field, message);
        if let Some(routing_key) = &self.routing_key {
            let parts = routing_key.split_once('.');
            let is_sound = parts.is_some_and(|(application, event_type)| {
                application.parse::<ApplicationId>().is_ok() && EventType::parse(event_type).is_ok()
            });
            if !is_sound {
                return Err(invalid("routing_key", "must be <application>.<event type>"));
            }
        }
        if let Some(message_id) = &self.message_id {
            check_key("message_id", message_id.clone())?;
        }
        let Some(body) = &self.body else { return Ok(()) };
        let text = str::from_utf8(body).map_err(|_| invalid("body", "is not UTF-8"))?;
        json::check(text).map_err(|fault| invalid("body", &format!("cannot be read either: {fault}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_could_not_be_read_is_refused_with_its_part() {
        let text = |text: &str| Some(text.to_owned());
        let sound = Edit {
            routing_key: text("app_01h455vb4pex5vsknk084sn02q.order.created"),
            message_id: text("order-17"),
            body: Some(b"{\"data\":1}".to_vec()),
        };
        assert_eq!(sound.check(), Ok(()));
        assert_eq!(Edit::default().check(), Ok(()));
        for (edit, part) in [
            (Edit { routing_key: text("order.created"), ..sound.clone() }, "routing_key"),
            (Edit { routing_key: text("app_01h455vb4pex5vsknk084sn02q."), ..sound.clone() }, "routing_key"),
            (Edit { message_id: text(""), ..sound.clone() }, "message_id"),
            (Edit { message_id: text(&"a".repeat(256)), ..sound.clone() }, "message_id"),
            (Edit { body: Some(b"{".to_vec()), ..sound.clone() }, "body"),
            (Edit { body: Some(b"\xff".to_vec()), ..sound }, "body"),
        ] {
            assert_eq!(edit.check().expect_err(part).field.as_deref(), Some(part));
        }
    }
}
