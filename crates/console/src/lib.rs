//! The management API: applications, event types, webhooks, events, deliveries, tests, replays, parked messages and the
//! audit log. Also the common part of all routes: authentication, bodies, answers and errors.
//!
//! Each route is in the file of its subject, with the description for the OpenAPI document.

mod answer;
mod applications;
mod audit;
mod backlog;
mod body;
mod configs;
mod deliveries;
mod document;
mod error;
mod event_types;
mod events;
mod keys;
mod parked;
mod replays;
mod request;
mod resend;
mod secrets;
mod trials;
mod webhooks;

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Publisher, Topology};
use fanfare_domain::{dialect::Dialects, endpoint_url::UrlPolicy};
use fanfare_outbound::Client;
use fanfare_store::{Directory, Store};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use answer::Answer;
pub use audit::{Audit, audited};
pub use document::{describe, document_routes};
pub use error::{ApiError, ErrorCode, Failures};
use trials::Trials;

pub use body::{discard, read_body};
pub use request::{application_of, authenticate, in_force};

/// Connections and settings for a [`Console`].
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The services' copy of the configuration.
    pub directory: Directory,
    /// The dialects available to applications.
    pub dialects: Arc<Dialects>,
    /// The rules for URLs of endpoints.
    pub url_policy: UrlPolicy,
    /// The maximum number of webhooks of an application.
    pub max_webhooks: usize,
    /// The HTTP client for test events.
    pub client: Client,
    /// The publisher for parked messages.
    pub publisher: Publisher,
    /// The exchanges and queues of the broker.
    pub topology: Topology,
    /// The time from the end of a schedule until an unfinished delivery expires.
    pub expiry: Duration,
    /// The retention of events and deliveries.
    pub retention: Duration,
}

/// The state of the routes. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    store: Store,
    directory: Directory,
    dialects: Arc<Dialects>,
    url_policy: Arc<UrlPolicy>,
    max_webhooks: usize,
    client: Client,
    publisher: Publisher,
    topology: Topology,
    expiry: Duration,
    retention: Duration,
    trials: Trials,
}

impl Console {
    /// Creates the state of the routes, with no test running.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            directory,
            dialects,
            url_policy,
            max_webhooks,
            client,
            publisher,
            topology,
            expiry,
            retention,
        } = parts;
        let (url_policy, trials) = (Arc::new(url_policy), Trials::default());
        Self {
            store,
            directory,
            dialects,
            url_policy,
            max_webhooks,
            client,
            publisher,
            topology,
            expiry,
            retention,
            trials,
        }
    }
}

/// The routes below `/api/v1`.
pub fn routes() -> OpenApiRouter<Console> {
    OpenApiRouter::new()
        .routes(routes!(applications::create, applications::list))
        .routes(routes!(applications::show, applications::change))
        .routes(routes!(applications::dialects))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::revoke))
        .routes(routes!(event_types::list, event_types::create))
        .routes(routes!(event_types::delete))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::put, webhooks::delete))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::pause))
        .routes(routes!(backlog::show))
        .routes(routes!(secrets::rotate))
        .routes(routes!(secrets::end))
        .routes(routes!(trials::test))
        .routes(routes!(deliveries::history))
        .routes(routes!(deliveries::last_attempts))
        .routes(routes!(events::list))
        .routes(routes!(events::show, events::erase))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::show))
        .routes(routes!(resend::one))
        .routes(routes!(resend::many))
        .routes(routes!(replays::create, replays::list))
        .routes(routes!(replays::count))
        .routes(routes!(replays::show))
        .routes(routes!(replays::pause))
        .routes(routes!(replays::resume))
        .routes(routes!(replays::cancel))
        .routes(routes!(audit::list))
        .routes(routes!(parked::list))
        .routes(routes!(parked::show, parked::discard))
        .routes(routes!(parked::put_back))
        .routes(routes!(parked::put_back_many))
        .routes(routes!(parked::discard_many))
}

/// The routes of Nudj's configuration API. Ingest serves the routes at the root and below `/api/v2/admin`.
pub fn config_routes() -> OpenApiRouter<Console> {
    OpenApiRouter::new().routes(routes!(configs::list, configs::put)).routes(routes!(configs::logs))
}

/// Answers a request for an unknown route.
pub async fn not_found() -> ApiError {
    ApiError::not_found("route", "unknown route: see the description of the API at /api/v1/openapi.json or /docs")
}

/// Answers a request with a method that the route does not support.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "this route does not support the method: see /docs")
}
