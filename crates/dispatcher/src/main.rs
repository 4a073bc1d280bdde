//! The dispatcher: consumes events and due retries from the broker, attempts deliveries, records the outcomes and
//! schedules retries. The pipeline of an event starts in `stages/events.rs` and ends in `stages/record.rs`.

mod access_tokens;
mod backlog;
mod configuration;
mod context;
mod database;
mod dispatcher;
mod egress;
mod jobs;
mod lanes;
mod metric;
mod report;
mod stages;

use fanfare_outbound::MAX_IDLE;
use fanfare_service::{Environment, Operations, Telemetry, argument, raise_open_files, reference, stop_signal};

use crate::{configuration::Configuration, dispatcher::Dispatcher};

/// Files of an attempt: its connection, or two sockets while its name is looked up.
const FILES_OF_ATTEMPT: u64 = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = argument("dispatcher", &["--reference"]);
    let mut environment = Environment::of_process();
    let configuration = Configuration::read(&mut environment);
    if asked == Some("--reference") {
        print!("{}", reference(&environment, &metric::ALL));
        return Ok(());
    }
    let mut configuration = environment.finish(configuration)?;
    let telemetry = Telemetry::start("dispatcher", &configuration.telemetry)?;
    let (places, database) = (configuration.limits.places.attempts, configuration.store.connections + 8);
    let spare_files = raise_open_files("FANFARE_PLACES", places, FILES_OF_ATTEMPT, database)?;
    configuration.outbound.max_idle = spare_files.min(MAX_IDLE);
    configuration.outbound.answer_bytes = configuration.limits.answer_bytes;
    let stop = stop_signal()?;
    let operations = Operations::bind(configuration.operations_address, &metric::ALL).await?;
    let drained = Dispatcher::build(configuration)?.run(operations, stop).await;
    telemetry.finish();
    drained
}
