//! `make bench`: figures of Fanfare on this machine, beside the best figures of the machine.
//!
//! Receiver, publisher and ceiling are separate processes: the bench measures the processor time of each.

mod figures;
mod foreign;
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
    foreign::Foreign,
    measurements::MEASUREMENTS,
    options::{Options, last_run},
    roles::{ceiling, publisher, receiver, stand_in},
    scene::machine::{Extent, Machine},
};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("receiver") => receiver::run(arguments.nth(1)).await,
        Some("publisher") => publisher::run().await,
        Some("ceiling") => ceiling::run().await,
        Some("stand-in") => stand_in::run().await,
        Some("foreign") => Foreign::read(arguments.skip(1))?.measure(&mut Figures::begin(None)?).await?,
        _ => return bench(&Options::read(arguments)?).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn bench(options: &Options) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) && options.extent != Extent::Smoke {
        bail!("figures of a debug build are meaningless: run `make bench`, or pass --smoke");
    }
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        figures = measure_all(options) => report(options, &figures?),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        _ = stop.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn measure_all(options: &Options) -> anyhow::Result<Figures> {
    let machine = Machine::start(options.extent, options.times, options.bytes);
    let is_judged = options.extent != Extent::Smoke;
    let mut figures = Figures::begin(is_judged.then_some(&options.against))?;
    for measurement in MEASUREMENTS.iter().filter(|measurement| options.selects(measurement)) {
        (measurement.run)(&machine, &mut figures).await;
    }
    Ok(figures)
}

/// Writes the figures and prints the number of missed goals. A smoke run does neither: its figures are meaningless.
fn report(options: &Options, figures: &Figures) -> anyhow::Result<ExitCode> {
    if options.extent != Extent::Smoke {
        figures.write(&last_run())?;
        println!("\n{} goals missed; the figures are in {}", figures.missed(), last_run().display());
    }
    Ok(ExitCode::SUCCESS)
}
