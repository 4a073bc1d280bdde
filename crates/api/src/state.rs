//! The state of the routes.

pub(crate) mod applications;
pub(crate) mod feed_waits;
pub(crate) mod publishing;
pub(crate) mod test_sends;

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use fanfare_domain::{dialect::Dialects, endpoint::url::UrlPolicy};
use fanfare_outbound::Client;
use fanfare_store::{Directory, Store};
use url::Url;

use crate::http::error::{ApiError, ErrorCode};
use crate::state::{feed_waits::FeedWaits, publishing::Publishing, test_sends::TestSends};

/// The connections and settings of the routes. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The database.
    pub store: Store,
    /// The services' copy of the configuration.
    pub directory: Directory,
    /// The dialects available to applications.
    pub dialects: Arc<Dialects>,
    /// The rules for URLs of endpoints.
    pub url_policy: Arc<UrlPolicy>,
    /// The maximum number of webhooks of an application without its own maximum.
    pub max_webhooks: usize,
    /// The HTTP client for test events.
    pub client: Client,
    /// The publisher, for samples of event types and for parked messages that are put back.
    pub publishing: Publishing,
    /// The time from the end of a schedule until an unfinished delivery expires.
    pub expiry: Duration,
    /// The retention of events and deliveries.
    pub retention: Duration,
    /// Address of the web pages, without a path; `None` without the pages.
    pub console_url: Option<Url>,
    /// Waits of readers for the next entry of a feed.
    pub feed_waits: FeedWaits,
    /// The running tests of webhooks.
    pub test_sends: TestSends,
}

/// Runs work that may hold up other requests, in a thread of its own.
///
/// # Errors
/// If the work ends early, by a fault of ours.
pub(crate) async fn beside_others<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let ended =
        |_| ApiError::new(ErrorCode::InternalError, "internal fault, logged: report the request to the operator");
    tokio::task::spawn_blocking(work).await.map_err(ended)
}

/// Authentication needs the directory only.
impl FromRef<ApiState> for Directory {
    fn from_ref(api: &ApiState) -> Self {
        api.directory.clone()
    }
}
