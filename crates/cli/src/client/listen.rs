//! `fanfare listen`: a temporary webhook whose feed is read, and posted to a local URL.

use std::{collections::VecDeque, convert::Infallible, io::BufRead, thread, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use fanfare_domain::endpoint::secret::SigningSecret;
use fanfare_outbound::is_signed;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Api, Target, is_passing, rows, segment};
use crate::json_client::{HttpClient, client};

/// Seconds that the API waits for a delivery.
const WAIT: u64 = 10;

/// Deliveries of a read. Each may take a minute, and a read keeps the webhook for an hour.
const PAGE: usize = 10;

/// Pause after a failed read, and after a read without a wait.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for the answer of the local server: the longest deadline of an attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Deliveries that can be posted again.
const KEPT: usize = 100;

#[derive(Args)]
pub(crate) struct ListenArguments {
    /// URL that gets the deliveries.
    #[arg(default_value = "http://localhost:3000/")]
    url: Uri,
    /// Event types or wildcards, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    events: Vec<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Listens until Ctrl-C or SIGTERM. Entering `r` posts the last delivery again, `r 5` the last five.
pub(super) async fn run(api: &Api, arguments: ListenArguments) -> anyhow::Result<()> {
    if arguments.url.scheme().is_none() {
        bail!("{} is not a URL, such as http://localhost:3000/hooks", arguments.url);
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let body = json!({ "feed": "only", "temporary": true, "events": arguments.events, "name": "fanfare listen" });
    let webhook = api.post("webhooks", &body).await?["data"].take();
    let text = |name: &str| webhook[name].as_str().with_context(|| format!("the API's answer has no {name}"));
    let (id, secret) = (text("id")?, text("secret")?);
    webhook["warnings"].as_array().into_iter().flatten().for_each(|warning| eprintln!("{}", rows::text(Some(warning))));
    eprintln!("{id} brings {} to {}; secret {secret}", arguments.events.join(", "), arguments.url);
    eprintln!("Enter r to post the last delivery again, r 5 for the last five; Ctrl-C to end");
    let secret = SigningSecret::parse(secret)?;
    let mut listener = Listener { api, secret, url: arguments.url, client: client()?, kept: VecDeque::new() };
    let ended = tokio::select! {
        ended = listener.read(id) => ended.map(|never| match never {}),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    let url = api.url(&format!("webhooks/{}", segment(id)), &[]);
    if !matches!(api.client.send(Method::DELETE, &url, None).await, Ok((status, _)) if status.is_success()) {
        eprintln!("cannot delete {id} now; Fanfare deletes the webhook after about an hour");
    }
    ended
}

struct Listener<'a> {
    api: &'a Api,
    secret: SigningSecret,
    url: Uri,
    client: HttpClient,
    /// Last deliveries, the newest last.
    kept: VecDeque<Value>,
}

impl Listener<'_> {
    /// Reads the feed, and posts each delivery. Goes on after each outage of the API.
    async fn read(&mut self, id: &str) -> anyhow::Result<Infallible> {
        let path = format!("webhooks/{}/feed", segment(id));
        let mut entered = entered();
        let mut after: Option<String> = None;
        loop {
            let url = self.api.url(
                &path,
                &[("wait", Some(WAIT.to_string())), ("limit", Some(PAGE.to_string())), ("after", after.clone())],
            );
            let asked = Instant::now();
            let read = tokio::select! {
                read = self.api.client.send(Method::GET, &url, None) => read,
                Some(count) = entered.recv() => {
                    self.post_again(count).await;
                    continue;
                }
            };
            let fault = match read {
                Ok((status, _)) if is_passing(status) => format!("the API answered {status}"),
                Ok(answer) => {
                    let page = self.api.answer(answer)?;
                    // A deployment with many readers does not wait.
                    if page["data"] == json!([]) && asked.elapsed() < PAUSE {
                        sleep(PAUSE).await;
                    }
                    for delivery in page["data"].as_array().into_iter().flatten() {
                        self.post(delivery).await;
                        self.kept.truncate(KEPT - 1);
                        self.kept.push_front(delivery.clone());
                    }
                    after = page["next"].as_str().map(str::to_owned).or(after);
                    continue;
                }
                Err(error) => format!("{error:#}"),
            };
            eprintln!("{fault}; trying again");
            sleep(PAUSE).await;
        }
    }

    /// Posts the last deliveries again, in their order.
    async fn post_again(&self, count: usize) {
        for delivery in self.kept.iter().take(count).rev() {
            self.post(delivery).await;
        }
    }

    /// Posts a delivery, unless its signature is wrong, and prints the result.
    async fn post(&self, delivery: &Value) {
        let started = Instant::now();
        let result = match timeout(ANSWER_TIMEOUT, self.send(delivery)).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer within a minute".to_owned(),
        };
        let milliseconds = started.elapsed().as_millis();
        let (event, event_type) = (rows::text(delivery.get("event")), rows::text(delivery.get("type")));
        if self.api.prints_json {
            let row = json!({ "event": event, "type": event_type, "result": result, "ms": milliseconds });
            return rows::line(row);
        }
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        rows::line(format!("{now}  {event}  {event_type}  {result}  {milliseconds} ms"));
    }

    async fn send(&self, delivery: &Value) -> anyhow::Result<StatusCode> {
        let body = delivery["body"].as_str().context("the API's answer has no body")?.to_owned();
        let mut headers = HeaderMap::new();
        for pair in delivery["headers"].as_array().into_iter().flatten() {
            let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) else { continue };
            headers.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
        }
        if !is_signed(&headers, body.as_bytes(), &self.secret) {
            bail!("not posted: the signature is not by the secret of the webhook");
        }
        let mut request = Request::post(&self.url).body(Full::from(Bytes::from(body)))?;
        *request.headers_mut() = headers;
        let answer = self.client.request(request).await.with_context(|| format!("{} does not answer", self.url))?;
        Ok(answer.status())
    }
}

/// Numbers of deliveries to post again, as the user enters them.
fn entered() -> mpsc::Receiver<usize> {
    let (sender, receiver) = mpsc::channel(1);
    // A thread: a read of the standard input cannot be cancelled.
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match asked(&line) {
                Some(count) if sender.blocking_send(count).is_err() => return,
                Some(_) => {}
                None => eprintln!("enter r, or r and a number up to {KEPT}"),
            }
        }
    });
    receiver
}

/// The number of deliveries that a line asks for.
fn asked(line: &str) -> Option<usize> {
    let mut words = line.split_whitespace();
    let count = match (words.next(), words.next(), words.next()) {
        (Some("r"), None, None) => 1,
        (Some("r"), Some(count), None) => count.parse().ok()?,
        _ => return None,
    };
    (1..=KEPT).contains(&count).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn a_line_asks_for_deliveries() {
        assert_eq!((asked("r"), asked(" r  5 "), asked("r 100")), (Some(1), Some(5), Some(100)));
        for line in ["", "x", "r 0", "r 101", "r -1", "r 1 2", "r5"] {
            assert_eq!(asked(line), None, "{line}");
        }
    }
}
