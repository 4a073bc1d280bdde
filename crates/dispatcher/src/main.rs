//! The dispatcher: consumes events and due retries from the broker, attempts deliveries, records the outcomes and
//! schedules retries. The pipeline of an event starts in `stages/events.rs` and ends in `stages/record.rs`.

mod backlog;
mod configuration;
mod context;
mod database;
mod dispatcher;
mod jobs;
mod lanes;
mod metric;
mod report;
mod stages;

use fanfare_service::{Environment, Operations, Telemetry, argument, raise_open_files, reference, stop_signal};

use crate::{configuration::Configuration, dispatcher::Dispatcher};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = argument("dispatcher", &["--reference"]);
    let mut environment = Environment::of_process();
    let configuration = Configuration::read(&mut environment);
    if asked == Some("--reference") {
        print!("{}", reference(&environment, &metric::ALL));
        return Ok(());
    }
    let configuration = environment.finish(configuration)?;
    let telemetry = Telemetry::start("dispatcher", &configuration.telemetry)?;
    raise_open_files("FANFARE_PLACES", configuration.limits.places.attempts)?;
    let stop = stop_signal()?;
    let operations = Operations::bind(configuration.operations_address, &metric::ALL).await?;
    let drained = Dispatcher::build(configuration)?.run(operations, stop).await;
    telemetry.finish();
    drained
}
