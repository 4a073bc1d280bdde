//! A dialect: how deliveries look, when they are tried again, what counts as failure, and which event
//! types there are. All of it is data, read from a file (`file`); nothing here knows a dialect by name.

mod file;
mod template;

use std::{collections::HashMap, fmt::Write, sync::Arc, time::Duration};

use http::HeaderName;
use jiff::Timestamp;

pub use self::{
    file::DialectFault,
    template::{Part, Template},
};
use crate::{
    catalogue::Catalogue,
    event::{Event, EventType},
    ids::{self, ApplicationId, DeliveryId, EventId, ReplayId},
    json,
    policy::Policy,
};

/// The dialect of an application that picks none.
pub const DEFAULT_DIALECT: &str = "incenta";

/// The dialects that are built in: the file of each.
const SHIPPED: [(&str, &str); 6] = [
    ("incenta", include_str!("../dialects/incenta.toml")),
    ("incentable", include_str!("../dialects/incentable.toml")),
    ("nudj", include_str!("../dialects/nudj.toml")),
    ("ploints", include_str!("../dialects/ploints.toml")),
    ("reward", include_str!("../dialects/reward.toml")),
    ("standard", include_str!("../dialects/standard.toml")),
];

/// One system's way of delivering.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// What applications pick it by.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// For those who choose.
    pub description: String,
    body: Body,
    event_id_prefix: String,
    /// A signature header of its own, beside those of Standard Webhooks.
    pub signature: Option<SignatureForm>,
    /// Other headers.
    pub headers: Vec<(HeaderName, Template<HeaderPlace>)>,
    /// When a delivery is tried again, and what counts as failure.
    pub policy: Arc<Policy>,
    /// Whether the owner of an endpoint gets a mail when a delivery is given up.
    pub notifies_owner: bool,
    /// The event types that come with it.
    pub catalogue: Arc<Catalogue>,
}

#[derive(Debug, Clone)]
struct Body {
    template: Template<BodyPlace>,
    data: DataForm,
    time: TimeForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyPlace {
    EventId,
    EventType,
    ApplicationId,
    Data,
    Time,
}

/// How the publisher's data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum DataForm {
    AsNode,
    AsSent,
}

/// How a moment is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum TimeForm {
    Milliseconds,
    Seconds,
    UnixSeconds,
    UnixMilliseconds,
}

/// A signature header of a dialect's own. Its value is an HMAC-SHA256.
#[derive(Debug, Clone)]
pub struct SignatureForm {
    /// The header.
    pub header: HeaderName,
    /// Its value.
    pub value: Template<SignaturePlace>,
    /// What is signed.
    pub signs: Template<SignedPlace>,
    /// What of the secret is the HMAC's key.
    pub key: SignatureKey,
    /// How the HMAC is written.
    pub encoding: SignatureEncoding,
}

/// What may stand in a signature header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePlace {
    /// The signature.
    Signature,
    /// The time of the attempt, in seconds since 1970.
    Timestamp,
}

/// What may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedPlace {
    /// The body.
    Body,
    /// The event's id, as the dialect writes it.
    EventId,
    /// The time of the attempt, in seconds since 1970.
    Timestamp,
}

/// What of a secret is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureKey {
    /// Its whole text, `whsec_` included.
    Text,
    /// The bytes that its base64 stands for.
    Bytes,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    /// In lower-case hexadecimal digits.
    Hex,
    /// In base64 with padding.
    Base64,
}

/// What may stand in other headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderPlace {
    /// The event's id, as the dialect writes it.
    EventId,
    /// The event's type.
    EventType,
    /// The application that published it.
    ApplicationId,
    /// The delivery, the same at each attempt.
    DeliveryId,
    /// The number of the attempt, from 1 on.
    Attempt,
    /// The time of the attempt, in seconds since 1970.
    Timestamp,
}

/// What the headers of one attempt are written from.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The event.
    pub event: EventId,
    /// Its type.
    pub event_type: &'a EventType,
    /// Its application.
    pub application: ApplicationId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt's number, from 1 on.
    pub attempt: u32,
    /// The replay that it belongs to.
    pub replay: Option<ReplayId>,
    /// When it is made.
    pub at: Timestamp,
}

impl Dialect {
    /// Renders what is sent for an event. Rendered once, when the event is persisted, and kept: every
    /// attempt sends the same bytes.
    ///
    /// # Errors
    /// When the event's data is not JSON that [`json::check`] accepts.
    pub fn render_body(&self, event: &Event, accepted_at: Timestamp) -> Result<String, json::JsonFault> {
        let data = match self.body.data {
            DataForm::AsNode => json::print_as_node(&event.data)?,
            DataForm::AsSent => {
                json::check(&event.data)?;
                json::compact(&event.data)
            }
        };
        let time = event.occurred_at.unwrap_or(accepted_at);
        // Writing to a text cannot fail, and neither types nor ids hold anything that JSON would escape.
        Ok(self.body.template.fill(|place, text| {
            let _ = match place {
                BodyPlace::EventId => write!(text, "\"{}\"", self.event_id(event.id)),
                BodyPlace::EventType => write!(text, "\"{}\"", event.event_type),
                BodyPlace::ApplicationId => write!(text, "\"{}\"", event.application),
                BodyPlace::Data => text.write_str(&data),
                BodyPlace::Time => self.body.time.write(time, text),
            };
        }))
    }

    /// An event's id with the dialect's prefix.
    pub fn event_id(&self, event: EventId) -> String {
        ids::with_prefix(&self.event_id_prefix, event.0)
    }

    /// The value of one of the dialect's headers.
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

    /// Whether deliveries carry a header of this name that is the dialect's own.
    pub fn sets_header(&self, name: &HeaderName) -> bool {
        let own = self.signature.iter().map(|signature| &signature.header);
        own.chain(self.headers.iter().map(|(name, _)| name)).any(|own| own == name)
    }

    /// An event as a publisher might send it, of a type in the catalogue where there is one.
    fn example(&self) -> Event {
        let described = self.catalogue.types().first();
        let data = described.map_or(r#"{"n":1}"#, |one| one.sample.as_str()).to_owned();
        Event::example(described.map(|one| one.name.clone()), data)
    }

    /// What is sent for the first of the catalogue's types, with the sample's data.
    ///
    /// # Errors
    /// When the sample is no JSON that can be sent.
    pub fn example_body(&self) -> Result<String, json::JsonFault> {
        self.render_body(&self.example(), Timestamp::UNIX_EPOCH)
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

/// All dialects that a process knows, by name.
#[derive(Debug, Clone)]
pub struct Dialects(HashMap<String, Arc<Dialect>>);

impl Dialects {
    /// Those that are built in, and those of these files, given as path, name and content. A file with the
    /// name of one that is built in replaces it.
    ///
    /// # Errors
    /// The first fault of each file that has one.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Result<Self, Vec<DialectFault>> {
        let mut dialects = HashMap::new();
        let mut faults = Vec::new();
        let shipped = SHIPPED.iter().map(|&(name, text)| (name, name, text));
        for (path, name, text) in shipped.chain(files) {
            match Dialect::parse(path, name, text) {
                Ok(dialect) => drop(dialects.insert(name.to_owned(), Arc::new(dialect))),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self(dialects)) } else { Err(faults) }
    }

    /// A dialect.
    pub fn get(&self, name: &str) -> Option<&Arc<Dialect>> {
        self.0.get(name)
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> Vec<&Arc<Dialect>> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Every wait of every schedule: what the delay queues are for.
    pub fn waits(&self) -> impl Iterator<Item = Duration> {
        self.0.values().flat_map(|dialect| dialect.policy.schedule.waits()).copied()
    }

    /// The longest life of a delivery in any of them, with `expiry` for the waits that its endpoint does not cause.
    pub fn longest_lifetime(&self, expiry: Duration) -> Duration {
        self.0.values().map(|dialect| dialect.policy.lifetime(expiry)).max().unwrap_or(expiry)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

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

    /// The keys and their order, the ids and the times of the documents (table of DESIGN.md, section 2).
    #[test]
    fn each_document_has_its_envelope() {
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
            body("standard"),
            format!(r#"{{"type":"a.b","timestamp":"2026-06-18T12:00:00.500Z","data":{sent}}}"#)
        );
    }

    #[test]
    fn each_document_has_its_schedule_and_its_deadline() {
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
                assert!(!described.category.is_empty() && !described.description.is_empty(), "{name}");
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
