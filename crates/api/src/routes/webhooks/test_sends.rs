//! `/api/v1/webhooks/{id}/test`: a test event, rendered, signed and sent like a real event.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use bytes::Bytes;
use fanfare_domain::{
    application::Application,
    delivery::{FailureReason, outcome::OutcomeClass},
    dialect::Sending,
    endpoint::{
        Endpoint, Feed,
        template::{Shaped, Shaper},
    },
    event::{
        Event, EventType,
        catalogue::{Catalogue, EMPTY_SAMPLE, nearest},
        with_suggestion,
    },
    ids::{DeliveryId, EndpointId, EventId, LeaseId},
};
use fanfare_outbound::{EgressUnavailable, Probe, Request};
use fanfare_service::trace_of;
use fanfare_store::{AttemptRecord, NewEvent, NextState, spawn_for_caller};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::Span;
use url::Url;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::{OptionalJsonBody, even_null},
        error::{ApiError, ErrorCode, Failures},
        parameters::Path,
    },
    routes::{
        event_types::checked_data,
        webhooks::{authentication::TestToken, no_such_webhook},
    },
    state::{ApiState, beside_others},
};

/// The largest data of a test event, in bytes.
const MAX_DATA: usize = 256 * 1024;

/// The test event.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTest)]
pub struct New {
    /// The event type. Default: the first described type among the webhook's subscriptions, else the first subscribed
    /// type.
    pub r#type: Option<String>,
    /// The data: any JSON value. Default: the sample of the type; `{}` for a subscribed type without description.
    #[serde(default, deserialize_with = "even_null")]
    #[schema(value_type = Value)]
    pub data: Option<Box<RawValue>>,
    /// Another URL for this test, to try a change before saving. At another origin (scheme, host or port) the webhook's
    /// own headers, authentication and client certificate are not sent. Default: the webhook's URL.
    pub url: Option<String>,
}

/// Result of a test.
#[derive(Serialize, ToSchema)]
pub struct TestResult {
    /// True if the webhook accepted the event.
    pub delivered: bool,
    #[schema(value_type = String)]
    pub event: EventId,
    /// The id of the recorded delivery, with a single attempt.
    #[schema(value_type = String)]
    pub delivery: DeliveryId,
    pub request: Sent,
    /// The response of the webhook; `null` without a response.
    pub response: Option<Received>,
    /// `answered`, or the kind of failure, such as `timed_out`.
    #[schema(example = "answered")]
    pub outcome: &'static str,
    pub error: Option<String>,
    pub timings: Phases,
}

/// Request of a test.
#[derive(Serialize, ToSchema)]
pub struct Sent {
    pub url: String,
    /// Names and values. The values of the webhook's own headers are hidden.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body, except redacted members.
    pub body: String,
}

/// Response to a test.
#[derive(Serialize, ToSchema)]
pub struct Received {
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    /// The body of the response. Invalid UTF-8 is replaced.
    pub body: String,
}

/// Durations of the phases, in milliseconds; `null` for an absent or incomplete phase.
#[derive(Serialize, ToSchema)]
pub struct Phases {
    pub dns_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub tls_ms: Option<f64>,
    /// From the start of the request on the connection to the head of the response.
    pub first_byte_ms: Option<f64>,
    pub total_ms: f64,
}

/// Sends a test event to a webhook once, whatever the webhook's status. The answer has the result.
#[utoipa::path(post, path = "/webhooks/{id}/test", operation_id = "test_webhook", tag = "webhooks",
    params(("id" = String, Path)), request_body = Option<New>,
    responses((status = 200, body = Answer<TestResult>), Failures))]
pub async fn send(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    OptionalJsonBody(new): OptionalJsonBody<New>,
) -> Result<Answer<TestResult>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    if row.feed == Feed::Only && new.url.is_none() {
        let message = "nothing is sent to the webhook: publish an event, such as the sample of a type, or give a `url`";
        return Err(ApiError::new(ErrorCode::FeedOnly, message));
    }
    let rules = api.rules_of(&authorized).await?;
    let url = match &new.url {
        Some(url) => Some(api.url_to_try(url).await?),
        None => None,
    };
    let is_elsewhere = url.is_some();
    let (event_type, data) = type_and_data(new, &row.event_types, &rules.catalogue)?;
    let (application, endpoint) = api.current_endpoint(&authorized, row.id).await?;
    let endpoint = match url {
        Some(url) => Arc::new(at(url, &endpoint)),
        // No digest counts a test.
        None if endpoint.digest_from.is_some() => {
            Arc::new(Endpoint { digest_from: None, ..Endpoint::clone(&endpoint) })
        }
        None => endpoint,
    };
    let new = test_event(&application, event_type, data, api.store.now())?;
    let shaped = shaped(&endpoint, &new).await?;
    let permit = api.test_sends.begin(authorized.application)?;
    let token = api.token_for_test(&endpoint).await?;
    // A separate task records the test even if the client hangs up.
    let result = spawn_for_caller(async move {
        let sent = api.send(&endpoint, &new, shaped.as_deref(), token.as_ref()).await;
        drop(permit);
        let (record, probe) = sent?;
        // Another URL may refuse a token that the webhook accepts.
        if let Some(token) = token.filter(|_| !is_elsewhere && probe.exchange.outcome.status() == Some(401)) {
            api.refuse_token(endpoint.id, &token).await;
        }
        // The event is sent: the client gets the result even if the test cannot be recorded.
        if let Err(error) = api.store.record_test_send(&new, &record, shaped.as_deref()).await {
            tracing::error!(%error, delivery = %record.delivery, "cannot record a test event: lists lack this test");
        }
        Ok(TestResult::new(shown_body(&new, shaped.as_deref()), &new, &record, &endpoint, probe))
    });
    let ended = |_| ApiError::new(ErrorCode::InternalError, "internal fault during the test, logged: try again");
    let result: Result<TestResult, EgressUnavailable> = result.await.map_err(ended)?;
    result.map(Answer::of).map_err(|error| {
        let message =
            format!("Fanfare can make no connections now, for a reason of its own: {error}; test again later");
        ApiError::new(ErrorCode::EgressUnavailable, message).retry_after(30)
    })
}

/// The body by the endpoint's template; `None` for the dialect's.
async fn shaped(endpoint: &Arc<Endpoint>, new: &NewEvent) -> Result<Option<Arc<Shaped>>, ApiError> {
    if endpoint.template.is_none() {
        return Ok(None);
    }
    let (endpoint, body, event_type) = (Arc::clone(endpoint), new.body.clone(), new.event.event_type.clone());
    let id = (new.accepted_at, new.event.id);
    let shaping = move || {
        let template = endpoint.template.as_ref()?;
        Some(Shaper::new(&endpoint.dialect, &endpoint.redaction, &event_type, id, &body).shape(template))
    };
    let shaped = beside_others(shaping).await?;
    match shaped.as_deref() {
        Some(Shaped::Failed(fault)) => {
            let message = format!("is no event for which the webhook's template has a body: {fault}");
            Err(ApiError::invalid("data", message))
        }
        _ => Ok(shaped),
    }
}

/// The body as shown, without redacted members.
fn shown_body(new: &NewEvent, shaped: Option<&Shaped>) -> String {
    match shaped {
        Some(Shaped::Body { body, shown }) => shown.as_ref().unwrap_or(body).clone(),
        _ => new.redacted.as_ref().unwrap_or(&new.body).clone(),
    }
}

/// The endpoint at another URL, without digests. Headers and authentication are credentials of the present origin, and
/// go to no other.
fn at(url: Url, endpoint: &Endpoint) -> Endpoint {
    let endpoint = Endpoint { digest_from: None, ..endpoint.clone() };
    if url.origin() == endpoint.url.origin() {
        return Endpoint { url, ..endpoint };
    }
    Endpoint { url, headers: HeaderMap::new(), authentication: None, certificate: None, ..endpoint }
}

/// The type and the data of the test event, with defaults.
fn type_and_data(new: New, subscribed: &[String], catalogue: &Catalogue) -> Result<(EventType, String), ApiError> {
    let wanted = match &new.r#type {
        Some(name) => EventType::parse(name)?,
        None => first_wanted(subscribed, catalogue)?,
    };
    let data = match (&new.data, catalogue.get(&wanted)) {
        (Some(data), _) => checked_data("data", data, MAX_DATA)?,
        (None, Some(described)) => described.sample.clone(),
        (None, None) if new.r#type.is_none() => EMPTY_SAMPLE.to_owned(),
        (None, None) => {
            let message = format!("{wanted} is not described and has no sample: give `data`");
            let message = with_suggestion(&message, nearest(wanted.as_str(), catalogue.names().map(EventType::as_str)));
            return Err(ApiError::new(ErrorCode::UnknownEventType, message).at("type"));
        }
    };
    Ok((wanted, data))
}

fn first_wanted(subscribed: &[String], catalogue: &Catalogue) -> Result<EventType, ApiError> {
    use fanfare_domain::event::subscription::Subscription;
    let subscriptions: Vec<Subscription> =
        subscribed.iter().filter_map(|text| Subscription::parse(text).ok()).collect();
    let described = catalogue.names().find(|name| subscriptions.iter().any(|subscription| subscription.covers(name)));
    let exact = || {
        subscriptions.iter().find_map(|subscription| match subscription {
            Subscription::Exact(name) => Some(name),
            _ => None,
        })
    };
    let missing =
        || ApiError::new(ErrorCode::MissingField, "`type` is missing, and no described type matches").at("type");
    described.or_else(exact).cloned().ok_or_else(missing)
}

fn test_event(
    application: &Application,
    event_type: EventType,
    data: String,
    now: Timestamp,
) -> Result<NewEvent, ApiError> {
    let id = EventId::new(application.id, now, rand::random());
    let event = Event::new(id, application.id, event_type, data);
    let accepted_at = event.id.accepted_at().unwrap_or(now);
    let body = application.dialect.render_body(&event, accepted_at);
    let body = body.map_err(|fault| ApiError::invalid("data", format!("cannot be sent: {fault}")))?;
    Ok(NewEvent { matches: 1, ..NewEvent::of(application, event, accepted_at, body) })
}

impl ApiState {
    /// The webhook with the present settings, even if changed a moment ago.
    pub(super) async fn current_endpoint(
        &self,
        authorized: &AuthorizedApplication,
        webhook: EndpointId,
    ) -> Result<(Arc<Application>, Arc<Endpoint>), ApiError> {
        if !self.directory.refresh([authorized.application]).await {
            let message = "the settings of the webhook cannot be read now: try again later";
            return Err(ApiError::new(ErrorCode::DatabaseUnavailable, message).retry_after(5));
        }
        // The database has the webhook. If the directory lacks the webhook, this process cannot read the settings, or
        // the webhook was deleted just now.
        let is_unreadable = self.directory.is_unreadable(authorized.application);
        let gone = || if is_unreadable { ApiError::unreadable_application() } else { no_such_webhook() };
        let application = self.directory.application(authorized.application).ok_or_else(gone)?;
        let endpoint = Arc::clone(application.endpoint(webhook).ok_or_else(gone)?);
        Ok((application, endpoint))
    }

    async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        new: &NewEvent,
        shaped: Option<&Shaped>,
        token: Option<&TestToken>,
    ) -> Result<(AttemptRecord, Probe), EgressUnavailable> {
        let started_at = self.store.now();
        let delivery = DeliveryId::derive(new.accepted_at, new.event.id, endpoint.id);
        // The span of the request.
        let trace = trace_of(&Span::current());
        let sending = Sending {
            event: new.event.id,
            event_type: &new.event.event_type,
            application: new.event.application,
            delivery,
            attempt: 1,
            replay: None,
            sequence: None,
            trace: trace.as_ref(),
            at: started_at,
        };
        let body = match shaped {
            Some(Shaped::Body { body, .. }) => body,
            _ => &new.body,
        };
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request::of_delivery(endpoint, &sending, body);
        let request = match token {
            Some(token) => request.with_token(token.header.clone()),
            None => request,
        };
        let mut probe = self.client.probe(request).await?;
        if let Some(redacted) = endpoint.redaction.redact_response(&probe.exchange.response_body) {
            probe.exchange.response_body = redacted.into();
        }
        let exchange = &probe.exchange;
        let is_delivered = endpoint.policy.rules.of(exchange.outcome) == OutcomeClass::Delivered;
        let record = AttemptRecord {
            delivery,
            event: new.event.id,
            application: new.event.application,
            endpoint: endpoint.id,
            attempt: 1,
            // A test has no lease, because the delivery is never open. The record needs an id all the same.
            lease: LeaseId::new(started_at, rand::random()),
            url: endpoint.url.to_string(),
            started_at,
            duration: exchange.duration,
            outcome: exchange.outcome,
            error: exchange.error.clone(),
            response_headers: exchange.response_headers_as_json(),
            response_body: exchange.response_body.to_vec(),
            next: if is_delivered { NextState::Delivered } else { NextState::Failed(FailureReason::TestFailed) },
            notifies_owner: false,
            is_test: true,
        };
        Ok((record, probe))
    }
}

impl TestResult {
    fn new(body: String, new: &NewEvent, record: &AttemptRecord, endpoint: &Endpoint, probe: Probe) -> Self {
        let Probe { exchange, timings, request_headers } = probe;
        let response = exchange.outcome.status().map(|status| Received {
            status: Some(status),
            headers: exchange.response_headers,
            body: String::from_utf8_lossy(&exchange.response_body).into_owned(),
        });
        Self {
            delivered: record.next == NextState::Delivered,
            event: new.event.id,
            delivery: record.delivery,
            request: Sent { url: record.url.clone(), headers: shown(request_headers, &endpoint.headers), body },
            response,
            outcome: exchange.outcome.code(),
            error: exchange.error,
            timings: Phases {
                dns_ms: timings.dns.map(milliseconds),
                connect_ms: timings.connect.map(milliseconds),
                tls_ms: timings.tls.map(milliseconds),
                first_byte_ms: timings.first_byte.map(milliseconds),
                total_ms: milliseconds(exchange.duration),
            },
        }
    }
}

/// Hides the values of the endpoint's own headers: a value may be a credential.
pub(crate) fn shown(headers: Vec<(String, String)>, own: &HeaderMap) -> Vec<(String, String)> {
    let is_own = |name: &str| name.parse::<HeaderName>().is_ok_and(|name| own.contains_key(name));
    let show = |(name, value): (String, String)| if is_own(&name) { (name, "…".to_owned()) } else { (name, value) };
    headers.into_iter().map(show).collect()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
