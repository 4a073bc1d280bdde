//! `make bench`: what Fanfare reaches on this machine, beside what can be reached on it.
//!
//! Receiver, publisher and ceiling are processes of their own, so that each one's cost can be told.

mod ceiling;
mod child;
mod figures;
mod growth;
mod latency;
mod processes;
mod publisher;
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

use crate::{figures::Figures, scene::Machine};

const USAGE: &str = "Usage: bench [--only MEASUREMENT[+MEASUREMENT...]] [--times NUMBER] [--against FILE] [--list]

  --only     nothing but these measurements
  --times    so many runs of each throughput, of which the median counts; 3 without it
  --against  the JSON of an earlier run to compare with; that of the last one without it
  --list     says which measurements there are";

/// The measurements, in their order.
const MEASUREMENTS: [(&str, &str); 6] = [
    ("throughput", "deliveries in a second and what each costs, beside the ceiling"),
    ("latency", "from publishing to receipt, beside the ceiling"),
    ("one-of-ten", "one of ten endpoints hangs, is slow, refuses, drips"),
    ("half-of-many", "half of 1,000 endpoints hang"),
    ("backlog", "a dispatcher that starts on 100,000 events"),
    ("replicas", "two and four dispatchers on the same machine"),
];

struct Options {
    only: Option<Vec<String>>,
    times: usize,
    against: PathBuf,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { only: None, times: 3, against: last_run() };
        while let Some(name) = arguments.next() {
            if name == "--list" {
                MEASUREMENTS.iter().for_each(|(name, about)| println!("{name:<16} {about}"));
                exit(0);
            }
            let value = arguments.next().context(USAGE)?;
            match name.as_str() {
                "--only" => options.only = Some(value.split('+').map(named).collect::<anyhow::Result<_>>()?),
                "--times" => options.times = value.parse().ok().filter(|times| *times > 0).context(USAGE)?,
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
    let machine = Machine::start();
    let mut figures = Figures::begin(&options.against)?;
    let (machine, times) = (&machine, options.times);
    for (name, _) in MEASUREMENTS {
        if !options.wants(name) {
            continue;
        }
        match name {
            "throughput" => throughput::measure(machine, times, &mut figures).await,
            "latency" => latency::measure(machine, &mut figures).await,
            "one-of-ten" => latency::one_of_ten(machine, &mut figures).await,
            "half-of-many" => latency::half_of_many(machine, &mut figures).await,
            "backlog" => growth::backlog(machine, &mut figures).await,
            "replicas" => throughput::replicas(machine, times, &mut figures).await,
            other => bail!("nobody measures {other}"),
        }
    }
    Ok(figures)
}
