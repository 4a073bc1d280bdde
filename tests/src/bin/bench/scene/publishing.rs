//! Orders for the publishers.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Scene, Subscriber, subscribing::subscribe};
use crate::roles::{
    child::Child,
    publisher::{Entrance, Order, Target as HttpTarget},
};

/// Limit of unconfirmed messages of an AMQP publisher, and connections of an HTTP publisher.
const WINDOW: usize = 512;
const CONNECTIONS: usize = 64;

/// Protocol of an entrance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Amqp,
    /// Over AMQP, with an ordering key of so many.
    Ordered(usize),
    /// Over AMQP, due after this time. Latencies count from then on.
    Delayed(Duration),
    Http,
}

/// Application and event types of a background load.
pub(crate) struct Target {
    application: String,
    types: Vec<String>,
}

impl Scene {
    /// Publishes events, and waits for the publisher. Returns the duration.
    pub(crate) async fn publish(&mut self, via: Via, types: &[String], count: usize, rate: Option<f64>) -> Duration {
        let order = self.order(via, types, count, rate).await;
        order_duration(&self.publisher.request(&order).await)
    }

    /// Starts to publish a background load from a separate process. The handle returns the duration.
    pub(crate) async fn publish_beside(
        &mut self,
        target: &Target,
        rate: f64,
        seconds: f64,
    ) -> tokio::task::JoinHandle<Duration> {
        let count = ((rate * seconds) as usize).max(1);
        let mut order = self.order(Via::Amqp, &target.types, count, Some(rate)).await;
        order["application"] = json!(target.application);
        tokio::spawn(async move { order_duration(&Child::start("publisher").request(&order).await) })
    }

    /// Sets FIFO at all endpoints of the scene's application.
    pub(crate) async fn deliver_in_order(&self) {
        let client = self.world.client();
        let webhooks = client.get("webhooks?limit=100").await.data().clone();
        for webhook in webhooks.as_array().into_iter().flatten() {
            let path = format!("webhooks/{}", webhook["id"].as_str().unwrap_or_default());
            client.patch(&path, &json!({ "fifo": "block" })).await.data();
        }
        self.world.known().await;
    }

    /// Creates another application with endpoints.
    pub(crate) async fn other_application(&self, subscribers: &[Subscriber]) -> Target {
        let (application, client) = self.world.other_application().await;
        subscribe(&client, &self.address, subscribers).await;
        Target { application, types: subscribers.iter().flat_map(|subscriber| subscriber.types.clone()).collect() }
    }

    /// Returns event types of the scene's application, for a background load.
    pub(crate) fn own_application(&self, types: &[String]) -> Target {
        Target { application: self.world.application.clone(), types: types.to_vec() }
    }

    pub(super) async fn order(&mut self, via: Via, types: &[String], count: usize, rate: Option<f64>) -> Value {
        let variable = |name: &str| self.world.variables[name].clone();
        let over_amqp = |exchange: &str, ordering_keys, delay| Entrance::Amqp {
            url: variable("AMQP_URL"),
            exchange: format!("{}.{exchange}", variable("FANFARE_PREFIX")),
            window: WINDOW,
            ordering_keys,
            delay,
        };
        let entrance = match via {
            Via::Amqp => over_amqp("events", 0, Duration::ZERO),
            Via::Ordered(ordering_keys) => over_amqp("ordered", ordering_keys, Duration::ZERO),
            Via::Delayed(delay) => over_amqp("events", 0, delay),
            Via::Http => Entrance::Http {
                target: HttpTarget {
                    address: self.world.ingest().address("serving the API").await.to_string(),
                    path: "/api/v1/events".to_owned(),
                    headers: vec![format!("authorization: Bearer {}", self.world.key)],
                    body: r#"{"type":"{type}","id":"bench-{n}","data":{data}}"#.parse().expect("a template"),
                },
                connections: CONNECTIONS,
            },
        };
        let (application, first) = (self.world.application.clone(), self.ordered);
        self.ordered += count;
        json!(Order { entrance, application, types: types.to_vec(), count, rate, bytes: self.bytes, first })
    }
}

fn order_duration(answer: &Value) -> Duration {
    Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds"))
}
