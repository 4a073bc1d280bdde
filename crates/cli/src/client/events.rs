//! `fanfare events`.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use clap::{Args, Subcommand};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::sleep;

use super::{Api, DEFAULT_LIMIT, Target, rows, segment};

/// Interval of looks for new events.
const LOOK: Duration = Duration::from_secs(1);

/// Time before the newest event in which further events may appear.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(15);

/// Columns of an event.
const EVENT: [(&str, usize); 5] =
    [("/accepted_at", 24), ("/id", 30), ("/type", 28), ("/key", 36), ("/matched_webhooks", 1)];

#[derive(Subcommand)]
pub(crate) enum EventsCommand {
    /// Lists events, newest first: time, id, type, key and number of webhooks.
    List(EventsArguments),
    /// Shows an event, with its payload and its deliveries.
    Show(IdArguments),
    /// Explains for each webhook whether and why the event arrived or not.
    Why(IdArguments),
    /// Cancels a delayed event that is not yet due, by id or by the publisher's id.
    Cancel(CancelArguments),
    /// Follows new events, until Ctrl-C.
    Tail(TailArguments),
}

impl EventsCommand {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::List(arguments) => &arguments.target,
            Self::Tail(arguments) => &arguments.target,
            Self::Cancel(arguments) => &arguments.target,
            Self::Show(arguments) | Self::Why(arguments) => &arguments.target,
        }
    }
}

#[derive(Args)]
pub(crate) struct EventsArguments {
    /// Only this type, or types such as `order.*`.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Only the event with this publisher's id.
    #[arg(long)]
    key: Option<String>,
    /// Only events accepted at or after this time, RFC 3339.
    #[arg(long)]
    since: Option<String>,
    /// Only events accepted before this time, RFC 3339.
    #[arg(long)]
    until: Option<String>,
    /// Only events that no webhook matched.
    #[arg(long)]
    unmatched: bool,
    /// Only delayed events that are not yet due.
    #[arg(long)]
    delayed: bool,
    /// Only cancelled events.
    #[arg(long)]
    cancelled: bool,
    /// Maximum number of listed events.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct TailArguments {
    /// Only this type, or types such as `order.*`.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Begin with events accepted at or after this time, RFC 3339. Default: new events only.
    #[arg(long)]
    since: Option<Timestamp>,
    /// Only events that no webhook matched.
    #[arg(long)]
    unmatched: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
#[group(id = "event", required = true, multiple = false, args = ["id", "key"])]
pub(crate) struct CancelArguments {
    /// Id of the event, evt_…
    id: Option<String>,
    /// The publisher's id of the event.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct IdArguments {
    /// Id of the event, evt_…
    id: String,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(api: &Api, command: EventsCommand) -> anyhow::Result<()> {
    match command {
        EventsCommand::List(arguments) => {
            let show = |event: &Value| rows::print(api.prints_json, event, &EVENT);
            api.list("events", &query(&arguments), arguments.limit, show).await
        }
        EventsCommand::Show(arguments) => {
            let answer = api.get(&format!("events/{}", segment(&arguments.id)), &[]).await?;
            rows::print_all(api.prints_json, &answer["data"])
        }
        EventsCommand::Why(arguments) => why(api, &arguments.id).await,
        EventsCommand::Cancel(arguments) => cancel(api, arguments).await,
        EventsCommand::Tail(arguments) => tail(api, &arguments).await,
    }
}

fn query(arguments: &EventsArguments) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("type", arguments.event_type.clone()),
        ("key", arguments.key.clone()),
        ("since", arguments.since.clone()),
        ("until", arguments.until.clone()),
        ("unmatched", arguments.unmatched.then(|| "true".to_owned())),
        ("delayed", arguments.delayed.then(|| "true".to_owned())),
        ("cancelled", arguments.cancelled.then(|| "true".to_owned())),
    ]
}

/// Cancels an event. A repeat of the request changes nothing.
async fn cancel(api: &Api, arguments: CancelArguments) -> anyhow::Result<()> {
    let path = match &arguments.id {
        Some(id) => format!("events/{}/cancel", segment(id)),
        None => "events/cancel".to_owned(),
    };
    let answer = api.repeated(Method::POST, &path, &[("key", arguments.key)], None).await?;
    rows::print(api.prints_json, &answer["data"], &[("/id", 30), ("/cancelled_at", 24)]);
    Ok(())
}

async fn why(api: &Api, id: &str) -> anyhow::Result<()> {
    let answer = api.get(&format!("events/{}/why", segment(id)), &[]).await?;
    let explained = &answer["data"];
    if api.prints_json {
        return rows::print_all(true, explained);
    }
    let steps = |value: &Value| value["steps"].as_array().cloned().unwrap_or_default();
    for step in steps(explained) {
        rows::line(rows::text(step.get("sentence")));
    }
    for webhook in explained["webhooks"].as_array().into_iter().flatten() {
        rows::line(format!("\n{}  {}", rows::text(webhook.get("webhook")), rows::text(webhook.get("url"))));
        for step in steps(webhook) {
            rows::line(format!("  {}", rows::text(step.get("sentence"))));
        }
    }
    Ok(())
}

/// Prints new events, oldest first. Without `--since`, begins with the next event.
async fn tail(api: &Api, arguments: &TailArguments) -> anyhow::Result<()> {
    let filter =
        [("type", arguments.event_type.clone()), ("unmatched", arguments.unmatched.then(|| "true".to_owned()))];
    let mut shown: HashMap<String, Timestamp> = HashMap::new();
    let mut prints = arguments.since.is_some();
    let mut since = arguments.since;
    loop {
        let newest = api.get("events", &[("limit", Some("1".to_owned()))]).await?;
        let newest = newest["data"][0]["accepted_at"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        // An event may be stored later than events that were accepted after it.
        let back = newest.and_then(|newest| newest.checked_sub(LOOK_BACK).ok());
        let from = since.take().or(back);
        let mut new = VecDeque::new();
        let query = [&filter[..], &[("since", from.map(|from| from.to_string()))]].concat();
        api.list("events", &query, usize::MAX, |event| new.push_front(event.clone())).await?;
        for event in new {
            let (id, accepted_at) = (event["id"].as_str(), event["accepted_at"].as_str());
            let (Some(id), Some(accepted_at)) = (id, accepted_at.and_then(|time| time.parse().ok())) else { continue };
            if shown.insert(id.to_owned(), accepted_at).is_none() && prints {
                rows::print(api.prints_json, &event, &EVENT);
            }
        }
        if let Some(back) = back {
            shown.retain(|_, accepted_at| *accepted_at >= back);
        }
        prints = true;
        sleep(LOOK).await;
    }
}
