//! Messages with a sanitized short string.

use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::sanitize::SUBSTITUTE;
use crate::{Incoming, Unreadable};

/// Reason for parking a message with a short string that is not UTF-8.
pub(crate) const NOT_UTF8: &str = "not_utf8";

/// True if a text was sanitized.
pub(crate) fn is_sanitized(text: &str) -> bool {
    text.contains(SUBSTITUTE)
}

/// The sanitized part of a message, if any.
pub(crate) fn sanitized_part(delivery: &Delivery) -> Option<&'static str> {
    let properties = &delivery.properties;
    let property = |text: &Option<ShortString>| text.as_ref().is_some_and(|text| is_sanitized(text.as_str()));
    [
        ("the exchange", is_sanitized(delivery.exchange.as_str())),
        ("the routing key", is_sanitized(delivery.routing_key.as_str())),
        ("the property message_id", property(properties.message_id())),
        ("the name of a header", properties.headers().as_ref().is_some_and(has_sanitized_name)),
        ("the property content_type", property(properties.content_type())),
        ("the property content_encoding", property(properties.content_encoding())),
        ("the property correlation_id", property(properties.correlation_id())),
        ("the property reply_to", property(properties.reply_to())),
        ("the property expiration", property(properties.expiration())),
        ("the property type", property(properties.kind())),
        ("the property user_id", property(properties.user_id())),
        ("the property app_id", property(properties.app_id())),
        ("the property cluster_id", property(properties.cluster_id())),
    ]
    .into_iter()
    .find_map(|(part, is_sanitized)| is_sanitized.then_some(part))
}

/// True if the table or a nested table has a sanitized name. lapin has bounded the depth.
fn has_sanitized_name(table: &FieldTable) -> bool {
    table.inner().iter().any(|(name, value)| is_sanitized(name.as_str()) || holds_sanitized_name(value))
}

fn holds_sanitized_name(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::FieldTable(table) => has_sanitized_name(table),
        AMQPValue::FieldArray(values) => values.as_slice().iter().any(holds_sanitized_name),
        _ => false,
    }
}

/// The reason for parking a message with a sanitized part.
pub(crate) fn not_utf8(part: &str) -> Unreadable {
    let message = format!("{part} is not UTF-8, or contains U+001A, the replacement for each byte that is not UTF-8");
    Unreadable::new(NOT_UTF8, message)
}

impl Incoming {
    /// Refuses a message with a sanitized part.
    pub(crate) fn check_utf8(&self) -> Result<(), Unreadable> {
        self.sanitized.map_or(Ok(()), |part| Err(not_utf8(part)))
    }
}

#[cfg(test)]
mod tests;
