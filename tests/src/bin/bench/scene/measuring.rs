//! Measurement of rates, processor time, metrics and receipts.

use std::time::{Duration, Instant};

use fanfare_tests::world::process::get;
use serde_json::Value;

use super::{
    Scene,
    delivered::Delivered,
    processes::{memory, processor_time},
    publishing::Via,
};
use crate::roles::child::Child;

impl Scene {
    /// Publishes events, and waits until all their deliveries are recorded as delivered.
    pub(crate) async fn deliver(
        &mut self,
        via: Via,
        types: &[String],
        count: usize,
        per_event: usize,
        rate: Option<f64>,
    ) -> Delivered {
        let order = self.order(via, types, count, rate).await;
        let before = self.recorded().await;
        let expected = before + (count * per_event) as u64;
        let costs_before = self.costs();
        self.receiver.request(&Value::Null).await;
        let started = Instant::now();
        // The task owns the publisher: the scene waits for the records at the same time.
        let mut publisher = std::mem::replace(&mut self.publisher, Child::start("publisher"));
        let publishing = tokio::spawn(async move {
            publisher.request(&order).await;
            (publisher, started.elapsed())
        });
        self.wait_for_recorded(expected).await;
        let took = started.elapsed();
        let costs = self.costs();
        let (publisher, published) = publishing.await.expect("a publisher");
        self.publisher = publisher;
        let deliveries = (count * per_event) as f64;
        let cost = |(name, after): (&'static str, Duration)| {
            let before = costs_before.iter().find(|(other, _)| *other == name).map(|(_, before)| *before);
            (name, after.saturating_sub(before.unwrap_or_default()))
        };
        Delivered {
            per_second: deliveries / took.as_secs_f64(),
            took,
            published,
            costs: costs.into_iter().map(cost).collect(),
            deliveries,
            shares: self.shares().await,
            received: self.received().await,
        }
    }

    /// Starts a dispatcher. Returns its throughput on `count` waiting deliveries, from the first record on.
    pub(crate) async fn drain_rate(&mut self, count: usize) -> f64 {
        self.dispatchers.push(self.world.dispatcher().await);
        let first = self.wait_for_recorded(1).await;
        let (began, count) = (Instant::now(), count as u64);
        self.wait_for_recorded(count).await;
        count.saturating_sub(first) as f64 / began.elapsed().as_secs_f64()
    }

    /// Returns the current memory of all dispatchers, in mebibytes.
    pub(crate) fn memory(&self) -> f64 {
        self.dispatchers.iter().map(|dispatcher| memory(dispatcher.id())).sum::<u64>() as f64 / 1024.0 / 1024.0
    }

    /// Returns the number of deliveries that are recorded as delivered.
    pub(super) async fn recorded(&mut self) -> u64 {
        if let Some(ceiling) = &mut self.ceiling {
            return ceiling.request(&Value::Null).await["recorded"].as_u64().unwrap_or_default();
        }
        self.delivered().await.iter().sum::<f64>() as u64
    }

    /// Returns the number of deliveries that each dispatcher has recorded as delivered.
    pub(crate) async fn delivered(&self) -> Vec<f64> {
        self.metric("fanfare_deliveries_ended_total", "state=\"delivered\"").await
    }

    /// Returns the number of deliveries that the dispatchers have queued.
    pub(crate) async fn queued(&self) -> f64 {
        self.metric("fanfare_queued_total", "").await.iter().sum()
    }

    /// Returns a metric of each dispatcher: the sum over its series with this label.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Vec<f64> {
        let mut sums = Vec::new();
        for dispatcher in &self.dispatchers {
            let address = dispatcher.address("serving health and metrics").await;
            let metrics = get(address, "metrics").await.expect("the metrics");
            let lines = metrics.lines().filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
            });
            sums.push(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum());
        }
        sums
    }

    /// Returns the mean of a histogram over all dispatchers; 0 without samples.
    pub(crate) async fn mean(&self, name: &str) -> f64 {
        let sum: f64 = self.metric(&format!("{name}_sum"), "").await.iter().sum();
        let count: f64 = self.metric(&format!("{name}_count"), "").await.iter().sum();
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Returns the smallest and the largest share of a dispatcher in the deliveries, in percent.
    async fn shares(&self) -> (f64, f64) {
        let delivered = self.delivered().await;
        let whole: f64 = delivered.iter().sum();
        let share = |part: f64| part / whole * 100.0;
        (share(delivered.iter().copied().fold(whole, f64::min)), share(delivered.iter().copied().fold(0.0, f64::max)))
    }

    /// Returns the receipts since the last request to the receiver, by group.
    pub(crate) async fn received(&mut self) -> Value {
        self.receiver.request(&Value::Null).await["groups"].clone()
    }

    /// Returns the processor time of each process so far.
    fn costs(&self) -> Vec<(&'static str, Duration)> {
        let mut costs: Vec<_> = self.servers.iter().map(|(name, process)| (*name, processor_time(*process))).collect();
        costs.push(("ingest", processor_time(self.world.ingest().id())));
        let dispatchers = self.dispatchers.iter().map(|dispatcher| processor_time(dispatcher.id())).sum();
        costs.push(("dispatcher", dispatchers));
        if let Some(ceiling) = &self.ceiling {
            costs.push(("ceiling", processor_time(ceiling.id())));
        }
        costs.push(("receiver", processor_time(self.receiver.id())));
        costs
    }
}
