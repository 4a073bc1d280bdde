//! Changes of a webhook's status: pause, resume, enable, disable.

use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{error::ApiError, parameters::Path},
    routes::webhooks,
};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    Console,
    application::webhooks::{Named, find},
    frame::{fault::Fault, form::Fields, place::Place, respond::back_to},
};

/// Sets the status of the form's field `status`.
pub(crate) async fn change(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let before = find(&console, &place, &named.webhook).await?;
    let (api, authorized) = (State(console.api.clone()), place.authorized());
    let path = Path(named.webhook.clone());
    let asked = |operation| (operation, Value::Null);
    let done = match fields.value("status") {
        "paused" => {
            let work = async move { webhooks::pause(api, authorized, path).await.map(|answer| answer.data) };
            place.change(&console, Right::Endpoints, asked("pause_webhook"), work).await?;
            "paused"
        }
        "disabled" => {
            let work = async move { webhooks::disable(api, authorized, path).await.map(|answer| answer.data) };
            place.change(&console, Right::Endpoints, asked("disable_webhook"), work).await?;
            "disabled"
        }
        "enabled" => {
            let work = async move { webhooks::enable(api, authorized, path).await.map(|answer| answer.data) };
            place.change(&console, Right::Endpoints, asked("enable_webhook"), work).await?;
            "enabled"
        }
        _ => return Err(ApiError::invalid("status", "must be one of enabled, paused, disabled").into()),
    };
    // The page shows the progress of the drain by the number that was held.
    let held = before.held.map_or(0, |held| held.deliveries);
    let draining = if done == "enabled" && held > 0 { format!("&draining={held}") } else { String::new() };
    Ok(back_to(format!("{}/webhooks/{}?done={done}{draining}", place.base, named.webhook)))
}
