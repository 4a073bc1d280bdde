//! Result of an order: throughput, shares, processor time and receipts.

use std::time::Duration;

use serde_json::Value;

/// Result of an order.
pub(crate) struct Delivered {
    /// Throughput in deliveries per second, from the first publish to the last record.
    pub(crate) per_second: f64,
    pub(crate) took: Duration,
    /// Time until the publisher was done.
    pub(crate) published: Duration,
    pub(crate) deliveries: f64,
    /// Smallest and largest share of a dispatcher, in percent.
    pub(crate) shares: (f64, f64),
    /// Processor time by process.
    pub(crate) costs: Vec<(&'static str, Duration)>,
    /// Receipts by group.
    pub(crate) received: Value,
}

impl Delivered {
    /// Returns the processor time per delivery of services, broker and database together, in microseconds.
    pub(crate) fn cost(&self) -> f64 {
        let processes = self.costs.iter().filter(|(name, _)| *name != "receiver");
        processes.map(|(_, time)| time.as_secs_f64()).sum::<f64>() * 1e6 / self.deliveries
    }

    /// Formats the processor time per delivery of each process, in microseconds.
    pub(crate) fn costs_in_words(&self) -> String {
        let costs = self.costs.iter().filter(|(_, time)| !time.is_zero());
        let words = costs.map(|(name, time)| format!("{name} {:.0}", time.as_secs_f64() * 1e6 / self.deliveries));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Returns the receiver's load, as a share of a processor.
    pub(crate) fn receiver_load(&self) -> f64 {
        let receiver = self.costs.iter().find(|(name, _)| *name == "receiver").expect("a receiver");
        receiver.1.as_secs_f64() / self.took.as_secs_f64()
    }
}
