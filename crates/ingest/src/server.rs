//! The listeners of the API and of the web pages.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use fanfare_api::{
    ApiState, Audit, BATCH_SIZE_FACTOR, Budget, FeedWaits, MAX_MANAGEMENT_BODY, Publishing, Shares, TestSends, audited,
    document_routes, end_with_caller, key_set_routes, look_up_key, method_not_allowed, not_found, nudj_routes,
    publish_routes, refresh_after_write, within_budget, within_share,
};
use fanfare_broker::Publisher;
use fanfare_console::{Console, console_routes, portal_routes, reference_page, reference_routes};
use fanfare_domain::{event::delay::LongestDelay, ids::ProcessId};
use fanfare_outbound::Client;
use fanfare_service::{Operations, Readiness, Room, host_name, serve};
use fanfare_store::{Directory, NewProcess, ProcessKind, Store, StoreError, StoreSettings};
use futures_util::future::{OptionFuture, join};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    configuration::{Configuration, ConsoleSettings},
    presence::{self, Reported},
    report,
};

/// The path of the API.
const API: &str = "/api/v1";

/// General database connections and writers of the console, the same number of the portal, and the deadline of their
/// statements: a visitor holds up no publisher, and a customer no operator.
const PAGE_CONNECTIONS: [usize; 2] = [2, 1];
const PAGE_STATEMENT: Duration = Duration::from_secs(3);

/// Database connections for the configuration, for keys and for the presence of the process. Callers of the management
/// API hold up none of these.
const OWN_CONNECTIONS: usize = 2;

/// Deadline of a statement of the management API.
const API_STATEMENT: Duration = Duration::from_secs(15);

/// Maximum of concurrent connections to a listener of the console alone: visitors take no room of publishers.
const CONSOLE_CONNECTIONS: usize = 512;

/// Files beside the connections to the API: to the database, and to a listener of the console alone.
pub(crate) fn other_files(configuration: &Configuration) -> usize {
    let has_listener = configuration.console.as_ref().is_some_and(|console| console.address.is_some());
    configuration.store.connections + 10 + if has_listener { CONSOLE_CONNECTIONS } else { 0 }
}

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

    let own = StoreSettings { connections: OWN_CONNECTIONS, ..configuration.store.clone() };
    let store = Store::new(own)?;
    let room = Room::new(max_connections);
    tokio::spawn(report::connections(publisher.clone(), store.clone(), room.clone()));
    let loading = async {
        store.wait_until_migrated().await?;
        Ok::<_, StoreError>(Directory::follow(store.clone(), Arc::clone(&configuration.dialects), end.clone()).await)
    };
    let Some(directory) = stop.run_until_cancelled(loading).await.transpose()? else { return Ok(()) };
    let process = process(&store, &configuration);
    let to_broker = (publisher.clone(), configuration.broker.topology().clone());
    let rate = configuration.publish_rate;
    let lifetime = configuration.dialects.longest_lifetime(configuration.expiry);
    let longest_delay = LongestDelay::new(configuration.retention, lifetime);
    let publishing =
        Publishing::new(to_broker, directory.clone(), (configuration.max_event_bytes, longest_delay), rate);
    let reported = Reported {
        store: store.clone(),
        directory: directory.clone(),
        publisher: publisher.clone(),
        published: Arc::clone(&publishing.published),
    };
    let present = tokio::spawn(presence::run(reported, process, stop.clone()));
    let Served { api, console } = router(configuration, publishing, (store, directory), stop.clone())?;
    // Listens only now: before the directory is loaded, requests cannot be authenticated.
    let listener = listen(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving the API");
    let serving_api = serve(listener, api, room, stop.clone());
    let serving_console = match console {
        Some((address, console)) => {
            let listener = listen(address).await?;
            tracing::info!(address = %listener.local_addr()?, "serving the console");
            Some(serve(listener, console, Room::new(CONSOLE_CONNECTIONS), stop.clone()))
        }
        None => None,
    };
    is_serving.store(true, Ordering::Release);
    let draining = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await
    };
    tokio::select! {
        _ = join(serving_api, OptionFuture::from(serving_console)) => {}
        () = draining => bail!("not drained within {grace:?}: some requests were not answered; raise FANFARE_GRACE"),
    }
    // Ends within the deadline of a heartbeat.
    let _ = present.await;
    tracing::info!("drained");
    Ok(())
}

fn process(store: &Store, configuration: &Configuration) -> NewProcess {
    NewProcess {
        id: ProcessId::new(store.now(), rand::random()),
        kind: ProcessKind::Ingest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: configuration.settings.clone(),
        host: host_name(),
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn readiness(publisher: Publisher, is_serving: Arc<AtomicBool>) -> impl Fn() -> Readiness + Send + Sync {
    let unless = |is_good: bool, reason: &str| if is_good { Ok(()) } else { Err(reason.to_owned()) };
    move || Readiness {
        process: unless(is_serving.load(Ordering::Acquire), "applications and keys are not loaded yet"),
        broker: unless(publisher.is_ready(), "cannot publish to the broker"),
    }
}

/// The publish routes and the management routes, both without state, and the OpenAPI document of all routes.
fn routes() -> (Router<Publishing>, Router<ApiState>, OpenApi) {
    let (events, mut api) = OpenApiRouter::new().nest(API, publish_routes()).split_for_parts();
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

/// The page about the API, as a file.
pub(crate) fn docs() -> anyhow::Result<String> {
    let (.., api) = routes();
    Ok(reference_page(&serde_json::to_value(&api)?)?)
}

/// The routes of the listeners.
struct Served {
    /// For the listener of the API.
    api: Router,
    /// For the listener of the console, if the console has its own.
    console: Option<(SocketAddr, Router)>,
}

fn router(
    configuration: Configuration,
    publishing: Publishing,
    (store, directory): (Store, Directory),
    stop: CancellationToken,
) -> anyhow::Result<Served> {
    let Configuration { outbound, dialects, max_webhooks, expiry, retention, .. } = configuration;
    let (events, management, api) = routes();
    let connections = api_connections(configuration.store.connections);
    let store = store.beside("api", connections, API_STATEMENT)?;
    let audit = Audit::new(store.clone(), directory.clone(), configuration.trusted_proxies, &api);
    let refresh = from_fn_with_state(directory.clone(), refresh_after_write);
    let measured = from_fn_with_state(directory.clone(), report::measured);
    let look_up = from_fn_with_state(directory.clone(), look_up_key);
    let largest = configuration.max_event_bytes.saturating_mul(BATCH_SIZE_FACTOR).max(MAX_MANAGEMENT_BODY);
    let budget = Budget::new(directory.clone(), configuration.memory_budget, largest);
    let shares = Shares::new(directory.clone(), connections, configuration.api_rate);
    let state = ApiState {
        store,
        directory: directory.clone(),
        dialects,
        client: Client::new(&outbound)?,
        url_policy: Arc::new(outbound.policy),
        max_webhooks,
        publishing: publishing.clone(),
        expiry,
        retention,
        console_url: configuration.console.as_ref().map(|console| console.pages.url.clone()),
        feed_waits: FeedWaits::new(stop),
        test_sends: TestSends::default(),
    };
    let (pages, console) = pages(configuration.console, &state, &audit)?;
    let reference = reference_routes(&serde_json::to_value(&api)?)?;
    let api = events
        .with_state(publishing)
        .merge(
            management
                .with_state(state)
                .layer(refresh)
                .layer(from_fn_with_state(audit, audited))
                .layer(from_fn_with_state(shares, within_share)),
        )
        .layer(from_fn_with_state(budget, within_budget))
        .layer(look_up)
        .merge(document_routes(&api)?)
        .merge(key_set_routes(directory))
        .merge(reference.clone())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .merge(pages)
        .layer(measured.clone());
    // The pages link to the reference.
    let console = console.map(|(address, console)| (address, console.merge(reference).layer(measured)));
    Ok(Served { api, console })
}

/// General database connections and writers of the management API: a third are writers.
fn api_connections(connections: usize) -> [usize; 2] {
    let writers = (connections / 3).max(1);
    [connections - writers, writers]
}

/// The web pages for the listener of the API, and for a listener of the console alone.
fn pages(
    settings: Option<ConsoleSettings>,
    state: &ApiState,
    audit: &Audit,
) -> anyhow::Result<(Router, Option<(SocketAddr, Router)>)> {
    let Some(ConsoleSettings { pages, address }) = settings else { return Ok((Router::new(), None)) };
    let settings = Arc::new(pages);
    let pages = |name| -> anyhow::Result<Console> {
        let store = state.store.beside(name, PAGE_CONNECTIONS, PAGE_STATEMENT)?;
        let audit = audit.over(store.clone());
        Ok(Console::new(ApiState { store, ..state.clone() }, audit, Arc::clone(&settings)))
    };
    let routes = [portal_routes(pages("portal")?), console_routes(pages("console")?)];
    let [portal, console] = routes.map(|routes| routes.layer(from_fn(end_with_caller)));
    Ok(match address {
        Some(address) => (portal, Some((address, console))),
        None => (portal.merge(console), None),
    })
}
