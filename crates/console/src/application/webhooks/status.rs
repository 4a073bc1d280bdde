//! Changes of a webhook's status: pause, resume, enable, disable.

use axum::{body::Bytes, response::Response};
use fanfare_api::{http::error::ApiError, routes::webhooks};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    application::webhooks::subject::Subject,
    frame::{fault::Fault, form::Fields, respond::back_to},
};

/// Sets the status of the form's field `status`.
pub(crate) async fn change(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let (api, authorized, path) = subject.arguments();
    let asked = |operation| (operation, Value::Null);
    let done = match Fields::of_body(&body).value("status") {
        "paused" => {
            let work = async move { webhooks::pause(api, authorized, path).await.map(|answer| answer.data) };
            subject.change(Right::Endpoints, asked("pause_webhook"), work).await?;
            "paused"
        }
        "disabled" => {
            let work = async move { webhooks::disable(api, authorized, path).await.map(|answer| answer.data) };
            subject.change(Right::Endpoints, asked("disable_webhook"), work).await?;
            "disabled"
        }
        "enabled" => {
            let work = async move { webhooks::enable(api, authorized, path).await.map(|answer| answer.data) };
            subject.change(Right::Endpoints, asked("enable_webhook"), work).await?;
            "enabled"
        }
        _ => return Err(ApiError::invalid("status", "must be one of enabled, paused, disabled").into()),
    };
    // The page shows the progress of the drain by the number that was held.
    let held = subject.webhook.held.as_ref().map_or(0, |held| held.deliveries);
    let draining = if done == "enabled" && held > 0 { format!("&draining={held}") } else { String::new() };
    Ok(back_to(subject.path(&format!("?done={done}{draining}"))))
}
