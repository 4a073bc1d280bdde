//! The server of the API: the publish routes and the routes of the management API.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
use axum::{Router, middleware::from_fn_with_state};
use fanfare_api::{
    ApiState, Audit, TestSends, audited, document_routes, look_up_key, method_not_allowed, not_found, nudj_routes,
    refresh_after_write,
};
use fanfare_broker::Publisher;
use fanfare_domain::ids::ProcessId;
use fanfare_outbound::Client;
use fanfare_service::{Operations, Readiness, Room, serve};
use fanfare_store::{Directory, NewProcess, ProcessKind, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    configuration::Configuration,
    presence,
    publish::{self, MAX_BATCH, Publish},
    publish_rates::PublishRates,
    report,
};

/// The path of the API.
const API: &str = "/api/v1";

/// The second path of Nudj's configuration API.
const ADMIN_API: &str = "/api/v2/admin";

/// Serves until `stop`, then answers the requests in flight within the grace time.
pub(crate) async fn run(
    configuration: Configuration,
    operations: Operations,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Configuration { address, grace, max_connections, .. } = configuration;
    // Cancelled after the last answer: ends the tasks that the answers need.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let publisher = Publisher::start(configuration.broker.clone(), end.clone());
    let is_serving = Arc::new(AtomicBool::new(false));
    tokio::spawn(operations.run(readiness(publisher.clone(), Arc::clone(&is_serving)), end.clone()));

    let store = Store::new(configuration.store.clone())?;
    let room = Room::new(max_connections);
    tokio::spawn(report::connections(publisher.clone(), store.clone(), room.clone()));
    let loading = async {
        store.wait_until_migrated().await;
        Directory::follow(store.clone(), Arc::clone(&configuration.dialects), end.clone()).await
    };
    let Some(directory) = stop.run_until_cancelled(loading).await else { return Ok(()) };
    let process = NewProcess {
        id: ProcessId::new(store.now(), rand::random()),
        kind: ProcessKind::Ingest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: configuration.settings.clone(),
    };
    let present = tokio::spawn(presence::run(store.clone(), process, stop.clone()));
    let router = router(configuration, publisher, store, directory)?;
    // Listens only now: before the directory is loaded, requests cannot be authenticated.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving the API");
    is_serving.store(true, Ordering::Release);
    let draining = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await
    };
    tokio::select! {
        () = serve(listener, router, room, stop.clone()) => {}
        () = draining => bail!("not drained within {grace:?}: some requests were not answered; raise FANFARE_GRACE"),
    }
    // Ends within the deadline of a heartbeat.
    let _ = present.await;
    tracing::info!("drained");
    Ok(())
}

fn readiness(publisher: Publisher, is_serving: Arc<AtomicBool>) -> impl Fn() -> Readiness + Send + Sync {
    let unless = |is_good: bool, reason: &str| if is_good { Ok(()) } else { Err(reason.to_owned()) };
    move || Readiness {
        process: unless(is_serving.load(Ordering::Acquire), "applications and keys are not loaded yet"),
        broker: unless(publisher.is_ready(), "cannot publish to the broker"),
    }
}

/// The publish routes and the management routes, both without state, and the OpenAPI document of all routes.
fn routes() -> (Router<Publish>, Router<ApiState>, OpenApi) {
    let events = OpenApiRouter::new().routes(routes!(publish::single)).routes(routes!(publish::batch));
    let (events, mut api) = OpenApiRouter::new().nest(API, events).split_for_parts();
    let management = OpenApiRouter::new().nest(API, fanfare_api::routes()).merge(nudj_routes());
    let (management, of_management) = management.split_for_parts();
    api.merge(of_management);
    // The same routes at a second path, which the document does not repeat.
    let (admin, _) = OpenApiRouter::new().nest(ADMIN_API, nudj_routes()).split_for_parts();
    (events, management.merge(admin), fanfare_api::describe(api))
}

/// The OpenAPI document as JSON.
pub(crate) fn document() -> anyhow::Result<String> {
    let (.., api) = routes();
    Ok(api.to_pretty_json()? + "\n")
}

fn router(
    configuration: Configuration,
    publisher: Publisher,
    store: Store,
    directory: Directory,
) -> anyhow::Result<Router> {
    let Configuration { broker, max_event_bytes, outbound, dialects, max_webhooks, expiry, retention, .. } =
        configuration;
    let topology = broker.topology().clone();
    let publish = Publish {
        publisher: publisher.clone(),
        topology: topology.clone(),
        directory: directory.clone(),
        max_event_bytes,
        publish_rates: Arc::new(PublishRates::new(configuration.publish_rate, MAX_BATCH.into())),
    };
    let (events, management, api) = routes();
    let audit = Audit::new(store.clone(), directory.clone(), configuration.trusted_proxies, &api);
    let refresh = from_fn_with_state(directory.clone(), refresh_after_write);
    let measured = from_fn_with_state(directory.clone(), report::measured);
    let look_up = from_fn_with_state(directory.clone(), look_up_key);
    let state = ApiState {
        store,
        directory,
        dialects,
        client: Client::new(&outbound)?,
        url_policy: Arc::new(outbound.policy),
        max_webhooks,
        publisher,
        topology,
        expiry,
        retention,
        test_sends: TestSends::default(),
    };
    Ok(events
        .with_state(publish)
        .merge(management.with_state(state).layer(refresh).layer(from_fn_with_state(audit, audited)))
        .layer(look_up)
        .merge(document_routes(&api)?)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(measured))
}
