//! Events: decodes messages, matches endpoints, renders bodies, and admits first attempts.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use fanfare_broker::{Incoming, Unreadable, decode_event};
use fanfare_domain::{
    application::Application,
    delivery::{FailureReason, QueueReason, READ_BY_FEED, lease_duration},
    endpoint::{Endpoint, EndpointStatus, Feed, template::Shaped},
    event::{Event, delay::LongestDelay},
    ids::{DeliveryId, EventId, LeaseId},
    time::{saturating_add, saturating_sub, to_milliseconds},
};
use fanfare_service::{CHECKED_AT_ONCE, crash_point};
use fanfare_store::{Lease, NewDelivery, NewEvent, Start};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use crate::{
    context::{Context, Entered},
    lanes::Permit,
    metric,
    stages::{
        intake::{
            matching, park,
            shaping::{self, Shapes},
        },
        sending::in_flight::Direct,
        spans,
    },
};

pub(crate) struct Events {
    pub(crate) context: Arc<Context>,
    pub(crate) max_bytes: usize,
    /// Longest delay of an event, and the greatest age at persist: the deliveries must end within the event's
    /// retention.
    pub(crate) longest_delay: LongestDelay,
    /// Place of the next event with an ordering key in the order of arrival.
    pub(crate) position: AtomicI64,
}

/// A message, its event, and the span from the message to the ack.
type Received = (Incoming, Event, Span);

/// An event that can be delivered, before the match.
struct Ready {
    received: Received,
    application: Arc<Application>,
    /// Acceptance, and the time of delivery of a delayed event.
    times: (Timestamp, Option<Timestamp>),
    body: String,
    entered: Entered,
}

impl Ready {
    /// The endpoints that get the event now; `None` if the filters take long. A delayed event is matched when it is
    /// due.
    fn endpoints_at_once(&self) -> Option<Vec<Arc<Endpoint>>> {
        let ((_, event, _), (_, due_at)) = (&self.received, self.times);
        if due_at.is_some() {
            return Some(Vec::new());
        }
        matching::at_once(&self.application, &event.event_type, self.body.as_bytes())
    }
}

/// An event to persist, with the permits for the first attempts.
pub(crate) struct Planned {
    pub(crate) message: Incoming,
    pub(crate) new: NewEvent,
    /// Deliveries to send at once, by position in `new.deliveries`.
    pub(crate) direct: Vec<(usize, Direct)>,
    pub(crate) entered: Entered,
    /// From the message to the ack.
    pub(crate) span: Span,
}

/// Decodes messages until `stop`, and passes events on to persist.
pub(crate) async fn run(
    events: Arc<Events>,
    mut messages: mpsc::Receiver<Incoming>,
    planned: mpsc::Sender<Planned>,
    stop: CancellationToken,
) {
    let apart = TaskTracker::new();
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let Some((received, entered)) = events.receive(message) else { continue };
        match events.ready_application(&received) {
            Ok(application) => {
                let Some(ready) = events.ready(received, application, entered) else { continue };
                match ready.endpoints_at_once() {
                    Some(endpoints) if !shaping::has_templates(&endpoints) => {
                        events.pass_on(ready, endpoints, &planned).await;
                    }
                    // In a separate task: no other event waits for costly filters, or for templates.
                    endpoints => {
                        let (events, planned, stop) = (Arc::clone(&events), planned.clone(), stop.clone());
                        apart.spawn(async move {
                            stop.run_until_cancelled(events.match_and_pass_on(ready, endpoints, &planned)).await;
                        });
                    }
                }
            }
            // In a separate task: no other event waits for the database, or for the check of a large event.
            Err(known) => {
                let (events, planned, stop) = (Arc::clone(&events), planned.clone(), stop.clone());
                apart.spawn(async move {
                    stop.run_until_cancelled(events.check(received, known, &planned, entered)).await;
                });
            }
        }
    }
    apart.close();
    apart.wait().await;
}

/// Decodes the messages of a queue of ordered events until `stop`, and passes each event on to persist before the next.
pub(crate) async fn run_in_order(
    events: Arc<Events>,
    mut messages: mpsc::Receiver<Incoming>,
    planned: mpsc::Sender<Planned>,
    stop: CancellationToken,
) {
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let Some((received, entered)) = events.receive(message) else { continue };
        match events.ready_application(&received) {
            Ok(application) => {
                stop.run_until_cancelled(events.accept(received, application, &planned, entered)).await;
            }
            Err(known) => {
                stop.run_until_cancelled(events.check(received, known, &planned, entered)).await;
            }
        }
    }
}

impl Events {
    /// Decodes a message; `None` for an unreadable message, which is parked.
    fn receive(&self, message: Incoming) -> Option<(Received, Entered)> {
        let context = &self.context;
        let entered = context.enter();
        let decoded = decode_event(&message, self.max_bytes, context.now());
        let trace = decoded.as_ref().map_or_else(|_| message.trace(), |event| event.trace.clone());
        let span = spans::process(&context.topology, &message, trace.as_ref());
        match decoded {
            Ok(event) => {
                let event = spans::continued(&span, event);
                crash_point("event.received");
                Some(((message, event, span), entered))
            }
            Err(unreadable) => {
                park::park(context, message, unreadable, span);
                None
            }
        }
    }

    /// The application of an event, if the loaded settings suffice and the check is quick. Otherwise the loaded
    /// settings, for [`Self::check`].
    fn ready_application(&self, (message, event, _): &Received) -> Result<Arc<Application>, Option<Arc<Application>>> {
        match self.context.directory.application(event.application) {
            Some(application)
                if is_checked_at_once(&application, message, event)
                    && is_up_to_date(&application, message, event)
                    && !matching::may_take_long(&application, &event.data) =>
            {
                Ok(application)
            }
            known => Err(known),
        }
    }

    /// Checks an event by the loaded configuration, if that was not done yet.
    async fn check(
        &self,
        received: Received,
        known: Option<Arc<Application>>,
        planned: &mpsc::Sender<Planned>,
        entered: Entered,
    ) {
        let (message, event, span) = received;
        let Some(application) = known else {
            return self.look_up((message, event, span), planned, entered).await;
        };
        let (is_accepted, event) = if is_checked_at_once(&application, &message, &event) {
            (is_up_to_date(&application, &message, &event), event)
        } else {
            let checking = Arc::clone(&application);
            let check = move || (checking.accepts(&event.event_type, event.version, &event.data), event);
            self.context.checks.run(application.id, check).await
        };
        let received = (message, event, span);
        if is_accepted {
            self.accept(received, application, planned, entered).await;
        } else {
            self.look_up(received, planned, entered).await;
        }
    }

    /// Refreshes the configuration before the decision on an event, and waits for the database as long as necessary. An
    /// unknown application, setting or type may be new.
    async fn look_up(&self, received: Received, planned: &mpsc::Sender<Planned>, entered: Entered) {
        let (message, event, span) = received;
        let context = &self.context;
        while !context.directory.refresh([event.application]).await {
            let store = &context.database.store;
            let _ = context.database.retry_until_available("looking for an application", || store.ping()).await;
        }
        let Some(application) = context.directory.application(event.application) else {
            let unreadable = no_application(&event, context.directory.is_unreadable(event.application));
            return park::park(context, message, unreadable, span);
        };
        // Ingest has checked an accepted event.
        let (checked, event) = if message.accepted_by().is_some() {
            (Ok(()), event)
        } else {
            let checking = Arc::clone(&application);
            let check = move || (checking.check_event(&event.event_type, event.version, &event.data), event);
            self.context.checks.run(application.id, check).await
        };
        match checked {
            Err(fault) if !self.is_persisted(&message, &event).await => {
                park::park(context, message, fault.into(), span);
            }
            _ => self.accept((message, event, span), application, planned, entered).await,
        }
    }

    /// True if the event of a redelivered message was persisted before. The event is then not checked again.
    async fn is_persisted(&self, message: &Incoming, event: &Event) -> bool {
        let (database, application, id) = (&self.context.database, event.application, event.id);
        let looking = || database.store.is_persisted(application, id);
        (message.redelivered || message.is_quarantined())
            && database.retry_until_available("looking for an event", looking).await.result.unwrap_or(false)
    }

    /// Passes an event on to persist, or parks the message.
    async fn accept(
        &self,
        received: Received,
        application: Arc<Application>,
        planned: &mpsc::Sender<Planned>,
        entered: Entered,
    ) {
        let Some(ready) = self.ready(received, application, entered) else { return };
        let endpoints = ready.endpoints_at_once();
        self.match_and_pass_on(ready, endpoints, planned).await;
    }

    /// An event with its body; `None` for an event that cannot be delivered, whose message is parked.
    fn ready(
        &self,
        (message, event, span): Received,
        application: Arc<Application>,
        entered: Entered,
    ) -> Option<Ready> {
        let now = self.context.now();
        let accepted_at = event.id.accepted_at().unwrap_or_else(|| to_milliseconds(now));
        if accepted_at < saturating_sub(now, self.longest_delay.get()) {
            let sentence = format!(
                "the event was accepted at {accepted_at}, and its deliveries would outlast its retention: publish the \
                 event again with a new id"
            );
            park::park(&self.context, message, Unreadable::new("retention_over", sentence), span);
            return None;
        }
        let due_at = match self.longest_delay.due(event.deliver_at, accepted_at, now) {
            Ok(due_at) => due_at,
            Err(fault) => {
                park::park(&self.context, message, fault.into(), span);
                return None;
            }
        };
        match application.dialect.render_body(&event, accepted_at) {
            Ok(body) => {
                let (received, times) = ((message, event, span), (accepted_at, due_at));
                Some(Ready { received, application, times, body, entered })
            }
            Err(fault) => {
                park::park(&self.context, message, Unreadable::new("malformed_json", fault.to_string()), span);
                None
            }
        }
    }

    /// Passes an event on to persist. Without `endpoints`, a thread matches the event first.
    async fn match_and_pass_on(
        &self,
        mut ready: Ready,
        endpoints: Option<Vec<Arc<Endpoint>>>,
        planned: &mpsc::Sender<Planned>,
    ) {
        let endpoints = match endpoints {
            Some(endpoints) => endpoints,
            None => {
                let (checks, (_, event, _)) = (&self.context.checks, &ready.received);
                let body = std::mem::take(&mut ready.body);
                let matched = matching::in_thread(checks, &ready.application, &event.event_type, body).await;
                ready.body = matched.1;
                matched.0
            }
        };
        self.pass_on(ready, endpoints, planned).await;
    }

    /// Passes a matched event on to persist.
    async fn pass_on(&self, ready: Ready, endpoints: Vec<Arc<Endpoint>>, planned: &mpsc::Sender<Planned>) {
        let Ready { received: (message, event, span), application, times, body, entered } = ready;
        // A later chunk of a fan-out could follow the next event of the key.
        let is_wide = endpoints.len() > matching::MAX_DIRECT && event.ordering_key.is_none();
        let (checks, id, at_once) =
            (&self.context.checks, (times.0, event.id), if is_wide { &[] } else { endpoints.as_slice() });
        let (shapes, body) = shaping::shapes(checks, &application, &event.event_type, id, at_once, body).await;
        let matched = Matched { count: endpoints.len(), is_wide, at_once, shapes };
        let (new, direct) = self.plan(event, times, body, &application, matched);
        // The send fails only if the process stops. The broker then redelivers the message to another process.
        drop(planned.send(Planned { message, new, direct, entered, span }).await);
    }

    /// Decides the rows of an event, and the attempts that follow the commit at once.
    fn plan(
        &self,
        event: Event,
        (accepted_at, due_at): (Timestamp, Option<Timestamp>),
        body: String,
        application: &Application,
        matched: Matched<'_>,
    ) -> (NewEvent, Vec<(usize, Direct)>) {
        let position = match &event.ordering_key {
            Some(_) => self.position.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        let mut new = NewEvent {
            due_at,
            matches: matched.count,
            is_wide: matched.is_wide,
            position,
            ..NewEvent::of(application, event, accepted_at, body)
        };
        // An event with redacted members has two bodies.
        let bytes = new.body.len() + new.redacted.as_ref().map_or(0, String::len);
        let (id, is_ordered) = ((accepted_at, new.event.id), new.event.ordering_key.is_some());
        let (deliveries, direct) = admit_all(&self.context, id, matched.at_once, (bytes, is_ordered), matched.shapes);
        new.deliveries = deliveries;
        (new, direct)
    }
}

/// The endpoints of an event.
struct Matched<'a> {
    count: usize,
    /// True if a fan-out writes the deliveries.
    is_wide: bool,
    /// Endpoints whose deliveries are persisted with the event.
    at_once: &'a [Arc<Endpoint>],
    shapes: Shapes,
}

/// Decides the first states of an event's deliveries, and returns the permits of the first attempts by position.
pub(crate) fn admit_all(
    context: &Context,
    (accepted_at, event): (Timestamp, EventId),
    endpoints: &[Arc<Endpoint>],
    (bytes, is_ordered): (usize, bool),
    shapes: Shapes,
) -> (Vec<NewDelivery>, Vec<(usize, Direct)>) {
    let (mut deliveries, mut direct) = (Vec::with_capacity(endpoints.len()), Vec::new());
    let lease = LeaseId::new(context.now(), rand::random());
    let mut shapes = shapes.into_iter();
    for endpoint in endpoints {
        let id = DeliveryId::derive(accepted_at, event, endpoint.id);
        let (delivery, permit) = admit(context, id, endpoint, lease, (bytes, is_ordered), shapes.next().flatten());
        if let Some(permit) = permit {
            direct.push((deliveries.len(), Direct { endpoint: Arc::clone(endpoint), permit }));
        }
        deliveries.push(delivery);
    }
    (deliveries, direct)
}

/// Decides the first state of a delivery. The decision precedes the write, so that the row begins with the right state.
pub(crate) fn admit(
    context: &Context,
    id: DeliveryId,
    endpoint: &Endpoint,
    lease: LeaseId,
    (bytes, is_ordered): (usize, bool),
    shaped: Option<Arc<Shaped>>,
) -> (NewDelivery, Option<Permit>) {
    let expires_at = saturating_add(context.now(), endpoint.policy.lifetime(context.expiry));
    let bytes = shaped.as_ref().map_or(bytes, |shaped| shaped.bytes());
    let has_no_body = shaped.as_deref().is_some_and(|shaped| matches!(shaped, Shaped::Failed(_)));
    let in_feed = endpoint.feed != Feed::None && !has_no_body;
    let new = |start| NewDelivery { id, endpoint: endpoint.id, start, expires_at, in_feed, shaped };
    // Without a body, too: the delivery fails in its turn, and may park its key.
    if is_ordered && endpoint.fifo.is_some() && endpoint.takes_deliveries() {
        return (new(Start::InOrder), None);
    }
    if has_no_body {
        return (new(Start::NotRendered { notifies_owner: endpoint.notifies_owner }), None);
    }
    if endpoint.feed == Feed::Only {
        return (new(Start::Read), None);
    }
    match endpoint.status {
        EndpointStatus::Paused => (new(Start::Queued(QueueReason::Paused)), None),
        EndpointStatus::Disabled => (new(Start::Skipped), None),
        EndpointStatus::Enabled => match context.lanes.admit(endpoint, bytes) {
            Ok(permit) => {
                let lease = Lease { id: lease, duration: lease_duration(endpoint.policy.timeout) };
                (new(Start::Sending(lease)), Some(permit))
            }
            Err(reason) => {
                metrics::counter!(metric::QUEUED, "reason" => reason.as_str()).increment(1);
                (new(Start::Queued(reason)), None)
            }
        },
    }
}

/// Counts the deliveries that are finished from the beginning.
pub(crate) fn count_finished(deliveries: &[NewDelivery]) {
    for (start, reason) in [(Start::Skipped, ""), (Start::Read, READ_BY_FEED)] {
        let skipped = deliveries.iter().filter(|delivery| delivery.start == start).count();
        metrics::counter!(metric::DELIVERIES, "state" => "skipped", "reason" => reason).increment(skipped as u64);
    }
    let has_no_body = |delivery: &&NewDelivery| matches!(delivery.start, Start::NotRendered { .. });
    let failed = deliveries.iter().filter(has_no_body).count() as u64;
    let reason = FailureReason::NotRendered.as_str();
    metrics::counter!(metric::DELIVERIES, "state" => "failed", "reason" => reason).increment(failed);
}

/// True for an event whose check is quick, or that needs no check.
fn is_checked_at_once(application: &Application, message: &Incoming, event: &Event) -> bool {
    !application.is_strict || message.accepted_by().is_some() || event.data.len() <= CHECKED_AT_ONCE
}

/// True if the loaded settings of an application suffice for an event. After a check by ingest, the settings must be at
/// least as new as ingest's. Without a check by ingest, the settings must accept the event.
fn is_up_to_date(application: &Application, message: &Incoming, event: &Event) -> bool {
    match message.accepted_by() {
        Some(version) => application.version >= version,
        None => application.accepts(&event.event_type, event.version, &event.data),
    }
}

fn no_application(event: &Event, is_unreadable: bool) -> Unreadable {
    if is_unreadable {
        let sentence = format!("the settings of {} are unreadable here: see the dispatcher's log", event.application);
        return Unreadable::new("application_unreadable", sentence);
    }
    Unreadable::new("unknown_application", format!("no application has the id {}", event.application))
}
