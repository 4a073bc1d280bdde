//! `make bench`: the figures that Fanfare reaches on this machine, beside the figures that can be reached on it.
//!
//! Receiver, publisher and ceiling are processes of their own, so that each one's cost can be told.

mod figures;
mod measurements;
mod options;
mod roles;
mod rows;
mod scene;
mod statistics;

use std::process::ExitCode;

use anyhow::bail;
use tokio::signal::unix;

use crate::{
    figures::Figures,
    measurements::MEASUREMENTS,
    options::{Options, last_run},
    roles::{ceiling, publisher, receiver},
    scene::machine::{Extent, Machine},
};

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
    if cfg!(debug_assertions) && options.extent != Extent::Smoke {
        bail!("this is a debug build, whose figures say nothing: run `make bench`, or pass --smoke");
    }
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        figures = all(options) => report(options, &figures?),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        _ = stop.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn all(options: &Options) -> anyhow::Result<Figures> {
    let machine = Machine::start(options.extent, options.times, options.bytes);
    let is_judged = options.extent != Extent::Smoke;
    let mut figures = Figures::begin(is_judged.then_some(&options.against))?;
    for measurement in MEASUREMENTS.iter().filter(|measurement| options.wants(measurement)) {
        (measurement.run)(&machine, &mut figures).await;
    }
    Ok(figures)
}

/// The figures of a smoke run say nothing: it succeeds when every measurement came to its end.
fn report(options: &Options, figures: &Figures) -> anyhow::Result<ExitCode> {
    if options.extent != Extent::Smoke {
        figures.write(&last_run())?;
        println!("\n{} goals missed; the figures are in {}", figures.missed(), last_run().display());
    }
    Ok(ExitCode::SUCCESS)
}
