//! The dispatcher: takes events and due claims from the broker, attempts deliveries, records what came of
//! them, and schedules what comes next. The way of an event reads from `events` and `claims` to `settle`.

mod assignment;
mod attempt;
mod batch;
mod claims;
mod configuration;
mod database;
mod dispatch;
mod events;
mod jobs;
mod lanes;
mod metric;
mod park;
mod per_endpoint;
mod persist;
mod rates;
mod record;
mod settle;
mod take;
mod unrouted;
mod wide;

use fanfare_service::{Environment, Operations, Telemetry, argument, reference, stop_signal};

use crate::{configuration::Configuration, dispatch::Dispatcher};

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
    let stop = stop_signal()?;
    let operations = Operations::bind(configuration.operations_address, &metric::ALL).await?;
    let drained = Dispatcher::build(configuration)?.run(operations, stop).await;
    telemetry.finish();
    drained
}
