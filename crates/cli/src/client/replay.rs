//! `fanfare replay`.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Api, Target, given, rows};

/// Interval of looks at the progress.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct ReplayArguments {
    /// Only events accepted at or after this time, RFC 3339.
    #[arg(long)]
    since: String,
    /// Only events accepted before this time, RFC 3339. Default: now.
    #[arg(long)]
    until: Option<String>,
    /// Only deliveries to this webhook. Default: all webhooks with a subscription to the event's type.
    #[arg(long)]
    webhook: Option<String>,
    /// Only events of these types or wildcards, separated by commas.
    #[arg(long, value_delimiter = ',')]
    types: Option<Vec<String>>,
    /// Only deliveries in these states: failed, skipped, delivered or unmatched, separated by commas. Default: failed.
    #[arg(long, value_delimiter = ',')]
    states: Option<Vec<String>>,
    /// Deliveries per second, 1 to 1000. Default: 50.
    #[arg(long)]
    rate: Option<u32>,
    /// Send nothing, and count.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Starts a replay, and shows the progress until the end. Ctrl-C ends the command, and not the replay.
pub(super) async fn run(api: &Api, arguments: ReplayArguments) -> anyhow::Result<()> {
    let body = given(&[
        ("since", Some(json!(arguments.since))),
        ("until", arguments.until.map(Value::from)),
        ("webhook", arguments.webhook.map(Value::from)),
        ("types", arguments.types.map(Value::from)),
        ("states", arguments.states.map(Value::from)),
        ("rate_per_second", arguments.rate.map(Value::from)),
    ]);
    if arguments.dry_run {
        let counted = api.post("replays/dry-run", &body).await?;
        let more = if counted["data"]["has_more"] == true { "at least " } else { "" };
        let (events, deliveries) = (&counted["data"]["events"], &counted["data"]["deliveries"]);
        match api.prints_json {
            true => rows::line(&counted["data"]),
            false => rows::line(format!("deliveries to send: {more}{deliveries}; events looked through: {events}")),
        }
        return Ok(());
    }
    let started = api.post("replays", &body).await;
    let mut replay = started.context("look at GET /api/v1/replays: the replay may have started")?["data"].take();
    let id = replay["id"].as_str().unwrap_or_default().to_owned();
    if !arguments.detach {
        eprintln!("{id} goes on in Fanfare if this command ends");
    }
    while !arguments.detach && replay["state"] == "running" {
        eprintln!("{id}: {} deliveries of {} events", replay["deliveries"], replay["events"]);
        sleep(LOOK).await;
        replay = api.get(&format!("replays/{id}"), &[]).await?["data"].take();
    }
    match api.prints_json {
        true => rows::line(&replay),
        false => rows::line(format!(
            "{id}: {}, {} deliveries of {} events",
            replay["state"].as_str().unwrap_or_default(),
            replay["deliveries"],
            replay["events"]
        )),
    }
    Ok(())
}
