//! The management API: applications, keys, webhooks and deliveries, and what every route of Fanfare has
//! in common: who calls, how a body is read, and how an error looks.

mod applications;
mod deliveries;
mod error;
mod keys;
mod request;
mod webhooks;

use std::sync::Arc;

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use fanfare_domain::{address::AddressPolicy, endpoint_url::UrlPolicy};
use fanfare_store::{Directory, Store};
use serde::Serialize;

pub use error::ApiError;
pub use request::{ApplicationQuery, Query, authenticate, read_body};

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    store: Store,
    directory: Directory,
    addresses: Arc<AddressPolicy>,
    https_only: bool,
}

impl Console {
    /// The console of a deployment: `addresses` and `https_only` say which URLs an endpoint may have.
    pub fn new(store: Store, directory: Directory, addresses: AddressPolicy, https_only: bool) -> Self {
        Self { store, directory, addresses: Arc::new(addresses), https_only }
    }

    fn url_policy(&self) -> UrlPolicy<'_> {
        UrlPolicy { https_only: self.https_only, allow: &self.addresses }
    }

    /// The routes, below `/api/v1`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/applications", post(applications::create).get(applications::list))
            .route("/keys", post(keys::create))
            .route("/webhooks", post(webhooks::create).get(webhooks::list))
            .route("/webhooks/{id}", get(webhooks::show).patch(webhooks::change).delete(webhooks::delete))
            .route("/deliveries", get(deliveries::list))
            .route("/deliveries/{id}", get(deliveries::show))
            .with_state(self)
    }
}

/// The answer `{"success": true, "data": …}`.
pub fn success<T: Serialize>(data: T) -> Response {
    Json(serde_json::json!({ "success": true, "data": data })).into_response()
}

/// The answer to a route that there is not.
pub async fn not_found() -> ApiError {
    ApiError::not_found("route", "there is no such route; the API is below /api/v1")
}

/// The answer to a route that has other methods.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(405, "method_not_allowed", "this route does not have this method")
}
