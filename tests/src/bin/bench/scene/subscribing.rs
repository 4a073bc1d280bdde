//! Event types and endpoints of a scene.

use std::sync::LazyLock;

use fanfare_tests::clients::api::Client;
use serde_json::json;
use tokio::net::TcpSocket;

use super::Subscriber;
use crate::roles::ceiling;

/// Returns the URL of a port that refuses connections.
fn refused_url() -> String {
    // The socket never listens. The socket exists until the bench ends: no other program can use the port.
    static BOUND: LazyLock<TcpSocket> = LazyLock::new(|| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        socket
    });
    format!("http://{}/", BOUND.local_addr().expect("the address of a bound socket"))
}

/// Describes the event types and creates the endpoints. Returns the endpoints for the ceiling.
pub(super) async fn subscribe(client: &Client, address: &str, subscribers: &[Subscriber]) -> Vec<ceiling::Endpoint> {
    let mut described: Vec<&String> = subscribers.iter().flat_map(|subscriber| &subscriber.types).collect();
    described.sort_unstable();
    described.dedup();
    for name in described {
        let described =
            json!({ "name": name, "category": "Bench", "description": "For the bench", "sample": { "n": 1 } });
        client.post("event-types", &described).await.data();
    }
    let mut endpoints = Vec::new();
    for (index, Subscriber { group, behaviour, types, rate }) in subscribers.iter().enumerate() {
        let url = match *behaviour {
            "refuse" => refused_url(),
            behaviour => format!("http://{address}/{group}/{behaviour}?{index}"),
        };
        let mut webhook = json!({ "url": url, "events": types });
        if let Some(rate) = rate {
            webhook["rate_per_second"] = json!(rate);
        }
        let answer = client.post("webhooks", &webhook).await;
        let text = |name: &str| answer.data()[name].as_str().unwrap_or_default().to_owned();
        endpoints.push(ceiling::Endpoint {
            id: text("id"),
            url: url.clone(),
            secret: text("secret"),
            types: types.clone(),
        });
    }
    endpoints
}
