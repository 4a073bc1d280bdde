//! Ingest's settings.

use std::{net::SocketAddr, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{address::AddressPolicy, delay::Ladder};
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::StoreSettings;

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
        let amqp_url = environment.amqp_url();
        let prefix = environment.prefix();
        let schedule = environment.schedule();
        let database_url = environment.database_url();
        let connections = environment.database_connections();
        let keyring = environment.secret_keys();
        let max_event_bytes = environment.max_event_bytes();
        let allow = environment.allow_addresses();
        let https_only = environment.https_only();
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let ladder = Ladder::new(schedule?.waits().iter().copied());
        Some(Self {
            address: address?,
            broker: BrokerSettings::new(amqp_url?, prefix?, ladder, "fanfare ingest"),
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
