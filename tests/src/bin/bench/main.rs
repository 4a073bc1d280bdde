//! `make bench`: what Fanfare reaches on this machine, beside what can be reached on it.
//!
//! Receiver, publisher and ceiling are processes of their own, so that each one's cost can be told.

mod ceiling;
mod child;
mod delivered;
mod figures;
mod growth;
mod isolation;
mod latency;
mod life;
mod machine;
mod processes;
mod publisher;
mod raw;
mod receiver;
mod scene;
mod statistics;
mod throughput;

use std::{
    path::PathBuf,
    process::{ExitCode, exit},
};

use anyhow::{Context, bail};
use fanfare_tests::instance::repository;
use tokio::signal::unix;

use crate::{figures::Figures, machine::Machine};

const USAGE: &str =
    "Usage: bench [--only MEASUREMENT[+MEASUREMENT...]] [--times NUMBER] [--bytes NUMBER] [--against FILE] [--list]

  --only     nothing but these measurements
  --times    so many runs of each throughput, of which the median counts; 3 without it
  --bytes    how large an event's message is; 440 without it
  --against  the JSON of an earlier run to compare with; that of the last one without it
  --list     says which measurements there are";

/// The measurements, in their order.
const MEASUREMENTS: [(&str, &str); 16] = [
    ("raw", "what broker, database and HTTP client do at most, each alone"),
    ("throughput", "deliveries in a second and what each costs, beside the ceiling"),
    ("latency", "from publishing to receipt, beside the ceiling"),
    ("slow-receivers", "200 endpoints answer in 300 ms"),
    ("beside-slow", "another application beside slow receivers, and beside a flood"),
    ("dead", "30,000 deliveries wait for a dead endpoint"),
    ("one-of-ten", "one of ten endpoints hangs, is slow, refuses, drips"),
    ("half-of-many", "half of 1,000 endpoints hang"),
    ("flood", "another application publishes 100 times as much"),
    ("replay", "a replay of 100,000 events goes on in the background"),
    ("recovery", "1,000 endpoints come back at the same moment"),
    ("backlog", "a dispatcher that starts on 100,000 events"),
    ("replicas", "two and four dispatchers on the same machine"),
    ("retries", "1,000,000 retries wait"),
    ("log", "2,000,000 attempts were recorded before"),
    ("endpoints", "100,000 endpoints of 10,000 applications"),
];

/// Bytes of an event's message, as the design's figures are for.
const BYTES: usize = 440;

struct Options {
    only: Option<Vec<String>>,
    times: usize,
    bytes: usize,
    against: PathBuf,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { only: None, times: 3, bytes: BYTES, against: last_run() };
        while let Some(name) = arguments.next() {
            if name == "--list" {
                MEASUREMENTS.iter().for_each(|(name, about)| println!("{name:<16} {about}"));
                exit(0);
            }
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--only" => options.only = Some(value.split('+').map(named).collect::<anyhow::Result<_>>()?),
                "--times" => options.times = value.parse().ok().filter(|times| *times > 0).context(USAGE)?,
                "--bytes" => options.bytes = value.parse().ok().filter(|bytes| *bytes >= 100).context(USAGE)?,
                "--against" => options.against = value.into(),
                _ => bail!(USAGE),
            }
        }
        Ok(options)
    }

    fn wants(&self, measurement: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == measurement))
    }
}

fn named(name: &str) -> anyhow::Result<String> {
    match MEASUREMENTS.iter().any(|(known, _)| *known == name) {
        true => Ok(name.to_owned()),
        false => bail!("there is no measurement {name}: see --list"),
    }
}

fn last_run() -> PathBuf {
    repository().join(".dev/bench/last.json")
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("receiver") => receiver::run().await,
        Some("publisher") => publisher::run().await,
        Some("ceiling") => ceiling::run().await,
        _ => return bench(&Options::read(arguments)?).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn bench(options: &Options) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build, whose figures say nothing: run `make bench`");
    }
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        figures = all(options) => {
            let figures = figures?;
            figures.write(&last_run())?;
            println!("\n{} goals missed; the figures are in {}", figures.missed(), last_run().display());
            Ok(ExitCode::SUCCESS)
        }
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        _ = stop.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn all(options: &Options) -> anyhow::Result<Figures> {
    let machine = Machine::start(options.bytes);
    let mut figures = Figures::begin(&options.against)?;
    let (machine, times) = (&machine, options.times);
    for (name, _) in MEASUREMENTS {
        if !options.wants(name) {
            continue;
        }
        match name {
            "raw" => raw::measure(machine, &mut figures).await,
            "throughput" => throughput::measure(machine, times, &mut figures).await,
            "latency" => latency::measure(machine, &mut figures).await,
            "slow-receivers" => life::slow_receivers(machine, &mut figures).await,
            "beside-slow" => life::beside_slow(machine, &mut figures).await,
            "dead" => life::dead(machine, &mut figures).await,
            "one-of-ten" => isolation::one_of_ten(machine, &mut figures).await,
            "half-of-many" => isolation::half_of_many(machine, &mut figures).await,
            "flood" => isolation::flood(machine, &mut figures).await,
            "replay" => isolation::replay(machine, &mut figures).await,
            "recovery" => isolation::recovery(machine, &mut figures).await,
            "backlog" => growth::backlog(machine, &mut figures).await,
            "replicas" => throughput::replicas(machine, times, &mut figures).await,
            "retries" => growth::retries(machine, &mut figures).await,
            "log" => growth::log(machine, &mut figures).await,
            "endpoints" => growth::endpoints(machine, &mut figures).await,
            other => bail!("nobody measures {other}"),
        }
    }
    Ok(figures)
}
