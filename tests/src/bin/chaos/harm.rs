//! A harmful publisher, and a hard limit of open files.

use std::time::Duration;

use fanfare_tests::{
    clients::raw_amqp::{BytePublisher, Message},
    patience::until,
    receiver::Behaviour,
};
use serde_json::json;
use tokio::{task::block_in_place, time::interval};

use crate::{
    faults::{Harm, Part},
    scene::{PROCESSES, Scene},
};

/// Path of the endpoints that hang, and their number.
pub(crate) const HANGING: &str = "hanging";
const ENDPOINTS: usize = 200;

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
        let ingest = self.ingests.iter().find_map(|ingest| self.client_of(ingest)).expect("an ingest serves");
        let key = block_in_place(|| {
            let application = self.world.release.fanfare(&self.world.variables, &["app", "create", "hanging"]);
            self.world.create_key(&["--role", "manage", "--application", &application])
        });
        let other = ingest.with_key(&key);
        until("the key to be known", async || (other.get("webhooks").await.status == 200).then_some(())).await;
        let described = json!({ "name": "a", "category": "Tests", "description": "For tests", "sample": {} });
        other.post("event-types", &described).await.data();
        for _ in 0..ENDPOINTS {
            let webhook = json!({ "url": self.world.receiver.url(HANGING), "events": ["a"] });
            other.post("webhooks", &webhook).await.data();
        }
        for _ in 0..PROCESSES {
            let new = self.start("dispatcher", &[("TEST_OPEN_FILES", FILES)]);
            self.replace(Part::Dispatchers, 0, new).await;
        }
        other.post("events", &json!({ "type": "a", "data": {} })).await.data();
    }
}
