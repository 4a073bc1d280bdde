//! Publishing: orders for the publishers.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, Subscriber, subscribing::subscribe};
use crate::roles::{
    child::Child,
    publisher::{Entrance, Order},
};

/// Confirms that a publisher over AMQP awaits at once, and connections of one over HTTP.
const WINDOW: usize = 512;
const CONNECTIONS: usize = 64;

/// The entrance of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Amqp,
    Http,
}

/// Another application.
pub(crate) struct Other {
    application: String,
    types: Vec<String>,
}

impl Scene {
    /// Publishes, waits until that is done, and says how long it took.
    pub(crate) async fn publish(&mut self, way: Way, types: &[String], count: usize, rate: Option<f64>) -> Duration {
        let order = self.order(way, types, count, rate).await;
        taken(&self.publisher.ask(&order).await)
    }

    /// Publishes events of another application meanwhile, from a process of their own.
    pub(crate) async fn publish_beside(
        &mut self,
        other: &Other,
        rate: f64,
        seconds: f64,
    ) -> tokio::task::JoinHandle<Duration> {
        let count = ((rate * seconds) as usize).max(1);
        let mut order = self.order(Way::Amqp, &other.types, count, Some(rate)).await;
        order["application"] = json!(other.application);
        tokio::spawn(async move { taken(&Child::start("publisher").ask(&order).await) })
    }

    /// Another application with endpoints.
    pub(crate) async fn other(&self, subscribers: &[Subscriber]) -> Other {
        let (application, client) = self.world.other_application().await;
        subscribe(&client, &self.address, subscribers).await;
        Other { application, types: subscribers.iter().flat_map(|subscriber| subscriber.types.clone()).collect() }
    }

    /// Event types of this application, to be published beside others.
    pub(crate) fn own(&self, types: &[String]) -> Other {
        Other { application: self.world.application.clone(), types: types.to_vec() }
    }

    pub(super) async fn order(&mut self, way: Way, types: &[String], count: usize, rate: Option<f64>) -> Value {
        let variable = |name: &str| self.world.variables[name].clone();
        let entrance = match way {
            Way::Amqp => Entrance::Amqp {
                url: variable("AMQP_URL"),
                exchange: format!("{}.events", variable("FANFARE_PREFIX")),
                window: WINDOW,
            },
            Way::Http => Entrance::Http {
                address: self.world.ingest().address("serving the API").await.to_string(),
                key: self.world.key.clone(),
                connections: CONNECTIONS,
            },
        };
        let (application, first) = (self.world.application.clone(), self.ordered);
        self.ordered += count;
        json!(Order { entrance, application, types: types.to_vec(), count, rate, bytes: self.bytes, first })
    }
}

/// Duration of an order.
fn taken(answer: &Value) -> Duration {
    Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds"))
}
