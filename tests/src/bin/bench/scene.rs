//! Scene of a measurement: a separate Fanfare on the bench's servers, a receiver, a publisher.

pub(crate) mod days;
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

pub(crate) use self::publishing::Via;
use self::{
    machine::{Extent, Machine},
    subscribing::subscribe,
    watch::Watch,
};
use crate::roles::{
    ceiling::{self, Work},
    child::Child,
};

/// Endpoint of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    /// Name of the receiver's account for the endpoint's receipts.
    pub(crate) group: &'static str,
    /// Behaviour of the receiver; `refuse` for a port without a listener.
    pub(crate) behaviour: &'static str,
    pub(crate) types: Vec<String>,
    /// Limit of attempts per second; `None` for no limit.
    pub(crate) rate: Option<u32>,
}

/// System under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Fanfare with this number of dispatchers.
    Fanfare(usize),
    Ceiling,
}

/// Settings that differ from the settings of a deployment.
pub(crate) struct Changes<'a> {
    /// Waits between attempts.
    pub(crate) waits: Waits,
    /// Deadline of attempts; `None` for the dialect's deadline.
    pub(crate) timeout: Option<String>,
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Default for Changes<'_> {
    fn default() -> Self {
        Self { waits: Waits::Real, timeout: None, variables: &[] }
    }
}

pub(crate) struct Scene {
    /// Dropped before `world`: the world reports the exits of dispatchers.
    pub(crate) dispatchers: Vec<Process>,
    pub(crate) world: World,
    ceiling: Option<Child>,
    receiver: Child,
    /// Address of the receiver.
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
    /// Sets a scene. All processes are ready.
    pub(crate) async fn set(machine: &Machine, subscribers: &[Subscriber], subject: Subject) -> Self {
        Self::with(machine, subscribers, subject, Changes::default()).await
    }

    /// Sets a scene with changed settings. All processes are ready.
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
        let address = receiver.request(&Value::Null).await["address"].as_str().expect("an address").to_owned();
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
        ceiling.request(&json!(work)).await;
        ceiling
    }

    /// Opens the receiver's gate: endpoints behind the gate succeed from now on. Returns the receipts.
    pub(crate) async fn open_gate(&mut self) -> Value {
        self.receiver.request(&json!("open")).await["groups"].clone()
    }

    /// Sets the delay of the receiver's `late` answers.
    pub(crate) async fn answer_late(&mut self, milliseconds: u64) {
        self.receiver.request(&json!({ "late": milliseconds })).await;
    }

    /// Starts a watch over the database's sessions.
    pub(crate) async fn watch(&self) -> Watch {
        Watch::begin(self.world.database().await)
    }
}
