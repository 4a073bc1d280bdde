//! A dialect: the form of deliveries, the retry schedule, the rules of failure, and the event types. All is data, read
//! from a file (`file`); no code here depends on a dialect's name.

mod check;
mod file;
mod template;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use self::{
    file::DialectFault,
    template::{Part, Template},
};
use crate::{
    delivery::policy::Policy,
    event::{Event, EventType, catalogue::Catalogue, ordering::Sequence, trace_context::TraceContext},
    ids::{self, ApplicationId, DeliveryId, EventId, ReplayId},
    json,
};

/// Dialect of an application that picks none.
pub const DEFAULT_DIALECT: &str = "incenta";

/// Built-in dialects: name and file.
const SHIPPED: [(&str, &str); 7] = [
    ("cloudevents", include_str!("../dialects/cloudevents.toml")),
    ("incenta", include_str!("../dialects/incenta.toml")),
    ("incentable", include_str!("../dialects/incentable.toml")),
    ("nudj", include_str!("../dialects/nudj.toml")),
    ("ploints", include_str!("../dialects/ploints.toml")),
    ("reward", include_str!("../dialects/reward.toml")),
    ("standard", include_str!("../dialects/standard.toml")),
];

/// A system's form of deliveries.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Name by which applications pick the dialect.
    pub name: String,
    /// Display name.
    pub title: String,
    /// Help for the choice of a dialect.
    pub description: String,
    body: Body,
    /// The header `content-type` of deliveries: a media type of JSON.
    pub content_type: HeaderValue,
    event_id_prefix: String,
    /// Signature header in addition to Standard Webhooks.
    pub signature: Option<SignatureForm>,
    /// Further headers.
    pub headers: Vec<(HeaderName, Template<HeaderPlace>)>,
    /// Retry schedule, deadline, rate, and rules of failure.
    pub policy: Arc<Policy>,
    /// True if the owner of an endpoint gets a mail when a delivery is given up.
    pub notifies_owner: bool,
    /// Event types of the dialect.
    pub catalogue: Arc<Catalogue>,
}

#[derive(Debug, Clone)]
struct Body {
    template: Template<BodyPlace>,
    data: DataForm,
    time: TimeForm,
    /// Place of the data in the body, as JSON pointer. `None` for a body without the data.
    data_pointer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyPlace {
    EventId,
    EventType,
    ApplicationId,
    Data,
    Time,
    CloudEventId,
    CloudEventSource,
    CloudEventAttributes,
}

/// Printed form of the publisher's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum DataForm {
    AsNode,
    AsSent,
}

/// Printed form of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum TimeForm {
    Milliseconds,
    Seconds,
    UnixSeconds,
    UnixMilliseconds,
}

/// Signature header of a dialect. The value contains an HMAC-SHA256.
#[derive(Debug, Clone)]
pub struct SignatureForm {
    /// Header name.
    pub header: HeaderName,
    /// Header value.
    pub value: Template<SignaturePlace>,
    /// Signed text.
    pub signs: Template<SignedPlace>,
    /// Part of the secret that is the HMAC's key.
    pub key: SignatureKey,
    /// Encoding of the HMAC.
    pub encoding: SignatureEncoding,
}

/// Placeholders in the value of a signature header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePlace {
    /// Encoded HMAC.
    Signature,
    /// Time of the attempt, in seconds since 1970.
    Timestamp,
}

/// Placeholders in the signed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedPlace {
    /// Rendered body.
    Body,
    /// Event id with the dialect's prefix.
    EventId,
    /// Time of the attempt, in seconds since 1970.
    Timestamp,
}

/// Part of a secret that is the HMAC's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureKey {
    /// The whole text, `whsec_` included.
    Text,
    /// The decoded base64.
    Bytes,
}

/// Encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    /// Lower-case hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Placeholders in further headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderPlace {
    /// Event id with the dialect's prefix.
    EventId,
    /// Event type.
    EventType,
    /// Application that published the event.
    ApplicationId,
    /// Delivery id, the same in each attempt.
    DeliveryId,
    /// Number of the attempt, from 1 on.
    Attempt,
    /// Time of the attempt, in seconds since 1970.
    Timestamp,
}

/// Values for the headers of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Event id.
    pub event: EventId,
    /// Event type.
    pub event_type: &'a EventType,
    /// Application that published the event.
    pub application: ApplicationId,
    /// Delivery id.
    pub delivery: DeliveryId,
    /// Number of the attempt, from 1 on.
    pub attempt: u32,
    /// Replay that sends the delivery, if any.
    pub replay: Option<ReplayId>,
    /// Place in the order of the event's ordering key, if the event has a key.
    pub sequence: Option<&'a Sequence>,
    /// Trace context of the attempt, for endpoints that receive it.
    pub trace: Option<&'a TraceContext>,
    /// Time of the attempt.
    pub at: Timestamp,
}

impl Dialect {
    /// Renders the body of an event's deliveries. The body is rendered once, at persist, and kept: every attempt sends
    /// the same bytes.
    ///
    /// # Errors
    /// If [`json::check`] refuses the event's data.
    pub fn render_body(&self, event: &Event, accepted_at: Timestamp) -> Result<String, json::JsonFault> {
        let data = match self.body.data {
            DataForm::AsNode => json::print_as_node(&event.data)?,
            DataForm::AsSent => {
                json::check(&event.data)?;
                json::compact(&event.data)
            }
        };
        let (time, cloud_event) = (event.occurred_at.unwrap_or(accepted_at), event.cloud_event.as_ref());
        // Writing to a `String` cannot fail. Types and Fanfare's ids contain no character that JSON escapes.
        Ok(self.body.template.fill(|place, text| {
            let _ = match place {
                BodyPlace::CloudEventId => match cloud_event {
                    Some(cloud_event) => write!(text, "{}", Value::from(cloud_event.id.as_str())),
                    None => write!(text, "\"{}\"", self.event_id(event.id)),
                },
                BodyPlace::CloudEventSource => match cloud_event {
                    Some(cloud_event) => write!(text, "{}", Value::from(cloud_event.source.as_str())),
                    None => write!(text, "\"/applications/{}\"", event.application),
                },
                BodyPlace::CloudEventAttributes => cloud_event
                    .iter()
                    .flat_map(|cloud_event| &cloud_event.attributes)
                    .try_for_each(|(name, value)| write!(text, ",\"{name}\":{value}")),
                BodyPlace::EventId => write!(text, "\"{}\"", self.event_id(event.id)),
                BodyPlace::EventType => write!(text, "\"{}\"", event.event_type),
                BodyPlace::ApplicationId => write!(text, "\"{}\"", event.application),
                BodyPlace::Data => text.write_str(&data),
                BodyPlace::Time => self.body.time.write(time, text),
            };
        }))
    }

    /// Place of the event's data in the body, as JSON pointer. `None` for a body without the data.
    pub fn data_pointer(&self) -> Option<&str> {
        self.body.data_pointer.as_deref()
    }

    /// Searches the body for the data.
    fn find_data(&self) -> Option<String> {
        let mark = Value::from("the data of the event");
        let event = Event { data: mark.to_string(), ..self.example() };
        let body = self.render_body(&event, Timestamp::UNIX_EPOCH).ok()?;
        pointer_to(&serde_json::from_str(&body).ok()?, &mark)
    }

    /// The prefix of event ids in this dialect, without the underscore.
    pub fn event_id_prefix(&self) -> &str {
        &self.event_id_prefix
    }

    /// Formats an event id with the dialect's prefix.
    pub fn event_id(&self, event: EventId) -> String {
        ids::with_prefix(&self.event_id_prefix, event.0)
    }

    /// Parses an event id with the dialect's prefix.
    pub fn parse_event_id(&self, text: &str) -> Option<EventId> {
        ids::parse_with_prefix(&self.event_id_prefix, text).map(EventId)
    }

    /// Fills in the value of a header.
    pub fn header_value(&self, template: &Template<HeaderPlace>, sending: &Sending<'_>) -> String {
        template.fill(|place, text| {
            let _ = match place {
                HeaderPlace::EventId => text.write_str(&self.event_id(sending.event)),
                HeaderPlace::EventType => write!(text, "{}", sending.event_type),
                HeaderPlace::ApplicationId => write!(text, "{}", sending.application),
                HeaderPlace::DeliveryId => write!(text, "{}", sending.delivery),
                HeaderPlace::Attempt => write!(text, "{}", sending.attempt),
                HeaderPlace::Timestamp => write!(text, "{}", sending.at.as_second()),
            };
        })
    }

    /// True if the dialect itself sets a header of this name.
    pub fn sets_header(&self, name: &HeaderName) -> bool {
        let own = self.signature.iter().map(|signature| &signature.header);
        own.chain(self.headers.iter().map(|(name, _)| name)).any(|own| own == name)
    }

    /// An example event, of the catalogue's first type if the catalogue has any.
    fn example(&self) -> Event {
        let described = self.catalogue.types().first();
        let data = described.map_or(r#"{"n":1}"#, |description| description.sample.as_str()).to_owned();
        Event::example(described.map(|description| description.name.clone()), data)
    }

    /// Renders the body for the catalogue's first type, with the sample's data.
    ///
    /// # Errors
    /// If the sample is not JSON that can be sent.
    pub fn example_body(&self) -> Result<String, json::JsonFault> {
        self.render_body(&self.example(), Timestamp::UNIX_EPOCH)
    }
}

/// JSON pointer to the first value that equals `wanted`.
fn pointer_to(value: &Value, wanted: &Value) -> Option<String> {
    if value == wanted {
        return Some(String::new());
    }
    let below = |name: &str, value: &Value| {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        pointer_to(value, wanted).map(|rest| format!("/{escaped}{rest}"))
    };
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| below(name, value)),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, value)| below(&index.to_string(), value)),
        _ => None,
    }
}

impl TimeForm {
    fn write(self, moment: Timestamp, text: &mut String) -> std::fmt::Result {
        match self {
            Self::Milliseconds => write!(text, "\"{moment:.3}\""),
            Self::Seconds => write!(text, "\"{moment:.0}\""),
            Self::UnixSeconds => write!(text, "{}", moment.as_second()),
            Self::UnixMilliseconds => write!(text, "{}", moment.as_millisecond()),
        }
    }
}

/// All dialects of a process, by name.
#[derive(Debug, Clone)]
pub struct Dialects {
    by_name: HashMap<String, Arc<Dialect>>,
    digests: BTreeMap<String, String>,
}

impl Dialects {
    /// Reads the built-in dialects and `files`, given as path, name and content. A file replaces the built-in dialect
    /// of the same name.
    ///
    /// # Errors
    /// The first fault of each faulty file.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Result<Self, Vec<DialectFault>> {
        let (mut by_name, mut digests) = (HashMap::new(), BTreeMap::new());
        let mut faults = Vec::new();
        let shipped = SHIPPED.iter().map(|&(name, text)| (name, name, text));
        for (path, name, text) in shipped.chain(files) {
            match Dialect::parse(path, name, text) {
                Ok(dialect) => {
                    by_name.insert(name.to_owned(), Arc::new(dialect));
                    digests.insert(name.to_owned(), digest(text));
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self { by_name, digests }) } else { Err(faults) }
    }

    /// Finds a dialect by name.
    pub fn get(&self, name: &str) -> Option<&Arc<Dialect>> {
        self.by_name.get(name)
    }

    /// All dialects, sorted by name.
    pub fn all(&self) -> Vec<&Arc<Dialect>> {
        let mut dialects: Vec<_> = self.by_name.values().collect();
        dialects.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        dialects
    }

    /// Name and digest of each dialect. Two processes with the same digests render and sign alike.
    pub fn digests(&self) -> &BTreeMap<String, String> {
        &self.digests
    }

    /// Every wait of every schedule. Each has a delay queue.
    pub fn waits(&self) -> impl Iterator<Item = Duration> {
        self.by_name.values().flat_map(|dialect| dialect.policy.schedule.waits()).copied()
    }

    /// The longest lifetime of a delivery in any dialect, with `expiry` for waits that the endpoint does not cause.
    pub fn longest_lifetime(&self, expiry: Duration) -> Duration {
        self.by_name.values().map(|dialect| dialect.policy.lifetime(expiry)).max().unwrap_or(expiry)
    }
}

/// The first four bytes of SHA-256, in hex: enough to tell two files of the same name apart.
fn digest(text: &str) -> String {
    Sha256::digest(text)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::EventFields;

    fn shipped(name: &str) -> Arc<Dialect> {
        let dialects = Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}"));
        Arc::clone(dialects.get(name).expect("shipped"))
    }

    fn event(data: &str) -> Event {
        let id = EventId("01890a5d-ac96-774b-bcce-b302099a8057".parse::<Uuid>().expect("uuid"));
        Event { id, ..Event::example(EventType::parse("a.b").ok(), data.to_owned()) }
    }

    fn body(dialect: &str) -> String {
        let accepted_at = "2026-06-18T12:00:00.5Z".parse().expect("timestamp");
        shipped(dialect).render_body(&event(r#"{ "b": 1.0, "a": "\u00e9" }"#), accepted_at).expect("body")
    }

    /// Compares keys, their order, ids and times with each system's envelope.
    #[test]
    fn each_dialect_has_its_envelope() {
        let id = "01h455vb4pex5vsknk084sn02q";
        let sent = r#"{"b":1.0,"a":"\u00e9"}"#;
        assert_eq!(body("incenta"), r#"{"event":"a.b","data":{"b":1,"a":"é"},"timestamp":"2026-06-18T12:00:00.500Z"}"#);
        assert_eq!(
            body("incentable"),
            format!(r#"{{"id":"evt_{id}","type":"a.b","created_at":"2026-06-18T12:00:00Z","data":{sent}}}"#)
        );
        assert_eq!(
            body("nudj"),
            format!(r#"{{"id":"evt_{id}","event":"a.b","timestamp":"2026-06-18T12:00:00.500Z","data":{sent}}}"#)
        );
        assert_eq!(
            body("reward"),
            format!(r#"{{"id":"we_{id}","type":"a.b","time":"2026-06-18T12:00:00.500Z","data":{sent}}}"#)
        );
        assert_eq!(
            body("ploints"),
            format!(r#"{{"id":"evt_{id}","type":"a.b","timestamp":"2026-06-18T12:00:00Z","data":{sent}}}"#)
        );
        assert_eq!(
            body("cloudevents"),
            format!(
                r#"{{"specversion":"1.0","id":"evt_{id}","source":"/applications/app_00000000000000000000000000","type":"a.b","time":"2026-06-18T12:00:00.500Z","data":{sent}}}"#
            )
        );
        assert_eq!(
            body("standard"),
            format!(r#"{{"type":"a.b","timestamp":"2026-06-18T12:00:00.500Z","data":{sent}}}"#)
        );
    }

    /// The dialect renders a CloudEvent that Fanfare reads as the same event.
    #[test]
    fn a_cloud_event_stays_the_same_cloud_event() {
        let text = r#"{"specversion":"1.0","id":"\"1\"","source":"/s","type":"a.b","time":"2026-06-18T12:00:00.500Z",
            "subject":"ä","flag":true,"datacontenttype":"text/xml","data":"<a/>"}"#;
        let EventFields { event_type, data, cloud_event, .. } = EventFields::parse(text.as_bytes()).expect("an event");
        let event = Event { cloud_event, ..Event::example(event_type, data) };
        let body = shipped("cloudevents").render_body(&event, "2026-06-18T12:00:00.5Z".parse().expect("a time"));
        let body = body.expect("a body");
        assert_eq!(EventFields::parse(body.as_bytes()), EventFields::parse(text.as_bytes()), "{body}");
        let body = shipped("standard").render_body(&event, Timestamp::UNIX_EPOCH).expect("a body");
        assert_eq!(body, r#"{"type":"a.b","timestamp":"1970-01-01T00:00:00.000Z","data":"<a/>"}"#);
        assert_eq!(shipped("cloudevents").content_type, "application/cloudevents+json; charset=utf-8");
        assert_eq!(shipped("standard").content_type, "application/json");
    }

    #[test]
    fn each_dialect_has_its_schedule_and_its_deadline() {
        let form = |name: &str| {
            let policy = &shipped(name).policy;
            (policy.schedule.names().join(" "), policy.jitter_percent, policy.timeout.as_secs())
        };
        let usual = |timeout| ("60s 5m 15m 60m 120m".to_owned(), 0, timeout);
        assert_eq!(form("incenta"), usual(10));
        assert_eq!(form("incentable"), ("5m 30m 120m 24h".to_owned(), 0, 10));
        assert_eq!(form("nudj"), usual(30));
        assert_eq!(form("reward"), usual(10));
        assert_eq!(form("ploints"), ("60s 5m 30m 120m 12h".to_owned(), 0, 10));
        assert_eq!(form("cloudevents"), form("standard"));
        assert_eq!(form("standard"), ("5s 5m 30m 120m 5h 10h 14h 20h 24h".to_owned(), 10, 20));
    }

    #[test]
    fn each_sample_can_be_sent() {
        for (name, _) in SHIPPED {
            let dialect = shipped(name);
            assert!(!dialect.catalogue.types().is_empty(), "{name}");
            for described in dialect.catalogue.types() {
                let event = event(&described.sample);
                dialect.render_body(&event, Timestamp::UNIX_EPOCH).unwrap_or_else(|fault| panic!("{name}: {fault}"));
                assert!(described.category.is_some() && described.description.is_some(), "{name}");
            }
        }
    }

    #[test]
    fn headers_are_filled_in() {
        let event_type = EventType::parse("user.joined").expect("type");
        let delivery = "dlv_01h455vb4pex5vsknk084sn02q".parse().expect("id");
        let sending = Sending {
            event: EventId(Uuid::nil()),
            event_type: &event_type,
            application: ApplicationId(Uuid::nil()),
            delivery,
            attempt: 3,
            replay: None,
            sequence: None,
            trace: None,
            at: Timestamp::UNIX_EPOCH,
        };
        let dialect = shipped("nudj");
        let headers: Vec<(String, String)> = dialect
            .headers
            .iter()
            .map(|(name, template)| (name.to_string(), dialect.header_value(template, &sending)))
            .collect();
        let expected = [("x-nudj-delivery-id", "dlv_01h455vb4pex5vsknk084sn02q"), ("x-nudj-event", "user.joined")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(dialect.sets_header(&HeaderName::from_static("x-nudj-signature")));
    }
}
