//! The scene of a measurement: a Fanfare of its own on the bench's servers, a receiver, a publisher.

pub(crate) mod delivered;
pub(crate) mod fill;
pub(crate) mod machine;
mod measuring;
pub(crate) mod processes;
mod publishing;
mod subscribing;
mod waiting;
pub(crate) mod watch;

use std::time::Duration;

use fanfare_tests::world::{Setup, World, dialects::Waits, process::Process};
use serde_json::{Value, json};

pub(crate) use self::publishing::Way;
use self::{
    machine::{Extent, Machine},
    subscribing::subscribe,
    watch::Watch,
};
use crate::roles::{
    ceiling::{self, Work},
    child::Child,
};

/// An endpoint of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    /// The account of its receipts.
    pub(crate) group: &'static str,
    /// How the receiver answers it; `refuse` for a port without a listener.
    pub(crate) behaviour: &'static str,
    pub(crate) types: Vec<String>,
    /// Attempts a second at most; `None` for no limit.
    pub(crate) rate: Option<u32>,
}

/// What delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// So many dispatchers.
    Fanfare(usize),
    Ceiling,
}

/// Settings that differ from a deployment's.
pub(crate) struct Changes<'a> {
    /// Waits between attempts.
    pub(crate) waits: Waits,
    /// Deadline of attempts; `None` for the dialect's.
    pub(crate) timeout: Option<String>,
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Default for Changes<'_> {
    fn default() -> Self {
        Self { waits: Waits::Real, timeout: None, variables: &[] }
    }
}

pub(crate) struct Scene {
    /// Dropped before the world, which reports their exits.
    pub(crate) dispatchers: Vec<Process>,
    pub(crate) world: World,
    ceiling: Option<Child>,
    receiver: Child,
    /// The receiver's.
    pub(crate) address: String,
    publisher: Child,
    servers: [(&'static str, u32); 2],
    /// Bytes of an event's message.
    pub(crate) bytes: usize,
    /// Events of all orders so far.
    ordered: usize,
    /// Time limit for a condition.
    pub(crate) patience: Duration,
}

impl Scene {
    /// Sets the scene, with every process ready.
    pub(crate) async fn set(machine: &Machine, subscribers: &[Subscriber], subject: Subject) -> Self {
        Self::with(machine, subscribers, subject, Changes::default()).await
    }

    /// Sets the scene with other settings.
    pub(crate) async fn with(
        machine: &Machine,
        subscribers: &[Subscriber],
        subject: Subject,
        Changes { waits, timeout, variables }: Changes<'_>,
    ) -> Self {
        let usual = [
            ("FANFARE_BREAKER_AFTER", "20"),
            ("FANFARE_PUBLISH_RATE", "0"),
            ("FANFARE_MAX_WEBHOOKS", "1000000"),
            ("FANFARE_TAKEOVER_AFTER", if machine.extent == Extent::Smoke { "1s" } else { "15s" }),
        ];
        let setup = Setup { waits, timeout, ..Setup::on(machine.servers(), &[&usual, variables].concat()) };
        let world = World::of(setup).await;
        let mut receiver = Child::start("receiver");
        let address = receiver.ask(&Value::Null).await["address"].as_str().expect("an address").to_owned();
        let endpoints = subscribe(world.client(), &address, subscribers).await;
        let servers = [("rabbitmq", machine.broker_process()), ("postgres", machine.database_process())];
        let publisher = Child::start("publisher");
        let dispatchers = Vec::new();
        let mut scene = Self {
            world,
            dispatchers,
            ceiling: None,
            receiver,
            address,
            publisher,
            servers,
            bytes: machine.bytes,
            ordered: 0,
            patience: machine.patience(),
        };
        match subject {
            Subject::Fanfare(dispatchers) => {
                for _ in 0..dispatchers {
                    scene.dispatchers.push(scene.world.dispatcher().await);
                }
            }
            Subject::Ceiling => scene.ceiling = Some(scene.begin_ceiling(endpoints).await),
        }
        scene
    }

    async fn begin_ceiling(&self, endpoints: Vec<ceiling::Endpoint>) -> Child {
        let variable = |name: &str| self.world.variables[name].clone();
        let work = Work {
            amqp_url: variable("AMQP_URL"),
            database_url: variable("DATABASE_URL"),
            queue: format!("{}.events", variable("FANFARE_PREFIX")),
            application: self.world.application.clone(),
            endpoints,
        };
        let mut ceiling = Child::start("ceiling");
        ceiling.ask(&json!(work)).await;
        ceiling
    }

    /// Lets the endpoints behind the receiver's gate succeed from now on.
    pub(crate) async fn open_gate(&mut self) -> Value {
        self.receiver.ask(&json!("open")).await["groups"].clone()
    }

    /// Has the receiver answer `late` after this time.
    pub(crate) async fn answer_late(&mut self, milliseconds: u64) {
        self.receiver.ask(&json!({ "late": milliseconds })).await;
    }

    /// Begins to watch the database's sessions.
    pub(crate) async fn watch(&self) -> Watch {
        Watch::begin(self.world.database().await)
    }
}
