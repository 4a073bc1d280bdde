//! `fanfare publish`.

use anyhow::Context;
use clap::Args;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::{Api, Target, json_argument, rows};

#[derive(Args)]
pub(crate) struct PublishArguments {
    /// Event type, such as `order.created`.
    event_type: String,
    /// Payload: JSON, `@file`, or `-` for the standard input.
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    data: String,
    /// The publisher's id of the event: the same id is the same event. Default: a random id.
    #[arg(long)]
    id: Option<String>,
    /// Time of the event, RFC 3339.
    #[arg(long)]
    time: Option<String>,
    /// Ordering key: events with the same key get consecutive numbers at each webhook.
    #[arg(long)]
    ordering_key: Option<String>,
    /// Time of delivery, RFC 3339. Until then, `fanfare events cancel` cancels the event.
    #[arg(long)]
    deliver_at: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) async fn run(api: &Api, arguments: PublishArguments) -> anyhow::Result<()> {
    let id = arguments.id.unwrap_or_else(|| Uuid::new_v4().to_string());
    let time = arguments.time.map(|time| format!(r#","time":{}"#, json!(time))).unwrap_or_default();
    let ordering = arguments.ordering_key.map(|key| format!(r#","ordering_key":{}"#, json!(key))).unwrap_or_default();
    let deliver_at = arguments.deliver_at.map(|time| format!(r#","deliver_at":{}"#, json!(time))).unwrap_or_default();
    let data = json_argument(&arguments.data)?;
    let (event_type, key) = (json!(arguments.event_type), json!(id));
    let event = format!(r#"{{"type":{event_type},"id":{key},"data":{data}{time}{deliver_at}{ordering}}}"#);
    // A repeat has the same id, and thereby no second effect.
    let answer = api.repeated(Method::POST, "events", &[], Some(event)).await;
    let answer = answer.with_context(|| format!("the event may be published again with --id {id}"))?;
    match api.prints_json {
        true => rows::line(&answer["data"]),
        false => rows::line(rows::text(answer["data"].get("id"))),
    }
    Ok(())
}
