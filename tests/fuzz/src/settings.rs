//! Settings of customers and operators.

use fanfare_domain::{
    dialect::{Dialect, HeaderPlace, Sending, Template},
    endpoint::{
        address::AddressPolicy,
        email::check_email,
        filter::{Filter, FilteredEvent},
        header::{check_name, check_value},
        secret::SigningSecret,
        url::{MAX_URL_LENGTH, UrlPolicy, check_url},
    },
    event::{
        Event, EventType,
        cloud_event::CloudEvent,
        subscription::{Subscription, SubscriptionIndex},
    },
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
    json,
};
use http::{HeaderValue, Uri};
use lettre::{Address, address::Envelope, message::Message};
use serde_json::json;
use url::{Host, Url};
use uuid::Uuid;

use crate::{now, text};

/// An accepted URL stays unchanged when checked again, is a valid request target, and contains no forbidden IP literal.
pub(crate) fn url(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let closed = AddressPolicy::default();
    let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a network")).to_vec();
    let open = AddressPolicy::new(everything, Vec::new());
    for (addresses, https_only) in [(&closed, true), (&closed, false), (&open, false)] {
        let policy = UrlPolicy { https_only, addresses: addresses.clone(), ..UrlPolicy::default() };
        let Ok(taken) = check_url(text, &policy) else { continue };
        let again = check_url(taken.as_str(), &policy);
        assert_eq!(again.as_ref().map(Url::as_str), Ok(taken.as_str()));
        assert!(taken.as_str().len() <= MAX_URL_LENGTH);
        assert!(!https_only || taken.scheme() == "https");
        let host = taken.host().expect("a host");
        let address = match host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            // A resolver takes such a name for an IP literal.
            Host::Domain(name) => name.trim_end_matches('.').parse().ok(),
        };
        assert!(address.is_none_or(|address| addresses.permits(address)), "{taken}");
        let uri: Uri = taken.as_str().parse().unwrap_or_else(|error| panic!("{taken} cannot be requested: {error}"));
        assert_eq!(uri.host(), taken.host_str(), "the two URL parsers find different hosts");
        assert_eq!(uri.port_u16(), taken.port());
    }
}

/// An accepted header is sent unchanged, in a single line.
pub(crate) fn header(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let Ok(checked) = check_name(name) else { return };
    assert!(checked.as_str().eq_ignore_ascii_case(name));
    assert_eq!(check_name(checked.as_str()), Ok(checked.clone()));
    if let Ok(sent) = check_value(&checked, value) {
        assert_eq!(sent.as_bytes(), value.as_bytes());
        assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}

/// An accepted secret is stored unchanged, and yields a key.
pub(crate) fn secret(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(secret) = SigningSecret::parse(text) else { return };
    assert_eq!(secret.text(), text);
    assert!(!secret.key().is_empty());
    assert!(!text.starts_with("whsec_") || (24..=64).contains(&secret.key().len()));
}

/// An accepted address is valid for lettre, in a single header line.
pub(crate) fn email(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if check_email(text).is_err() {
        return;
    }
    assert!(!text.contains(['\r', '\n']));
    let address: Address = text.parse().unwrap_or_else(|error| panic!("{text:?} is no address for lettre: {error}"));
    let sender = Address::new("fanfare", "example.com").expect("an address");
    let envelope = Envelope::new(Some(sender.clone()), vec![address.clone()]).expect("an envelope");
    let mail = Message::builder().envelope(envelope).from(sender.into()).to(address.into());
    let mail = mail.body(String::new()).expect("a mail");
    let written = String::from_utf8_lossy(&mail.formatted()).into_owned();
    let recipients: Vec<_> =
        written.lines().filter(|line| line.starts_with("To:") || line.starts_with("Bcc:")).collect();
    assert_eq!(recipients.len(), 1, "{written}");
}

/// The index finds exactly the endpoints whose subscription covers a type. The first line of an input is the type; each
/// further line is the subscription of an endpoint.
pub(crate) fn subscription(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut lines = text.split('\n');
    let event_type = lines.next().and_then(|line| EventType::parse(line).ok());
    let endpoints: Vec<_> =
        lines.filter_map(|line| Subscription::parse(line).ok()).map(|subscription| [subscription]).collect();
    let Some(event_type) = event_type else { return };
    assert!(Subscription::parse(event_type.as_str()).is_ok_and(|subscription| subscription.covers(&event_type)));
    let mut index = SubscriptionIndex::default();
    endpoints.iter().enumerate().for_each(|(place, subscriptions)| index.add(place, subscriptions));
    let covered = |place: &usize| endpoints[*place][0].covers(&event_type);
    let expected: Vec<usize> = (0..endpoints.len()).filter(covered).collect();
    assert_eq!(index.matches(&event_type), expected);
}

/// An accepted dialect renders every event as valid JSON with valid headers.
pub(crate) fn dialect(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let dialect = match Dialect::parse("fuzzed.toml", "fuzzed", text) {
        Ok(dialect) => dialect,
        Err(fault) => return assert!(!fault.key.is_empty() && !fault.reason.is_empty()),
    };
    let application = ApplicationId(Uuid::from_u128(1));
    let event = Event {
        id: EventId::from_key(application, "key"),
        application,
        event_type: EventType::parse("order.created").expect("a type"),
        key: None,
        data: r#"{"text":"\"<data>","number":1.0,"list":[null]}"#.to_owned(),
        occurred_at: None,
        deliver_at: None,
        version: None,
        ordering_key: None,
        trace: None,
        cloud_event: None,
    };
    let attributes = [("7", "true"), ("flag", "false"), ("subject", "\"<data>\"")];
    let cloud_event = CloudEvent {
        id: "\"".to_owned(),
        source: "/<data>".to_owned(),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    for cloud_event in [None, Some(cloud_event)] {
        let body = dialect.render_body(&Event { cloud_event, ..event.clone() }, now()).expect("a body");
        assert_eq!(json::check(&body), Ok(()), "{body}");
    }
    let sending = Sending {
        event: event.id,
        event_type: &event.event_type,
        application,
        delivery: DeliveryId::derive(now(), event.id, EndpointId(Uuid::nil())),
        attempt: 1,
        replay: None,
        sequence: None,
        trace: None,
        at: now(),
    };
    let is_sendable =
        |value: String| assert!(HeaderValue::try_from(&value).is_ok_and(|sent| sent.to_str().is_ok()), "{value:?}");
    for (name, template) in &dialect.headers {
        let template: &Template<HeaderPlace> = template;
        assert!(dialect.sets_header(name) && check_name(name.as_str()).is_ok());
        is_sendable(dialect.header_value(template, &sending));
    }
    if let Some(form) = &dialect.signature {
        is_sendable(form.value.fill(|_, value| value.push_str("1781784000")));
    }
    for wait in dialect.policy.schedule.names() {
        assert!(fanfare_domain::time::parse_duration(&wait).is_some(), "{wait}");
    }
}

/// An accepted filter is accepted again. Result and explanation agree on any event.
pub(crate) fn filter(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(filter) = Filter::parse(text) else { return };
    assert!(Filter::parse(filter.text()).is_ok_and(|again| again == filter));
    let event_type = EventType::parse("order.paid").expect("a type");
    for data in [json!(null), json!({ "a": [1, "b", { "c": null }], "n": 1.5, "s": "text" })] {
        let mut event = FilteredEvent::of_sample(&event_type, data);
        let explained = filter.explain(&event);
        assert_eq!(event.outcome(&filter).0, explained.outcome);
    }
}
