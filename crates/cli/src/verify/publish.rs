//! Publishers of a proof: a steady rate, and each event again until it is accepted.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Publisher, Topology, encode_published};
use fanfare_domain::ids::ApplicationId;
use http::Method;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Door, books::Books};
use crate::json_client::JsonClient;

/// Type of all events.
const EVENT_TYPE: &str = "verify.event";

/// Wait before an event is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// Doors of the deployment.
pub(crate) struct Doors {
    pub(crate) doors: Vec<Door>,
    pub(crate) topology: Topology,
    pub(crate) publisher: Publisher,
    pub(crate) client: JsonClient,
    /// URL of the publish route.
    pub(crate) events: String,
    pub(crate) application: ApplicationId,
}

/// Publishes `rate` events a second until `stop`, alternately through the doors. Ends when all events are accepted.
pub(crate) async fn run(doors: Doors, rate: u32, books: Arc<Books>, stop: CancellationToken) {
    let doors = Arc::new(doors);
    let tasks = TaskTracker::new();
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        if stop.run_until_cancelled(pace.tick()).await.is_none() {
            break;
        }
        books.begin(number);
        tasks.spawn(until_accepted(Arc::clone(&doors), number, Arc::clone(&books)));
    }
    tasks.close();
    tasks.wait().await;
}

async fn until_accepted(doors: Arc<Doors>, number: u64, books: Arc<Books>) {
    let turn = usize::try_from(number).unwrap_or_default() % doors.doors.len().max(1);
    let door = doors.doors.get(turn).copied().unwrap_or(Door::Http);
    while !doors.publish(door, number).await {
        books.refused();
        sleep(AGAIN).await;
    }
    books.accepted(number);
}

impl Doors {
    /// True if the event is accepted. The same id in each try makes the event one.
    async fn publish(&self, door: Door, number: u64) -> bool {
        let id = format!("verify-{number}");
        match door {
            Door::Http => {
                let event = json!({ "type": EVENT_TYPE, "id": id, "data": { "number": number } });
                let sent = self.client.send(Method::POST, &self.events, Some(&event)).await;
                sent.is_ok_and(|(status, _)| status.as_u16() == 202)
            }
            Door::Amqp => {
                let routing_key = format!("{}.{EVENT_TYPE}", self.application);
                let body = json!({ "data": { "number": number } }).to_string();
                let message = encode_published(&self.topology, &routing_key, &id, body.as_bytes());
                self.publisher.publish(message).await.is_ok()
            }
        }
    }
}
