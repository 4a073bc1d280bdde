//! Publishers: a steady rate, and each event again until it is accepted.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Publisher, Topology, encode_published};
use fanfare_domain::ids::ApplicationId;
use http::Method;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Interface, accounts::Accounts};
use crate::json_client::JsonClient;

/// Type of all events.
const EVENT_TYPE: &str = "verify.event";

/// Wait before an event is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// Maximum of events that are not accepted yet. At the maximum, the pace waits.
const MAX_IN_FLIGHT: usize = 2000;

/// Publish interfaces of the deployment.
pub(crate) struct Interfaces {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) topology: Topology,
    pub(crate) publisher: Publisher,
    pub(crate) client: JsonClient,
    /// URL of the publish route.
    pub(crate) events: String,
    pub(crate) application: ApplicationId,
}

/// Publishes `rate` events per second until `stop`, alternately by the interfaces. Ends when all events are accepted.
pub(crate) async fn run(interfaces: Interfaces, rate: u32, accounts: Arc<Accounts>, stop: CancellationToken) {
    let interfaces = Arc::new(interfaces);
    let (tasks, room) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_IN_FLIGHT)));
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        let next = async {
            pace.tick().await;
            // The semaphore is never closed.
            Arc::clone(&room).acquire_owned().await.ok()
        };
        let Some(permit) = stop.run_until_cancelled(next).await else { break };
        accounts.begin(number);
        let (interfaces, accounts) = (Arc::clone(&interfaces), Arc::clone(&accounts));
        tasks.spawn(async move {
            until_accepted(&interfaces, number, &accounts).await;
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn until_accepted(interfaces: &Interfaces, number: u64, accounts: &Accounts) {
    let turn = usize::try_from(number).unwrap_or_default() % interfaces.interfaces.len().max(1);
    let interface = interfaces.interfaces.get(turn).copied().unwrap_or(Interface::Http);
    while let Err(error) = interfaces.publish(interface, number).await {
        accounts.refused(error);
        sleep(AGAIN).await;
    }
    accounts.accepted(number);
}

impl Interfaces {
    /// Publishes an event. The same id in each try makes a single event of all tries.
    async fn publish(&self, interface: Interface, number: u64) -> Result<(), String> {
        let id = format!("verify-{number}");
        match interface {
            Interface::Http => {
                let event = json!({ "type": EVENT_TYPE, "id": id, "data": { "number": number } });
                let sent = self.client.send(Method::POST, &self.events, Some(event.to_string())).await;
                match sent.map_err(|error| format!("{error:#}"))? {
                    (status, _) if status.as_u16() == 202 => Ok(()),
                    (status, answer) => {
                        let message = answer["error"]["message"].as_str().unwrap_or_default();
                        Err(format!("{} answers {}: {message}", self.events, status.as_u16()))
                    }
                }
            }
            Interface::Amqp => {
                let routing_key = format!("{}.{EVENT_TYPE}", self.application);
                let body = json!({ "data": { "number": number } }).to_string();
                let message = encode_published(&self.topology, &routing_key, &id, None, body.as_bytes());
                self.publisher.publish(message).await.map_err(|error| error.to_string())
            }
        }
    }
}
