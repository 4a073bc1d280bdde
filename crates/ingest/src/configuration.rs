//! Settings of ingest, from environment variables.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{delivery::delay::DelayQueues, dialect::Dialects};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::{Keyring, StoreSettings};
use ipnet::IpNet;

pub(crate) struct Configuration {
    pub(crate) address: SocketAddr,
    pub(crate) max_connections: usize,
    pub(crate) publish_rate: u32,
    pub(crate) max_webhooks: usize,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) max_event_bytes: usize,
    pub(crate) outbound: outbound::Settings,
    pub(crate) dialects: Arc<Dialects>,
    /// The settings that all processes must share, for the comparison with others.
    pub(crate) settings: String,
    pub(crate) expiry: Duration,
    pub(crate) retention: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let address = environment.with_default("FANFARE_ADDRESS", "0.0.0.0:8080", "address and port of the API");
        let meaning = "maximum of concurrent connections to the API; further connections wait";
        let max_connections = environment.number("FANFARE_MAX_CONNECTIONS", "4096", 1..=1_000_000, meaning);
        let meaning = "proxies (CIDR) in front of the API; the audit log trusts `X-Forwarded-For` only from these";
        let trusted_proxies = environment.list("FANFARE_TRUSTED_PROXIES", meaning);
        let meaning = "maximum of events per second that an application without its own limit may publish over HTTP \
                       at each ingest; the burst is one second's events, and at least 1000; `0` for no limit";
        let publish_rate = environment.number("FANFARE_PUBLISH_RATE", "5000", 0..=1_000_000, meaning);
        let meaning = "maximum number of webhooks of an application";
        let max_webhooks = environment.number("FANFARE_MAX_WEBHOOKS", "1000", 1..=1_000_000, meaning);
        let broker = environment.broker();
        let prefix = environment.prefix();
        let dialects = environment.dialects();
        let database = environment.database();
        let connections = environment.database_connections();
        let keyring: Option<Keyring> = environment.secret_keys();
        let max_event_bytes = environment.max_event_bytes();
        let policy = environment.url_policy();
        let extra_roots = environment.extra_roots();
        let name_servers = environment.name_servers();
        let proxy = environment.egress_proxy();
        let proxy = proxy.map(|((address, url), gives_names)| outbound::Proxy { address, url, gives_names });
        let expiry = environment.expiry();
        let retention = environment.retention();
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let settings = environment.agreed_settings(&dialects, keyring.as_ref()?.names());
        let delays = DelayQueues::new(dialects.waits());
        let (url, credentials) = database?;
        Some(Self {
            address: address?,
            max_connections: max_connections?,
            publish_rate: u32::try_from(publish_rate?).ok()?,
            max_webhooks: max_webhooks?,
            trusted_proxies: trusted_proxies?,
            broker: BrokerSettings::new(broker?, prefix?, delays, "fanfare ingest"),
            store: StoreSettings { url, credentials, connections: connections?, keyring: keyring? },
            max_event_bytes: max_event_bytes?,
            outbound: outbound::Settings { policy: policy?, extra_roots, name_servers: name_servers?, proxy },
            dialects,
            settings,
            expiry: expiry?,
            retention: retention?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}
