//! `POST /api/v1/events` and `/api/v1/events/batch`: authenticate, check, publish, and answer after the broker's
//! confirm. Does not touch the database.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use fanfare_domain::{
    access::api_key::Role,
    application::Application,
    event::{Event, EventFields, check_accepted_at, check_key, delay::LongestDelay, ordering::check_delay},
    ids::EventId,
};
use fanfare_service::incoming_trace;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        answer::{Accepted, Answer},
        authentication::{application_of, authenticate},
        body::{discard, read_bytes},
        error::{ApiError, ErrorCode, Failures},
    },
    routes::events::cloud_events::{CloudEvent, Form},
    state::publishing::{MAX_BATCH, Publishing, count},
};

/// The largest batch, in multiples of the largest event.
pub const BATCH_SIZE_FACTOR: usize = 16;

/// Header of each delivery (Standard Webhooks).
const WEBHOOK_ID: &str = "webhook-id";

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
    #[schema(nullable = false)]
    id: Option<String>,
    /// The time of the event.
    #[schema(format = DateTime, nullable = false)]
    time: Option<String>,
    /// The time of delivery. A time that is not ahead delivers at once.
    #[schema(format = DateTime, nullable = false)]
    deliver_at: Option<String>,
    /// The version of the type's schema that the data fits; the newest if omitted. Only a strict application checks.
    #[schema(nullable = false, minimum = 1, maximum = 20)]
    version: Option<u32>,
    /// Events with the same ordering key get consecutive numbers at each webhook. 1 to 255 visible ASCII characters.
    #[schema(nullable = false, example = "order-1001", max_length = 255)]
    ordering_key: Option<String>,
}

/// An accepted event.
#[derive(Serialize, ToSchema)]
pub struct Published {
    #[schema(value_type = String, example = "evt_01h455vb4pex5vsknk084sn02q")]
    pub id: EventId,
}

/// The result of an event in a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum PublishedOrNot {
    /// The event is accepted.
    Published(Answer<Published>),
    /// The event is not accepted.
    Failed {
        #[schema(example = false)]
        success: bool,
        error: ApiError,
    },
}

/// The routes below `/api/v1` that publish events.
pub fn publish_routes() -> OpenApiRouter<Publishing> {
    OpenApiRouter::new().routes(routes!(single)).routes(routes!(batch))
}

/// Publishes an event: in JSON, or a CloudEvent. Once answered with 202, the event is not lost.
///
/// A CloudEvent in binary mode has the attributes in headers `ce-…`, and the data as body, of any other content type.
#[utoipa::path(post, path = "/events", operation_id = "publish_event", tag = "events",
    params(
        ("application" = Option<String>, Query, description = "id of the application, for an admin key"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same as `id` in the body"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context of the event"),
        ("tracestate" = Option<String>, Header, description = "W3C trace context of the event"),
    ),
    request_body(content((New = "application/json"), (CloudEvent = "application/cloudevents+json"))),
    responses((status = 202, body = Answer<Published>), Failures))]
async fn single(
    State(publishing): State<Publishing>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted<Published>, ApiError> {
    let application = publishing.authenticated(&headers, &uri)?;
    let admitted = publishing.check_quotas(&application).and_then(|()| publishing.take(&application, 1));
    if let Err(error) = admitted {
        discard(body).await;
        return Err(error);
    }
    let form = Form::of(&headers)?;
    let body = read_bytes(body, publishing.max_event_bytes).await?;
    let idempotency_key = idempotency_key(&headers)?;
    let reading = publishing.reading(&application, form, headers);
    let read = publishing.read(&application, body.len(), move || reading.event(body, idempotency_key)).await;
    let id = publishing.publish(&application, read).await?;
    Ok(Accepted(Published { id }))
}

/// Publishes 1 to 1000 events in JSON, also CloudEvents. The answer has a result for each event, in order. Status 207:
/// some events are not accepted.
#[utoipa::path(post, path = "/events/batch", operation_id = "publish_events", tag = "events",
    params(
        ("application" = Option<String>, Query, description = "id of the application, for an admin key"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context of the events"),
        ("tracestate" = Option<String>, Header, description = "W3C trace context of the events"),
    ),
    request_body(content((Vec<New> = "application/json"), (Vec<CloudEvent> = "application/cloudevents-batch+json"))),
    responses(
        (status = 202, body = Answer<Vec<PublishedOrNot>>),
        (status = 207, body = Answer<Vec<PublishedOrNot>>),
        Failures,
    ))]
async fn batch(
    State(publishing): State<Publishing>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let application = publishing.authenticated(&headers, &uri)?;
    let admitted = publishing.check_quotas(&application).and_then(|()| publishing.check_rate(&application));
    if let Err(error) = admitted {
        discard(body).await;
        return Err(error);
    }
    let form = Form::of_batch(&headers)?;
    let body = read_bytes(body, publishing.max_event_bytes.saturating_mul(BATCH_SIZE_FACTOR)).await?;
    if idempotency_key(&headers)?.is_some() {
        return Err(ApiError::invalid("Idempotency-Key", "does not apply to a batch: give each event an `id`"));
    }
    let events: Vec<&RawValue> = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(ErrorCode::MalformedJson, format!("the body is not a JSON list of events: {error}"))
    })?;
    if events.is_empty() || events.len() > usize::from(MAX_BATCH) {
        return Err(ApiError::new(ErrorCode::InvalidBatch, format!("the batch must have 1 to {MAX_BATCH} events")));
    }
    publishing.take(&application, events.len())?;
    let events: Vec<Bytes> = events.iter().map(|event| body.slice_ref(event.get().as_bytes())).collect();
    let reading = publishing.reading(&application, form, headers);
    let read = move || events.into_iter().map(|event| reading.event(event, None)).collect::<Vec<_>>();
    let read = publishing.read(&application, body.len(), read).await;
    let published = join_all(read.into_iter().map(|read| publishing.publish(&application, read))).await;
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

impl Publishing {
    /// The application of a request.
    fn authenticated(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Application>, ApiError> {
        let caller = authenticate(headers, &self.directory, &Role::ALL)?;
        self.application(application_of(&caller, uri.query())?)
    }

    fn reading(&self, application: &Arc<Application>, form: Form, headers: HeaderMap) -> Reading {
        let (max_bytes, longest_delay, now) = (self.max_event_bytes, self.longest_delay, self.directory.now());
        Reading { application: Arc::clone(application), form, headers, max_bytes, longest_delay, now }
    }

    /// Publishes an event that was read.
    async fn publish(
        &self,
        application: &Application,
        read: Result<(Event, Bytes), ApiError>,
    ) -> Result<EventId, ApiError> {
        let (event, body) = read.inspect_err(|_| count("invalid"))?;
        self.send(application, event, &body).await.map(|event| event.id)
    }
}

/// The parts of a request that apply to each of its events.
struct Reading {
    application: Arc<Application>,
    form: Form,
    headers: HeaderMap,
    max_bytes: usize,
    longest_delay: LongestDelay,
    now: Timestamp,
}

impl Reading {
    /// Reads and checks an event. Returns its JSON as well.
    fn event(&self, body: Bytes, idempotency_key: Option<String>) -> Result<(Event, Bytes), ApiError> {
        refuse_delivery(&self.headers)?;
        let body = self.form.json(&self.headers, body)?;
        if body.len() > self.max_bytes {
            let message = format!("the event is larger than {} bytes: send less data", self.max_bytes);
            return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
        }
        let fields = self.form.parse(&body)?;
        let event = event(&self.application, fields, idempotency_key, &self.headers, self.now)?;
        self.longest_delay.due(event.deliver_at, event.id.accepted_at().unwrap_or(self.now), self.now)?;
        Ok((event, body))
    }
}

fn event(
    application: &Application,
    fields: EventFields,
    idempotency_key: Option<String>,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Event, ApiError> {
    let event_type = fields.require_type()?.clone();
    application.check_event(&event_type, fields.version, &fields.data)?;
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
    check_delay(fields.ordering_key.as_ref(), fields.deliver_at)?;
    Ok(Event {
        id,
        application,
        event_type,
        key,
        data: fields.data,
        occurred_at: fields.occurred_at,
        deliver_at: fields.deliver_at,
        version: fields.version,
        ordering_key: fields.ordering_key,
        trace: incoming_trace(headers).or(fields.trace),
        cloud_event: fields.cloud_event,
    })
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

/// Refuses a delivery of a webhook, whose body may be a valid event: an endpoint that points at this route would feed
/// itself for ever.
fn refuse_delivery(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(WEBHOOK_ID) {
        return Err(ApiError::invalid(
            WEBHOOK_ID,
            "marks a delivery of a webhook: publish the event without the header",
        ));
    }
    Ok(())
}
