//! Three books compared after a load: what was accepted, what the receiver got, and what Fanfare recorded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    broker::Broker,
    patience::patience,
    receiver::{Behaviour, Received},
    world::World,
};

/// Retries of the default dialect with short waits.
const SHORT_WAITS: usize = 5;

/// An endpoint that is subscribed to everything, and how it answers.
pub struct Subscriber {
    path: &'static str,
}

impl Subscriber {
    /// Makes the endpoint. The n-th request gets the n-th answer, and the last one for ever.
    pub async fn new(world: &World, path: &'static str, script: Vec<Behaviour>) -> Self {
        world.endpoint(path, &["*"]).await;
        world.receiver.script(path, &script);
        Self { path }
    }

    /// Three of them: one answers at once, one fails each tenth request, one takes its time.
    pub async fn three(world: &World, slow: Duration) -> [Self; 3] {
        let flaky = (1..2000).map(|number| if number % 10 == 0 { Behaviour::FAIL } else { Behaviour::OK });
        [
            Self::new(world, "quick", vec![Behaviour::OK]).await,
            Self::new(world, "flaky", flaky.collect()).await,
            Self::new(world, "slow", vec![Behaviour::Answer(200, slow)]).await,
        ]
    }
}

/// What is allowed because a process, or more, was killed with its attempts on their way, or a server lost what was
/// on its disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Requests for what the receiver had already taken.
    pub repeats: usize,
    /// Attempts of unknown outcome.
    pub unknown: i64,
    /// What may be missing.
    pub missing: Missing,
}

/// What may be missing in the books because a server lost what was on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// Nothing.
    #[default]
    Nothing,
    /// What only the broker had: events that no dispatcher had taken.
    Untaken,
    /// What only the database had: rows, and what would have followed from them.
    Rows,
}

/// The sums of the books.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Accepted events, once for each endpoint.
    pub accepted: usize,
    /// Those of them that are recorded as delivered.
    pub delivered: usize,
    /// Requests that the receiver saw.
    pub requests: usize,
    /// Requests for what the receiver had already taken.
    pub repeats: usize,
    /// Attempts that are recorded.
    pub attempts: i64,
    /// Those of them whose outcome is unknown.
    pub unknown: i64,
    /// What is missing, and may be.
    pub missing: usize,
}

/// Everything that is known of one delivery.
#[derive(Debug, Default)]
struct Line {
    accepted: bool,
    /// For each request whether it was answered with a 2xx.
    requests: Vec<bool>,
    rows: usize,
    state: String,
    reason: String,
    failures: i32,
    attempts: i64,
    unknown: i64,
}

/// The books of a world, by event key and endpoint.
pub struct Books {
    lines: BTreeMap<(String, String), Line>,
    /// Keys whose requests were not all alike in their event's id and their bytes.
    unlike: Vec<String>,
}

const RECORDED: &str = "
SELECT e.key, p.url, d.state, coalesce(d.reason, ''), d.failures, count(a), count(a) FILTER (WHERE a.outcome = 'unknown')
FROM all_deliveries d
JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
JOIN endpoints p ON p.id = d.endpoint_id
LEFT JOIN all_attempts a ON a.delivery_id = d.id AND a.accepted_at = d.accepted_at
GROUP BY d.id, d.accepted_at, e.key, p.url, d.state, d.reason, d.failures";

impl Books {
    /// Waits until every delivery of these events has ended and nothing waits in the queues, however that
    /// ends, and reads the books.
    ///
    /// # Panics
    /// When broker or database are away.
    pub async fn closed(world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        Self::closed_after(patience(), world, accepted, subscribers).await
    }

    /// The same where something may be missing for ever: it is not waited for once all was quiet for so long.
    ///
    /// # Panics
    /// When broker or database are away.
    pub async fn closed_after(quiet: Duration, world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        let ended = "SELECT count(*) FROM deliveries";
        let unfinished = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        let expected = i64::try_from(accepted.len() * subscribers.len()).expect("a small number");
        let broker = world.broker().await;
        let limit = Instant::now() + patience();
        let (mut last, mut since) = (0, Instant::now());
        while Instant::now() < limit {
            let ended = world.count(ended).await;
            let is_still = world.count(unfinished).await == 0 && waiting(&broker).await == 0;
            if ended != last || !is_still {
                (last, since) = (ended, Instant::now());
            }
            if is_still && (ended >= expected || since.elapsed() > quiet) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        Self::read(world, accepted, subscribers).await
    }

    async fn read(world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        let mut books = Self { lines: BTreeMap::new(), unlike: Vec::new() };
        let mut bodies: HashMap<String, (String, Vec<u8>)> = HashMap::new();
        for subscriber in subscribers {
            for key in accepted {
                books.line(key, subscriber.path).accepted = true;
            }
            for request in world.receiver.received(subscriber.path) {
                let key = key_of(&request);
                books.line(&key, subscriber.path).requests.push(request.behaviour.succeeds());
                let same = (request.event().to_owned(), request.body);
                if *bodies.entry(key.clone()).or_insert_with(|| same.clone()) != same {
                    books.unlike.push(key);
                }
            }
        }
        for row in world.database().await.query(RECORDED, &[]).await.expect("the deliveries") {
            let path = row.get::<_, &str>(1).rsplit('/').next().unwrap_or_default();
            let line = books.line(row.get(0), path);
            line.rows += 1;
            (line.state, line.reason) = (row.get(2), row.get(3));
            (line.failures, line.attempts, line.unknown) = (row.get(4), row.get(5), row.get(6));
        }
        books
    }

    fn line(&mut self, key: &str, path: &str) -> &mut Line {
        self.lines.entry((path.to_owned(), key.to_owned())).or_default()
    }

    /// Prints the books and compares them.
    ///
    /// # Panics
    /// When they differ by more than is allowed.
    pub fn check(&self, allowed: Allowed) {
        println!("{self}");
        let faults = self.faults(allowed);
        let shown: Vec<_> = faults.iter().take(20).cloned().collect();
        assert!(faults.is_empty(), "{} faults in the books:\n{}", faults.len(), shown.join("\n"));
    }

    /// Where the books differ by more than is allowed.
    pub fn faults(&self, allowed: Allowed) -> Vec<String> {
        let mut faults: Vec<String> = Vec::new();
        for ((path, key), line) in self.lines.iter().filter(|(_, line)| !line.is_missing(allowed.missing)) {
            faults.extend(line.faults(allowed.missing).map(|fault| format!("{path} {key}: {fault} in {line:?}")));
        }
        // A body whose row was lost is rendered again.
        if !self.unlike.is_empty() && allowed.missing != Missing::Rows {
            faults.push(format!("other bytes or another id on a repeat: {:?}", self.unlike));
        }
        let Totals { repeats, unknown, .. } = self.totals(allowed);
        if repeats > allowed.repeats || unknown > allowed.unknown {
            faults.push(format!("{repeats} repeats and {unknown} unknown attempts, of which {allowed:?}"));
        }
        faults
    }

    /// The sums.
    pub fn totals(&self, allowed: Allowed) -> Totals {
        let mut totals = Totals::default();
        for line in self.lines.values() {
            totals.accepted += usize::from(line.accepted);
            totals.delivered += usize::from(line.state == "delivered");
            totals.requests += line.requests.len();
            totals.repeats += line.repeats();
            totals.attempts += line.attempts;
            totals.unknown += line.unknown;
            totals.missing += usize::from(line.is_missing(allowed.missing));
        }
        totals
    }

    /// The keys of what is missing, and may be; and which of them the receiver has got nevertheless.
    pub fn missing(&self, allowed: Allowed) -> BTreeMap<&str, bool> {
        let mut missing = BTreeMap::new();
        for ((_, key), line) in self.lines.iter().filter(|(_, line)| line.is_missing(allowed.missing)) {
            *missing.entry(key.as_str()).or_default() |= !line.requests.is_empty();
        }
        missing
    }

    /// All lines, one for each delivery.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.lines.iter().map(|((path, key), line)| format!("{path} {key} {line:?}"))
    }
}

impl Line {
    /// Requests after one that was answered with a 2xx.
    fn repeats(&self) -> usize {
        let first = self.requests.iter().position(|success| *success).unwrap_or(self.requests.len());
        self.requests.len().saturating_sub(first + 1)
    }

    /// Whether nothing is known of it, and that is allowed.
    fn is_missing(&self, allowed: Missing) -> bool {
        let was_sent = !self.requests.is_empty();
        self.rows == 0 && (allowed == Missing::Rows || (allowed == Missing::Untaken && !was_sent))
    }

    fn faults(&self, missing: Missing) -> impl Iterator<Item = &'static str> {
        let has_all_rows = missing != Missing::Rows;
        let requests = i64::try_from(self.requests.len()).unwrap_or(i64::MAX);
        let failed = self.requests.iter().filter(|success| !**success).count();
        let failures = usize::try_from(self.failures).unwrap_or(usize::MAX);
        [
            (!self.accepted, "was never accepted"),
            (self.rows != 1, "has not one row"),
            (self.state != "delivered", "did not end as delivered"),
            (!self.requests.contains(&true), "never reached the receiver"),
            (has_all_rows && self.attempts < requests, "has requests without an attempt"),
            (self.attempts - self.unknown > requests, "has attempts that the receiver did not see"),
            (failures > failed, "has failures that the receiver did not cause"),
            (failures > SHORT_WAITS, "has more failures than its schedule"),
        ]
        .into_iter()
        .filter_map(|(is_so, fault)| is_so.then_some(fault))
    }
}

impl fmt::Display for Books {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; 8]| {
            let [path, numbers @ ..] = cells;
            write!(formatter, "{path:10}")?;
            numbers.iter().try_for_each(|cell| write!(formatter, "{cell:>11}"))?;
            writeln!(formatter)
        };
        row(["endpoint", "accepted", "delivered", "requests", "repeats", "attempts", "unknown", "failures"])?;
        let paths: BTreeSet<&String> = self.lines.keys().map(|(path, _)| path).collect();
        for path in paths {
            let sum = |of: fn(&Line) -> i64| {
                self.lines.iter().filter(|((at, _), _)| at == path).map(|(_, line)| of(line)).sum::<i64>().to_string()
            };
            row([
                path,
                &sum(|line| line.accepted.into()),
                &sum(|line| (line.state == "delivered").into()),
                &sum(|line| i64::try_from(line.requests.len()).unwrap_or(0)),
                &sum(|line| i64::try_from(line.repeats()).unwrap_or(0)),
                &sum(|line| line.attempts),
                &sum(|line| line.unknown),
                &sum(|line| line.failures.into()),
            ])?;
        }
        Ok(())
    }
}

/// The key of the event that a request is about: the load writes it into the data.
pub fn key_of(request: &Received) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    body["data"]["key"].as_str().unwrap_or_default().to_owned()
}

/// Messages that are ready, or wait for their time, in the queues that a test with short waits uses.
async fn waiting(broker: &Broker) -> u32 {
    let mut waiting = 0;
    for queue in ["events", "deliveries", "delay.1s", "delay.5s", "delay.30s"] {
        waiting += broker.depth(queue).await.expect("the broker");
    }
    waiting
}
