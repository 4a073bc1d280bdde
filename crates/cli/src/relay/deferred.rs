//! Rows that the broker does not take: deferred, so that other rows go on.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fanfare_domain::event::outbox::OutboxRow;
use fanfare_store::DeferredRows;
use tokio::time::Instant;

/// First and longest wait before a row is published again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Maximum number of deferred rows.
const MAX_ROWS: usize = 20_000;

/// Deferred rows by routing key: the broker judges a publisher's rights by routing key. One row of each is tried again,
/// alone. If the broker takes that row, the others are no longer deferred.
#[derive(Default)]
pub(super) struct Deferred {
    routing_keys: HashMap<String, Tried>,
    rows: HashMap<i64, Row>,
    keys: HashSet<(String, String)>,
}

struct Tried {
    position: i64,
    wait: Duration,
    next: Instant,
}

struct Row {
    routing_key: String,
    chain_key: Option<(String, String)>,
}

impl Deferred {
    /// True if a row must wait for a deferred row: by its routing key, or by its ordering key.
    pub(super) fn holds(&self, row: &OutboxRow) -> bool {
        self.routing_keys.contains_key(&row.routing_key())
            || row.chain_key().is_some_and(|key| self.keys.contains(&key))
    }

    /// Defers a row. The first row of a routing key is the row to be tried.
    pub(super) fn add(&mut self, row: &OutboxRow, now: Instant) {
        let tried = Tried { position: row.position, wait: FIRST_WAIT, next: now + FIRST_WAIT };
        self.routing_keys.entry(row.routing_key()).or_insert(tried);
        self.keys.extend(row.chain_key());
        self.rows.insert(row.position, Row { routing_key: row.routing_key(), chain_key: row.chain_key() });
    }

    /// Routing keys with a row that is due, and the position of the row.
    pub(super) fn due(&self, now: Instant) -> Vec<(String, i64)> {
        let due = self.routing_keys.iter().filter(|(_, tried)| tried.next <= now);
        due.map(|(routing_key, tried)| (routing_key.clone(), tried.position)).collect()
    }

    /// Waits twice as long for a row that was tried in vain.
    pub(super) fn failed(&mut self, routing_key: &str, now: Instant) {
        if let Some(tried) = self.routing_keys.get_mut(routing_key) {
            tried.wait = (tried.wait * 2).min(LONGEST_WAIT);
            tried.next = now + tried.wait;
        }
    }

    /// Defers the rows of a routing key no longer.
    pub(super) fn release(&mut self, routing_key: &str) {
        self.routing_keys.remove(routing_key);
        self.rows.retain(|_, row| row.routing_key != routing_key);
        self.keys = self.rows.values().filter_map(|row| row.chain_key.clone()).collect();
    }

    /// True if no further row may be deferred.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS
    }

    /// The rows, for a look at the table.
    pub(super) fn rows(&self) -> DeferredRows {
        let (applications, ordering_keys) = self.keys.iter().cloned().unzip();
        DeferredRows { positions: self.rows.keys().copied().collect(), applications, ordering_keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: i64, event_type: &str, ordering_key: Option<&str>) -> OutboxRow {
        OutboxRow {
            position,
            application: "app".to_owned(),
            event_type: event_type.to_owned(),
            id: position.to_string(),
            data: "1".to_owned(),
            time: None,
            ordering_key: ordering_key.map(str::to_owned),
            trace: None,
        }
    }

    #[test]
    fn one_row_of_a_routing_key_is_tried() {
        let (mut deferred, now) = (Deferred::default(), Instant::now());
        deferred.add(&row(1, "a", Some("k")), now);
        deferred.add(&row(2, "a", None), now);
        for (held, expected) in [(row(3, "a", None), true), (row(4, "b", Some("k")), true), (row(5, "b", None), false)]
        {
            assert_eq!(deferred.holds(&held), expected, "{held:?}");
        }
        assert_eq!((deferred.due(now), deferred.due(now + FIRST_WAIT)), (vec![], vec![("app.a".to_owned(), 1)]));
        deferred.failed("app.a", now + FIRST_WAIT);
        assert_eq!(deferred.due(now + FIRST_WAIT * 2).len(), 0);
        assert_eq!(deferred.due(now + FIRST_WAIT * 3).len(), 1);
        let rows = deferred.rows();
        assert_eq!((rows.positions.len(), rows.ordering_keys), (2, vec!["k".to_owned()]));
        deferred.release("app.a");
        assert!(!deferred.holds(&row(4, "b", Some("k"))) && deferred.rows().positions.is_empty());
    }
}
