//! A load over both doors, and three books compared after it: what was accepted, what the receiver got,
//! and what Fanfare recorded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    broker::Broker,
    client::{Answer, Client},
    patience::{patience, until},
    receiver::{Behaviour, Received},
    world::World,
};

/// Retries of the default dialect with short waits.
const SHORT_WAITS: usize = 5;

/// How long a publisher waits before it sends again what was not accepted.
const AGAIN: Duration = Duration::from_millis(250);

/// An answer of ingest to the load, or what was there instead of one.
#[derive(Debug, Clone)]
pub struct Answered {
    /// When the request was sent.
    pub sent: Instant,
    /// How long the answer took.
    pub took: Duration,
    /// The event's key.
    pub key: String,
    /// None where the connection failed.
    pub answer: Option<Answer>,
}

impl Answered {
    /// The status, 0 where there is none.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }
}

/// Publishers that publish each event until it is accepted, half of them over HTTP, half over AMQP.
pub struct Load {
    ledger: Ledger,
    publishers: JoinSet<()>,
}

#[derive(Clone)]
struct Ledger {
    accepted: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Answered>>>,
    client: Arc<Mutex<Client>>,
    amqp_url: String,
    prefix: String,
    application: String,
}

impl Load {
    /// Starts to publish so many events, one per `pace` over each door.
    pub fn start(world: &World, events: usize, pace: Duration) -> Self {
        let ledger = Ledger {
            accepted: Arc::default(),
            answers: Arc::default(),
            client: Arc::new(Mutex::new(world.client().clone())),
            amqp_url: world.variables["AMQP_URL"].clone(),
            prefix: world.variables["FANFARE_PREFIX"].clone(),
            application: world.application.clone(),
        };
        let run: u32 = rand::random();
        let keys = |door: &str, count: usize| (0..count).map(|number| format!("{door}-{run:08x}-{number}")).collect();
        let mut publishers = JoinSet::new();
        publishers.spawn(ledger.clone().over_http(keys("http", events / 2), pace));
        publishers.spawn(ledger.clone().over_amqp(keys("amqp", events - events / 2), pace));
        Self { ledger, publishers }
    }

    /// Sends what comes next over HTTP to another ingest.
    pub fn turn_to(&self, client: &Client) {
        *lock(&self.ledger.client) = client.clone();
    }

    /// Events that were accepted so far.
    pub fn accepted(&self) -> usize {
        lock(&self.ledger.accepted).len()
    }

    /// Waits until so many events were accepted.
    pub async fn reached(&self, accepted: usize) {
        until(&format!("{accepted} accepted events"), async || (self.accepted() >= accepted).then_some(())).await;
    }

    /// The answers of ingest so far, in the order in which they came.
    pub fn answers(&self) -> Vec<Answered> {
        lock(&self.ledger.answers).clone()
    }

    /// Waits until all is published, and gives the keys of what was accepted: a 202, or a confirm.
    ///
    /// # Panics
    /// When a publisher still has something that is not accepted.
    pub async fn finish(mut self) -> Vec<String> {
        let all = async { while self.publishers.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        assert!(timeout(patience(), all).await.is_ok(), "the doors do not open again");
        assert!(self.publishers.is_empty(), "a publisher panicked");
        lock(&self.ledger.accepted).clone()
    }
}

impl Ledger {
    /// Each event is a task of its own: one that has to wait for its answer does not hold up the next.
    async fn over_http(self, keys: Vec<String>, pace: Duration) {
        let (mut ticks, mut open) = (interval(pace), JoinSet::new());
        for key in keys {
            ticks.tick().await;
            open.spawn(self.clone().post(key));
        }
        open.join_all().await;
    }

    async fn post(self, key: String) {
        let body = json!({ "type": "load.http", "id": key, "data": { "key": key } }).to_string();
        loop {
            let client = lock(&self.client).clone();
            let sent = Instant::now();
            let answer = client.send(Method::POST, "events", &[("content-type", "application/json")], body.clone());
            let answered = Answered { sent, answer: answer.await.ok(), took: sent.elapsed(), key: key.clone() };
            let status = answered.status();
            lock(&self.answers).push(answered);
            if status == 202 {
                lock(&self.accepted).push(key);
                return;
            }
            sleep(AGAIN).await;
        }
    }

    async fn over_amqp(self, keys: Vec<String>, pace: Duration) {
        let mut ticks = interval(pace);
        let mut broker = None;
        for key in keys {
            ticks.tick().await;
            // What is not confirmed may have been taken: it is published again under its key.
            while !self.confirmed(&mut broker, &key).await {
                broker = None;
                sleep(AGAIN).await;
            }
            lock(&self.accepted).push(key);
        }
    }

    async fn confirmed(&self, broker: &mut Option<Broker>, key: &str) -> bool {
        let published = timeout(Duration::from_secs(5), async {
            if broker.is_none() {
                *broker = Some(Broker::connect(&self.amqp_url, &self.prefix).await?);
            }
            let Some(broker) = broker else { return Ok(false) };
            let body = json!({ "data": { "key": key } }).to_string();
            broker.publish(&format!("{}.load.amqp", self.application), Some(key), &[], body).await
        });
        matches!(published.await, Ok(Ok(true)))
    }
}

/// An endpoint that is subscribed to everything, and how it answers.
pub struct Subscriber {
    path: &'static str,
    script: Vec<Behaviour>,
}

impl Subscriber {
    /// Makes the endpoint. The n-th request gets the n-th answer, and the last one for ever.
    pub async fn new(world: &World, path: &'static str, script: Vec<Behaviour>) -> Self {
        world.endpoint(path, &["*"]).await;
        world.receiver.script(path, &script);
        Self { path, script }
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

    /// Whether the n-th request, from 0 on, gets a 2xx.
    fn succeeds(&self, number: usize) -> bool {
        matches!(self.script[number.min(self.script.len() - 1)], Behaviour::Answer(status, _) if status / 100 == 2)
    }
}

/// What is allowed because a process, or more, was killed with its attempts on their way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Requests for what the receiver had already taken.
    pub repeats: usize,
    /// Attempts of unknown outcome.
    pub unknown: i64,
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
FROM deliveries d
JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
JOIN endpoints p ON p.id = d.endpoint_id
LEFT JOIN attempts a ON a.delivery_id = d.id AND a.accepted_at = d.accepted_at
GROUP BY d.id, d.accepted_at, e.key, p.url, d.state, d.reason, d.failures";

impl Books {
    /// Waits until every delivery of these events has ended and nothing waits in the queues, however that
    /// ends, and reads the books.
    ///
    /// # Panics
    /// When broker or database are away.
    pub async fn closed(world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        let ended = "SELECT count(*) FROM deliveries WHERE state NOT IN ('sending', 'waiting')";
        let unfinished = "SELECT count(*) FROM deliveries WHERE state IN ('sending', 'waiting')";
        let expected = i64::try_from(accepted.len() * subscribers.len()).expect("a small number");
        let broker = world.broker().await;
        let limit = Instant::now() + patience();
        while Instant::now() < limit {
            let is_ended = world.count(ended).await >= expected && world.count(unfinished).await == 0;
            if is_ended && waiting(&broker).await == 0 {
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
            for (number, request) in world.receiver.received(subscriber.path).into_iter().enumerate() {
                let key = key_of(&request);
                books.line(&key, subscriber.path).requests.push(subscriber.succeeds(number));
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
        let mut faults: Vec<String> = Vec::new();
        for ((path, key), line) in &self.lines {
            faults.extend(line.faults().map(|fault| format!("{path} {key}: {fault} in {line:?}")));
        }
        if !self.unlike.is_empty() {
            faults.push(format!("other bytes or another id on a repeat: {:?}", self.unlike));
        }
        let repeats: usize = self.lines.values().map(Line::repeats).sum();
        let unknown: i64 = self.lines.values().map(|line| line.unknown).sum();
        if repeats > allowed.repeats || unknown > allowed.unknown {
            faults.push(format!("{repeats} repeats and {unknown} unknown attempts, of which {allowed:?}"));
        }
        let shown: Vec<_> = faults.iter().take(20).cloned().collect();
        assert!(faults.is_empty(), "{} faults in the books:\n{}", faults.len(), shown.join("\n"));
    }
}

impl Line {
    /// Requests after one that was answered with a 2xx.
    fn repeats(&self) -> usize {
        let first = self.requests.iter().position(|success| *success).unwrap_or(self.requests.len());
        self.requests.len().saturating_sub(first + 1)
    }

    fn faults(&self) -> impl Iterator<Item = &'static str> {
        let requests = i64::try_from(self.requests.len()).unwrap_or(i64::MAX);
        let failed = self.requests.iter().filter(|success| !**success).count();
        let failures = usize::try_from(self.failures).unwrap_or(usize::MAX);
        [
            (!self.accepted, "was never accepted"),
            (self.rows != 1, "has not one row"),
            (self.state != "delivered", "did not end as delivered"),
            (!self.requests.contains(&true), "never reached the receiver"),
            (self.attempts < requests, "has requests without an attempt"),
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
