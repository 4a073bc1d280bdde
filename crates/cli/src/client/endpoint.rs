//! `fanfare endpoint`. The API calls an endpoint a webhook.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{Api, DEFAULT_LIMIT, Target, given, json_argument, rows, segment};

/// Columns of an endpoint.
const ENDPOINT: [(&str, usize); 5] = [("/id", 29), ("/status", 8), ("/feed", 4), ("/name", 24), ("/url", 1)];

/// Columns of an ordering key.
const ORDERING_KEY: [(&str, usize); 4] = [("/state", 6), ("/first", 30), ("/open", 6), ("/key", 1)];

/// Settings with a default that the dialect or the application gives.
const UNSETTABLE: [&str; 11] = [
    "name",
    "filter",
    "template",
    "timeout_ms",
    "schedule",
    "rate_per_second",
    "email",
    "headers",
    "fifo",
    "authentication",
    "client_certificate",
];

#[derive(Subcommand)]
pub(crate) enum EndpointCommand {
    /// Lists endpoints, newest first: id, status, feed, name and URL.
    List(ListArguments),
    /// Shows an endpoint.
    Show(IdArguments),
    /// Creates an endpoint, and prints the id and the signing secret. The secret is not shown again.
    Create(CreateArguments),
    /// Changes the given settings of an endpoint.
    Update(UpdateArguments),
    /// Enables an endpoint. Held deliveries are sent.
    Enable(IdArguments),
    /// Pauses an endpoint. Deliveries are held until the endpoint is enabled.
    Pause(IdArguments),
    /// Disables an endpoint. Deliveries are recorded as skipped.
    Disable(IdArguments),
    /// Deletes an endpoint. Unfinished deliveries fail.
    Delete(IdArguments),
    /// Replaces the signing secret, and prints the new one. Both secrets sign until the end of the overlap.
    RotateSecret(RotateArguments),
    /// Ends the overlap of a rotation: the previous secret no longer signs.
    EndRotation(IdArguments),
    /// Sends a test event once, and shows the answer.
    Test(TestArguments),
    /// Lists the ordering keys that wait at an endpoint with FIFO: state, first delivery, open deliveries and key.
    OrderingKeys(KeysArguments),
    /// Resumes a parked ordering key, or all: the next deliveries are sent. Prints the number of resumed keys.
    ResumeKeys(KeyArguments),
}

impl EndpointCommand {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::List(arguments) => &arguments.target,
            Self::Create(arguments) => &arguments.target,
            Self::Update(arguments) => &arguments.target,
            Self::RotateSecret(arguments) => &arguments.target,
            Self::Test(arguments) => &arguments.target,
            Self::OrderingKeys(arguments) => &arguments.target,
            Self::ResumeKeys(arguments) => &arguments.target,
            Self::Show(arguments)
            | Self::Enable(arguments)
            | Self::Pause(arguments)
            | Self::Disable(arguments)
            | Self::Delete(arguments)
            | Self::EndRotation(arguments) => &arguments.target,
        }
    }
}

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Only this status: enabled, paused or disabled.
    #[arg(long)]
    state: Option<String>,
    /// Only endpoints with this text in name or URL.
    #[arg(long)]
    contains: Option<String>,
    /// Maximum number of listed endpoints.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct IdArguments {
    /// Id of the endpoint, wh_…
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct CreateArguments {
    /// URL for deliveries. Left out with `--feed only`.
    #[arg(long)]
    url: Option<String>,
    /// Subscribed event types, separated by commas; `points.*` and `*` are wildcards.
    #[arg(long, value_delimiter = ',', required = true)]
    events: Vec<String>,
    /// A secret that the receivers already have. Default: a generated secret.
    #[arg(long)]
    secret: Option<String>,
    /// Begin paused.
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct UpdateArguments {
    /// Id of the endpoint, wh_…
    id: String,
    /// URL for deliveries.
    #[arg(long)]
    url: Option<String>,
    /// Subscribed event types, separated by commas; `points.*` and `*` are wildcards.
    #[arg(long, value_delimiter = ',')]
    events: Option<Vec<String>>,
    /// Return these settings to their default: name, filter, template, timeout_ms, schedule, rate_per_second, email,
    /// headers, fifo, authentication or client_certificate.
    #[arg(long, value_delimiter = ',', value_parser = UNSETTABLE)]
    unset: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    target: Target,
}

/// Settings of an endpoint.
#[derive(Args)]
struct Settings {
    /// Display name.
    #[arg(long)]
    name: Option<String>,
    /// Condition on the events, in CEL, such as `data.amount > 100`.
    #[arg(long)]
    filter: Option<String>,
    /// Form of the bodies, as JSON, `@file`, or `-` for the standard input.
    #[arg(long)]
    template: Option<String>,
    /// Deadline of an attempt in milliseconds, 100 to 60000.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// Waits after failed attempts, separated by commas, such as 60s,5m,2h.
    #[arg(long, value_delimiter = ',')]
    schedule: Option<Vec<String>>,
    /// Maximum of attempts per second, 1 to 10000.
    #[arg(long)]
    rate: Option<u32>,
    /// E-mail address for failure notices.
    #[arg(long)]
    email: Option<String>,
    /// Additional header of all deliveries, as `name: value`; may be repeated. Replaces all earlier headers.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// True to send `traceparent` and `tracestate`.
    #[arg(long)]
    trace_context: Option<bool>,
    /// Feed: none, copy or only.
    #[arg(long)]
    feed: Option<String>,
    /// FIFO per ordering key: block, skip:N (after N failed attempts) or park.
    #[arg(long)]
    fifo: Option<String>,
    /// True for a daily event with the number of deliveries and their hash; needs a feed.
    #[arg(long)]
    digest: Option<bool>,
    /// True for signatures by the Ed25519 keys of the application, too.
    #[arg(long)]
    asymmetric: Option<bool>,
    /// Authentication at the receiver, as JSON, `@file`, or `-` for the standard input, such as `{"type": "bearer",
    /// "token": "…"}`.
    #[arg(long)]
    authentication: Option<String>,
    /// File with the client certificate and its chain, in PEM.
    #[arg(long, requires = "private_key")]
    certificate: Option<PathBuf>,
    /// File with the private key of the client certificate, in PEM.
    #[arg(long, requires = "certificate")]
    private_key: Option<PathBuf>,
}

impl Settings {
    /// Members of a request's body.
    fn members(self) -> anyhow::Result<Vec<(&'static str, Option<Value>)>> {
        let mut headers = json!({});
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else { bail!("--header {header:?} is not `name: value`") };
            if !headers[name.trim()].is_null() {
                bail!("--header {:?} is given twice", name.trim());
            }
            headers[name.trim()] = json!(value.trim());
        }
        let certificate = match (self.certificate, self.private_key) {
            (Some(chain), Some(key)) => Some(json!({ "certificate_chain": pem(&chain)?, "private_key": pem(&key)? })),
            _ => None,
        };
        Ok(vec![
            ("name", self.name.map(Value::from)),
            ("filter", self.filter.map(Value::from)),
            ("template", json_value(self.template.as_deref())?),
            ("timeout_ms", self.timeout_ms.map(Value::from)),
            ("schedule", self.schedule.map(Value::from)),
            ("rate_per_second", self.rate.map(Value::from)),
            ("email", self.email.map(Value::from)),
            ("headers", (!self.headers.is_empty()).then_some(headers)),
            ("trace_context", self.trace_context.map(Value::from)),
            ("feed", self.feed.map(Value::from)),
            ("fifo", self.fifo.map(Value::from)),
            ("digest", self.digest.map(Value::from)),
            ("asymmetric", self.asymmetric.map(Value::from)),
            ("authentication", json_value(self.authentication.as_deref())?),
            ("client_certificate", certificate),
        ])
    }
}

/// The value of an argument with JSON.
fn json_value(argument: Option<&str>) -> anyhow::Result<Option<Value>> {
    let text = argument.map(json_argument).transpose()?;
    Ok(text.map(|text| serde_json::from_str(text.get())).transpose()?)
}

/// The content of a file in PEM.
fn pem(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[derive(Args)]
pub(crate) struct RotateArguments {
    /// Id of the endpoint, wh_…
    id: String,
    /// Seconds until the previous secret expires, 0 to 2592000. Default: a day.
    #[arg(long)]
    overlap_seconds: Option<u64>,
    /// The new secret. Default: a generated secret.
    #[arg(long)]
    secret: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct TestArguments {
    /// Id of the endpoint, wh_…
    id: String,
    /// Type of the event. Default: the first described type that the endpoint subscribes to.
    #[arg(long = "type")]
    event_type: Option<String>,
    /// Data as JSON, `@file`, or `-` for the standard input. Default: the sample of the type.
    #[arg(long)]
    data: Option<String>,
    /// Another URL, to try a change before saving.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct KeysArguments {
    /// Id of the endpoint, wh_…
    id: String,
    /// Maximum number of listed keys.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct KeyArguments {
    /// Id of the endpoint, wh_…
    id: String,
    /// The ordering key. Default: all parked keys.
    key: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(api: &Api, command: EndpointCommand) -> anyhow::Result<()> {
    match command {
        EndpointCommand::List(arguments) => {
            let query = [("state", arguments.state), ("contains", arguments.contains)];
            let show = |endpoint: &Value| rows::print(api.prints_json, endpoint, &ENDPOINT);
            api.list("webhooks", &query, arguments.limit, show).await
        }
        EndpointCommand::Show(arguments) => {
            let answer = api.get(&path(&arguments.id, ""), &[]).await?;
            rows::print_all(api.prints_json, &answer["data"])
        }
        EndpointCommand::Create(arguments) => create(api, arguments).await,
        EndpointCommand::Update(arguments) => update(api, arguments).await,
        EndpointCommand::Enable(arguments) => act(api, Method::POST, &arguments.id, "/enable").await,
        EndpointCommand::Pause(arguments) => act(api, Method::POST, &arguments.id, "/pause").await,
        EndpointCommand::Disable(arguments) => act(api, Method::POST, &arguments.id, "/disable").await,
        EndpointCommand::Delete(arguments) => act(api, Method::DELETE, &arguments.id, "").await,
        EndpointCommand::RotateSecret(arguments) => {
            let body = given(&[
                ("overlap_seconds", arguments.overlap_seconds.map(Value::from)),
                ("secret", arguments.secret.map(Value::from)),
            ]);
            let rotated = api.post(&path(&arguments.id, "/rotate-secret"), &body).await?;
            print_secret(api, &rotated["data"]);
            Ok(())
        }
        EndpointCommand::EndRotation(arguments) => act(api, Method::POST, &arguments.id, "/end-rotation").await,
        EndpointCommand::Test(arguments) => test(api, arguments).await,
        EndpointCommand::OrderingKeys(arguments) => {
            let show = |key: &Value| rows::print(api.prints_json, key, &ORDERING_KEY);
            api.list(&path(&arguments.id, "/ordering-keys"), &[], arguments.limit, show).await
        }
        EndpointCommand::ResumeKeys(arguments) => {
            let body = given(&[("key", arguments.key.map(Value::from))]);
            let resumed = api.post(&path(&arguments.id, "/ordering-keys/resume"), &body).await?;
            rows::print(api.prints_json, &resumed["data"], &[("/resumed", 1)]);
            Ok(())
        }
    }
}

async fn create(api: &Api, arguments: CreateArguments) -> anyhow::Result<()> {
    let mut members = arguments.settings.members()?;
    members.extend([
        ("url", arguments.url.map(Value::from)),
        ("events", Some(json!(arguments.events))),
        ("secret", arguments.secret.map(Value::from)),
        ("status", arguments.paused.then(|| json!("paused"))),
    ]);
    let created = api.post("webhooks", &given(&members)).await?;
    warn(&created["data"]);
    print_secret(api, &created["data"]);
    Ok(())
}

async fn update(api: &Api, arguments: UpdateArguments) -> anyhow::Result<()> {
    let mut members = arguments.settings.members()?;
    members.extend([("url", arguments.url.map(Value::from)), ("events", arguments.events.map(Value::from))]);
    let mut body = given(&members);
    for name in arguments.unset {
        body[&name] = if name == "headers" { json!({}) } else { Value::Null };
    }
    if body == json!({}) {
        bail!("name a setting to change, such as --events or --unset schedule");
    }
    let body = Some(body.to_string());
    let changed = api.repeated(Method::PATCH, &path(&arguments.id, ""), &[], body).await?;
    warn(&changed["data"]);
    rows::print(api.prints_json, &changed["data"], &ENDPOINT);
    Ok(())
}

/// Sends a request that changes an endpoint, and prints the endpoint.
async fn act(api: &Api, method: Method, id: &str, action: &str) -> anyhow::Result<()> {
    let answer = api.send(method, &path(id, action), None).await?;
    rows::print(api.prints_json, &answer["data"], &ENDPOINT);
    Ok(())
}

async fn test(api: &Api, arguments: TestArguments) -> anyhow::Result<()> {
    let data = arguments.data.as_deref().map(json_argument).transpose()?;
    let data = data.map(|data| serde_json::from_str(data.get())).transpose()?;
    let texts = [("type", arguments.event_type.map(Value::from)), ("url", arguments.url.map(Value::from))];
    let body = given(&[&texts[..], &[("data", data)]].concat());
    let result = api.post(&path(&arguments.id, "/test"), &body).await?["data"].take();
    if api.prints_json {
        rows::line(rows::printable(&result.to_string()));
    } else {
        let part = |path: &str| rows::text(result.pointer(path));
        rows::line(format!("{}  {}  {} ms", part("/outcome"), part("/response/status"), part("/timings/total_ms")));
        result["error"].as_str().into_iter().for_each(|error| rows::line(rows::printable(error)));
        result.pointer("/response/body").and_then(Value::as_str).into_iter().for_each(|body| {
            body.lines().for_each(|text| rows::line(rows::printable(text)));
        });
    }
    if result["delivered"] != true {
        bail!("the endpoint did not accept the test: {}", rows::text(result.get("delivery")));
    }
    Ok(())
}

fn path(id: &str, action: &str) -> String {
    format!("webhooks/{}{action}", segment(id))
}

/// Prints the warnings about subscriptions.
fn warn(endpoint: &Value) {
    for warning in endpoint["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", rows::text(Some(warning)));
    }
}

/// Prints the id and the secret, a line each: scripts read both.
fn print_secret(api: &Api, endpoint: &Value) {
    if api.prints_json {
        return rows::line(rows::printable(&endpoint.to_string()));
    }
    rows::line(rows::text(endpoint.get("id")));
    rows::line(rows::text(endpoint.get("secret")));
}
