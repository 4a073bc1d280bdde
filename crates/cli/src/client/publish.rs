//! `fanfare publish`.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Api, Target, given, json_argument};

#[derive(Args)]
pub(crate) struct PublishArguments {
    /// Event type, such as `order.created`.
    event_type: String,
    /// Payload: JSON, `@file`, or `-` for the standard input.
    #[arg(default_value = "{}")]
    data: String,
    /// The publisher's id of the event: the same id is the same event. Default: a random id.
    #[arg(long)]
    id: Option<String>,
    /// Time of the event, RFC 3339.
    #[arg(long)]
    time: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) async fn run(api: &Api, arguments: PublishArguments) -> anyhow::Result<()> {
    let id = arguments.id.unwrap_or_else(|| Uuid::new_v4().to_string());
    let event = given(&[
        ("type", Some(json!(arguments.event_type))),
        ("data", Some(json_argument(&arguments.data)?)),
        ("id", Some(json!(id))),
        ("time", arguments.time.map(Value::from)),
    ]);
    // A repeat has the same id, and thereby no second effect.
    let answer = api.repeated(Method::POST, "events", &[], Some(&event)).await?;
    match api.prints_json {
        true => println!("{}", answer["data"]),
        false => println!("{}", answer["data"]["id"].as_str().unwrap_or_default()),
    }
    Ok(())
}
