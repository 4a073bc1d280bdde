//! The dispatcher's settings.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::{delay::Ladder, dialect::Dialects, lane};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::StoreSettings;
use lettre::message::Mailbox;

use crate::jobs::SmtpServer;

/// The days' partitions are dropped whole.
const DAY: Duration = Duration::from_secs(86400);

/// Everything that the environment says.
pub(crate) struct Configuration {
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) outbound: outbound::Settings,
    pub(crate) dialects: Arc<Dialects>,
    pub(crate) expiry: Duration,
    pub(crate) limits: Limits,
    pub(crate) retention: Duration,
    pub(crate) audit_retention: Duration,
    pub(crate) holding: Holding,
    pub(crate) mails: Mails,
    pub(crate) rescue_after: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

/// What bounds the deliveries of paused endpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding {
    /// How old their events may be.
    pub(crate) max_age: Duration,
    /// How many there may be for one endpoint.
    pub(crate) most: usize,
    /// How many are let go in a second when endpoints are resumed.
    pub(crate) release_rate: usize,
}

/// How owners are told of failed deliveries.
pub(crate) struct Mails {
    /// The server, and whom the mails are from; none where nobody is told.
    pub(crate) server: Option<(SmtpServer, Mailbox)>,
    /// A recipient gets one mail in this time at the most.
    pub(crate) interval: Duration,
}

/// What bounds the work on its way through the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Events, and claims, that may be on their way at once.
    pub(crate) prefetch: u16,
    /// What bounds each endpoint's lane.
    pub(crate) lane: lane::Limits,
    /// Attempts that may be on their way in all, in their first second.
    pub(crate) fast_attempts: usize,
    /// Attempts that may be on their way in all and take longer, or go to endpoints that may be slow.
    pub(crate) slow_attempts: usize,
    /// Bytes of an event's message.
    pub(crate) event_bytes: usize,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let amqp_urls = environment.amqp_urls();
        let prefix = environment.prefix();
        let database_url = environment.database_url();
        let connections = environment.database_connections();
        let keyring = environment.secret_keys();
        let dialects = environment.dialects();
        let meaning = "how long beyond its whole schedule a delivery may stay unfinished before it fails as `expired`";
        let expiry = environment.duration("FANFARE_EXPIRY", "24h", meaning);
        let limits = limits(environment);
        let outbound = outbound_settings(environment);
        let meaning = "how long events, deliveries and attempts are kept, a day or more";
        let retention = environment.duration_of_at_least("FANFARE_RETENTION", "30d", DAY, meaning);
        let meaning = "how long entries of the audit log are kept";
        let audit_retention = environment.duration_of_at_least("FANFARE_AUDIT_RETENTION", "400d", 90 * DAY, meaning);
        let holding = holding(environment);
        let mails = mails(environment);
        let meaning = "how overdue a delivery must be before its claim counts as lost";
        let rescue_after = environment.duration("FANFARE_RESCUE_AFTER", "60s", meaning);
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let ladder = Ladder::new(dialects.waits());
        Some(Self {
            broker: BrokerSettings::new(amqp_urls?, prefix?, ladder, "fanfare dispatcher"),
            store: StoreSettings { url: database_url?, connections: connections?, keyring: keyring? },
            outbound: outbound?,
            dialects,
            expiry: expiry?,
            limits: limits?,
            retention: retention?,
            audit_retention: audit_retention?,
            holding: holding?,
            mails: mails?,
            rescue_after: rescue_after?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}

fn limits(environment: &mut Environment) -> Option<Limits> {
    let meaning = "events, and due claims, that may be on their way through the process at once";
    let prefetch = environment.number("FANFARE_PREFETCH", "512", 1..=2000, meaning);
    let meaning = "attempts that may be on their way to one endpoint at once, in each process";
    let lane = environment.number("FANFARE_LANE_BOUND", "16", 1..=1000, meaning);
    let meaning = "attempts in a row that an endpoint may fail before each process leaves it alone, but for a probe once in \
                   a while, every minute at last";
    let failures = environment.number("FANFARE_BREAKER_AFTER", "20", 1..=1_000_000, meaning);
    let meaning = "attempts that may be on their way in all, in each process, during their first second; one application may use \
                   half of them";
    let fast = environment.number("FANFARE_MAX_ATTEMPTS_IN_FLIGHT", "1024", 1..=20_000, meaning);
    let meaning = "attempts beside these that may be on their way, in each process, and take longer than a second or go to \
                   endpoints that have not yet answered within one: however many endpoints hang, they use up no more, and those of \
                   one application no more than half";
    let slow = environment.number("FANFARE_MAX_SLOW_ATTEMPTS", "4096", 1..=20_000, meaning);
    let event_bytes = environment.max_event_bytes();
    Some(Limits {
        prefetch: u16::try_from(prefetch?).ok()?,
        lane: lane::Limits { attempts: lane?, failures: u32::try_from(failures?).ok()? },
        fast_attempts: fast?,
        slow_attempts: slow?,
        event_bytes: event_bytes?,
    })
}

fn holding(environment: &mut Environment) -> Option<Holding> {
    let meaning =
        "how long deliveries are held for a paused endpoint; what is held for longer fails as `held_too_long`";
    let max_age = environment.duration("FANFARE_MAX_HELD_AGE", "7d", meaning);
    let meaning = "deliveries that are held for one paused endpoint; what is older fails as `too_many_held`";
    let most = environment.number("FANFARE_MAX_HELD", "100000", 1..=10_000_000, meaning);
    let meaning = "held deliveries that are let go in a second for each endpoint that is resumed";
    let release_rate = environment.number("FANFARE_RELEASE_RATE", "100", 1..=10_000, meaning);
    Some(Holding { max_age: max_age?, most: most?, release_rate: release_rate? })
}

fn mails(environment: &mut Environment) -> Option<Mails> {
    let meaning = "the server for mails to the owners of failed deliveries: `smtps://user:password@host:465` (TLS), \
                   `smtp://user:password@host:587` (STARTTLS, or nothing is sent) or `smtp://host:25?tls=none` (not \
                   encrypted, for a relay on the same machine); user and password are percent-encoded, and may be left \
                   out together. Without it nobody is mailed";
    let server = environment.optional("FANFARE_SMTP_URL", meaning);
    let meaning = "whom these mails are from, such as `Fanfare <fanfare@example.com>`; needed with `FANFARE_SMTP_URL`";
    let from = match server {
        Some(_) => environment.required("FANFARE_MAIL_FROM", meaning),
        None => environment.optional("FANFARE_MAIL_FROM", meaning),
    };
    let meaning = "a recipient gets one mail in this time at the most: it tells of all that failed meanwhile";
    let interval = environment.duration("FANFARE_MAIL_DIGEST", "15m", meaning);
    Some(Mails { server: server.zip(from), interval: interval? })
}

fn outbound_settings(environment: &mut Environment) -> Option<outbound::Settings> {
    let policy = environment.url_policy();
    let extra_roots = environment.extra_roots();
    let name_servers = environment.name_servers();
    let proxy = environment.egress_proxy().map(|(address, gives_names)| outbound::Proxy { address, gives_names });
    Some(outbound::Settings { policy: policy?, extra_roots, name_servers: name_servers?, proxy })
}
