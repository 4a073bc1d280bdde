//! Ingest's settings.

use std::{net::SocketAddr, time::Duration};

use fanfare_broker::{BrokerSettings, Topology};
use fanfare_domain::{address::AddressPolicy, delay::Ladder, policy::Schedule};
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::{Keyring, StoreSettings};

/// Everything that the environment says.
pub(crate) struct Configuration {
    pub(crate) address: SocketAddr,
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) max_event_bytes: usize,
    pub(crate) addresses: AddressPolicy,
    pub(crate) https_only: bool,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let address = environment.with_default("FANFARE_ADDRESS", "0.0.0.0:8080", "where the API is served");
        let amqp_url = environment.required("AMQP_URL", "the broker: `amqp://user:password@host:5672/vhost`");
        let prefix: Option<String> = environment.with_default(
            "FANFARE_PREFIX",
            "fanfare",
            "what all exchanges and queues start with; environments that share a broker differ in it",
        );
        let schedule: Option<Schedule> = environment.with_default(
            "FANFARE_SCHEDULE",
            "60s,5m,15m,60m,120m",
            "the waits after each failed attempt; each has a delay queue of its own",
        );
        let database_url =
            environment.required("DATABASE_URL", "the database: `postgres://user:password@host:5432/database`");
        let connections = environment.number(
            "FANFARE_DATABASE_CONNECTIONS",
            "6",
            2..=100,
            "database connections of the process, beside two for batches and one that listens",
        );
        let keyring = environment.required::<Keyring>("FANFARE_SECRET_KEYS", "the keys that secrets are encrypted with: `name:base64 of 32 bytes`, several separated by commas, the current one first");
        let max_event_bytes =
            environment.number("FANFARE_MAX_EVENT_BYTES", "262144", 1024..=16_777_216, "the largest body of an event");
        let allow = environment.list(
            "FANFARE_ALLOW_ADDRESSES",
            "networks (CIDR) that endpoints may be in although they are not public, such as `10.1.0.0/16`",
        );
        let https_only =
            environment.with_default("FANFARE_HTTPS_ONLY", "true", "`false` lets endpoints have `http:` URLs");
        let grace = environment.duration(
            "FANFARE_GRACE",
            "25s",
            "how long the process may take to drain after SIGTERM; stay below the orchestrator's own limit",
        );
        let operations_address = environment.with_default(
            "FANFARE_OPERATIONS_ADDRESS",
            "0.0.0.0:9090",
            "where `/healthz`, `/readyz` and `/metrics` are served",
        );
        let telemetry = TelemetrySettings::read(environment);
        let broker = broker(environment, amqp_url?, &prefix?, &schedule?)?;
        Some(Self {
            address: address?,
            broker,
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            max_event_bytes: max_event_bytes?,
            addresses: AddressPolicy::new(allow?),
            https_only: https_only?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}

fn broker(environment: &mut Environment, url: String, prefix: &str, schedule: &Schedule) -> Option<BrokerSettings> {
    let topology = Topology::new(prefix, Ladder::new(schedule.waits().iter().copied()))
        .map_err(|error| environment.mistake(format!("FANFARE_PREFIX: {error}")))
        .ok()?;
    let settings = BrokerSettings { url, topology, name: "fanfare ingest".to_owned() };
    settings.check().map_err(|error| environment.mistake(format!("AMQP_URL: {error}"))).ok()?;
    Some(settings)
}
