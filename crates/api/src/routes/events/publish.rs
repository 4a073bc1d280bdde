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
    event::{Event, EventFields, check_accepted_at, check_key},
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
    /// The version of the type's schema that the data fits; the newest if omitted. Only a strict application checks.
    #[schema(nullable = false, minimum = 1, maximum = 20)]
    version: Option<u32>,
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
    if let Err(error) = publishing.take(&application, 1) {
        discard(body).await;
        return Err(error);
    }
    let form = Form::of(&headers)?;
    let body = read_bytes(body, publishing.max_event_bytes).await?;
    let idempotency_key = idempotency_key(&headers)?;
    let id = publishing.publish(&application, (form, body), idempotency_key, &headers).await?;
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
    if let Err(error) = publishing.check_rate(&application) {
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
    let published = events.iter().map(|event| {
        let event = body.slice_ref(event.get().as_bytes());
        publishing.publish(&application, (form, event), None, &headers)
    });
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

impl Publishing {
    /// The application of a request.
    fn authenticated(&self, headers: &HeaderMap, uri: &Uri) -> Result<Arc<Application>, ApiError> {
        let caller = authenticate(headers, &self.directory, &Role::ALL)?;
        self.application(application_of(&caller, uri.query())?)
    }

    /// Checks and publishes an event.
    async fn publish(
        &self,
        application: &Application,
        (form, body): (Form, Bytes),
        idempotency_key: Option<String>,
        headers: &HeaderMap,
    ) -> Result<EventId, ApiError> {
        let read = || {
            refuse_delivery(headers)?;
            let body = form.json(headers, body)?;
            if body.len() > self.max_event_bytes {
                let message = format!("the event is larger than {} bytes: send less data", self.max_event_bytes);
                return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
            }
            let event = event(application, form.parse(&body)?, idempotency_key, headers, self.directory.now())?;
            Ok((event, body))
        };
        let (event, body) = read().inspect_err(|_| count("invalid"))?;
        self.send(application, event, &body).await.map(|event| event.id)
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
    Ok(Event {
        id,
        application,
        event_type,
        key,
        data: fields.data,
        occurred_at: fields.occurred_at,
        version: fields.version,
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
