//! Ids: a UUID in the database, a TypeID outside (a prefix for the kind, and the UUID in lower-case Crockford base32,
//! <https://github.com/jetify-com/typeid>).

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ENCODED_LENGTH: usize = 26;

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {prefix}_ and 26 characters")]
pub struct InvalidId {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! made_anew {
    ($($name:ident),*) => {$(
        impl $name {
            /// Creates an id that sorts by creation time; `random` is 10 random bytes.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(Builder::from_unix_timestamp_millis(unix_milliseconds(now), &random).into_uuid())
            }
        }
    )*};
}

id!(
    /// An application: the tenant that owns endpoints and event types.
    ApplicationId,
    "app"
);
id!(
    /// An event. Version 7 contains the time of acceptance; version 8 is derived from a publisher's key.
    EventId,
    "evt"
);
id!(
    /// An endpoint. The API also calls an endpoint a webhook.
    EndpointId,
    "wh"
);
id!(
    /// A delivery: one event to one endpoint. The id contains the event's time of acceptance.
    DeliveryId,
    "dlv"
);
id!(
    /// An attempt of a delivery.
    AttemptId,
    "att"
);
id!(
    /// An API key, without its secret part.
    KeyId,
    "key"
);
id!(
    /// A signing secret's row.
    SecretId,
    "sec"
);
id!(
    /// A parked message.
    ParkedId,
    "prk"
);
id!(
    /// An entry of the audit log.
    AuditId,
    "aud"
);
id!(
    /// A replay of past events.
    ReplayId,
    "rpl"
);
id!(
    /// A run of a process. A process that was declared dead continues under a new id.
    ProcessId,
    "prc"
);
id!(
    /// A session of the web pages.
    SessionId,
    "ses"
);
id!(
    /// A lease: the right to send deliveries and to record outcomes, until the lease ends.
    LeaseId,
    "lse"
);

made_anew!(ApplicationId, EndpointId, KeyId, SecretId, ParkedId, AuditId, ReplayId, ProcessId, SessionId, LeaseId);

impl EndpointId {
    /// The smallest id.
    pub const LEAST: Self = Self(Uuid::nil());
}

impl EventId {
    /// Creates the id of an event without a key, accepted now; `random` is 10 random bytes.
    ///
    /// The last four bytes are derived from the application and the other bytes. They distinguish the id from an id of
    /// another application.
    pub fn new(application: ApplicationId, now: Timestamp, random: [u8; 10]) -> Self {
        let id = Builder::from_unix_timestamp_millis(unix_milliseconds(now), &random).into_uuid();
        let mut bytes = *id.as_bytes();
        let mark = Self::mark(application, &bytes);
        bytes[12..].copy_from_slice(&mark);
        Self(Uuid::from_bytes(bytes))
    }

    /// Derives the id of the event that `application` publishes under `key` (the publisher's own id, an
    /// `Idempotency-Key`, or AMQP's `message_id`). The same key always means the same event.
    ///
    /// A key may be the id of an event that the application published without a key. Such a key means that very event:
    /// a publisher without an answer can send again under the id from the first response. Every receiver of the event
    /// gets the id, so the id is accepted only from the same application.
    pub fn from_key(application: ApplicationId, key: &str) -> Self {
        match key.parse::<Self>() {
            Ok(id)
                if id.accepted_at().is_some() && id.0.as_bytes()[12..] == Self::mark(application, id.0.as_bytes()) =>
            {
                id
            }
            _ => Self(digest_to_uuid(&[application.0.as_bytes(), key.as_bytes()])),
        }
    }

    fn mark(application: ApplicationId, id: &[u8; 16]) -> [u8; 4] {
        let digest = digest_to_uuid(&[application.0.as_bytes(), &id[..12]]);
        let [first, second, third, fourth, ..] = *digest.as_bytes();
        [first, second, third, fourth]
    }

    /// Time of acceptance, if the id contains the time: only for events without a key.
    pub fn accepted_at(self) -> Option<Timestamp> {
        (self.0.get_version_num() == 7).then(|| leading_timestamp(self.0)).flatten()
    }
}

impl DeliveryId {
    /// Derives the id of an event's delivery to an endpoint.
    ///
    /// The id starts with the time of acceptance, so that rows are inserted in order and the id alone determines the
    /// partition. The rest is derived, so that the primary key is also the unique (event, endpoint).
    pub fn derive(accepted_at: Timestamp, event: EventId, endpoint: EndpointId) -> Self {
        let digest = digest_to_uuid(&[event.0.as_bytes(), endpoint.0.as_bytes()]);
        Self(with_leading_timestamp(digest, accepted_at))
    }

    /// The event's time of acceptance, in whole milliseconds.
    pub fn accepted_at(self) -> Timestamp {
        leading_timestamp(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The smallest and the largest delivery id for an event accepted at this moment.
    pub fn bounds(accepted_at: Timestamp) -> (Self, Self) {
        let bound = |fill| Self(with_leading_timestamp(Uuid::from_bytes([fill; 16]), accepted_at));
        (bound(0), bound(0xff))
    }
}

impl AttemptId {
    /// Derives the id of a delivery's `attempt`-th attempt.
    pub fn derive(delivery: DeliveryId, attempt: u32) -> Self {
        let digest = digest_to_uuid(&[delivery.0.as_bytes(), &attempt.to_be_bytes()]);
        Self(with_leading_timestamp(digest, delivery.accepted_at()))
    }

    /// Acceptance of the delivery's event, in whole milliseconds.
    pub fn accepted_at(self) -> Timestamp {
        leading_timestamp(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Formats a TypeID with any prefix, for dialects with other prefixes.
pub fn with_prefix(prefix: &str, id: Uuid) -> String {
    format!("{prefix}_{}", encode(id))
}

/// Parses a TypeID with the given prefix.
pub fn parse_with_prefix(prefix: &str, text: &str) -> Option<Uuid> {
    text.strip_prefix(prefix)?.strip_prefix('_').and_then(decode)
}

/// True if the text is a TypeID prefix (TypeID specification 0.3, except for the empty prefix).
pub fn is_prefix(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && !text.starts_with('_')
        && !text.ends_with('_')
}

/// Least id that begins with `moment`, such as the id of a delivery whose event was accepted then.
pub fn first_id(moment: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(moment.as_millisecond().max(0).unsigned_abs()) << 80)
}

fn unix_milliseconds(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_millisecond()).unwrap_or(0)
}

fn digest_to_uuid(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn with_leading_timestamp(uuid: Uuid, moment: Timestamp) -> Uuid {
    let mut bytes = *uuid.as_bytes();
    bytes[..6].copy_from_slice(&unix_milliseconds(moment).to_be_bytes()[2..]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn leading_timestamp(uuid: Uuid) -> Option<Timestamp> {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&uuid.as_bytes()[..6]);
    Timestamp::from_millisecond(i64::from_be_bytes(bytes)).ok()
}

fn encode(uuid: Uuid) -> String {
    let value = uuid.as_u128();
    (0..ENCODED_LENGTH).rev().map(|position| char::from(ALPHABET[(value >> (5 * position)) as usize & 31])).collect()
}

/// True for the text of an id, of any kind.
pub fn is_id(text: &str) -> bool {
    text.split_once('_').is_some_and(|(_, rest)| decode(rest).is_some())
}

fn decode(text: &str) -> Option<Uuid> {
    // 26 characters have 130 bits: a first character above 7 would not fit into 128.
    if text.len() != ENCODED_LENGTH || text.as_bytes()[0] > b'7' {
        return None;
    }
    let mut value = 0u128;
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        value = value << 5 | digit as u128;
    }
    Some(Uuid::from_u128(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_the_typeid_specification() {
        // A valid example of the TypeID specification.
        let uuid: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("uuid");
        assert_eq!(encode(uuid), "01h455vb4pex5vsknk084sn02q");
        assert_eq!(encode(Uuid::max()), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
        for text in [
            "",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "01H455VB4PEX5VSKNK084SN02Q",
            "01h455vb4pex5vsknk084sn02",
            "ü1h455vb4pex5vsknk084sn02",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_no_id() {
        assert!(is_id(&KeyId(Uuid::max()).to_string()) && is_id(&ApplicationId(Uuid::nil()).to_string()));
        assert!(["ada", "ops@host", "key_1", "key_", "_"].iter().all(|name| !is_id(name)));
    }

    fn moments() -> impl Strategy<Value = Timestamp> {
        (0i64..1 << 47).prop_map(|milliseconds| Timestamp::from_millisecond(milliseconds).expect("in range"))
    }

    proptest! {
        #[test]
        fn text_round_trip(value: u128) {
            let id = EventId(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
            prop_assert!(id.to_string().parse::<DeliveryId>().is_err());
            prop_assert_eq!(parse_with_prefix("we", &with_prefix("we", id.0)), Some(id.0));
            prop_assert_eq!(parse_with_prefix("w", &with_prefix("we", id.0)), None);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<EventId>();
            let _ = format!("evt_{text}").parse::<EventId>();
        }

        #[test]
        fn delivery_ids_hold_their_time_and_are_derived(moment in moments(), event: u128, endpoint: u128, other: u128) {
            let (event, endpoint, other) = (EventId(Uuid::from_u128(event)), EndpointId(Uuid::from_u128(endpoint)), EndpointId(Uuid::from_u128(other)));
            let id = DeliveryId::derive(moment, event, endpoint);
            prop_assert_eq!(id.accepted_at(), moment);
            prop_assert_eq!(id, DeliveryId::derive(moment, event, endpoint));
            prop_assert_eq!(id == DeliveryId::derive(moment, event, other), endpoint == other);
            let (least, greatest) = DeliveryId::bounds(moment);
            prop_assert!(least <= id && id <= greatest);
            prop_assert_eq!(AttemptId::derive(id, 3).accepted_at(), moment);
        }

        #[test]
        fn a_key_means_one_event(application: u128, other: u128, key in ".{1,60}", moment in moments(), random: [u8; 10]) {
            prop_assume!(application != other);
            let (application, other) = (ApplicationId(Uuid::from_u128(application)), ApplicationId(Uuid::from_u128(other)));
            let id = EventId::from_key(application, &key);
            prop_assert_eq!(id, EventId::from_key(application, &key));
            prop_assert_ne!(id, EventId::from_key(other, &key));
            prop_assert_eq!(id.accepted_at(), None);
            let fresh = EventId::new(application, moment, random);
            prop_assert_eq!(fresh.accepted_at(), Some(moment));
            let named = |application| EventId::from_key(application, &fresh.to_string());
            prop_assert_eq!(named(application), fresh);
            prop_assert_ne!(named(other), fresh);
        }
    }
}
