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
    /// Rows that may be published now. Defers the rows of deferred routing keys. A row behind a deferred row of its
    /// ordering key is left out, and not tried: the next look at the table leaves the row out, too.
    pub(super) fn admit(&mut self, rows: Vec<OutboxRow>, now: Instant) -> Vec<OutboxRow> {
        let mut admitted = Vec::with_capacity(rows.len());
        for row in rows {
            if self.has_routing_key_of(&row) {
                self.add(&row, now);
            } else if !row.chain_key().is_some_and(|key| self.keys.contains(&key)) {
                admitted.push(row);
            }
        }
        admitted
    }

    pub(super) fn has_routing_key_of(&self, row: &OutboxRow) -> bool {
        self.routing_keys.contains_key(&row.routing_key())
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
    use fanfare_domain::event::outbox::chains;
    use proptest::prelude::*;

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
        let rows = [row(2, "a", None), row(3, "b", Some("k")), row(4, "b", None)];
        let admitted: Vec<i64> = deferred.admit(rows.into(), now).iter().map(|row| row.position).collect();
        assert_eq!(admitted, [4], "2 has the routing key, and 3 the ordering key");
        assert_eq!((deferred.due(now), deferred.due(now + FIRST_WAIT)), (vec![], vec![("app.a".to_owned(), 1)]));
        deferred.failed("app.a", now + FIRST_WAIT);
        assert_eq!(deferred.due(now + FIRST_WAIT * 2).len(), 0);
        assert_eq!(deferred.due(now + FIRST_WAIT * 3).len(), 1);
        let rows = deferred.rows();
        assert_eq!((rows.positions.len(), rows.ordering_keys), (2, vec!["k".to_owned()]));
        deferred.release("app.a");
        assert!(deferred.rows().positions.is_empty() && deferred.rows().ordering_keys.is_empty());
    }

    /// A table, and a broker that takes only some types.
    struct Model {
        waiting: Vec<OutboxRow>,
        refused: Vec<String>,
        published: Vec<OutboxRow>,
    }

    impl Model {
        fn publish(&mut self, row: &OutboxRow) -> bool {
            let is_taken = !self.refused.contains(&row.event_type);
            if is_taken {
                self.waiting.retain(|waiting| waiting.position != row.position);
                self.published.push(row.clone());
            }
            is_taken
        }

        /// A look of the relay.
        fn look(&mut self, deferred: &mut Deferred, now: Instant) {
            for (routing_key, position) in deferred.due(now) {
                match self.waiting.iter().find(|row| row.position == position).cloned() {
                    Some(row) if !self.publish(&row) => deferred.failed(&routing_key, now),
                    _ => deferred.release(&routing_key),
                }
            }
            let left_out = deferred.rows();
            let is_next = |row: &&OutboxRow| {
                !left_out.positions.contains(&row.position)
                    && !row.ordering_key.as_ref().is_some_and(|key| left_out.ordering_keys.contains(key))
            };
            let next = self.waiting.iter().filter(is_next).take(4).cloned().collect();
            for chain in chains(deferred.admit(next, now)) {
                if let Some(row) = chain.into_iter().find(|row| !self.publish(row)) {
                    deferred.add(&row, now);
                }
            }
        }
    }

    proptest! {
        /// Each key stays in order, and all rows are published once the broker takes all types.
        #[test]
        fn deferred_rows_change_no_order(
            rows in proptest::collection::vec((0_u8..3, proptest::option::of(0_u8..3)), 1..30),
            refusals in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..3), 0..6),
        ) {
            let text = |number: &u8| number.to_string();
            let made = (0..).zip(&rows).map(|(position, (event_type, key))| {
                row(position, &text(event_type), key.as_ref().map(text).as_deref())
            });
            let mut model = Model { waiting: made.collect(), refused: Vec::new(), published: Vec::new() };
            let (mut deferred, mut now) = (Deferred::default(), Instant::now());
            for refused in refusals {
                model.refused = refused.iter().map(text).collect();
                for _ in 0..4 {
                    model.look(&mut deferred, now);
                    now += FIRST_WAIT;
                }
            }
            model.refused.clear();
            for _ in 0..40 {
                now += LONGEST_WAIT;
                model.look(&mut deferred, now);
            }
            prop_assert_eq!((model.waiting.len(), model.published.len()), (0, rows.len()));
            for key in 0..3 {
                let of_key = model.published.iter().filter(|row| row.ordering_key == Some(text(&key)));
                prop_assert!(of_key.is_sorted_by_key(|row| row.position));
            }
        }
    }
}
