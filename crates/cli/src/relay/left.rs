//! Rows that the broker does not take: left for a while, so that others go on.

use std::time::Duration;

use fanfare_domain::event::outbox::OutboxRow;
use fanfare_store::LeftRows;
use tokio::time::Instant;

/// Time for which a row is left.
const LEAVE: Duration = Duration::from_secs(10);

/// Rows that are left, oldest first.
#[derive(Default)]
pub(super) struct Left {
    entries: Vec<(Instant, OutboxRow)>,
    rows: LeftRows,
}

impl Left {
    pub(super) fn rows(&self) -> &LeftRows {
        &self.rows
    }

    /// Leaves a row from `now` on.
    pub(super) fn add(&mut self, row: OutboxRow, now: Instant) {
        self.entries.push((now + LEAVE, row));
        self.list();
    }

    /// Takes back the rows whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|(until, _)| now < *until);
        if self.entries.len() != before {
            self.list();
        }
    }

    fn list(&mut self) {
        let rows = || self.entries.iter().map(|(_, row)| row);
        let key = |row: &OutboxRow| Some((row.application.clone(), row.ordering_key.clone()?));
        self.rows =
            LeftRows { positions: rows().map(|row| row.position).collect(), keys: rows().filter_map(key).collect() };
    }
}
