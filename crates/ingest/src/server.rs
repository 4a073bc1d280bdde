//! The API's listener: the publish routes, and the console's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
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

/// Serves until `stop`; requests that are being answered then are still answered, within the grace time.
pub(crate) async fn run(
    configuration: Configuration,
    operations: Operations,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Configuration { address, grace, .. } = configuration;
    // What must outlive the last answer ends with this one.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let publisher = Publisher::start(configuration.broker.clone(), end.clone());
    let is_serving = Arc::new(AtomicBool::new(false));
    tokio::spawn(operations.run(is_ready(publisher.clone(), Arc::clone(&is_serving)), end.clone()));

    let store = Store::new(configuration.store.clone())?;
    let loading = async {
        store.wait_until_migrated().await;
        Directory::follow(store.clone(), end.clone()).await
    };
    let Some(directory) = stop.run_until_cancelled(loading).await else { return Ok(()) };
    // Only now: a request that could not be authenticated yet would have to wait.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving the API");
    is_serving.store(true, Ordering::Release);
    let stopping = stop.clone();
    let server = axum::serve(listener, router(configuration, publisher, store, directory))
        .with_graceful_shutdown(async move { stopping.cancelled().await });
    tokio::select! {
        served = server => served?,
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => {
            bail!("not drained within {grace:?}: some requests were not answered");
        }
    }
    tracing::info!("drained");
    Ok(())
}

fn is_ready(publisher: Publisher, is_serving: Arc<AtomicBool>) -> impl Fn() -> Result<(), String> + Send + Sync {
    move || match (is_serving.load(Ordering::Acquire), publisher.is_ready()) {
        (false, _) => Err("applications and keys are not loaded yet".to_owned()),
        (_, false) => Err("cannot publish to the broker".to_owned()),
        _ => Ok(()),
    }
}

fn router(configuration: Configuration, publisher: Publisher, store: Store, directory: Directory) -> Router {
    let Configuration { broker, max_event_bytes, addresses, https_only, .. } = configuration;
    let publish =
        Publish { publisher, topology: broker.topology().clone(), directory: directory.clone(), max_event_bytes };
    let events = Router::new()
        .route("/events", post(publish::one))
        .route("/events/batch", post(publish::batch))
        .with_state(publish);
    let api = events.merge(Console::new(store, directory, addresses, https_only).router());
    Router::new()
        .nest("/api/v1", api.method_not_allowed_fallback(method_not_allowed))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}
