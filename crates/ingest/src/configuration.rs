//! Ingest's settings.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{delay::Ladder, dialect::Dialects};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::StoreSettings;

/// Everything that the environment says.
pub(crate) struct Configuration {
    pub(crate) address: SocketAddr,
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) max_event_bytes: usize,
    pub(crate) outbound: outbound::Settings,
    pub(crate) dialects: Arc<Dialects>,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let address = environment.with_default("FANFARE_ADDRESS", "0.0.0.0:8080", "where the API is served");
        let amqp_urls = environment.amqp_urls();
        let prefix = environment.prefix();
        let dialects = environment.dialects();
        let database_url = environment.database_url();
        let connections = environment.database_connections();
        let keyring = environment.secret_keys();
        let max_event_bytes = environment.max_event_bytes();
        let policy = environment.url_policy();
        let extra_roots = environment.extra_roots();
        let proxy = environment.egress_proxy().map(|(address, gives_names)| outbound::Proxy { address, gives_names });
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let ladder = Ladder::new(dialects.waits());
        Some(Self {
            address: address?,
            broker: BrokerSettings::new(amqp_urls?, prefix?, ladder, "fanfare ingest"),
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            max_event_bytes: max_event_bytes?,
            outbound: outbound::Settings { policy: policy?, extra_roots, proxy },
            dialects,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}
