//! The routes of the API by subject.

pub mod applications;
pub mod attempts;
pub mod audit_log;
pub mod deliveries;
pub mod event_types;
pub mod events;
pub mod keys;
pub mod parked;
pub mod replays;
pub mod resend;
pub mod webhooks;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::ApiState;

/// The routes below `/api/v1`.
pub fn routes() -> OpenApiRouter<ApiState> {
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
        .routes(routes!(webhooks::backlog::show))
        .routes(routes!(webhooks::secrets::rotate))
        .routes(routes!(webhooks::secrets::end))
        .routes(routes!(webhooks::test_sends::send))
        .routes(routes!(deliveries::history))
        .routes(routes!(attempts::list))
        .routes(routes!(events::list))
        .routes(routes!(events::show, events::erase))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::show))
        .routes(routes!(resend::delivery))
        .routes(routes!(resend::deliveries))
        .routes(routes!(replays::create, replays::list))
        .routes(routes!(replays::count))
        .routes(routes!(replays::show))
        .routes(routes!(replays::pause))
        .routes(routes!(replays::resume))
        .routes(routes!(replays::cancel))
        .routes(routes!(audit_log::list))
        .routes(routes!(parked::list))
        .routes(routes!(parked::show, parked::discard))
        .routes(routes!(parked::put_back))
        .routes(routes!(parked::put_back_many))
        .routes(routes!(parked::discard_many))
}
