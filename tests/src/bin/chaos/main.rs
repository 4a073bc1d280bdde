//! `make chaos`: faults, alone and mixed, drawn from a seed, under load; after each run the books of publishers,
//! receivers and Fanfare are compared. Says in one table what became of everything that was accepted.

mod blows;
mod disk;
mod evidence;
mod faults;
mod nodes;
mod options;
mod processes;
mod run;
mod scene;
mod table;

use std::{collections::HashMap, process::ExitCode};

use tokio::signal::unix;

use crate::{
    faults::{FAULTS, Fault},
    options::Options,
    table::Table,
};

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
    // What broke a run off stands in its row.
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
    let mut times: HashMap<String, usize> = HashMap::new();
    for faults in options.runs() {
        let time = times.entry(name_of(&faults)).or_default();
        table.add(run::run(options.seed, *time, &faults).await);
        *time += 1;
    }
    println!("\nseed {}\n\n{table}", options.seed);
    for (fault, why) in left_out() {
        println!("left out: {fault} because {why}");
    }
    table
}

/// What does not run here, and why.
fn left_out() -> Vec<(&'static str, String)> {
    FAULTS.iter().filter_map(|fault| Some((fault.name, fault.left_out()?))).collect()
}

/// The names of what happens in a run.
fn name_of(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join("+")
}
