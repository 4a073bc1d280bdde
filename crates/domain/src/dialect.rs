//! How the body of a delivery looks: the default dialect's envelope.

use jiff::Timestamp;

use crate::{event::Event, json};

/// Renders what is sent for an event: `{"event": …, "data": …, "timestamp": …}`.
///
/// Receivers of this dialect sign `JSON.stringify(JSON.parse(body))`, so the bytes must be what Node
/// prints. Rendered once, when the event is persisted, and kept: every attempt sends the same bytes.
///
/// # Errors
/// When the event's data is not JSON that [`json::check`] accepts.
pub fn render_body(event: &Event, accepted_at: Timestamp) -> Result<String, json::JsonFault> {
    let data = json::print_as_node(&event.data)?;
    let timestamp = event.occurred_at.unwrap_or(accepted_at);
    // An event type holds nothing that JSON would escape.
    Ok(format!(r#"{{"event":"{}","data":{data},"timestamp":"{timestamp:.3}"}}"#, event.event_type))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        event::EventType,
        ids::{ApplicationId, EventId},
        traceparent::Traceparent,
    };

    #[test]
    fn renders_the_documented_envelope() {
        let event = Event {
            id: EventId(Uuid::nil()),
            application: ApplicationId(Uuid::nil()),
            event_type: EventType::parse("REFERRAL_CREATED").expect("type"),
            key: None,
            data: r#"{ "b": 1.0, "a": "é" }"#.to_owned(),
            occurred_at: None,
            traceparent: Traceparent::from_random([1; 16], [1; 8]),
        };
        let accepted_at = "2026-06-18T12:00:00Z".parse().expect("timestamp");
        let body = render_body(&event, accepted_at).expect("body");
        assert_eq!(
            body,
            r#"{"event":"REFERRAL_CREATED","data":{"b":1,"a":"é"},"timestamp":"2026-06-18T12:00:00.000Z"}"#
        );
    }
}
