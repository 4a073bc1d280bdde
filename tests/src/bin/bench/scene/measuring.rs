//! Measuring: rates, costs, metrics and receipts.

use std::time::{Duration, Instant};

use fanfare_tests::world::get;
use serde_json::Value;

use super::{
    Scene,
    delivered::Delivered,
    processes::{memory, processor_time},
    publishing::Way,
};
use crate::roles::child::Child;

impl Scene {
    /// Publishes, and waits until all that follows from it is recorded as delivered.
    pub(crate) async fn deliver(
        &mut self,
        way: Way,
        types: &[String],
        count: usize,
        per_event: usize,
        rate: Option<f64>,
    ) -> Delivered {
        let order = self.order(way, types, count, rate).await;
        let before = self.recorded().await;
        let expected = before + (count * per_event) as u64;
        let costs_before = self.costs();
        self.receiver.ask(&Value::Null).await;
        let started = Instant::now();
        // Two children of one parent: both are asked at once.
        let mut publisher = std::mem::replace(&mut self.publisher, Child::start("publisher"));
        let publishing = tokio::spawn(async move {
            publisher.ask(&order).await;
            (publisher, started.elapsed())
        });
        self.wait_for_recorded(expected).await;
        let took = started.elapsed();
        let costs = self.costs();
        let (publisher, published) = publishing.await.expect("it publishes");
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

    /// Starts a dispatcher, and gives the deliveries a second that it makes of so many that wait, from its first one on.
    pub(crate) async fn work_off(&mut self, count: usize) -> f64 {
        self.dispatchers.push(self.world.dispatcher().await);
        let first = self.wait_for_recorded(1).await;
        let (began, count) = (Instant::now(), count as u64);
        self.wait_for_recorded(count).await;
        count.saturating_sub(first) as f64 / began.elapsed().as_secs_f64()
    }

    /// Mebibytes that the dispatchers have now.
    pub(crate) fn memory(&self) -> f64 {
        self.dispatchers.iter().map(|dispatcher| memory(dispatcher.id())).sum::<u64>() as f64 / 1024.0 / 1024.0
    }

    /// Deliveries that were recorded as delivered.
    pub(super) async fn recorded(&mut self) -> u64 {
        if let Some(ceiling) = &mut self.ceiling {
            return ceiling.ask(&Value::Null).await["recorded"].as_u64().unwrap_or_default();
        }
        self.delivered().await.iter().sum::<f64>() as u64
    }

    /// The deliveries that each dispatcher has recorded as delivered.
    pub(crate) async fn delivered(&self) -> Vec<f64> {
        self.metric("fanfare_deliveries_ended_total", "state=\"delivered\"").await
    }

    /// Deliveries that the dispatchers queued.
    pub(crate) async fn queued(&self) -> f64 {
        self.metric("fanfare_queued_total", "").await.iter().sum()
    }

    /// A metric of each dispatcher: the sum over its series with this label.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Vec<f64> {
        let mut each = Vec::new();
        for dispatcher in &self.dispatchers {
            let address = dispatcher.address("serving health and metrics").await;
            let metrics = get(address, "metrics").await.expect("the metrics");
            let lines = metrics.lines().filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
            });
            each.push(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum());
        }
        each
    }

    /// The mean of a histogram of all dispatchers; 0 where nothing was counted.
    pub(crate) async fn mean(&self, name: &str) -> f64 {
        let sum: f64 = self.metric(&format!("{name}_sum"), "").await.iter().sum();
        let count: f64 = self.metric(&format!("{name}_count"), "").await.iter().sum();
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// The smallest and the largest share of a dispatcher in what was delivered, in percent.
    async fn shares(&self) -> (f64, f64) {
        let each = self.delivered().await;
        let whole: f64 = each.iter().sum();
        let share = |part: f64| part / whole * 100.0;
        (share(each.iter().copied().fold(whole, f64::min)), share(each.iter().copied().fold(0.0, f64::max)))
    }

    /// What the receiver has noted since it was asked last, by group.
    pub(crate) async fn received(&mut self) -> Value {
        self.receiver.ask(&Value::Null).await["groups"].clone()
    }

    /// The processor time that each process has taken so far.
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
