//! The pages of one application, in the console and in the portal.

mod changes;
mod day;
mod deliveries;
mod event_types;
mod events;
mod overview;
mod portal;
mod replays;
mod search;
mod settings;
mod signing_keys;
mod usage;
mod webhooks;
mod why;

use axum::routing::{get, post};

use crate::{Console, routes::list::Routes};

/// The pages below `/console/{app}` and below `/portal/{app}`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/", get(overview::show))
        .route("/changes", get(changes::list))
        .route("/search", get(search::show))
        .route("/settings", get(settings::form).post(settings::save))
        .route("/usage", get(usage::show))
        .route("/signing-keys", get(signing_keys::show).post(signing_keys::rotate))
        .route("/signing-keys/end", post(signing_keys::end))
        .route("/attempts", get(deliveries::attempts::list))
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/resend", get(deliveries::ask_many).post(deliveries::resend_many))
        .route("/deliveries/{delivery}", get(deliveries::show))
        .route("/deliveries/{delivery}/resend", post(deliveries::resend))
        .route("/deliveries/{delivery}/body", get(deliveries::download))
        .route("/deliveries/{delivery}/request", get(deliveries::signed))
        .route("/events", get(events::list))
        .route("/events/{event}", get(events::show))
        .route("/replays", get(replays::list))
        .route("/replays/new", get(replays::ask).post(replays::start))
        .route("/replays/{replay}", get(replays::show))
        .route("/replays/{replay}/{action}", post(replays::steer))
        .route("/events/{event}/send", post(why::send_there))
        .route("/why", get(why::show))
        .route("/event-types", get(event_types::list))
        .route("/event-types/describe", get(event_types::ask).post(event_types::describe))
        .route("/event-types/{name}/schemas/{version}", get(event_types::schema))
        .route("/event-types/{name}/publish", post(event_types::publish))
        .route("/event-types/{name}/remove", post(event_types::remove))
        .route("/events/{event}/erase", get(events::ask_erasure).post(events::erase))
        .route("/events/{event}/cancel", get(events::ask_cancellation).post(events::cancel))
        .route("/portal", get(portal::show).post(portal::create))
        .route("/portal/{session}/end", post(portal::end))
        .merge(webhooks::routes())
}
