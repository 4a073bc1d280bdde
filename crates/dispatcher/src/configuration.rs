//! Settings of the dispatcher, from environment variables.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare_archive::ArchiveUrl;
use fanfare_broker::{BrokerSettings, HeaderKeys};
use fanfare_credentials::Secret;
use fanfare_domain::{
    delivery::{delay::DelayQueues, lane},
    dialect::Dialects,
    ids::ApplicationId,
};
use fanfare_mailer::{Sender, SmtpServer};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::{Keyring, StoreSettings};
use url::Url;

use crate::lanes::PlaceLimits;

/// Minimum retention of the audit log and of usage: the database refuses to delete younger entries of the log.
const RECORDS_KEPT: Duration = Duration::from_secs(90 * 86400);

pub(crate) struct Configuration {
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) outbound: outbound::Settings,
    pub(crate) dialects: Arc<Dialects>,
    pub(crate) expiry: Duration,
    pub(crate) limits: Limits,
    pub(crate) retention: Duration,
    pub(crate) audit_retention: Duration,
    pub(crate) usage_retention: Duration,
    pub(crate) archive: Option<ArchiveUrl>,
    pub(crate) held: HeldLimits,
    pub(crate) parked: ParkedLimits,
    pub(crate) mails: Mails,
    pub(crate) operational: Operational,
    pub(crate) takeover_after: Duration,
    /// Digests of the settings on which all processes must agree, as a JSON object.
    pub(crate) settings: String,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

/// Bounds on the held deliveries of a paused endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldLimits {
    /// Longest time in state `held`.
    pub(crate) max_age: Duration,
    /// Maximum number of held deliveries.
    pub(crate) most: usize,
}

/// Settings of operational events.
#[derive(Debug, Clone)]
pub(crate) struct Operational {
    /// Application that gets the events; `None` without operational events.
    pub(crate) application: Option<ApplicationId>,
    /// Address of the web pages, for links.
    pub(crate) console: Option<Url>,
    /// True if mails tell owners the changes of lasting conditions.
    pub(crate) is_mailed: bool,
}

/// Settings of mails to owners of endpoints.
pub(crate) struct Mails {
    /// Mail server and sender; `None` sends no mails.
    pub(crate) server: Option<((SmtpServer, Secret), Sender)>,
    /// Minimum time between two mails to a recipient.
    pub(crate) interval: Duration,
}

/// Bounds on the work of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum of event messages, and of retry messages, that are persisted at once.
    pub(crate) prefetch: u16,
    /// Bounds of each lane.
    pub(crate) lane: lane::Limits,
    /// Bounds on attempts in flight or not yet recorded.
    pub(crate) places: PlaceLimits,
    /// Maximum bytes of the answers of all attempts until they are recorded.
    pub(crate) answer_bytes: usize,
    /// Maximum size of an event's message, in bytes.
    pub(crate) event_bytes: usize,
}

/// Bounds on the parked messages whose publishers are at fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParkedLimits {
    pub(crate) messages: usize,
    /// Bytes of kept bodies.
    pub(crate) bytes: usize,
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let broker = environment.broker();
        let prefix = environment.prefix();
        let database = environment.database();
        let connections = environment.database_connections();
        let keyring: Option<Keyring> = environment.secret_keys();
        let dialects = environment.dialects();
        let expiry = environment.expiry();
        let limits = limits(environment);
        let outbound = outbound_settings(environment);
        let retention = environment.retention();
        let meaning = "retention of entries in the audit log, 90 days or more";
        let audit_retention =
            environment.duration_of_at_least("FANFARE_AUDIT_RETENTION", "400d", RECORDS_KEPT, meaning);
        let meaning = "retention of the usage of applications by day, 90 days or more";
        let usage_retention =
            environment.duration_of_at_least("FANFARE_USAGE_RETENTION", "400d", RECORDS_KEPT, meaning);
        let archive = environment.archive();
        let held = held(environment);
        let parked = parked_limits(environment);
        let mails = mails(environment);
        let has_mail_server = mails.as_ref().is_some_and(|mails| mails.server.is_some());
        let operational = operational(environment, has_mail_server);
        let meaning = "time for which the database must have answered without a break before the process takes over \
                       leases and backlogs; after an outage, processes with unrecorded outcomes write first";
        let takeover_after = environment.duration("FANFARE_TAKEOVER_AFTER", "15s", meaning);
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let (lifetime, kept) = (dialects.longest_lifetime(expiry?), retention?);
        check_retention(environment, kept, lifetime.max(held.as_ref()?.max_age));
        check_usage_retention(environment, usage_retention?, kept);
        let settings = environment.agreed_settings(&dialects, keyring.as_ref()?.names());
        let keys = HeaderKeys::new(keyring.as_ref()?.header_keys());
        let delays = DelayQueues::new(dialects.waits());
        let (url, credentials) = database?;
        Some(Self {
            broker: BrokerSettings::new(broker?, prefix?, delays, "fanfare dispatcher")
                .with_keys(keys)
                .with_max_body(limits?.event_bytes),
            store: StoreSettings { url, credentials, connections: connections?, keyring: keyring? },
            outbound: outbound?,
            dialects,
            expiry: expiry?,
            limits: limits?,
            parked: parked?,
            retention: retention?,
            audit_retention: audit_retention?,
            usage_retention: usage_retention?,
            archive,
            held: held?,
            mails: mails?,
            operational,
            takeover_after: takeover_after?,
            settings,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}

/// Checks that every delivery ends at least a day before the drop of its partition.
fn check_retention(environment: &mut Environment, retention: Duration, longest: Duration) {
    let least = longest + Duration::from_secs(86400);
    if retention < least {
        environment.mistake(format!(
            "FANFARE_RETENTION: {retention:?} is shorter than the longest lifetime of a delivery, {longest:?}, and a \
             day; raise FANFARE_RETENTION to {least:?}, or shorten FANFARE_EXPIRY, FANFARE_MAX_HELD_AGE or the \
             schedules of dialects"
        ));
    }
}

/// Checks that usage outlives the events: the bytes of stored events are a sum over their days.
fn check_usage_retention(environment: &mut Environment, usage: Duration, events: Duration) {
    if usage < events {
        environment.mistake(format!(
            "FANFARE_USAGE_RETENTION: {usage:?} is shorter than FANFARE_RETENTION, {events:?}; raise \
             FANFARE_USAGE_RETENTION to {events:?}"
        ));
    }
}

/// Equal parts of the memory: four for attempts, two for messages in hand, one for the attempts' payloads, and one for
/// their answers.
const MEMORY_PARTS: usize = 8;

/// Copies of an event's body from the message to the commit: the body, the rendered and the redacted payload.
const EVENT_COPIES: usize = 3;

/// Memory of an attempt in flight without payload and answer, in bytes, as measured (deploy/capacity.md).
const ATTEMPT_BYTES: usize = 24 * 1024;

/// Minimum of `FANFARE_PLACES`.
const LEAST_PLACES: usize = 4;

fn limits(environment: &mut Environment) -> Option<Limits> {
    let meaning = "maximum of event messages, and of retry messages, that the process persists at once; fewer if the \
                   largest events would not fit into a part of the memory";
    let prefetch = environment.number("FANFARE_PREFETCH", "512", 1..=2000, meaning);
    let meaning = "maximum of concurrent attempts to an endpoint, in all processes together";
    let lane = environment.number("FANFARE_LANE_BOUND", "16", 1..=1000, meaning);
    let meaning = "consecutive failed attempts after which a process opens the endpoint's breaker: the endpoint then \
                   gets only probes, with growing waits, in the end at most one a minute";
    let failures = environment.number("FANFARE_BREAKER_AFTER", "20", 1..=1_000_000, meaning);
    let meaning = "places: maximum of attempts in flight or not yet recorded, in each process. An application may use \
                   half; a quarter is reserved for endpoints that answer within a second. Less memory means fewer places";
    let attempts = environment.number("FANFARE_PLACES", "6000", LEAST_PLACES..=100_000, meaning);
    let memory = environment.memory_budget();
    let event_bytes = environment.max_event_bytes();
    let bounded = Bounded::by(memory?, event_bytes?);
    Some(Limits {
        prefetch: u16::try_from(prefetch?.min(bounded.messages)).ok()?,
        lane: lane::Limits { attempts: lane?, failures: u32::try_from(failures?).ok()? },
        places: PlaceLimits { attempts: attempts?.min(bounded.attempts), bytes: bounded.payloads },
        answer_bytes: bounded.answers,
        event_bytes: event_bytes?,
    })
}

/// Limits that follow from the memory: counts of messages in hand and of attempts, and bytes of payloads and answers.
#[derive(Debug, PartialEq, Eq)]
struct Bounded {
    messages: usize,
    attempts: usize,
    payloads: usize,
    answers: usize,
}

impl Bounded {
    /// Divides `memory` among the work with events of at most `event_bytes`. An application uses half of the payloads,
    /// which the largest event must fit.
    fn by(memory: usize, event_bytes: usize) -> Self {
        let part = memory / MEMORY_PARTS;
        Self {
            messages: (2 * part / event_bytes.saturating_mul(EVENT_COPIES)).max(1),
            attempts: (4 * part / ATTEMPT_BYTES).max(LEAST_PLACES),
            payloads: part.max(event_bytes.saturating_mul(4)),
            answers: part,
        }
    }
}

fn held(environment: &mut Environment) -> Option<HeldLimits> {
    let meaning = "longest time for which a delivery is held for a paused endpoint; then the delivery fails as \
                   `held_too_long`";
    let max_age = environment.duration("FANFARE_MAX_HELD_AGE", "7d", meaning);
    let meaning = "maximum of deliveries held for a paused endpoint; older deliveries fail as `too_many_held`";
    let most = environment.number("FANFARE_MAX_HELD", "100000", 1..=10_000_000, meaning);
    Some(HeldLimits { max_age: max_age?, most: most? })
}

fn mails(environment: &mut Environment) -> Option<Mails> {
    let meaning = "server for mails to owners of endpoints: `smtps://user:password@host:465` (TLS), \
                   `smtp://user:password@host:587` (STARTTLS is required) or `smtp://host:25?tls=none` (not encrypted, \
                   for a relay on the same machine); user and password are percent-encoded, and may be left out \
                   together. Without a server, no mails are sent";
    let server = environment.secret("FANFARE_SMTP_URL", meaning);
    let meaning = "sender of the mails, such as `Fanfare <fanfare@example.com>`; required with `FANFARE_SMTP_URL`";
    let from = match server {
        Some(_) => environment.required("FANFARE_MAIL_FROM", meaning),
        None => environment.optional("FANFARE_MAIL_FROM", meaning),
    };
    let meaning = "minimum time between two mails to a recipient; the next mail reports all since";
    let interval = environment.duration("FANFARE_MAIL_DIGEST", "15m", meaning);
    Some(Mails { server: server.zip(from), interval: interval? })
}

fn operational(environment: &mut Environment, has_mail_server: bool) -> Operational {
    let meaning = "application that gets operational events, such as a webhook that fails for an hour \
                   (proto/operational-events.md); without a value, nothing is told";
    let application = environment.optional("FANFARE_OPERATIONAL_EVENTS_APPLICATION", meaning);
    let meaning = "`true`: mails also tell owners that an endpoint is disabled, fails for an hour, has an open breaker \
                   or is near a limit, and the end of each; needs the application of operational events and a \
                   mail server";
    let is_mailed = environment.with_default("FANFARE_MAIL_CONDITIONS", "false", meaning).unwrap_or_default();
    if is_mailed && (application.is_none() || !has_mail_server) {
        environment.mistake(
            "FANFARE_MAIL_CONDITIONS is true, and needs FANFARE_OPERATIONAL_EVENTS_APPLICATION and FANFARE_SMTP_URL",
        );
    }
    Operational { application, console: environment.console_url(), is_mailed }
}

fn parked_limits(environment: &mut Environment) -> Option<ParkedLimits> {
    let meaning = "maximum of parked messages; the oldest are deleted first. Messages whose publisher is not at fault \
                   (`delivery_limit`, `application_unreadable`) are kept, and do not count";
    let messages = environment.number("FANFARE_MAX_PARKED", "100000", 1..=10_000_000, meaning);
    let meaning = "maximum MiB of parked messages' bodies; the oldest are deleted first";
    let mebibytes = environment.number("FANFARE_MAX_PARKED_MIB", "1024", 1..=1_048_576, meaning);
    Some(ParkedLimits { messages: messages?, bytes: mebibytes? * 1024 * 1024 })
}

fn outbound_settings(environment: &mut Environment) -> Option<outbound::Settings> {
    let policy = environment.url_policy();
    let extra_roots = environment.extra_roots();
    let name_servers = environment.name_servers();
    let proxy = environment.egress_proxy();
    Some(outbound::Settings::new(policy?, extra_roots, name_servers?, proxy))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_container_of_512_mib_bounds_the_work() {
        let bounded = Bounded::by(256 << 20, 256 << 10);
        assert_eq!(bounded, Bounded { messages: 85, attempts: 5461, payloads: 32 << 20, answers: 32 << 20 });
    }

    proptest! {
        #[test]
        fn the_work_fits_into_the_memory(memory in 64_usize << 20..64 << 30, event in 1_usize << 10..1 << 20) {
            let Bounded { messages, attempts, payloads, answers } = Bounded::by(memory, event);
            let most = messages * EVENT_COPIES * event + attempts * ATTEMPT_BYTES + payloads + answers;
            prop_assert!(most <= memory);
            prop_assert!(payloads / 4 >= event, "half of an application's half, for slow endpoints");
        }
    }
}
