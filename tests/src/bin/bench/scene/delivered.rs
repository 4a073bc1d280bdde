//! What came of an order, and what it cost.

use std::time::Duration;

use serde_json::Value;

/// What came of an order.
pub(crate) struct Delivered {
    /// Deliveries in a second, from the first publish to the last record.
    pub(crate) per_second: f64,
    pub(crate) took: Duration,
    /// When the publisher was done.
    pub(crate) published: Duration,
    pub(crate) deliveries: f64,
    /// The smallest and the largest share of a dispatcher, in percent.
    pub(crate) shares: (f64, f64),
    /// Processor time by process.
    pub(crate) costs: Vec<(&'static str, Duration)>,
    /// The receiver's notes, by group.
    pub(crate) received: Value,
}

impl Delivered {
    /// Microseconds of processor time for each delivery that services, broker and database have taken together.
    pub(crate) fn cost(&self) -> f64 {
        let ours = self.costs.iter().filter(|(name, _)| *name != "receiver");
        ours.map(|(_, time)| time.as_secs_f64()).sum::<f64>() * 1e6 / self.deliveries
    }

    /// The same of each process, for people.
    pub(crate) fn costs_in_words(&self) -> String {
        let costs = self.costs.iter().filter(|(_, time)| !time.is_zero());
        let words = costs.map(|(name, time)| format!("{name} {:.0}", time.as_secs_f64() * 1e6 / self.deliveries));
        words.collect::<Vec<_>>().join(", ")
    }

    /// How much of one processor the receiver was busy with.
    pub(crate) fn receiver_load(&self) -> f64 {
        let receiver = self.costs.iter().find(|(name, _)| *name == "receiver").expect("a receiver");
        receiver.1.as_secs_f64() / self.took.as_secs_f64()
    }
}
