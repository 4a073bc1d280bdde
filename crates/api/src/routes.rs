//! The routes of the API by subject.

pub mod applications;
pub mod audit_log;
pub mod deliveries;
pub mod event_types;
pub mod events;
pub mod keys;
pub mod overview;
pub mod parked;
pub mod plans;
pub mod replays;
pub mod search;
pub mod sessions;
pub mod usage;
pub mod webhooks;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::ApiState;

/// The routes below `/api/v1`.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(applications::create, applications::list))
        .routes(routes!(applications::show, applications::change))
        .routes(routes!(applications::signing_keys::list))
        .routes(routes!(applications::signing_keys::rotate))
        .routes(routes!(applications::signing_keys::end))
        .routes(routes!(applications::dialects))
        .merge(of_plans())
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::show, keys::revoke))
        .routes(routes!(event_types::list, event_types::create))
        .routes(routes!(event_types::show, event_types::delete))
        .routes(routes!(event_types::publish))
        .routes(routes!(event_types::schemas::show))
        .routes(routes!(event_types::import::import))
        .merge(of_webhooks())
        .routes(routes!(deliveries::history))
        .routes(routes!(deliveries::attempts::list))
        .routes(routes!(deliveries::attempts::log))
        .merge(event_routes())
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::counts::show))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::request::sign))
        .routes(routes!(deliveries::resend::delivery))
        .routes(routes!(deliveries::resend::deliveries))
        .routes(routes!(search::search))
        .routes(routes!(replays::create, replays::list))
        .routes(routes!(replays::count))
        .routes(routes!(replays::show))
        .routes(routes!(replays::pause))
        .routes(routes!(replays::resume))
        .routes(routes!(replays::cancel))
        .routes(routes!(overview::show))
        .routes(routes!(overview::of_application))
        .routes(routes!(overview::stats::show))
        .routes(routes!(audit_log::list))
        .routes(routes!(sessions::portal_links::create))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::end))
        .routes(routes!(parked::list))
        .routes(routes!(parked::groups))
        .routes(routes!(parked::show, parked::discard))
        .routes(routes!(parked::put_back))
        .routes(routes!(parked::put_back_many))
        .routes(routes!(parked::discard_many))
}

fn of_plans() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(plans::list))
        .routes(routes!(plans::show, plans::put, plans::delete))
        .routes(routes!(usage::of_application))
        .routes(routes!(usage::list))
}

fn of_webhooks() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::health::list))
        .routes(routes!(webhooks::health::show))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::put, webhooks::delete))
        .routes(routes!(webhooks::preview::show))
        .routes(routes!(webhooks::filter_test::run))
        .routes(routes!(webhooks::templates::run))
        .routes(routes!(webhooks::templates::list))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::pause))
        .routes(routes!(webhooks::backlog::show))
        .routes(routes!(webhooks::feed::read))
        .routes(routes!(webhooks::ordering_keys::list))
        .routes(routes!(webhooks::ordering_keys::resume))
        .routes(routes!(webhooks::digest::show))
        .routes(routes!(webhooks::secrets::rotate))
        .routes(routes!(webhooks::secrets::end))
        .routes(routes!(webhooks::test_sends::send))
        .routes(routes!(webhooks::verify::verify))
}

fn event_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(events::list))
        .routes(routes!(events::show, events::erase))
        .routes(routes!(events::why::by_key))
        .routes(routes!(events::why::by_id))
        .routes(routes!(events::send::send))
        .routes(routes!(events::cancel::by_key))
        .routes(routes!(events::cancel::by_id))
}
