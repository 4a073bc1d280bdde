//! Short texts from callers, publishers and endpoints.

use std::{fmt::Display, str::FromStr, time::Duration};

use fanfare_domain::{
    access::api_key::{Keys, Token},
    delivery::answer::RetryAfter,
    event::trace_context::Traceparent,
    ids::{
        ApplicationId, AttemptId, DeliveryId, EndpointId, EventId, KeyId, LeaseId, ParkedId, ProcessId, ReplayId,
        SecretId, is_prefix, with_prefix,
    },
    time::{duration_name, parse_duration},
};
use uuid::Uuid;

use crate::{now, text};

/// True if the text parses. Checks that a parsed value prints as the same text.
fn is_read<T: FromStr + Display>(text: &str) -> bool {
    let read = text.parse::<T>();
    if let Ok(read) = &read {
        assert_eq!(read.to_string(), text);
    }
    read.is_ok()
}

/// An id has a single kind and a single spelling. A publisher's key means a different event in each application.
pub(crate) fn id(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let kinds = [
        is_read::<ApplicationId>(text),
        is_read::<AttemptId>(text),
        is_read::<DeliveryId>(text),
        is_read::<EndpointId>(text),
        is_read::<EventId>(text),
        is_read::<KeyId>(text),
        is_read::<LeaseId>(text),
        is_read::<ParkedId>(text),
        is_read::<ProcessId>(text),
        is_read::<ReplayId>(text),
        is_read::<SecretId>(text),
    ];
    assert!(kinds.iter().filter(|is_of| **is_of).count() <= 1);
    let [one, other] = [1, 2].map(|number| ApplicationId(Uuid::from_u128(number)));
    let event = EventId::from_key(one, text);
    assert!(is_read::<EventId>(&event.to_string()));
    assert_ne!(event, EventId::from_key(other, text));
    if let Ok(delivery) = text.parse::<DeliveryId>() {
        let (least, greatest) = DeliveryId::bounds(delivery.accepted_at());
        assert!(least <= greatest);
    }
    if is_prefix(text) {
        assert!(with_prefix(text, Uuid::nil()).starts_with(text));
    }
}

/// A token has a single spelling, and authenticates nobody if there are no keys.
pub(crate) fn token(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    assert_eq!(Keys::default().authenticate(text, now()), None);
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.reveal(), text);
        assert_eq!(format!("{token:?}"), format!("Token({}, …)", token.key), "the secret is shown");
    }
}

/// A `traceparent` has a single spelling.
pub(crate) fn traceparent(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    is_read::<Traceparent>(text);
}

/// Every `Retry-After` that parses yields a wait.
pub(crate) fn retry_after(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some(asked) = RetryAfter::parse(text) {
        let wait = asked.wait(now());
        assert!(wait <= Duration::from_secs(u64::from(u32::MAX)) || matches!(asked, RetryAfter::At(_)));
        assert_eq!(RetryAfter::parse(&format!(" {text} ")), Some(asked));
    }
}

/// The name of a wait parses to the wait in whole seconds.
pub(crate) fn wait(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some(wait) = parse_duration(text) {
        let name = duration_name(wait);
        let read = parse_duration(&name).unwrap_or_else(|| panic!("{name} does not parse"));
        assert_eq!(read, Duration::from_secs(wait.as_secs()), "{name}");
    }
}
