//! `POST /api/v1/events` and `/api/v1/events/batch`: authenticate, check, publish, and answer after the broker's
//! confirm. Does not touch the database.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use fanfare_api::{Answer, ApiError, ErrorCode, Failures, application_of, authenticate, discard, read_body};
use fanfare_broker::{PublishError, Publisher, Topology, encode_event};
use fanfare_domain::{
    access::api_key::Role,
    application::Application,
    event::{Event, EventFields, check_accepted_at, check_key},
    ids::EventId,
};
use fanfare_service::{RecentCount, crash_point, incoming_trace, trace_of};
use fanfare_store::Directory;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{Instrument, Span, field::Empty, info_span};
use utoipa::ToSchema;

use crate::{metric, publish_rates::PublishRates};

/// The maximum number of events in a batch.
pub(crate) const MAX_BATCH: u16 = 1000;

/// The largest batch, in multiples of the largest event.
const BATCH_SIZE_FACTOR: usize = 16;

/// The state of the routes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Publish {
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    pub(crate) directory: Directory,
    pub(crate) max_event_bytes: usize,
    pub(crate) publish_rates: Arc<PublishRates>,
    /// Events accepted.
    pub(crate) published: Arc<RecentCount>,
}

/// An event to publish.
#[derive(ToSchema)]
#[schema(as = NewEvent)]
#[expect(dead_code, reason = "for the OpenAPI document; `EventFields` parses the body, and keeps the bytes of `data`")]
struct New {
    /// 1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    #[schema(example = "points.earned")]
    r#type: String,
    /// The payload: any JSON value.
    data: serde_json::Value,
    /// The publisher's id of the event, at most 255 bytes: the idempotency key. Events with the same id are the same
    /// event, and are delivered once.
    id: Option<String>,
    /// The time of the event.
    #[schema(format = DateTime)]
    time: Option<String>,
}

/// An accepted event.
#[derive(Serialize, ToSchema)]
pub(crate) struct Published {
    #[schema(value_type = String, example = "evt_01h455vb4pex5vsknk084sn02q")]
    id: EventId,
}

/// The result of an event in a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum PublishedOrNot {
    /// The event is accepted.
    Published(Answer<Published>),
    /// The event is not accepted.
    Failed {
        #[schema(example = false)]
        success: bool,
        error: ApiError,
    },
}

/// Publishes an event. Once answered with 202, the event is not lost.
#[utoipa::path(post, path = "/events", operation_id = "publish_event", tag = "events",
    params(
        ("application" = Option<String>, Query, description = "id of the application, for an admin key"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same as `id` in the body"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context of the event"),
        ("tracestate" = Option<String>, Header, description = "W3C trace context of the event"),
    ),
    request_body = New, responses((status = 202, body = Answer<Published>), Failures))]
pub(crate) async fn single(
    State(publish): State<Publish>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let application = publish.application(&headers, &uri)?;
    if let Err(error) = publish.take(&application, 1) {
        discard(body).await;
        return Err(error);
    }
    let body = read_body(&headers, body, publish.max_event_bytes).await?;
    let idempotency_key = idempotency_key(&headers)?;
    let id = publish.event(&application, &body, idempotency_key, &headers).await?;
    Ok(Answer::of(Published { id }).with(StatusCode::ACCEPTED))
}

/// Publishes 1 to 1000 events. The answer has a result for each event, in order. Status 207: some events are not
/// accepted.
#[utoipa::path(post, path = "/events/batch", operation_id = "publish_events", tag = "events",
    params(
        ("application" = Option<String>, Query, description = "id of the application, for an admin key"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context of the events"),
        ("tracestate" = Option<String>, Header, description = "W3C trace context of the events"),
    ),
    request_body = Vec<New>,
    responses(
        (status = 202, body = Answer<Vec<PublishedOrNot>>),
        (status = 207, body = Answer<Vec<PublishedOrNot>>),
        Failures,
    ))]
pub(crate) async fn batch(
    State(publish): State<Publish>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let application = publish.application(&headers, &uri)?;
    let body = read_body(&headers, body, publish.max_event_bytes.saturating_mul(BATCH_SIZE_FACTOR)).await?;
    if idempotency_key(&headers)?.is_some() {
        return Err(ApiError::invalid("Idempotency-Key", "does not apply to a batch: give each event an `id`"));
    }
    let events: Vec<&RawValue> = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(ErrorCode::MalformedJson, format!("the body is not a JSON list of events: {error}"))
    })?;
    if events.is_empty() || events.len() > usize::from(MAX_BATCH) {
        return Err(ApiError::new(ErrorCode::InvalidBatch, format!("the batch must have 1 to {MAX_BATCH} events")));
    }
    publish.take(&application, events.len())?;
    let published = events.iter().map(|event| publish.event_of_batch(&application, event.get(), &headers));
    let published = join_all(published).await;
    let is_complete = published.iter().all(Result::is_ok);
    let answers: Vec<_> = published
        .into_iter()
        .map(|published| match published {
            Ok(id) => PublishedOrNot::Published(Answer::of(Published { id })),
            Err(error) => PublishedOrNot::Failed { success: false, error },
        })
        .collect();
    // A client that reads only the status must not assume that all events are accepted.
    let status = if is_complete { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    Ok(Answer::of(answers).with(status))
}

impl Publish {
    fn application(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Application>, ApiError> {
        let caller = authenticate(headers, &self.directory, &Role::ALL)?;
        let id = application_of(&caller, uri.query())?;
        self.directory.application(id).ok_or_else(|| {
            if self.directory.is_unreadable(id) {
                return ApiError::unreadable_application();
            }
            ApiError::not_found("application", "no application has this id")
        })
    }

    /// Takes `events` from the rate of the application.
    fn take(&self, application: &Application, events: usize) -> Result<(), ApiError> {
        self.publish_rates.take(application, events).map_err(|wait| {
            count("limited");
            let message = "the application exceeds its publish rate: send the request again later";
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            ApiError::new(ErrorCode::TooManyEvents, message).retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
        })
    }

    async fn event_of_batch(
        &self,
        application: &Application,
        body: &str,
        headers: &HeaderMap,
    ) -> Result<EventId, ApiError> {
        if body.len() > self.max_event_bytes {
            let message = format!("the event is larger than {} bytes: send less data", self.max_event_bytes);
            return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
        }
        self.event(application, body.as_bytes(), None, headers).await
    }

    /// Checks and publishes an event.
    async fn event(
        &self,
        application: &Application,
        body: &[u8],
        idempotency_key: Option<String>,
        headers: &HeaderMap,
    ) -> Result<EventId, ApiError> {
        let event = event(application, body, idempotency_key, headers, self.directory.now());
        let mut event = event.inspect_err(|_| count("invalid"))?;
        let span = send_span(&self.topology, &event);
        event.trace = trace_of(&span).or(event.trace);
        let message = encode_event(&self.topology, &event, application.version, body);
        let started = Instant::now();
        crash_point("ingest.checked");
        let published = self.publisher.publish(message).instrument(span.clone()).await;
        metrics::histogram!(metric::PUBLISH_SECONDS).record(started.elapsed());
        match published {
            Ok(()) => {
                crash_point("ingest.confirmed");
                count("accepted");
                self.published.add(1);
                Ok(event.id)
            }
            Err(error) => {
                span.record("error.type", error.as_str()).record("otel.status_code", "ERROR");
                Err(unpublished(error, &event))
            }
        }
    }
}

fn event(
    application: &Application,
    body: &[u8],
    idempotency_key: Option<String>,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Event, ApiError> {
    let fields = EventFields::parse(body)?;
    let event_type = fields.require_type()?.clone();
    application.check_type(&event_type)?;
    let application = application.id;
    let key = match (fields.key, idempotency_key) {
        (Some(id), Some(key)) if id != key => {
            return Err(ApiError::invalid("id", "differs from the header Idempotency-Key: give only one"));
        }
        (id, key) => id.or(key),
    };
    let id = match &key {
        Some(key) => EventId::from_key(application, key),
        None => EventId::new(application, now, rand::random()),
    };
    check_accepted_at("id", id, now)?;
    let trace = incoming_trace(headers);
    Ok(Event { id, application, event_type, key, data: fields.data, occurred_at: fields.occurred_at, trace })
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

fn count(result: &'static str) {
    metrics::counter!(metric::PUBLISHED, "result" => result).increment(1);
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid("Idempotency-Key", "is given twice"));
    }
    let text = value.to_str().map_err(|_| ApiError::invalid("Idempotency-Key", "must be visible ASCII"))?;
    Ok(Some(check_key("Idempotency-Key", text.to_owned())?))
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
