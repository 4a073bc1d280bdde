//! The pages of all applications, for operators.

mod applications;
mod audit;
mod keys;
mod overview;
mod parked;
mod plans;
mod search;
mod sessions;

use axum::routing::get;

use crate::{Console, routes::list::Routes};

/// The pages below `/console`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/audit", get(audit::list))
        .route("/search", get(search::show))
        .merge(applications::routes())
        .merge(keys::routes())
        .merge(overview::routes())
        .merge(parked::routes())
        .merge(plans::routes())
        .merge(sessions::routes())
}
