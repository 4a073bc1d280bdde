//! Ingest's settings.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{delay::DelayQueues, dialect::Dialects};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::StoreSettings;
use ipnet::IpNet;

/// Everything that the environment says.
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
    pub(crate) expiry: Duration,
    pub(crate) retention: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let address = environment.with_default("FANFARE_ADDRESS", "0.0.0.0:8080", "where the API is served");
        let meaning = "connections to the API at once; further ones wait";
        let max_connections = environment.number("FANFARE_MAX_CONNECTIONS", "4096", 1..=1_000_000, meaning);
        let meaning = "proxies (CIDR) in front of the API, whose `X-Forwarded-For` the audit log believes";
        let trusted_proxies = environment.list("FANFARE_TRUSTED_PROXIES", meaning);
        let meaning = "events that one application may publish over HTTP in a second, at each ingest, where it has no limit of \
                       its own; at once it may publish as many, or 1000 where that is more; `0` for no limit";
        let publish_rate = environment.number("FANFARE_PUBLISH_RATE", "5000", 0..=1_000_000, meaning);
        let meaning = "webhooks that one application may have";
        let max_webhooks = environment.number("FANFARE_MAX_WEBHOOKS", "1000", 1..=1_000_000, meaning);
        let amqp_urls = environment.amqp_urls();
        let prefix = environment.prefix();
        let dialects = environment.dialects();
        let database_url = environment.database_url();
        let connections = environment.database_connections();
        let keyring = environment.secret_keys();
        let max_event_bytes = environment.max_event_bytes();
        let policy = environment.url_policy();
        let extra_roots = environment.extra_roots();
        let name_servers = environment.name_servers();
        let proxy = environment.egress_proxy().map(|(address, gives_names)| outbound::Proxy { address, gives_names });
        let expiry = environment.expiry();
        let retention = environment.retention();
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let delays = DelayQueues::new(dialects.waits());
        Some(Self {
            address: address?,
            max_connections: max_connections?,
            publish_rate: u32::try_from(publish_rate?).ok()?,
            max_webhooks: max_webhooks?,
            trusted_proxies: trusted_proxies?,
            broker: BrokerSettings::new(amqp_urls?, prefix?, delays, "fanfare ingest"),
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            max_event_bytes: max_event_bytes?,
            outbound: outbound::Settings { policy: policy?, extra_roots, name_servers: name_servers?, proxy },
            dialects,
            expiry: expiry?,
            retention: retention?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}
