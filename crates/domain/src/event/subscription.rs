//! Subscriptions: an endpoint chooses events by exact type, by prefix (`points.*`), or all (`*`).

use std::{collections::HashMap, fmt};

use crate::event::{EventFault, EventType};

/// An entry of an endpoint's list of event types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subscription {
    /// `*`: every event.
    All,
    /// `points.*`: every type that starts with `points.`. The stored prefix includes the dot.
    Prefix(String),
    /// Exactly this type.
    Exact(EventType),
}

impl Subscription {
    /// Parses an entry.
    ///
    /// # Errors
    /// If the text is neither a wildcard nor an event type.
    pub fn parse(text: &str) -> Result<Self, EventFault> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix(".*") {
            Some(prefix) => Ok(Self::Prefix(format!("{}.", EventType::parse(prefix)?))),
            None => EventType::parse(text).map(Self::Exact),
        }
    }

    /// True if events of this type match.
    pub fn covers(&self, event_type: &EventType) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => event_type.as_str().starts_with(prefix),
            Self::Exact(exact) => exact == event_type,
        }
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("*"),
            Self::Prefix(prefix) => write!(formatter, "{prefix}*"),
            Self::Exact(exact) => fmt::Display::fmt(exact, formatter),
        }
    }
}

/// Index of the subscriptions of an application's endpoints: a look-up does not touch endpoints without a match.
/// Endpoints are positions in the application's list.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionIndex {
    exact: HashMap<EventType, Vec<usize>>,
    prefixes: HashMap<String, Vec<usize>>,
    all: Vec<usize>,
}

impl SubscriptionIndex {
    /// Indexes the subscriptions of the endpoint at each position.
    pub fn new<'a>(endpoints: impl IntoIterator<Item = &'a [Subscription]>) -> Self {
        let mut index = Self::default();
        for (position, subscriptions) in endpoints.into_iter().enumerate() {
            index.add(position, subscriptions);
        }
        index
    }

    /// Adds the subscriptions of the endpoint at a position.
    pub(crate) fn add(&mut self, position: usize, subscriptions: &[Subscription]) {
        for subscription in subscriptions {
            match subscription {
                Subscription::All => self.all.push(position),
                Subscription::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default().push(position),
                Subscription::Exact(exact) => self.exact.entry(exact.clone()).or_default().push(position),
            }
        }
    }

    /// Removes the subscriptions of the endpoint at a position.
    pub(crate) fn remove(&mut self, position: usize, subscriptions: &[Subscription]) {
        let without = |positions: &mut Vec<usize>| positions.retain(|other| *other != position);
        for subscription in subscriptions {
            match subscription {
                Subscription::All => without(&mut self.all),
                Subscription::Prefix(prefix) => {
                    self.prefixes.get_mut(prefix).into_iter().for_each(without);
                    if self.prefixes.get(prefix).is_some_and(Vec::is_empty) {
                        self.prefixes.remove(prefix);
                    }
                }
                Subscription::Exact(exact) => {
                    self.exact.get_mut(exact).into_iter().for_each(without);
                    if self.exact.get(exact).is_some_and(Vec::is_empty) {
                        self.exact.remove(exact);
                    }
                }
            }
        }
    }

    /// Positions of the endpoints that subscribe to the type, each once, ascending.
    pub fn matches(&self, event_type: &EventType) -> Vec<usize> {
        let mut positions = self.all.clone();
        positions.extend(self.exact.get(event_type).into_iter().flatten());
        if !self.prefixes.is_empty() {
            let text = event_type.as_str();
            let prefixes = text.match_indices('.').map(|(dot, _)| &text[..=dot]);
            positions.extend(prefixes.filter_map(|prefix| self.prefixes.get(prefix)).flatten());
        }
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_wildcards() {
        let event = |text: &str| EventType::parse(text).expect("event type");
        let covers = |pattern: &str, text: &str| Subscription::parse(pattern).expect(pattern).covers(&event(text));
        assert!(covers("*", "anything"));
        assert!(covers("points.*", "points.earned"));
        assert!(covers("points.*", "points.earned.twice"));
        assert!(!covers("points.*", "points"));
        assert!(!covers("points.*", "pointsearned"));
        assert!(covers("points.earned", "points.earned"));
        assert!(!covers("points", "points.earned"));
        for pattern in ["*", "points.*", "points.earned"] {
            assert_eq!(Subscription::parse(pattern).map(|parsed| parsed.to_string()).as_deref(), Ok(pattern));
        }
        for pattern in ["", ".*", "points*", "*.earned", "**", "a b"] {
            assert!(Subscription::parse(pattern).is_err(), "{pattern}");
        }
    }

    fn types() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{1,2}", 1..4).prop_map(|words| words.join("."))
    }

    fn subscriptions() -> impl Strategy<Value = Subscription> {
        (types(), 0..5).prop_map(|(text, kind)| {
            let pattern = match kind {
                0 => "*".to_owned(),
                1 | 2 => format!("{text}.*"),
                _ => text,
            };
            Subscription::parse(&pattern).expect("pattern")
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_covers(
            endpoints in proptest::collection::vec(proptest::collection::vec(subscriptions(), 0..4), 0..6),
            event_type in types(),
        ) {
            let event_type = EventType::parse(&event_type).expect("event type");
            let index = SubscriptionIndex::new(endpoints.iter().map(Vec::as_slice));
            let expected: Vec<usize> = (0..endpoints.len())
                .filter(|&position| endpoints[position].iter().any(|subscription| subscription.covers(&event_type)))
                .collect();
            prop_assert_eq!(index.matches(&event_type), expected);
        }
    }
}
