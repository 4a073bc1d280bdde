//! A load of events over HTTP and AMQP, with a record of all accepted events.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::Method;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    clients::{
        amqp::Broker,
        api::{Answer, Client},
    },
    patience::{patience, until},
    world::World,
};

/// First wait before a publisher sends an unaccepted event again. Each further wait is longer by this amount, as many
/// events wait in a long outage.
const AGAIN: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(3);

/// A response of ingest to the load, or a failed request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Start of the request.
    pub sent: Instant,
    /// Time from the request to the response.
    pub took: Duration,
    /// The event's key.
    pub key: String,
    /// `None` if the connection failed.
    pub answer: Option<Answer>,
}

impl Answered {
    /// The status; 0 without a response.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }
}

/// Publishers that publish each event until Fanfare accepts the event: half of all events over HTTP, half over AMQP.
pub struct Load {
    ledger: Ledger,
    publishers: JoinSet<()>,
}

#[derive(Clone)]
struct Ledger {
    accepted: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Answered>>>,
    clients: Arc<Mutex<Vec<Client>>>,
    stopped: Arc<AtomicBool>,
    amqp_url: String,
    prefix: String,
    application: String,
}

impl Load {
    /// Starts to publish `events` events: per `pace`, an event over HTTP and an event over AMQP.
    pub fn start(world: &World, events: usize, pace: Duration) -> Self {
        Self::of(world, events / 2, events - events / 2, pace)
    }

    /// Starts to publish an event over HTTP and an event over AMQP per `pace`, until [`Self::stop`].
    pub fn steady(world: &World, pace: Duration) -> Self {
        Self::of(world, usize::MAX, usize::MAX, pace)
    }

    fn of(world: &World, over_http: usize, over_amqp: usize, pace: Duration) -> Self {
        let ledger = Ledger {
            accepted: Arc::default(),
            answers: Arc::default(),
            clients: Arc::new(Mutex::new(vec![world.client().clone()])),
            stopped: Arc::default(),
            amqp_url: world.variables["AMQP_URL"].clone(),
            prefix: world.variables["FANFARE_PREFIX"].clone(),
            application: world.application.clone(),
        };
        let run: u32 = rand::random();
        let keys = |entrance: &'static str, count: usize| {
            (0..count).map(move |number| format!("{entrance}-{run:08x}-{number}"))
        };
        let mut publishers = JoinSet::new();
        publishers.spawn(ledger.clone().over_http(keys("http", over_http), pace));
        publishers.spawn(ledger.clone().over_amqp(keys("amqp", over_amqp), pace));
        Self { ledger, publishers }
    }

    /// Sends all further HTTP requests to another ingest.
    pub fn use_client(&self, client: &Client) {
        self.use_clients(vec![client.clone()]);
    }

    /// Sends each further HTTP request to a random ingest of `clients`.
    pub fn use_clients(&self, clients: Vec<Client>) {
        *lock(&self.ledger.clients) = clients;
    }

    /// Begins no further event. Events already begun are still published until accepted.
    pub fn stop(&self) {
        self.ledger.stopped.store(true, Ordering::Relaxed);
    }

    /// Number of events accepted so far.
    pub fn accepted(&self) -> usize {
        lock(&self.ledger.accepted).len()
    }

    /// Keys of the events accepted so far, in order of acceptance.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.ledger.accepted).clone()
    }

    /// Waits until `accepted` events are accepted.
    pub async fn reached(&self, accepted: usize) {
        until(&format!("{accepted} accepted events"), async || (self.accepted() >= accepted).then_some(())).await;
    }

    /// Responses of ingest so far, in order of arrival.
    pub fn answers(&self) -> Vec<Answered> {
        lock(&self.ledger.answers).clone()
    }

    /// Waits until all events are published. Returns the keys of the accepted events: a 202, or a confirm.
    ///
    /// # Panics
    /// If an event is still not accepted after [`patience`].
    pub async fn finish(mut self) -> Vec<String> {
        let all = async { while self.publishers.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        assert!(timeout(patience(), all).await.is_ok(), "ingest or the broker did not accept all events in time");
        assert!(self.publishers.is_empty(), "a publisher panicked");
        lock(&self.ledger.accepted).clone()
    }
}

impl Ledger {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Spawns a task for each event: an event without an answer does not delay the next event.
    async fn over_http(self, keys: impl Iterator<Item = String>, pace: Duration) {
        let (mut ticks, mut open) = (interval(pace), JoinSet::new());
        for key in keys.take_while(|_| !self.is_stopped()) {
            ticks.tick().await;
            open.spawn(self.clone().post(key));
        }
        open.join_all().await;
    }

    async fn post(self, key: String) {
        let body = json!({ "type": "load.http", "id": key, "data": { "key": key } }).to_string();
        let mut wait = Duration::ZERO;
        loop {
            let clients = lock(&self.clients).clone();
            let client = &clients[rand::random_range(0..clients.len())];
            let sent = Instant::now();
            let answer = client.send(Method::POST, "events", &[("content-type", "application/json")], body.clone());
            let answered = Answered { sent, answer: answer.await.ok(), took: sent.elapsed(), key: key.clone() };
            let status = answered.status();
            lock(&self.answers).push(answered);
            if status == 202 {
                lock(&self.accepted).push(key);
                return;
            }
            wait = (wait + AGAIN).min(LONGEST);
            // The pace of a publisher that was refused.
            sleep(wait).await;
        }
    }

    async fn over_amqp(self, keys: impl Iterator<Item = String>, pace: Duration) {
        let mut ticks = interval(pace);
        let mut broker = None;
        for key in keys.take_while(|_| !self.is_stopped()) {
            ticks.tick().await;
            // An unconfirmed event may have been accepted. The same key makes a repeat harmless.
            while !self.confirmed(&mut broker, &key).await {
                broker = None;
                // The pace of a publisher without a broker.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
