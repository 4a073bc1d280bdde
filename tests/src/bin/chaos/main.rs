//! `make chaos`: faults, alone and mixed, drawn from a seed, under load. Each run ends with a comparison of the ledger
//! of publishers, receivers and Fanfare. A table counts accepted, delivered and missing events.

mod disk;
mod evidence;
mod faults;
mod harm;
mod injections;
mod nodes;
mod options;
mod processes;
mod releases;
mod run;
mod scene;
mod script;
mod table;

use std::process::ExitCode;

use tokio::signal::unix;

use crate::{faults::FAULTS, options::Options, table::Table};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!("{complaint}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        FAULTS.iter().for_each(|fault| println!("{:<20} {}", fault.name, fault.about));
        return ExitCode::SUCCESS;
    }
    // The row of a step names the panic that broke it off.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let mut stop = unix::signal(unix::SignalKind::terminate()).expect("signals can be caught");
    tokio::select! {
        table = all(&options) => table.ends_well(),
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        _ = stop.recv() => ExitCode::FAILURE,
    }
}

async fn all(options: &Options) -> Table {
    println!("seed {}\n", options.seed);
    let mut table = Table::begin();
    for script in options.scripts() {
        run::play(script, options.seed, &mut table).await;
    }
    println!("\nseed {}\n\n{table}", options.seed);
    for (fault, why) in left_out() {
        println!("left out: {fault} because {why}");
    }
    table
}

/// The faults that this machine cannot have, and the reasons.
fn left_out() -> Vec<(&'static str, String)> {
    FAULTS.iter().filter_map(|fault| Some((fault.name, fault.left_out()?))).collect()
}
