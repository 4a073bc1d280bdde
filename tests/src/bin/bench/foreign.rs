//! `bench foreign`: figures of another webhook server, with the publisher and the receiver of the bench.
//! `tests/bench/README.md` has the recipe.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    figures::Figures,
    roles::{
        child::Child,
        publisher::{Entrance, Order, Target, Template},
    },
    scene::processes::processor_time,
};

const USAGE: &str = "Usage: bench foreign --url URL --body TEMPLATE [--header 'NAME: VALUE']... [--listen ADDRESS:PORT]
             [--per-event NUMBER] [--count NUMBER] [--rate NUMBER] [--connections NUMBER]
             [--bytes NUMBER] [--wait SECONDS] [--process ID]... [--write FILE]

  --url          where the server takes events, http only
  --body         body of a request; {data} stands for the event's data, {n} for its number
  --header       header of each request, such as a key
  --listen       address of the receiver, default 127.0.0.1:9071; the server's webhooks have
                 the URLs http://ADDRESS:PORT/all/ok?0, …/all/ok?1 and so on
  --per-event    number of webhooks that get each event; default 1
  --count        number of measured events; default 20000
  --rate         events per second; default: as fast as accepted
  --connections  connections of the publisher; default 64
  --bytes        size of a request's body; default 440
  --wait         longest time without a receipt until the rest counts as lost, in seconds; default 10
  --process      process of the server, for its processor time with all descendants
  --write        file for the figures, as JSON";

/// Interval of looks at the receipts.
const LOOK: Duration = Duration::from_millis(20);

/// Share of the events that warm up the server, before the measured events.
const WARM_UP: usize = 10;

/// A server to measure, and the load.
pub(crate) struct Foreign {
    pub(crate) target: Target,
    pub(crate) listen: SocketAddr,
    pub(crate) per_event: usize,
    pub(crate) count: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) connections: usize,
    pub(crate) bytes: usize,
    /// Longest time without a receipt.
    pub(crate) wait: Duration,
    /// Processes of the server.
    pub(crate) processes: Vec<u32>,
    /// File for the figures.
    pub(crate) write: Option<PathBuf>,
}

/// Result of a run.
struct Run {
    published: Duration,
    /// Time from the first publish to the last receipt.
    took: Duration,
    /// Receipts of distinct events at distinct webhooks.
    received: usize,
    /// Processor time of the server.
    cost: Duration,
    /// Account of the receiver.
    account: Value,
}

impl Foreign {
    /// The usual load.
    pub(crate) fn new(target: Target, listen: SocketAddr) -> Self {
        Self {
            target,
            listen,
            per_event: 1,
            count: 20_000,
            rate: None,
            connections: 64,
            bytes: 440,
            wait: Duration::from_secs(10),
            processes: Vec::new(),
            write: None,
        }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// If an argument is unknown, or lacks its value.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (mut url, mut body, mut headers) = (None, None, Vec::new());
        let target =
            Target { address: String::new(), path: String::new(), headers: Vec::new(), body: Template::default() };
        let mut foreign = Self::new(target, SocketAddr::from(([127, 0, 0, 1], 9071)));
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            let number = || value.parse::<usize>().ok().filter(|number| *number > 0).context(USAGE);
            match name.as_str() {
                "--url" => url = Some(value),
                "--body" => body = Some(value),
                "--header" => headers.push(value),
                "--listen" => foreign.listen = value.parse().context("--listen is no address with a port")?,
                "--per-event" => foreign.per_event = number()?,
                "--count" => foreign.count = number()?,
                "--rate" => foreign.rate = Some(value.parse().context(USAGE)?),
                "--connections" => foreign.connections = number()?,
                "--bytes" => foreign.bytes = number()?,
                "--wait" => foreign.wait = Duration::from_secs(value.parse().context(USAGE)?),
                "--process" => foreign.processes.push(value.parse().context(USAGE)?),
                "--write" => foreign.write = Some(value.into()),
                _ => bail!(USAGE),
            }
        }
        let url = url.context(USAGE)?;
        let rest = url.strip_prefix("http://").context("--url must begin with http://")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let body: Template = body.context(USAGE)?.parse()?;
        foreign.target = Target { address: address.to_owned(), path: format!("/{path}"), headers, body };
        Ok(foreign)
    }

    /// Measures, and prints the figures.
    ///
    /// # Errors
    /// If the file of `--write` cannot be written, or the server delivers nothing.
    pub(crate) async fn measure(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let mut receiver = Child::start_with("receiver", &[&self.listen.to_string()]);
        let mut publisher = Child::start("publisher");
        let warm_up = (self.count / WARM_UP).max(1);
        let first = self.play(&mut receiver, &mut publisher, (0, warm_up)).await;
        ensure!(
            first.received > 0,
            "no event arrived within {:?}: register webhooks with the URLs http://{}/all/ok?0 and so on, and permit \
             deliveries to this address",
            self.wait,
            self.listen
        );
        let run = self.play(&mut receiver, &mut publisher, (warm_up, self.count)).await;
        self.report(&run, figures);
        if let Some(file) = &self.write {
            figures.write(file)?;
        }
        Ok(())
    }

    /// Publishes events, and waits for the receipts.
    async fn play(&self, receiver: &mut Child, publisher: &mut Child, (first, count): (usize, usize)) -> Run {
        // Forgets the receipts before.
        receiver.request(&Value::Null).await;
        let before = received(receiver).await;
        let cost = self.cost();
        let order = Order {
            entrance: Entrance::Http { target: self.target.clone(), connections: self.connections },
            application: String::new(),
            types: vec!["bench.0".to_owned()],
            count,
            rate: self.rate,
            bytes: self.bytes,
            first,
        };
        let started = Instant::now();
        let publishing = async {
            let answer = publisher.request(&json!(order)).await;
            Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds"))
        };
        let expected = count * self.per_event;
        let receiving = async {
            let (mut known, mut last) = (0, Instant::now());
            while known < expected && last.elapsed() < self.wait {
                let now = received(receiver).await - before;
                if now > known {
                    (known, last) = (now, Instant::now());
                }
                sleep(LOOK).await;
            }
            (known, last.duration_since(started))
        };
        let (published, (received, took)) = tokio::join!(publishing, receiving);
        let account = receiver.request(&Value::Null).await["groups"]["all"].clone();
        Run { published, took, received, cost: self.cost().saturating_sub(cost), account }
    }

    /// Processor time of the server until now.
    fn cost(&self) -> Duration {
        self.processes.iter().map(|process| processor_time(*process)).sum()
    }

    fn report(&self, run: &Run, figures: &mut Figures) {
        let expected = self.count * self.per_event;
        let milliseconds = |name: &str| run.account[name].as_f64().unwrap_or_default() / 1000.0;
        let accepted = self.count as f64 / run.published.as_secs_f64();
        figures.add("events accepted", "/s", accepted, None, None);
        figures.add("deliveries received", "/s", run.received as f64 / run.took.as_secs_f64(), None, None);
        figures.note(format!("{expected} deliveries expected, {} of them missing", expected - run.received));
        figures.note(format!("{} deliveries came again", run.account["repeats"]));
        for (name, member) in [("p50", "p50"), ("p99", "p99"), ("longest", "max")] {
            figures.add(&format!("publish to receipt, {name}"), "ms", milliseconds(member), None, None);
        }
        if !self.processes.is_empty() {
            let cost = run.cost.as_secs_f64() * 1e6 / run.received.max(1) as f64;
            figures.add("processor time per delivery", "µs", cost, None, None);
        }
    }
}

/// Receipts of distinct events at distinct webhooks, since the start of the receiver.
async fn received(receiver: &mut Child) -> usize {
    let answer = receiver.request(&json!("received")).await;
    answer["received"].as_u64().and_then(|count| count.try_into().ok()).expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_a_target() {
        let arguments = "--url http://127.0.0.1:8071/api/msg/ --body {\"payload\":{data}} --header x:1 --per-event 10";
        let foreign = Foreign::read(arguments.split(' ').map(str::to_owned)).expect("arguments");
        let Target { address, path, headers, .. } = &foreign.target;
        assert_eq!(
            (address.as_str(), path.as_str(), headers.as_slice()),
            ("127.0.0.1:8071", "/api/msg/", &["x:1".to_owned()][..])
        );
        assert_eq!((foreign.per_event, foreign.count), (10, 20_000));
        for wrong in ["--url x", "--url https://a/ --body {data}", "--url http://a/ --body {}", "--count 1"] {
            assert!(Foreign::read(wrong.split(' ').map(str::to_owned)).is_err(), "{wrong}");
        }
    }
}
