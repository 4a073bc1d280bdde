//! Shaping: the bodies of deliveries to endpoints with a template.
//!
//! A body is rendered when the delivery is opened. A delivery that a request or a replay opened is rendered at its
//! first lease, and so is a delivery that failed since its template had no body, once it is requested again.

use std::sync::Arc;

use fanfare_domain::{
    application::Application,
    delivery::{FailureReason, QueueReason, digest},
    endpoint::{
        Endpoint,
        template::{Shaped, Shaper},
    },
    event::EventType,
    ids::{EventId, LeaseId},
};
use fanfare_service::Checks;
use fanfare_store::{Leased, LeasedEvent};
use jiff::Timestamp;
use tokio::task::block_in_place;

use crate::{context::Context, metric};

/// Own bodies of an event's deliveries, in the order of the endpoints. Empty if no endpoint has a template.
pub(crate) type Shapes = Vec<Option<Arc<Shaped>>>;

/// An event whose deliveries get their bodies.
pub(crate) struct Shaping<'a> {
    application: &'a Application,
    event_type: &'a EventType,
    id: (Timestamp, EventId),
    body: &'a [u8],
    /// Made for the first endpoint with a template: the body is parsed then.
    shaper: Option<Shaper<'a>>,
}

impl<'a> Shaping<'a> {
    pub(crate) fn new(
        application: &'a Application,
        event_type: &'a EventType,
        id: (Timestamp, EventId),
        body: &'a [u8],
    ) -> Self {
        Self { application, event_type, id, body, shaper: None }
    }

    /// The own body of the delivery to an endpoint; `None` for the event's body.
    pub(crate) fn shape(&mut self, endpoint: &Endpoint) -> Option<Arc<Shaped>> {
        let template = endpoint.template.as_deref()?;
        let Self { application, event_type, id, body, .. } = *self;
        let shaper = self.shaper.get_or_insert_with(|| {
            let body = str::from_utf8(body).unwrap_or_default();
            Shaper::new(&application.dialect, &application.redaction, event_type, id, body)
        });
        let shaped = shaper.shape(template);
        count(&shaped);
        Some(shaped)
    }

    /// Like [`Self::shape`]. Other tasks of the thread go on elsewhere.
    pub(crate) fn shape_in_place(&mut self, endpoint: &Endpoint) -> Option<Arc<Shaped>> {
        endpoint.template.as_ref()?;
        block_in_place(|| self.shape(endpoint))
    }
}

/// True if a delivery to one of the endpoints needs a body of its own.
pub(crate) fn has_templates(endpoints: &[Arc<Endpoint>]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.template.is_some())
}

/// Renders the bodies of an event's deliveries in a thread, in the turn of the application. Returns the event's body,
/// too.
pub(crate) async fn shapes(
    checks: &Checks,
    application: &Arc<Application>,
    event_type: &EventType,
    id: (Timestamp, EventId),
    endpoints: &[Arc<Endpoint>],
    body: String,
) -> (Shapes, String) {
    if !has_templates(endpoints) {
        return (Shapes::new(), body);
    }
    let (of, endpoints) = (application.id, endpoints.to_vec());
    let (application, event_type) = (Arc::clone(application), event_type.clone());
    let shaping = move || {
        let mut shaping = Shaping::new(&application, &event_type, id, body.as_bytes());
        let shapes = endpoints.iter().map(|endpoint| shaping.shape(endpoint)).collect();
        (shapes, body)
    };
    checks.run(of, shaping).await
}

fn count(shaped: &Shaped) {
    let result = match shaped {
        Shaped::Body { .. } => "rendered",
        Shaped::Failed(_) => "failed",
    };
    metrics::counter!(metric::TEMPLATES, "result" => result).increment(1);
}

/// The reason why a leased delivery cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unshaped {
    /// The delivery fails.
    Ends(FailureReason),
    /// The delivery is given back.
    Back(QueueReason),
}

/// Renders and keeps the body of a leased delivery that has none yet, by the present template, in the turn of the
/// application. Without a template, and for
/// a digest, the event's body is kept: every attempt from now on sends the same bytes.
pub(crate) async fn complete(
    context: &Context,
    leased: &mut Leased,
    endpoint: &Arc<Endpoint>,
    lease: LeaseId,
) -> Result<(), Unshaped> {
    let (delivery, event) = (leased.delivery, leased.event);
    let Some(LeasedEvent { event_type: Some(event_type), body: Some(body), is_unshaped, is_sealed, .. }) =
        &mut leased.payload
    else {
        return Ok(());
    };
    if !*is_unshaped {
        return Ok(());
    }
    let id = (delivery.accepted_at(), event);
    let template = endpoint.template.clone().filter(|_| event_type.as_str() != digest::EVENT_TYPE);
    let shaped = match template {
        Some(template) => {
            let (endpoint, event_type, of) = (Arc::clone(endpoint), event_type.clone(), std::mem::take(body));
            let rendering = move || {
                let shaped = Shaper::new(&endpoint.dialect, &endpoint.redaction, &event_type, id, &of).shape(&template);
                count(&shaped);
                (shaped, of)
            };
            let (shaped, event_body) = context.checks.run(leased.application, rendering).await;
            *body = event_body;
            shaped
        }
        None => Arc::new(Shaped::Body { body: body.clone(), shown: endpoint.redaction.redact(body) }),
    };
    let shaped = if *is_sealed { Arc::new(Shaped::clone(&shaped).of_sealed_event()) } else { shaped };
    let database = &context.database;
    let keeping = || database.store.keep_body(delivery, lease, &shaped);
    match database.retry_until_available("keeping a body", keeping).await.result {
        Ok(true) => {}
        // The lease has ended, or an earlier try has written the body: the next lease finds it.
        Ok(false) => return Err(Unshaped::Back(QueueReason::LeaseExpired)),
        Err(error) => {
            tracing::error!(%error, %delivery, "cannot keep the body of a delivery; trying again");
            return Err(Unshaped::Back(QueueReason::ApplicationUnreadable));
        }
    }
    match &*shaped {
        Shaped::Body { body: own, .. } => {
            body.clone_from(own);
            *is_unshaped = false;
            Ok(())
        }
        Shaped::Failed(_) => Err(Unshaped::Ends(FailureReason::NotRendered)),
    }
}
