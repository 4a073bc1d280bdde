//! The dispatcher's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use fanfare_broker::{BrokerSettings, Topology};
use fanfare_domain::{
    delay::Ladder,
    policy::{Policy, Schedule},
};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::{Keyring, StoreSettings};

/// Everything that the environment says.
pub(crate) struct Configuration {
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) outbound: outbound::Settings,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) retention: Duration,
    pub(crate) rescue_after: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

/// What bounds the work on its way through the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Events, and claims, that may be on their way at once.
    pub(crate) prefetch: u16,
    /// Attempts that may be on their way to one endpoint.
    pub(crate) lane: usize,
    /// Attempts that may be on their way in all.
    pub(crate) attempts: usize,
    /// Bytes of an event's message.
    pub(crate) event_bytes: usize,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let amqp_url = environment.required("AMQP_URL", "the broker: `amqp://user:password@host:5672/vhost`");
        let prefix: Option<String> = environment.with_default(
            "FANFARE_PREFIX",
            "fanfare",
            "what all exchanges and queues start with; environments that share a broker differ in it",
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
        let schedule = environment.with_default::<Schedule>(
            "FANFARE_SCHEDULE",
            "60s,5m,15m,60m,120m",
            "the waits after each failed attempt; each has a delay queue of its own",
        );
        let timeout = environment.duration("FANFARE_ATTEMPT_TIMEOUT", "10s", "the deadline of one attempt, from name resolution to the end of the response; an endpoint may have its own");
        let expiry = environment.duration(
            "FANFARE_EXPIRY",
            "24h",
            "how long beyond its whole schedule a delivery may stay unfinished before it fails as `expired`",
        );
        let limits = limits(environment);
        let outbound = outbound_settings(environment);
        let retention =
            environment.duration("FANFARE_RETENTION", "30d", "how long events, deliveries and attempts are kept");
        let rescue_after = environment.duration(
            "FANFARE_RESCUE_AFTER",
            "60s",
            "how overdue a delivery must be before its claim counts as lost",
        );
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
        let schedule = schedule?;
        let broker = broker(environment, amqp_url?, &prefix?, &schedule)?;
        Some(Self {
            broker,
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            outbound: outbound?,
            policy: Policy { schedule, timeout: timeout?, expiry: expiry? },
            limits: limits?,
            retention: retention?,
            rescue_after: rescue_after?,
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
    let settings = BrokerSettings { url, topology, name: "fanfare dispatcher".to_owned() };
    settings.check().map_err(|error| environment.mistake(format!("AMQP_URL: {error}"))).ok()?;
    Some(settings)
}

fn limits(environment: &mut Environment) -> Option<Limits> {
    let prefetch = environment.number(
        "FANFARE_PREFETCH",
        "512",
        1..=2000,
        "events, and due claims, that may be on their way through the process at once",
    );
    let lane = environment.number(
        "FANFARE_LANE_BOUND",
        "16",
        1..=1000,
        "attempts that may be on their way to one endpoint at once, in each process",
    );
    let attempts = environment.number(
        "FANFARE_MAX_ATTEMPTS_IN_FLIGHT",
        "1024",
        1..=20_000,
        "attempts that may be on their way in all, in each process",
    );
    let event_bytes =
        environment.number("FANFARE_MAX_EVENT_BYTES", "262144", 1024..=16_777_216, "the largest body of an event");
    Some(Limits {
        prefetch: u16::try_from(prefetch?).ok()?,
        lane: lane?,
        attempts: attempts?,
        event_bytes: event_bytes?,
    })
}

fn outbound_settings(environment: &mut Environment) -> Option<outbound::Settings> {
    let allow = environment.list(
        "FANFARE_ALLOW_ADDRESSES",
        "networks (CIDR) that endpoints may be in although they are not public, such as `10.1.0.0/16`",
    );
    let https_only = environment.with_default("FANFARE_HTTPS_ONLY", "true", "`false` lets endpoints have `http:` URLs");
    let extra_roots = environment
        .optional::<PathBuf>("FANFARE_CA_FILE", "certificates (PEM) that are trusted beside those of the system");
    Some(outbound::Settings { allow: allow?, https_only: https_only?, extra_roots })
}
