//! Receiver of the deliveries.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use fanfare_service::{Room, serve as serve_router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::accounts::Accounts;

/// Maximum of connections.
const CONNECTIONS: usize = 1024;

#[derive(Clone)]
struct Shared {
    accounts: Arc<Accounts>,
    /// Percentage of requests that are answered with 503.
    fail: u8,
}

/// Receives deliveries at `path` until `stop`. The path is part of this run: deliveries of an earlier run do not count.
pub(crate) async fn serve(
    listener: TcpListener,
    path: String,
    accounts: Arc<Accounts>,
    fail: u8,
    stop: CancellationToken,
) {
    let router = Router::new().route(&path, post(receive)).with_state(Shared { accounts, fail });
    serve_router(listener, router, Room::new(CONNECTIONS), stop).await;
}

async fn receive(State(Shared { accounts, fail }): State<Shared>, body: Bytes) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    // The test event has no number.
    let Some(number) = find_number(&body) else { return StatusCode::OK };
    let is_accepted = rand::random_range(0..100) >= fail;
    accounts.received(number, is_accepted);
    if is_accepted { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The number of the event: each dialect has another envelope.
fn find_number(body: &Value) -> Option<u64> {
    match body {
        Value::Object(members) => {
            let own = members.get("number").and_then(Value::as_u64);
            own.or_else(|| members.values().find_map(find_number))
        }
        Value::Array(items) => items.iter().find_map(find_number),
        _ => None,
    }
}
