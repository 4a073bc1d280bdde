//! From an event's message to what is written: decode, match, admit.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Incoming, Unreadable, decode_event};
use fanfare_domain::{
    application::{Application, Endpoint, EndpointStatus},
    delivery::{State, hold},
    event::{Content, Event},
    ids::{DeliveryId, TakingId},
    moment::{later, to_milliseconds},
    traceparent::Traceparent,
};
use fanfare_service::crash_point;
use fanfare_store::{Directory, NewDelivery, NewEvent};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    database::Database,
    lanes::{Lanes, Ticket, admit},
    park,
    rates::Rates,
    settle::Settler,
};

/// An event with more endpoints than this is not attempted from its own message: the message would have
/// to wait for all of them.
const MAX_STRAIGHT: usize = 100;

/// What the stage needs.
pub(crate) struct Events {
    pub(crate) directory: Directory,
    pub(crate) database: Database,
    pub(crate) lanes: Lanes,
    pub(crate) rates: Rates,
    /// For what we cause ourselves, beside the schedule.
    pub(crate) expiry: Duration,
    pub(crate) max_bytes: usize,
    pub(crate) settler: Settler,
}

/// An event that is ready to be persisted.
pub(crate) struct Planned {
    pub(crate) message: Incoming,
    pub(crate) new: NewEvent,
    /// For each delivery that is to be attempted at once, its place in `new.deliveries`, and its lane's.
    pub(crate) straight: Vec<(usize, Arc<Endpoint>, Ticket)>,
    /// All endpoints that matched.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// For what we cause ourselves, beside each endpoint's schedule.
    pub(crate) expiry: Duration,
}

/// Reads messages until `stop`, and passes on what is to be written.
pub(crate) async fn run(
    events: Events,
    mut messages: mpsc::Receiver<Incoming>,
    planned: mpsc::Sender<Planned>,
    stop: CancellationToken,
) {
    let events = Arc::new(events);
    let look_ups = TaskTracker::new();
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let fresh = Traceparent::from_random(rand::random(), rand::random());
        let event = match decode_event(&message, events.max_bytes, fresh, events.database.now()) {
            Ok(event) => event,
            Err(unreadable) => {
                park::park(&events.settler, message, unreadable);
                continue;
            }
        };
        crash_point("event.received");
        match events.directory.application(event.application) {
            Some(application) if is_up_to_date(&application, &message, &event) => {
                events.accept(message, event, &application, &planned).await;
            }
            // In a task of its own: nobody else's events wait for a look into the database.
            _ => {
                let (events, planned, stop) = (Arc::clone(&events), planned.clone(), stop.clone());
                look_ups.spawn(async move {
                    stop.run_until_cancelled(events.look_up(message, event, &planned)).await;
                });
            }
        }
    }
    look_ups.close();
    look_ups.wait().await;
}

impl Events {
    /// What is not known, an application, its newest settings or a type, may be new: that there is not, is said only after a look into
    /// the database, however long that takes.
    async fn look_up(&self, message: Incoming, event: Event, planned: &mpsc::Sender<Planned>) {
        while !self.directory.refresh().await {
            let _ = self.database.until_answered("looking for an application", || self.database.store.ping()).await;
        }
        let Some(application) = self.directory.application(event.application) else {
            let unreadable = no_application(&event, self.directory.is_unreadable(event.application));
            return park::park(&self.settler, message, unreadable);
        };
        match application.check_type(&event.event_type) {
            Err(fault) if message.accepted_by().is_none() && !self.is_persisted(&message, &event).await => {
                park::park(&self.settler, message, fault.into());
            }
            _ => self.accept(message, event, &application, planned).await,
        }
    }

    /// Whether the event of a message that comes again was taken before: then its type is judged no more.
    async fn is_persisted(&self, message: &Incoming, event: &Event) -> bool {
        let store = &self.database.store;
        let ids = [event.id];
        message.may_be_last()
            && self
                .database
                .until_answered("looking for an event", || store.persisted(&ids))
                .await
                .result
                .is_ok_and(|persisted| !persisted.is_empty())
    }

    /// Passes an event on to be persisted, or parks it.
    async fn accept(
        &self,
        message: Incoming,
        event: Event,
        application: &Application,
        planned: &mpsc::Sender<Planned>,
    ) {
        let accepted_at = event.id.accepted_at().unwrap_or_else(|| to_milliseconds(self.database.now()));
        match application.dialect.render_body(&event, accepted_at) {
            // Where nobody takes it any more, the process stops, and the message comes again elsewhere.
            Ok(body) => drop(planned.send(self.plan(message, event, accepted_at, body, application)).await),
            Err(fault) => {
                park::park(&self.settler, message, Unreadable::new("malformed_json", fault.to_string()));
            }
        }
    }

    fn plan(
        &self,
        message: Incoming,
        event: Event,
        accepted_at: Timestamp,
        body: String,
        application: &Application,
    ) -> Planned {
        let endpoints = application.matches(&event.event_type);
        let is_wide = endpoints.len() > MAX_STRAIGHT;
        let redacted = application.redaction.redact(&body);
        let mut new = NewEvent {
            content: redacted.is_none().then(|| Content::of(&event.event_type, &event.data)),
            event,
            accepted_at,
            redacted,
            body,
            matches: endpoints.len(),
            fanned_out: !is_wide,
            deliveries: Vec::new(),
        };
        let mut straight = Vec::new();
        let at_once = if is_wide { &[] } else { endpoints.as_slice() };
        for endpoint in at_once {
            let id = DeliveryId::derive(accepted_at, new.event.id, endpoint.id);
            let (delivery, ticket) = self.admit(id, endpoint);
            if let Some(ticket) = ticket {
                straight.push((new.deliveries.len(), Arc::clone(endpoint), ticket));
            }
            new.deliveries.push(delivery);
        }
        Planned { message, new, straight, endpoints, expiry: self.expiry }
    }

    /// Asks the endpoint's lane, before anything is written: the row then says at once what happens.
    fn admit(&self, id: DeliveryId, endpoint: &Endpoint) -> (NewDelivery, Option<Ticket>) {
        let now = self.database.now();
        let mut delivery = NewDelivery {
            id,
            endpoint: endpoint.id,
            state: State::Sending,
            reason: None,
            due: None,
            taking: None,
            deferrals: 0,
            expires_at: later(now, endpoint.policy.lifetime(self.expiry)),
        };
        match endpoint.status {
            EndpointStatus::Paused => delivery.state = State::Held,
            EndpointStatus::Disabled => delivery.state = State::Skipped,
            EndpointStatus::Enabled => {
                let (reason, wait) = match admit(&self.lanes, &self.rates, endpoint, 1) {
                    Ok(ticket) => {
                        let hold = hold(endpoint.policy.timeout);
                        delivery.taking = Some((TakingId::new(now, rand::random()), hold));
                        return (delivery, Some(ticket));
                    }
                    Err(deferral) => deferral,
                };
                delivery.state = State::Waiting;
                delivery.reason = Some(reason.as_str());
                delivery.deferrals = 1;
                delivery.due = Some(later(now, wait));
            }
        }
        (delivery, None)
    }
}

/// Whether what is known of an application is enough for its event: it is no older than what ingest knew, and has the
/// event's type where nobody has checked that yet.
fn is_up_to_date(application: &Application, message: &Incoming, event: &Event) -> bool {
    match message.accepted_by() {
        Some(version) => application.version >= version,
        None => application.check_type(&event.event_type).is_ok(),
    }
}

fn no_application(event: &Event, is_unreadable: bool) -> Unreadable {
    if is_unreadable {
        let sentence = format!("the settings of {} cannot be read here: the log says why", event.application);
        return Unreadable::new("application_unreadable", sentence);
    }
    Unreadable::new("unknown_application", format!("there is no application {}", event.application))
}
