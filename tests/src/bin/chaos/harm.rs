//! Harm by publishers and by another application: malformed messages, hanging endpoints, a poison.

use std::time::Duration;

use fanfare_tests::{
    clients::{
        api::Client,
        raw_amqp::{BytePublisher, Message},
    },
    patience::until,
    receiver::Behaviour,
    world::process::Process,
};
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::interval};

use crate::{
    faults::{Harm, Part},
    scene::{PROCESSES, Scene},
};

/// Path of the endpoints that hang, and their number.
pub(crate) const HANGING: &str = "hanging";
const ENDPOINTS: usize = 200;

/// Deaths by a poison until its delivery is given up: two among other deliveries, and two alone.
pub(crate) const DEATHS: usize = 4;

/// Deliveries on their way beside the poison, the time of each, and the places of a dispatcher with room for all.
const BYSTANDERS: usize = 50;
const BESIDE: Behaviour = Behaviour::Answer(200, Duration::from_millis(300));
pub(crate) const PLACES_BESIDE: usize = 256;

/// Hard limit of a dispatcher's open files.
const FILES: &str = "256";

/// Bytes of a large body: beyond the part that a dispatcher keeps.
const LARGE: usize = 4 * 1024 * 1024;

impl Scene {
    /// Publishes harmful messages until [`Self::end_harm`]. An end of the broker ends the publisher, too.
    pub(crate) async fn publish_harm(&mut self, harm: Harm) {
        let (message_id, body, per_second) = match harm {
            Harm::Malformed => (b"caf\xe9".to_vec(), br#"{"data":{}}"#.to_vec(), 200),
            Harm::Large => (b"large".to_vec(), vec![b'a'; LARGE], 20),
        };
        let variables = &self.world.variables;
        let message = Message {
            exchange: format!("{}.events", variables["FANFARE_PREFIX"]),
            routing_key: format!("{}.harm", self.world.application).into_bytes(),
            message_id: Some(message_id),
            body,
            ..Message::default()
        };
        // Connects without a proxy: the proxies carry the faults of Fanfare's own connections.
        let url = variables["AMQP_URL"].clone();
        self.harm = Some(tokio::spawn(async move {
            let Ok(mut publisher) = BytePublisher::connect(&url).await else { return };
            let mut ticks = interval(Duration::from_secs(1) / per_second);
            loop {
                ticks.tick().await;
                if publisher.publish(&message).await.is_err() {
                    return;
                }
            }
        }));
    }

    pub(crate) async fn end_harm(&mut self) {
        if let Some(harm) = self.harm.take() {
            harm.abort();
            let _ = harm.await;
        }
    }

    /// Replaces the dispatchers by dispatchers with few files, while many endpoints of another application hang.
    pub(crate) async fn lack_files(&mut self) {
        self.world.receiver.script(HANGING, &[Behaviour::Hang]);
        let other = self.other_application(HANGING).await;
        for _ in 0..ENDPOINTS {
            let webhook = json!({ "url": self.world.receiver.url(HANGING), "events": [HANGING] });
            other.post("webhooks", &webhook).await.data();
        }
        for _ in 0..PROCESSES {
            let new = self.start("dispatcher", &[("TEST_OPEN_FILES", FILES)]);
            self.replace(Part::Dispatchers, 0, new).await;
        }
        other.post("events", &json!({ "type": HANGING, "data": {} })).await.data();
    }

    /// Publishes a poison beside other events: each request of its delivery kills both dispatchers, until the delivery
    /// is given up.
    pub(crate) async fn poison(&mut self) {
        const NAMES: [&str; 2] = ["poison", "beside"];
        let receiver = &self.world.receiver;
        receiver.script("poison", &[Behaviour::Hang]);
        receiver.script("beside", &[BESIDE]);
        let sent = receiver.received("poison").len();
        let other = self.other_application("poison").await;
        other.post("event-types", &described("beside")).await.data();
        for name in NAMES {
            let webhook = json!({ "url": self.world.receiver.url(name), "events": [name] });
            other.post("webhooks", &webhook).await.data();
        }
        self.dispatchers.drain(..).for_each(Process::kill);
        for number in 0..BYSTANDERS {
            other.post("events", &json!({ "type": "beside", "data": number })).await.data();
        }
        other.post("events", &json!({ "type": "poison", "data": {} })).await.data();
        let count = async |state: &str| {
            let path = format!("deliveries?state={state}&limit=100");
            other.get(&path).await.data().as_array().map_or(0, Vec::len)
        };
        let mut deaths = 0;
        while self.dies_of_poison(sent + deaths, async || count("failed").await > 0).await {
            deaths += 1;
            if !self.extent.leases_last {
                let now = "UPDATE open_deliveries SET lease_until = now() WHERE state = 'sending'";
                self.world.database().await.execute(now, &[]).await.expect("the leases");
            }
        }
        until("the deliveries beside the poison", async || (count("delivered").await >= BYSTANDERS).then_some(()))
            .await;
        let failed = count("failed").await;
        if (deaths, failed) != (DEATHS, 1) {
            self.failures.push(format!("{deaths} deaths by the poison, and {failed} deliveries were given up"));
        }
    }

    /// Starts the dispatchers, and kills them once the poison was sent again. False if the poison is given up instead.
    async fn dies_of_poison(&mut self, sent: usize, is_given_up: impl AsyncFn() -> bool) -> bool {
        let places = PLACES_BESIDE.to_string();
        let room = [("FANFARE_PLACES", &*places), ("FANFARE_LANE_BOUND", &*places)];
        self.dispatchers = (0..PROCESSES).map(|_| self.start("dispatcher", &room)).collect();
        let receiver = &self.world.receiver;
        let dies = until("the poison to be sent, or given up", async || {
            let dies = receiver.received("poison").len() > sent;
            (dies || is_given_up().await).then_some(dies)
        })
        .await;
        if dies {
            self.dispatchers.drain(..).for_each(Process::kill);
        }
        dies
    }

    /// A client of another application with an event type, both of this name.
    async fn other_application(&self, name: &str) -> Client {
        let ingest = self.ingests.iter().find_map(|ingest| self.client_of(ingest)).expect("an ingest serves");
        let key = block_in_place(|| {
            let application = self.world.release.fanfare(&self.world.variables, &["app", "create", name]);
            self.world.create_key(&["--role", "manage", "--application", &application])
        });
        let other = ingest.with_key(&key);
        until("the key to be known", async || (other.get("webhooks").await.status == 200).then_some(())).await;
        other.post("event-types", &described(name)).await.data();
        other
    }
}

fn described(name: &str) -> Value {
    json!({ "name": name, "category": "Tests", "description": "For tests", "sample": {} })
}
