//! The dispatcher's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{delay::Ladder, policy::Policy};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::StoreSettings;

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
        let amqp_url = environment.amqp_url();
        let prefix = environment.prefix();
        let database_url = environment.database_url();
        let connections = environment.database_connections();
        let keyring = environment.secret_keys();
        let policy = policy(environment);
        let limits = limits(environment);
        let outbound = outbound_settings(environment);
        let meaning = "how long events, deliveries and attempts are kept";
        let retention = environment.duration("FANFARE_RETENTION", "30d", meaning);
        let meaning = "how overdue a delivery must be before its claim counts as lost";
        let rescue_after = environment.duration("FANFARE_RESCUE_AFTER", "60s", meaning);
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let policy = policy?;
        let ladder = Ladder::new(policy.schedule.waits().iter().copied());
        Some(Self {
            broker: BrokerSettings::new(amqp_url?, prefix?, ladder, "fanfare dispatcher"),
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            outbound: outbound?,
            policy,
            limits: limits?,
            retention: retention?,
            rescue_after: rescue_after?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}

fn policy(environment: &mut Environment) -> Option<Policy> {
    let schedule = environment.schedule();
    let meaning = "the deadline of one attempt, from name resolution to the end of the response; an endpoint may have \
                   its own";
    let timeout = environment.duration("FANFARE_ATTEMPT_TIMEOUT", "10s", meaning);
    let meaning = "how long beyond its whole schedule a delivery may stay unfinished before it fails as `expired`";
    let expiry = environment.duration("FANFARE_EXPIRY", "24h", meaning);
    Some(Policy { schedule: schedule?, timeout: timeout?, expiry: expiry? })
}

fn limits(environment: &mut Environment) -> Option<Limits> {
    let meaning = "events, and due claims, that may be on their way through the process at once";
    let prefetch = environment.number("FANFARE_PREFETCH", "512", 1..=2000, meaning);
    let meaning = "attempts that may be on their way to one endpoint at once, in each process";
    let lane = environment.number("FANFARE_LANE_BOUND", "16", 1..=1000, meaning);
    let meaning = "attempts that may be on their way in all, in each process";
    let attempts = environment.number("FANFARE_MAX_ATTEMPTS_IN_FLIGHT", "1024", 1..=20_000, meaning);
    let event_bytes = environment.max_event_bytes();
    Some(Limits {
        prefetch: u16::try_from(prefetch?).ok()?,
        lane: lane?,
        attempts: attempts?,
        event_bytes: event_bytes?,
    })
}

fn outbound_settings(environment: &mut Environment) -> Option<outbound::Settings> {
    let allow = environment.allow_addresses();
    let https_only = environment.https_only();
    let meaning = "certificates (PEM) that are trusted beside those of the system";
    let extra_roots = environment.optional::<PathBuf>("FANFARE_CA_FILE", meaning);
    Some(outbound::Settings { allow: allow?, https_only: https_only?, extra_roots })
}
