//! The refresh of the directory after a write.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use fanfare_domain::access::api_key::Role;
use fanfare_store::Directory;

use crate::http::authentication::authenticate;

/// Refreshes the directory after a change and before the answer. An event published after the answer then carries the
/// new version of the configuration. A dispatcher with an older copy detects the gap by the version.
pub async fn refresh_after_write(State(directory): State<Directory>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let caller = authenticate(request.headers(), &directory, &Role::ALL).ok();
    let response = next.run(request).await;
    if response.status().is_success() {
        // Without the database, the refresh fails. The directory then refreshes as soon as the database answers.
        match caller.and_then(|caller| caller.application) {
            Some(application) => directory.refresh([application]).await,
            None => directory.refresh_all().await,
        };
    }
    response
}
