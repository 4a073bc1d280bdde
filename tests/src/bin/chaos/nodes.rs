//! Faults of a cluster's nodes, during which publishing and delivery have to go on.

use std::{thread, time::Duration};

use fanfare_tests::{
    clients::{amqp::Broker, load::Answered},
    patience::{patience, until, until_promptly, until_within},
    servers::instance::Instance,
};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use tokio::{
    task::block_in_place,
    time::{Instant, timeout},
};

use crate::scene::Scene;

/// The longest permitted pause of deliveries after the loss of a node.
const HELD_UP: Duration = Duration::from_secs(10);

/// Ingest answers within 5 s; the rest is for a busy machine.
const ANSWERED: Duration = Duration::from_secs(6);

/// The longest wait for a confirm; the message is then published again.
const CONFIRMED: Duration = Duration::from_secs(5);

/// Refusals that show how ingest refuses.
const REFUSALS: usize = 40;

impl Scene {
    pub(crate) async fn lose_node(&mut self, draw: &mut StdRng) {
        self.all_online().await;
        let node = draw.random_range(0..self.brokers.len());
        self.kill_nodes(&[node]);
        self.goes_on().await;
    }

    /// Kills one node after the other. Each node except the last starts again before the next kill.
    pub(crate) async fn roll_nodes(&mut self, draw: &mut StdRng) {
        self.all_online().await;
        for node in shuffled(self.brokers.len(), draw) {
            self.start_nodes().await;
            self.kill_nodes(&[node]);
            self.goes_on().await;
        }
    }

    pub(crate) async fn lose_majority(&mut self, draw: &mut StdRng) {
        self.all_online().await;
        self.kill_nodes(&shuffled(self.brokers.len(), draw)[1..]);
        self.refuses().await;
    }

    /// Starts the nodes that are down, and waits until each queue has all its members again.
    pub(crate) async fn start_nodes(&mut self) {
        let down = std::mem::take(&mut self.down);
        block_in_place(|| {
            thread::scope(|scope| {
                for node in down {
                    let node = &self.brokers[node];
                    scope.spawn(|| node.start());
                }
            });
        });
        self.all_online().await;
    }

    /// Ingest must soon answer 202, or 503 with `Retry-After`. Deliveries must flow soon after the return of the nodes.
    pub(crate) fn check_answers(&mut self, again: Duration, answers: &[Answered]) {
        if again > HELD_UP {
            self.failures.push(format!("deliveries flow again only {:.1} s after the nodes", again.as_secs_f32()));
        }
        let fits = |answered: &Answered| {
            let answer = answered.answer.as_ref();
            answered.took < ANSWERED
                && answer.is_some_and(|answer| {
                    answer.status == 202
                        || answer.status == 503 && answer.retry_after().is_some_and(|seconds| seconds > 0)
                })
        };
        let unfit: Vec<_> = answers.iter().filter(|answered| !fits(answered)).collect();
        if let Some(first) = unfit.first() {
            self.failures.push(format!("{} of {} answers are unfit: {first:?}", unfit.len(), answers.len()));
        }
        if let Some(slowest) = answers.iter().map(|answered| answered.took).max() {
            self.notes.push(format!("the slowest answer took {:.1} s", slowest.as_secs_f32()));
        }
    }

    fn kill_nodes(&mut self, nodes: &[usize]) {
        block_in_place(|| nodes.iter().for_each(|node| self.brokers[*node].kill()));
        self.down.extend(nodes);
    }

    /// Although a node is down, events must be accepted and delivered over both entrances, and unreadable messages
    /// parked.
    pub(crate) async fn goes_on(&mut self) {
        let (over_http, over_amqp, parked) =
            tokio::join!(self.again_over("http"), self.again_over("amqp"), self.parks());
        let held_up = over_http.max(over_amqp).max(parked);
        let [over_http, over_amqp, parked] = [over_http, over_amqp, parked].map(|took| took.as_secs_f32());
        let told = format!(
            "without node {:?} {over_http:.1} s over HTTP, {over_amqp:.1} s over AMQP, {parked:.1} s to park",
            self.down
        );
        if held_up > HELD_UP { self.failures.push(told) } else { self.notes.push(told) }
    }

    /// Publishes an unreadable message, without an id, and waits for its row in `parked`.
    async fn parks(&self) -> Duration {
        const PARKED: &str = "SELECT count(*) FROM parked";
        let (started, before) = (Instant::now(), self.world.count(PARKED).await);
        let [urls, prefix] = ["AMQP_URL", "FANFARE_PREFIX"].map(|name| self.world.variables[name].as_str());
        let key = format!("{}.unreadable", self.world.application);
        until("an unreadable message to be confirmed", async || {
            let published =
                timeout(CONFIRMED, async { Broker::connect(urls, prefix).await?.publish(&key, None, &[], "{}").await });
            matches!(published.await, Ok(Ok(true))).then_some(())
        })
        .await;
        let parked = async || (self.world.count(PARKED).await > before).then_some(());
        until_promptly(patience(), "an unreadable message to be parked", parked).await;
        started.elapsed()
    }

    /// Waits for refusals: ingest can accept nothing without a majority.
    async fn refuses(&mut self) {
        let (started, before) = (Instant::now(), self.load().answers().len());
        until("ingest to refuse", async || {
            let answers = self.load().answers().split_off(before);
            (answers.iter().filter(|answered| answered.status() == 503).count() >= REFUSALS).then_some(())
        })
        .await;
        self.notes.push(format!("{REFUSALS} times 503 after {:.1} s", started.elapsed().as_secs_f32()));
    }

    /// Waits until each queue has a member at each node, and all members are online.
    async fn all_online(&self) {
        let nodes = self.brokers.len();
        until_within(Duration::from_secs(90), "all members of all queues", async || {
            let all = |queue: &Value| {
                let count = |what: &str| queue[what].as_array().map_or(0, Vec::len);
                assert_eq!(count("members"), nodes, "{queue}");
                count("online") == nodes
            };
            block_in_place(|| queues(&self.brokers[0])).iter().all(all).then_some(())
        })
        .await;
    }
}

fn shuffled(count: usize, draw: &mut StdRng) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..count).collect();
    nodes.shuffle(draw);
    nodes
}

fn queues(node: &Instance) -> Vec<Value> {
    let columns = ["name", "leader", "members", "online"];
    let printed = node.rabbitmqctl(&[&["--quiet", "--formatter", "json", "list_queues"][..], &columns].concat());
    let queues: Vec<Value> = serde_json::from_str(&printed).expect("queues");
    assert!(!queues.is_empty(), "there are no queues");
    queues
}
