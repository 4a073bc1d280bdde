//! The described event types, and the nearest match for an unknown type.

use std::collections::HashMap;

use crate::event::{EventFault, EventType, FaultCode, MAX_TYPE_LENGTH, subscription::Subscription, with_suggestion};

/// Maximum entries in an endpoint's list of event types.
const MAX_SUBSCRIPTIONS: usize = 200;

/// Number of warnings with a suggestion. Bounds the cost of a list of unknown types.
const MAX_SUGGESTIONS: usize = 5;

/// An event type, as described to subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeDescription {
    /// Name of the type.
    pub name: EventType,
    /// Category in lists.
    pub category: Option<String>,
    /// Explanation for people.
    pub description: Option<String>,
    /// Data of a test event: JSON text.
    pub sample: String,
    /// Newest version of the type's schema.
    pub schema_version: Option<u32>,
}

/// Sample of an event type without one.
pub const EMPTY_SAMPLE: &str = "{}";

/// Event types in the order of description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    types: Vec<EventTypeDescription>,
    positions: HashMap<EventType, usize>,
}

impl Catalogue {
    /// Creates a catalogue. If two types have the same name, the later replaces the earlier, in place.
    pub fn new(described: impl IntoIterator<Item = EventTypeDescription>) -> Self {
        let mut catalogue = Self::default();
        for description in described {
            match catalogue.positions.get(&description.name) {
                Some(&position) => catalogue.types[position] = description,
                None => {
                    catalogue.positions.insert(description.name.clone(), catalogue.types.len());
                    catalogue.types.push(description);
                }
            }
        }
        catalogue
    }

    /// All event types.
    pub fn types(&self) -> &[EventTypeDescription] {
        &self.types
    }

    /// Finds an event type by name.
    pub fn get(&self, name: &EventType) -> Option<&EventTypeDescription> {
        self.positions.get(name).map(|&position| &self.types[position])
    }

    /// Names of all event types.
    pub fn names(&self) -> impl Iterator<Item = &EventType> {
        self.types.iter().map(|description| &description.name)
    }

    /// True if the subscription can match an event: always for `*`, otherwise if a described type matches.
    pub fn knows(&self, subscription: &Subscription) -> bool {
        match subscription {
            Subscription::All => true,
            Subscription::Exact(name) => self.positions.contains_key(name),
            Subscription::Prefix(_) => self.names().any(|name| subscription.covers(name)),
        }
    }
}

impl Catalogue {
    /// Checks an endpoint's list of event types. Each entry must be a wildcard or an event type. Returns a warning for
    /// each entry that matches no described type, unless `is_strict`.
    ///
    /// # Errors
    /// The first invalid entry, as a fault of `field`. If `is_strict`, also the first entry that matches no described
    /// type.
    pub fn check_subscriptions(
        &self,
        field: &'static str,
        events: &[String],
        is_strict: bool,
    ) -> Result<Vec<String>, EventFault> {
        if events.is_empty() || events.len() > MAX_SUBSCRIPTIONS {
            let message = format!("must name 1 to {MAX_SUBSCRIPTIONS} event types; use * for all");
            return Err(EventFault::new(FaultCode::InvalidField, field, &message));
        }
        let mut warnings = Vec::new();
        for event in events {
            let subscription = Subscription::parse(event).map_err(|fault| {
                let start: String = event.chars().take(MAX_TYPE_LENGTH).collect();
                let message = format!("holds {start:?}, which {}", fault.message);
                EventFault::new(FaultCode::InvalidField, field, &message)
            })?;
            if self.knows(&subscription) {
                continue;
            }
            let message = self.unknown(event, warnings.len() < MAX_SUGGESTIONS);
            if is_strict {
                return Err(EventFault::new(FaultCode::UnknownEventType, field, &message));
            }
            warnings.push(format!("`{field}` {message}"));
        }
        Ok(warnings)
    }

    /// Describes an entry that matches no described type, and may suggest the nearest type.
    fn unknown(&self, event: &str, suggests: bool) -> String {
        let message = format!(
            "holds {event:?}, which matches no described event type: GET /api/v1/event-types lists the described types, \
             and a POST there describes another"
        );
        let meant = event.strip_suffix(".*").unwrap_or(event);
        let nearest = || nearest(meant, self.names().map(EventType::as_str));
        with_suggestion(&message, suggests.then(nearest).flatten())
    }
}

/// The known text nearest to `meant`. At most a third of the characters may differ, ignoring case.
pub fn nearest<'a>(meant: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Bounds the cost of an error message.
    const MAX_COMPARED: usize = 2000;
    let meant = meant.to_ascii_lowercase();
    let is_near = |distance: usize, candidate: &str| distance * 3 <= candidate.len().max(meant.len());
    let distance = |candidate: &str| strsim::osa_distance(&meant, &candidate.to_ascii_lowercase());
    known
        .into_iter()
        .take(MAX_COMPARED)
        // The lengths differ by no more than the distance.
        .filter(|candidate| is_near(candidate.len().abs_diff(meant.len()), candidate))
        .map(|candidate| (distance(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| is_near(*distance, candidate))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn described(name: &str, sample: &str) -> EventTypeDescription {
        EventTypeDescription {
            name: EventType::parse(name).expect("type"),
            category: None,
            description: None,
            sample: sample.to_owned(),
            schema_version: None,
        }
    }

    #[test]
    fn a_later_description_takes_the_place_of_the_first() {
        let catalogue = Catalogue::new([described("a", "1"), described("b", "2"), described("a", "3")]);
        let samples: Vec<&str> = catalogue.types().iter().map(|description| description.sample.as_str()).collect();
        assert_eq!(samples, ["3", "2"]);
    }

    #[test]
    fn a_subscription_is_known_if_it_matches_a_described_type() {
        let catalogue = Catalogue::new([described("points.earned", "1")]);
        let knows = |text: &str| catalogue.knows(&Subscription::parse(text).expect("subscription"));
        assert!(knows("*") && knows("points.*") && knows("points.earned"));
        assert!(!knows("point.*") && !knows("points.earned.*") && !knows("points"));
    }

    #[test]
    fn a_subscription_to_an_undescribed_type_is_an_error_or_a_warning_with_the_nearest() {
        let catalogue = Catalogue::new([described("points.earned", "1")]);
        let with = |events: &[&str], is_strict: bool| {
            let events: Vec<String> = events.iter().map(|&event| event.to_owned()).collect();
            catalogue.check_subscriptions("events", &events, is_strict)
        };
        let check = |events: &[&str]| with(events, true);
        assert_eq!(check(&["*", "points.*", "points.earned"]), Ok(vec![]));
        let warnings = with(&["points.earnt", "points.*"], false).expect("valid");
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("`events` holds \"points.earnt\""), "{warnings:?}");
        assert!(warnings[0].ends_with("did you mean points.earned?"), "{warnings:?}");
        assert_eq!(with(&["a b"], false).expect_err("no type").code, FaultCode::InvalidField);
        let fault = check(&["*", "points.earnt"]).expect_err("unknown");
        assert_eq!(fault.code, FaultCode::UnknownEventType);
        assert!(fault.to_string().ends_with("did you mean points.earned?"), "{fault}");
        assert_eq!(check(&["a b"]).expect_err("no type").code, FaultCode::InvalidField);
        assert_eq!(check(&[]).expect_err("empty").code, FaultCode::InvalidField);
        assert_eq!(check(&["*"; 201]).expect_err("too many").code, FaultCode::InvalidField);
    }

    #[test]
    fn a_near_name_is_suggested_and_a_distant_name_is_not() {
        let known = ["points.earned", "points.redeemed", "customer.created", "REFERRAL_CREATED"];
        assert_eq!(nearest("point.earnt", known), Some("points.earned"));
        assert_eq!(nearest("customer.craeted", known), Some("customer.created"));
        assert_eq!(nearest("referral_created", known), Some("REFERRAL_CREATED"));
        assert_eq!(nearest("invoice.paid", known), None);
        assert_eq!(nearest("x", []), None);
    }

    proptest! {
        #[test]
        fn what_is_known_is_nearest_to_itself(names in proptest::collection::hash_set("[a-z.]{3,12}", 1..20)) {
            for name in &names {
                prop_assert_eq!(nearest(name, names.iter().map(String::as_str)), Some(name.as_str()));
            }
        }
    }
}
