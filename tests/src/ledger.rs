//! Compares three accounts after a load: accepted events, requests at the receiver, rows in Fanfare's database.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    clients::amqp::Broker,
    patience::patience,
    receiver::{Behaviour, Received},
    world::World,
};

/// Retries of the default dialect ([`crate::world::dialects::Waits::Short`]).
const SHORT_WAITS: usize = 5;

/// An endpoint subscribed to all event types, with scripted answers.
pub struct Subscriber {
    path: &'static str,
}

impl Subscriber {
    /// Creates the endpoint. The n-th request gets the n-th answer; all further requests get the last answer.
    pub async fn new(world: &World, path: &'static str, script: Vec<Behaviour>) -> Self {
        world.endpoint(path, &["*"]).await;
        world.receiver.script(path, &script);
        Self { path }
    }

    /// Three endpoints: `quick` answers at once, `flaky` fails one of ten requests, `slow` answers after a delay.
    pub async fn three(world: &World, slow: Duration) -> [Self; 3] {
        [
            Self::new(world, "quick", vec![Behaviour::OK]).await,
            Self::new(world, "flaky", flaky(10, 2000)).await,
            Self::new(world, "slow", vec![Behaviour::Answer(200, slow)]).await,
        ]
    }
}

/// Answers to `requests` requests: one of `period` fails, at varying distances. With a fixed distance, a retry that
/// comes after as many other requests each time would fail each time. The last answer, which all further requests get,
/// is good.
pub fn flaky(period: usize, requests: usize) -> Vec<Behaviour> {
    let fails = |number: usize| number % period == (number / period).pow(2) % period;
    let answers = (1..requests).map(|number| if fails(number) { Behaviour::FAIL } else { Behaviour::OK });
    answers.chain([Behaviour::OK]).collect()
}

/// Deviations that a test permits, caused by killed processes or by a server that lost its disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Requests for a delivery that the receiver had already answered with a 2xx.
    pub repeats: usize,
    /// Attempts of unknown outcome.
    pub unknown: i64,
    /// Permitted loss.
    pub missing: Missing,
}

/// Permitted loss after a server lost its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// No loss.
    #[default]
    Nothing,
    /// Messages that only the broker had: events that no dispatcher had consumed.
    Untaken,
    /// Rows that only the database had, and all that would have followed from these rows.
    Rows,
}

/// Sums over all deliveries of the ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Accepted events, counted once for each endpoint.
    pub accepted: usize,
    /// Deliveries with state `delivered`.
    pub delivered: usize,
    /// Requests at the receiver.
    pub requests: usize,
    /// Requests for a delivery that the receiver had already answered with a 2xx.
    pub repeats: usize,
    /// Recorded attempts.
    pub attempts: i64,
    /// Recorded attempts with an unknown outcome.
    pub unknown: i64,
    /// Missing deliveries that [`Allowed::missing`] permits.
    pub missing: usize,
}

/// All accounts of a delivery.
#[derive(Debug, Default)]
struct DeliveryAccount {
    accepted: bool,
    /// For each request: true if the answer was a 2xx.
    requests: Vec<bool>,
    rows: usize,
    state: String,
    reason: String,
    failures: i32,
    attempts: i64,
    unknown: i64,
}

/// The accounts of all deliveries of a world, by event key and endpoint.
pub struct Ledger {
    accounts: BTreeMap<(String, String), DeliveryAccount>,
    /// Event keys whose requests differ in the event id or in the body.
    unlike: Vec<String>,
}

const RECORDED: &str = "
SELECT e.key, p.url, d.state, coalesce(d.reason, ''), d.failures, count(a), count(a) FILTER (WHERE a.outcome = 'unknown')
FROM all_deliveries d
JOIN events e ON e.id = d.event_id AND e.accepted_at = d.accepted_at
JOIN endpoints p ON p.id = d.endpoint_id AND p.application_id = (SELECT id FROM applications ORDER BY created_at LIMIT 1)
LEFT JOIN all_attempts a ON a.delivery_id = d.id AND a.accepted_at = d.accepted_at
GROUP BY d.id, d.accepted_at, e.key, p.url, d.state, d.reason, d.failures";

impl Ledger {
    /// Waits until every delivery of the events has ended, in any state, and the queues are empty. Then reads the
    /// accounts.
    ///
    /// Reads the accounts after [`patience`] in any case.
    ///
    /// # Panics
    /// If the broker or the database is unavailable.
    pub async fn read(world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        Self::read_after(patience(), world, accepted, subscribers).await
    }

    /// Like [`Self::read`], for events that may be missing for ever: waits no longer once nothing changed for
    /// `quiet`.
    ///
    /// # Panics
    /// If the broker or the database is unavailable.
    pub async fn read_after(quiet: Duration, world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        let ended = "SELECT count(*) FROM deliveries";
        let unfinished = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        let expected = i64::try_from(accepted.len() * subscribers.len()).expect("a small number");
        let broker = world.broker().await;
        let limit = Instant::now() + patience();
        let (mut last, mut since) = (0, Instant::now());
        while Instant::now() < limit {
            let ended = world.count(ended).await;
            let is_still = world.count(unfinished).await == 0 && waiting(world, &broker).await == 0;
            if ended != last || !is_still {
                (last, since) = (ended, Instant::now());
            }
            if is_still && (ended >= expected || since.elapsed() > quiet) {
                break;
            }
            // No `until`: the accounts are read even if the time limit passes, and tell more than a panic.
            sleep(Duration::from_millis(100)).await;
        }
        Self::read_now(world, accepted, subscribers).await
    }

    async fn read_now(world: &World, accepted: &[String], subscribers: &[Subscriber]) -> Self {
        let mut ledger = Self { accounts: BTreeMap::new(), unlike: Vec::new() };
        let mut bodies: HashMap<String, (String, Vec<u8>)> = HashMap::new();
        for subscriber in subscribers {
            for key in accepted {
                ledger.account(key, subscriber.path).accepted = true;
            }
            for request in world.receiver.received(subscriber.path) {
                let key = key_of(&request);
                ledger.account(&key, subscriber.path).requests.push(request.behaviour.succeeds());
                let same = (request.event().to_owned(), request.body);
                if *bodies.entry(key.clone()).or_insert_with(|| same.clone()) != same {
                    ledger.unlike.push(key);
                }
            }
        }
        for row in world.database().await.query(RECORDED, &[]).await.expect("the deliveries") {
            let path = row.get::<_, &str>(1).rsplit('/').next().unwrap_or_default();
            let account = ledger.account(row.get(0), path);
            account.rows += 1;
            (account.state, account.reason) = (row.get(2), row.get(3));
            (account.failures, account.attempts, account.unknown) = (row.get(4), row.get(5), row.get(6));
        }
        ledger
    }

    fn account(&mut self, key: &str, path: &str) -> &mut DeliveryAccount {
        self.accounts.entry((path.to_owned(), key.to_owned())).or_default()
    }

    /// Prints the ledger and compares the accounts.
    ///
    /// # Panics
    /// If the accounts differ by more than `allowed`.
    pub fn check(&self, allowed: Allowed) {
        println!("{self}");
        let differences = self.differences(allowed);
        let shown: Vec<_> = differences.iter().take(20).cloned().collect();
        assert!(differences.is_empty(), "{} differences in the ledger:\n{}", differences.len(), shown.join("\n"));
    }

    /// Lists all differences beyond `allowed`.
    pub fn differences(&self, allowed: Allowed) -> Vec<String> {
        let mut differences: Vec<String> = Vec::new();
        for ((path, key), account) in self.accounts.iter().filter(|(_, account)| !account.is_missing(allowed.missing)) {
            differences.extend(
                account
                    .differences(allowed.missing)
                    .map(|difference| format!("{path} {key}: {difference} in {account:?}")),
            );
        }
        // Fanfare renders a body again if the row with the body was lost.
        if !self.unlike.is_empty() && allowed.missing != Missing::Rows {
            differences.push(format!("a repeated request has another body or event id: {:?}", self.unlike));
        }
        let Totals { repeats, unknown, .. } = self.totals(allowed);
        if repeats > allowed.repeats || unknown > allowed.unknown {
            differences.push(format!("{repeats} repeats and {unknown} unknown attempts, but {allowed:?}"));
        }
        differences
    }

    /// Sums over all deliveries. Counts losses within `allowed` as missing.
    pub fn totals(&self, allowed: Allowed) -> Totals {
        let mut totals = Totals::default();
        for account in self.accounts.values() {
            totals.accepted += usize::from(account.accepted);
            totals.delivered += usize::from(account.state == "delivered");
            totals.requests += account.requests.len();
            totals.repeats += account.repeats();
            totals.attempts += account.attempts;
            totals.unknown += account.unknown;
            totals.missing += usize::from(account.is_missing(allowed.missing));
        }
        totals
    }

    /// Keys of missing events within `allowed`. The value is true if the receiver nevertheless got a request.
    pub fn missing(&self, allowed: Allowed) -> BTreeMap<&str, bool> {
        let mut missing = BTreeMap::new();
        for ((_, key), account) in self.accounts.iter().filter(|(_, account)| account.is_missing(allowed.missing)) {
            *missing.entry(key.as_str()).or_default() |= !account.requests.is_empty();
        }
        missing
    }

    /// Formats the accounts of each delivery.
    pub fn accounts(&self) -> impl Iterator<Item = String> {
        self.accounts.iter().map(|((path, key), account)| format!("{path} {key} {account:?}"))
    }
}

impl DeliveryAccount {
    /// Requests after the first request that was answered with a 2xx.
    fn repeats(&self) -> usize {
        let first = self.requests.iter().position(|success| *success).unwrap_or(self.requests.len());
        self.requests.len().saturating_sub(first + 1)
    }

    /// True if no row exists, and `allowed` permits that loss.
    fn is_missing(&self, allowed: Missing) -> bool {
        let was_sent = !self.requests.is_empty();
        self.rows == 0 && (allowed == Missing::Rows || (allowed == Missing::Untaken && !was_sent))
    }

    fn differences(&self, missing: Missing) -> impl Iterator<Item = &'static str> {
        let has_all_rows = missing != Missing::Rows;
        let requests = i64::try_from(self.requests.len()).unwrap_or(i64::MAX);
        let failed = self.requests.iter().filter(|success| !**success).count();
        let failures = usize::try_from(self.failures).unwrap_or(usize::MAX);
        [
            (!self.accepted, "was never accepted"),
            (self.rows != 1, "does not have exactly 1 row"),
            (self.state != "delivered", "did not end as delivered"),
            (!self.requests.contains(&true), "has no successful request at the receiver"),
            (has_all_rows && self.attempts < requests, "has requests without an attempt"),
            (self.attempts - self.unknown > requests, "has attempts without a request at the receiver"),
            (failures > failed, "has failures that the receiver did not cause"),
            (failures > SHORT_WAITS, "has more failures than its schedule"),
        ]
        .into_iter()
        .filter_map(|(is_so, fault)| is_so.then_some(fault))
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; 8]| {
            let [path, numbers @ ..] = cells;
            write!(formatter, "{path:10}")?;
            numbers.iter().try_for_each(|cell| write!(formatter, "{cell:>11}"))?;
            writeln!(formatter)
        };
        row(["endpoint", "accepted", "delivered", "requests", "repeats", "attempts", "unknown", "failures"])?;
        let paths: BTreeSet<&String> = self.accounts.keys().map(|(path, _)| path).collect();
        for path in paths {
            let sum = |of: fn(&DeliveryAccount) -> i64| {
                self.accounts
                    .iter()
                    .filter(|((at, _), _)| at == path)
                    .map(|(_, account)| of(account))
                    .sum::<i64>()
                    .to_string()
            };
            row([
                path,
                &sum(|account| account.accepted.into()),
                &sum(|account| (account.state == "delivered").into()),
                &sum(|account| i64::try_from(account.requests.len()).unwrap_or(0)),
                &sum(|account| i64::try_from(account.repeats()).unwrap_or(0)),
                &sum(|account| account.attempts),
                &sum(|account| account.unknown),
                &sum(|account| account.failures.into()),
            ])?;
        }
        Ok(())
    }
}

/// The event key of a request. [`crate::clients::load`] writes the key into the data.
pub fn key_of(request: &Received) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    body["data"]["key"].as_str().unwrap_or_default().to_owned()
}

/// Messages that are ready or delayed in the queues of a world.
async fn waiting(world: &World, broker: &Broker) -> u32 {
    let mut waiting = 0;
    for queue in world.queues() {
        waiting += broker.depth(&queue).await.expect("the broker");
    }
    waiting
}
