//! Subscriptions: an endpoint chooses events by exact type, by prefix (`points.*`), or all (`*`).

use std::{fmt, hash::Hash};

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

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

/// Index of the subscriptions of an application's endpoints: a look-up does not touch endpoints without a match. A
/// clone shares all parts that do not change: a change costs the same with 100,000 endpoints as with ten.
#[derive(Debug, Clone)]
pub struct SubscriptionIndex<K: Ord> {
    exact: HashTrieMapSync<EventType, RedBlackTreeSetSync<K>>,
    prefixes: HashTrieMapSync<String, RedBlackTreeSetSync<K>>,
    all: RedBlackTreeSetSync<K>,
}

impl<K: Ord> Default for SubscriptionIndex<K> {
    fn default() -> Self {
        Self {
            exact: HashTrieMapSync::default(),
            prefixes: HashTrieMapSync::default(),
            all: RedBlackTreeSetSync::default(),
        }
    }
}

impl<K: Ord + Copy> SubscriptionIndex<K> {
    /// Adds an endpoint's subscriptions.
    pub fn add(&mut self, endpoint: K, subscriptions: &[Subscription]) {
        for subscription in subscriptions {
            match subscription {
                Subscription::All => self.all.insert_mut(endpoint),
                Subscription::Prefix(prefix) => add(&mut self.prefixes, prefix, endpoint),
                Subscription::Exact(exact) => add(&mut self.exact, exact, endpoint),
            }
        }
    }

    /// Removes an endpoint's subscriptions.
    pub fn remove(&mut self, endpoint: K, subscriptions: &[Subscription]) {
        for subscription in subscriptions {
            match subscription {
                Subscription::All => _ = self.all.remove_mut(&endpoint),
                Subscription::Prefix(prefix) => remove(&mut self.prefixes, prefix, endpoint),
                Subscription::Exact(exact) => remove(&mut self.exact, exact, endpoint),
            }
        }
    }

    /// Endpoints that subscribe to the type, each once, ascending.
    pub fn matches(&self, event_type: &EventType) -> Vec<K> {
        let mut found: Vec<K> = self.all.iter().copied().collect();
        found.extend(self.exact.get(event_type).into_iter().flatten());
        if !self.prefixes.is_empty() {
            let text = event_type.as_str();
            let prefixes = text.match_indices('.').map(|(dot, _)| &text[..=dot]);
            found.extend(prefixes.filter_map(|prefix| self.prefixes.get(prefix)).flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn add<T: Hash + Eq + Clone, K: Ord + Clone>(
    sets: &mut HashTrieMapSync<T, RedBlackTreeSetSync<K>>,
    of: &T,
    endpoint: K,
) {
    match sets.get_mut(of) {
        Some(set) => set.insert_mut(endpoint),
        None => sets.insert_mut(of.clone(), [endpoint].into_iter().collect()),
    }
}

fn remove<T: Hash + Eq + Clone, K: Ord + Clone>(
    sets: &mut HashTrieMapSync<T, RedBlackTreeSetSync<K>>,
    of: &T,
    endpoint: K,
) {
    if let Some(set) = sets.get_mut(of)
        && set.remove_mut(&endpoint)
        && set.is_empty()
    {
        sets.remove_mut(of);
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
            let mut index = SubscriptionIndex::default();
            endpoints.iter().enumerate().for_each(|(position, subscriptions)| index.add(position, subscriptions));
            let expected: Vec<usize> = (0..endpoints.len())
                .filter(|&position| endpoints[position].iter().any(|subscription| subscription.covers(&event_type)))
                .collect();
            prop_assert_eq!(index.matches(&event_type), expected);
        }
    }
}
