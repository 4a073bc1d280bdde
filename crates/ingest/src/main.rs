//! Ingest: serves the HTTP API, the console and the portal.

mod configuration;
mod metric;
mod presence;
mod report;
mod server;

use fanfare_service::{Environment, Operations, Telemetry, argument, raise_open_files, reference, stop_signal};

use crate::configuration::Configuration;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = argument("ingest", &["--reference", "--openapi", "--docs"]);
    let mut environment = Environment::of_process();
    let configuration = Configuration::read(&mut environment);
    match asked {
        Some("--reference") => {
            print!("{}", reference(&environment, &metric::ALL));
            return Ok(());
        }
        Some("--docs") => {
            print!("{}", server::docs()?);
            return Ok(());
        }
        Some("--openapi") => {
            print!("{}", server::document()?);
            return Ok(());
        }
        _ => {}
    }
    let configuration = environment.finish(configuration)?;
    let telemetry = Telemetry::start("ingest", &configuration.telemetry)?;
    raise_open_files("FANFARE_MAX_CONNECTIONS", configuration.max_connections, 1, server::other_files(&configuration))?;
    let stop = stop_signal()?;
    let operations = Operations::bind(configuration.operations_address, &metric::ALL).await?;
    let served = server::run(configuration, operations, stop).await;
    telemetry.finish();
    served
}
