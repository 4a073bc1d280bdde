//! Publishing of events within the rates and quotas of applications. Does not touch the database.

mod quotas;
mod rates;

use std::{sync::Arc, time::Duration};

use fanfare_broker::{PublishError, Publisher, Topology, encode_event};
use fanfare_domain::{
    application::Application,
    event::{Event, delay::LongestDelay},
    ids::ApplicationId,
};
use fanfare_service::{
    CHECKED_AT_ONCE, Checks, Labels, Metric, MetricKind, RecentCount, crash_point, set_parent, trace_of,
};
use fanfare_store::Directory;
use tokio::time::Instant;
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    http::error::{ApiError, ErrorCode},
    state::publishing::{quotas::Quotas, rates::PublishRates},
};

/// The maximum number of events in a batch.
pub(crate) const MAX_BATCH: u16 = 1000;

/// The metric of published events.
pub const PUBLISHED: Metric = Metric {
    name: "fanfare_published_total",
    kind: MetricKind::Counter,
    labels: Labels::One("result", &["accepted", "invalid", "unavailable", "refused", "unknown", "limited"]),
    meaning: "events published over HTTP, by `result`: accepted, invalid, unavailable, refused or unknown; \
              also requests above the publish rate, and events above a quota: limited",
};

/// The metric of the broker's confirms.
pub const PUBLISH_SECONDS: Metric = Metric {
    name: "fanfare_publish_seconds",
    kind: MetricKind::Seconds,
    labels: Labels::None,
    meaning: "time until the broker confirmed an event, or the publish failed",
};

/// The state of the publish routes. Cheap to clone.
#[derive(Clone)]
pub struct Publishing {
    /// Publisher to the broker.
    pub publisher: Publisher,
    /// The exchanges and queues of the broker.
    pub topology: Topology,
    /// The services' copy of the configuration.
    pub directory: Directory,
    /// Largest event, in bytes.
    pub max_event_bytes: usize,
    /// Longest delay of an event.
    pub longest_delay: LongestDelay,
    /// Events accepted by this process.
    pub published: Arc<RecentCount>,
    rates: Arc<PublishRates>,
    quotas: Arc<Quotas>,
    checks: Checks,
}

impl Publishing {
    /// Creates the state. `per_second` is the maximum of events per second of an application without its own limit, 0
    /// for no limit.
    pub fn new(
        (publisher, topology): (Publisher, Topology),
        directory: Directory,
        (max_event_bytes, longest_delay): (usize, LongestDelay),
        per_second: u32,
    ) -> Self {
        let rates = Arc::new(PublishRates::new(per_second));
        let (published, quotas, checks) = (Arc::default(), Arc::default(), Checks::default());
        Self { publisher, topology, directory, max_event_bytes, longest_delay, published, rates, quotas, checks }
    }

    /// Finds an application.
    ///
    /// # Errors
    /// For an unknown application, and for an application whose configuration cannot be read.
    pub(crate) fn application(&self, id: ApplicationId) -> Result<Arc<Application>, ApiError> {
        self.directory.application(id).ok_or_else(|| {
            if self.directory.is_unreadable(id) {
                return ApiError::unreadable_application();
            }
            ApiError::not_found("application", "no application has this id")
        })
    }

    /// Takes `events` from the rate of the application.
    ///
    /// # Errors
    /// 429 above the rate.
    pub(crate) fn take(&self, application: &Application, events: usize) -> Result<(), ApiError> {
        let own = self.directory.limits(application).publish_rate;
        self.rates.take(application.id, own, events).map_err(limited)
    }

    /// Refuses an application without room for an event, before its batch is read.
    ///
    /// # Errors
    /// 429 above the rate.
    pub(crate) fn check_rate(&self, application: &Application) -> Result<(), ApiError> {
        let own = self.directory.limits(application).publish_rate;
        self.rates.check(application.id, own).map_err(limited)
    }

    /// Refuses an application without room in its quotas, before a body is read.
    ///
    /// # Errors
    /// 429 at a quota.
    pub(crate) fn check_quotas(&self, application: &Application) -> Result<(), ApiError> {
        self.quotas.check(&self.directory, application)
    }

    /// Reads and checks the events of a body of `length` bytes. No other request waits for a large body.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        application: &Application,
        length: usize,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if length <= CHECKED_AT_ONCE { read() } else { self.checks.run(application.id, read).await }
    }

    /// Takes an event from the quotas of the application, publishes the event, and waits for the broker's confirm.
    /// `body` is the publisher's JSON.
    ///
    /// # Errors
    /// 429 at a quota, and if the broker has not confirmed the event. The event may be accepted nevertheless.
    pub(crate) async fn send(
        &self,
        application: &Application,
        mut event: Event,
        body: &[u8],
    ) -> Result<Event, ApiError> {
        let taken = self.quotas.take(&self.directory, application, body.len())?;
        let span = send_span(&self.topology, &event);
        // A CloudEvent may name another trace than the request.
        if let (Some(trace), Some(request)) = (&event.trace, trace_of(&Span::current()))
            && trace.parent.trace != request.parent.trace
        {
            set_parent(&span, trace);
        }
        event.trace = trace_of(&span).or(event.trace);
        let message = encode_event(&self.topology, &event, application.version, body);
        let started = Instant::now();
        crash_point("ingest.checked");
        let published = self.publisher.publish(message).instrument(span.clone()).await;
        metrics::histogram!(PUBLISH_SECONDS.name).record(started.elapsed());
        match published {
            Ok(()) => {
                crash_point("ingest.confirmed");
                count("accepted");
                self.published.add(1);
                Ok(event)
            }
            Err(error) => {
                // An event with an unknown outcome may be accepted: the event counts.
                if let (Some(taken), PublishError::Unavailable | PublishError::Refused) = (taken, &error) {
                    self.quotas.give_back(application.id, taken);
                }
                span.record("error.type", error.as_str()).record("otel.status_code", "ERROR");
                Err(unpublished(error, &event))
            }
        }
    }
}

/// Counts an event, or a request, by its result.
pub(crate) fn count(result: &'static str) {
    metrics::counter!(PUBLISHED.name, "result" => result).increment(1);
}

fn limited(wait: Duration) -> ApiError {
    count("limited");
    let message = "the application exceeds its publish rate: send the request again later";
    ApiError::new(ErrorCode::TooManyEvents, message).retry_in(wait)
}

fn unpublished(error: PublishError, event: &Event) -> ApiError {
    tracing::warn!(%error, event = %event.id, "an event was not published: the publisher must send the event again");
    count(error.as_str());
    let (code, message, seconds) = match error {
        PublishError::Unavailable => {
            (ErrorCode::BrokerUnavailable, "the broker is unavailable: send the event again later", 5)
        }
        PublishError::Refused => {
            (ErrorCode::BrokerRefused, "the broker refused the event: send the event again later", 30)
        }
        PublishError::Unknown => (
            ErrorCode::OutcomeUnknown,
            "the event may be accepted: send the event again with the `id` of this error, to be delivered once",
            5,
        ),
    };
    ApiError::new(code, message).retry_after(seconds).about(event.key.clone().unwrap_or_else(|| event.id.to_string()))
}

/// The span of an event's message, in the conventions of OpenTelemetry for
/// [RabbitMQ](https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/).
fn send_span(topology: &Topology, event: &Event) -> Span {
    info_span!(
        "send",
        otel.name = format!("send {}", topology.events_exchange()),
        otel.kind = "producer",
        otel.status_code = Empty,
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "send",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = format!("{}:{}", topology.events_exchange(), event.routing_key()),
        "messaging.rabbitmq.destination.routing_key" = event.routing_key(),
        "messaging.message.id" = event.key.clone().unwrap_or_else(|| event.id.to_string()),
        "fanfare.event" = %event.id,
        "error.type" = Empty,
    )
}
