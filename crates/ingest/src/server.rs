//! The API's listener: the publish routes, and the console's.

use anyhow::Context;
use axum::{Router, routing::post};
use fanfare_broker::Publisher;
use fanfare_console::{Console, method_not_allowed, not_found};
use fanfare_service::Operations;
use fanfare_store::{Directory, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    configuration::Configuration,
    publish::{self, Publish},
};

/// Serves until `stop`; requests that are being answered then are still answered.
pub(crate) async fn run(
    configuration: Configuration,
    operations: Operations,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Configuration { address, broker, store, max_event_bytes, addresses, https_only, .. } = configuration;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    // What must outlive the last answer ends with this one.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let topology = broker.topology.clone();
    let publisher = Publisher::start(broker, end.clone());
    let ready = publisher.clone();
    let is_ready = move || if ready.is_ready() { Ok(()) } else { Err("cannot publish to the broker".to_owned()) };
    tokio::spawn(operations.run(is_ready, end.clone()));

    let store = Store::new(store)?;
    let Some(directory) = stop.run_until_cancelled(Directory::follow(store.clone(), end.clone())).await else {
        return Ok(());
    };
    let publish = Publish { publisher, topology, directory: directory.clone(), max_event_bytes };
    let events = Router::new()
        .route("/events", post(publish::one))
        .route("/events/batch", post(publish::batch))
        .with_state(publish);
    let api = events.merge(Console::new(store, directory, addresses, https_only).router());
    let router = Router::new()
        .nest("/api/v1", api.method_not_allowed_fallback(method_not_allowed))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    tracing::info!(address = %listener.local_addr()?, "serving the API");
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await?;
    Ok(())
}
