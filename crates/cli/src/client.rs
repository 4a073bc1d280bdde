//! Commands for developers and support: requests to the API of a deployment.

mod deliveries;
mod endpoint;
mod event_types;
mod events;
mod listen;
mod profile;
mod publish;
mod replay;
mod resend;
pub(crate) mod rows;
mod signing_keys;
mod usage;

use std::{fmt::Display, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanfare_domain::ids::ApplicationId;
use http::{HeaderValue, Method, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json, value::RawValue};
use tokio::time::sleep;

use crate::json_client::JsonClient;

/// Waits before a repeated request: a busy deployment recovers within seconds.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Entries per page.
const PAGE: usize = 100;

/// Entries of a list without `--limit`.
const DEFAULT_LIMIT: usize = 50;

/// A command that sends requests to the API.
#[derive(Subcommand)]
pub(crate) enum ClientCommand {
    /// Publishes an event over HTTP. Repeats for some seconds while the deployment is busy, under the same id.
    Publish(publish::PublishArguments),
    /// Lists, shows, follows and cancels events, and explains why an event did not arrive.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Manages endpoints.
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Brings an application's deliveries to this machine: posts each to a local URL, until Ctrl-C.
    Listen(listen::ListenArguments),
    /// Imports event types with their schemas.
    #[command(subcommand)]
    EventTypes(event_types::EventTypesCommand),
    /// Lists and rotates the Ed25519 keys of an application.
    #[command(subcommand)]
    SigningKeys(signing_keys::SigningKeysCommand),
    /// Lists deliveries, newest first.
    Deliveries(deliveries::DeliveriesArguments),
    /// Sends deliveries again: by id, or all that match a filter. Without `--state`, a filter takes failed deliveries.
    Resend(resend::ResendArguments),
    /// Sends past events again, and shows the progress.
    Replay(replay::ReplayArguments),
    /// Shows the usage of an application by UTC day, or of all applications in a day or a month.
    Usage(usage::UsageArguments),
}

impl ClientCommand {
    fn target(&self) -> &Target {
        match self {
            Self::Publish(arguments) => &arguments.target,
            Self::Events(command) => command.target(),
            Self::Endpoint(command) => command.target(),
            Self::Listen(arguments) => &arguments.target,
            Self::EventTypes(command) => command.target(),
            Self::SigningKeys(command) => command.target(),
            Self::Deliveries(arguments) => &arguments.target,
            Self::Resend(arguments) => &arguments.target,
            Self::Replay(arguments) => &arguments.target,
            Self::Usage(arguments) => &arguments.target,
        }
    }
}

/// The deployment, and the form of the output.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Profile with URL and key, from ~/.config/fanfare/profiles.toml (FANFARE_PROFILES names another file). Default:
    /// FANFARE_API and FANFARE_KEY, else the profile `default`.
    #[arg(long)]
    profile: Option<String>,
    /// Application, for an admin key.
    #[arg(long)]
    application: Option<ApplicationId>,
    /// Print JSON as the API answers, one object per line.
    #[arg(long)]
    json: bool,
}

/// Runs a command.
///
/// # Errors
/// With a sentence for the user.
pub(crate) async fn run(command: ClientCommand) -> anyhow::Result<()> {
    let api = Api::of(command.target())?;
    match command {
        ClientCommand::Publish(arguments) => publish::run(&api, arguments).await,
        ClientCommand::Events(command) => events::run(&api, command).await,
        ClientCommand::Endpoint(command) => endpoint::run(&api, command).await,
        ClientCommand::Listen(arguments) => listen::run(&api, arguments).await,
        ClientCommand::EventTypes(command) => event_types::run(&api, command).await,
        ClientCommand::SigningKeys(command) => signing_keys::run(&api, command).await,
        ClientCommand::Deliveries(arguments) => deliveries::run(&api, arguments).await,
        ClientCommand::Resend(arguments) => resend::run(&api, arguments).await,
        ClientCommand::Replay(arguments) => replay::run(&api, arguments).await,
        ClientCommand::Usage(arguments) => usage::run(&api, arguments).await,
    }
}

/// The API of a deployment.
struct Api {
    client: JsonClient,
    /// URL with the path `/api/v1`.
    base: String,
    application: Option<String>,
    prints_json: bool,
}

/// Parameters of a request's query.
type Query<'a> = [(&'a str, Option<String>)];

impl Api {
    fn of(target: &Target) -> anyhow::Result<Self> {
        let profile = profile::Profile::read(target.profile.as_deref())?;
        if HeaderValue::from_str(&profile.key).is_err() {
            bail!("the key holds characters that no key has, such as a line break");
        }
        let base = profile.base();
        let is_http = base.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if !is_http {
            bail!("{base} is not the URL of an API, such as https://fanfare.example.com");
        }
        Ok(Self {
            client: JsonClient::new(format!("Bearer {}", profile.key))?,
            base,
            application: target.application.map(|id| id.to_string()).or(profile.application),
            prints_json: target.json,
        })
    }

    /// Sends a GET. Repeats while the deployment is busy or away for a moment.
    async fn get(&self, path: &str, query: &Query<'_>) -> anyhow::Result<Value> {
        self.repeated(Method::GET, path, query, None).await
    }

    /// Sends a POST, once.
    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    /// Sends a request, once.
    async fn send(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let answer = self.client.send(method, &self.url(path, &[]), body).await?;
        self.answer(answer)
    }

    /// Sends a request without a second effect. Repeats while the deployment is busy or away for a moment.
    async fn repeated(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        body: Option<String>,
    ) -> anyhow::Result<Value> {
        let url = self.url(path, query);
        for wait in WAITS {
            let fault = match self.client.send(method.clone(), &url, body.clone()).await {
                Ok((status, _)) if is_passing(status) => format!("{} answered {status}", self.base),
                Ok(answer) => return self.answer(answer),
                Err(error) => format!("{error:#}"),
            };
            eprintln!("{fault}; trying again in {wait:?}");
            sleep(wait).await;
        }
        let answer = self.client.send(method, &url, body).await?;
        self.answer(answer)
    }

    /// All entries of a list, at most `limit`: each page is shown as soon as the page has come.
    async fn list(
        &self,
        path: &str,
        query: &Query<'_>,
        limit: usize,
        mut show: impl FnMut(&Value),
    ) -> anyhow::Result<()> {
        let (mut before, mut left) = (None, limit);
        while left > 0 {
            let page = [("limit", Some(left.min(PAGE).to_string())), ("before", before)];
            let answer = self.get(path, &[query, &page].concat()).await?;
            let entries = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            entries.iter().for_each(&mut show);
            left = left.saturating_sub(entries.len());
            before = answer["next"].as_str().map(str::to_owned);
            if before.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn url(&self, path: &str, query: &Query<'_>) -> String {
        let application = [("application", self.application.clone())];
        let given = query.iter().chain(&application).filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let pairs: Vec<String> =
            given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        format!("{}/{path}{mark}{}", self.base, pairs.join("&"))
    }

    /// The answer to a request, or the API's error.
    fn answer(&self, (status, answer): (StatusCode, Value)) -> anyhow::Result<Value> {
        // Another server than Fanfare may answer 200 to any request.
        if status.is_success() && answer["success"] == true {
            return Ok(answer);
        }
        let error = &answer["error"];
        let Some(message) = error["message"].as_str() else {
            bail!(
                "{} answered {status}, and not as Fanfare does: check the URL, and proxies before Fanfare",
                self.base
            );
        };
        let code = error["code"].as_str().unwrap_or_default();
        bail!("{} ({code})", rows::printable(message))
    }
}

/// True if a later request may succeed.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// A part of a path: an id as the user wrote the id.
fn segment(id: &str) -> impl Display + '_ {
    utf8_percent_encode(id, NON_ALPHANUMERIC)
}

/// Reads JSON from an argument, from `@file`, or from the standard input (`-`).
fn json_argument(text: &str) -> anyhow::Result<Box<RawValue>> {
    let (name, content) = match text.strip_prefix('@') {
        _ if text == "-" => ("the standard input".to_owned(), std::io::read_to_string(std::io::stdin())),
        Some(file) => (file.to_owned(), std::fs::read_to_string(file)),
        None => ("the argument".to_owned(), Ok(text.to_owned())),
    };
    let content = content.with_context(|| format!("cannot read {name}"))?;
    // Kept as written: a number with many digits stays the same.
    serde_json::from_str(&content).with_context(|| format!("{name} is not JSON"))
}

/// A JSON object of the given members.
fn given(members: &[(&str, Option<Value>)]) -> Value {
    let mut body = json!({});
    for (name, value) in members {
        if let Some(value) = value {
            body[*name] = value.clone();
        }
    }
    body
}
