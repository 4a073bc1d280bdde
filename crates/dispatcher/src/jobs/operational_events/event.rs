//! The event about a change, and its deliveries to the webhooks of the operator's application.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use fanfare_domain::{
    application::Application,
    endpoint::{Endpoint, Feed, template::Shaped, url::host_of},
    event::{Event, EventType},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
    operational::{Because, Change, Condition, EventData, Figures, NamedApplication, NamedWebhook},
    time::saturating_add,
};
use fanfare_store::{NewDelivery, NewEvent, OperationalState, Start, ToldEndpoint};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    context::Context,
    jobs::first_state,
    metric,
    stages::{
        intake::{
            events::count_finished,
            fan_out::FanOuts,
            matching::Reach,
            persist::{DELIVERY_BYTES, own_bytes},
            shaping::Shaping,
        },
        sending::in_flight::FirstAttempts,
    },
};

/// The names in the events of a batch.
pub(super) struct Announcement<'a> {
    pub(super) context: &'a Context,
    /// The operator's application.
    pub(super) application: &'a Arc<Application>,
    pub(super) console: Option<&'a Url>,
    pub(super) endpoints: HashMap<EndpointId, ToldEndpoint>,
    pub(super) names: BTreeMap<ApplicationId, String>,
}

/// An event with its open deliveries.
pub(super) struct Opened {
    pub(super) new: NewEvent,
    event_type: &'static str,
}

impl Opened {
    /// Weight of the event in a commit, in deliveries.
    pub(super) fn weight(&self) -> usize {
        let deliveries = &self.new.deliveries;
        deliveries.len() + (self.new.body.len() + deliveries.iter().map(own_bytes).sum::<usize>()) / DELIVERY_BYTES
    }

    pub(super) fn id(&self) -> EventId {
        self.new.event.id
    }

    /// Counts the event after the commit, and begins the fan-out of a wide event.
    pub(super) fn finish(self, fan_outs: &FanOuts, stop: &CancellationToken) {
        metrics::counter!(metric::OPERATIONAL_EVENTS, "type" => self.event_type).increment(1);
        count_finished(&self.new.deliveries);
        let NewEvent { event, accepted_at, body, is_wide, .. } = self.new;
        if is_wide {
            let first = FirstAttempts {
                application: event.application,
                event: event.id,
                event_type: event.event_type,
                trace: None,
                body: Bytes::from(body),
                ready_at: accepted_at,
                ordering_key: None,
            };
            fan_outs.begin(first, accepted_at, stop);
        }
    }
}

impl Announcement<'_> {
    /// The event about a due change; `None` for a silent change.
    pub(super) fn event(&self, known: &OperationalState) -> Result<Option<Opened>, String> {
        let now = self.context.now();
        let Some(change) = known.state.due(known.key.condition, now) else { return Ok(None) };
        let Some(event_type) = known.key.condition.event_type(change) else { return Ok(None) };
        let Some(data) = self.data(known, change)? else { return Ok(None) };
        let id = EventId::new(self.application.id, now, rand::random());
        let parsed = EventType::parse(event_type).map_err(|fault| fault.to_string())?;
        let event = Event::new(id, self.application.id, parsed, data);
        self.open(event).map(|new| Some(Opened { new, event_type }))
    }

    /// Data of the event as JSON; `None` if a disabled endpoint was deleted: no receiver needs this end.
    fn data(&self, known: &OperationalState, change: Change) -> Result<Option<String>, String> {
        let state = &known.state;
        let endpoint = self.endpoints.get(&EndpointId(known.key.subject));
        let because = state.figures.because.filter(|_| change == Change::Ends);
        if known.key.condition == Condition::Disabled && because == Some(Because::Deleted) {
            return Ok(None);
        }
        let host = endpoint.and_then(|endpoint| host_of(&endpoint.url)).unwrap_or_default();
        let webhook = endpoint.map(|endpoint| NamedWebhook {
            id: EndpointId(known.key.subject),
            name: endpoint.name.as_deref(),
            host: &host,
        });
        let name = |id: ApplicationId| self.names.get(&id).map_or("", String::as_str);
        let status_since = endpoint.and_then(|endpoint| endpoint.status_since);
        let since = match (known.key.condition, change) {
            (Condition::Disabled, Change::Ends) => status_since.unwrap_or(state.since),
            _ => state.since,
        };
        let mut figures = match change {
            Change::Begins => state.figures.clone(),
            Change::Ends => Figures { because, ..Figures::default() },
        };
        if known.key.condition == Condition::Failing && change == Change::Begins {
            figures.cause = endpoint.and_then(|endpoint| endpoint.cause.clone());
        }
        let data = EventData {
            condition: known.key.condition.as_str(),
            application: known.application.map(|id| NamedApplication { id, name: name(id) }),
            webhook,
            since,
            changes: state.changes,
            figures: &figures,
            link: self.link(known),
        };
        data.to_json().map(Some).map_err(|error| error.to_string())
    }

    /// Page of the console about the subject.
    fn link(&self, known: &OperationalState) -> Option<String> {
        let (console, application) = (self.console?, known.application?);
        let page = match known.key.condition {
            Condition::MessagesParked => return console.join("console/parked").ok().map(String::from),
            Condition::ReplayFinished => {
                format!("replays/{}", known.state.figures.replay.as_ref().map(|replay| replay.id)?)
            }
            _ => format!("webhooks/{}", EndpointId(known.key.subject)),
        };
        console.join(&format!("console/{application}/{page}")).ok().map(String::from)
    }

    /// Matches the event, and decides its deliveries. No delivery is sent before the commit.
    fn open(&self, event: Event) -> Result<NewEvent, String> {
        let application = self.application;
        let accepted_at = event.id.accepted_at().unwrap_or_else(|| self.context.now());
        let body = application.dialect.render_body(&event, accepted_at).map_err(|fault| fault.to_string())?;
        let reach = Reach::of(application, &event.event_type, body.as_bytes());
        let mut shaping = Shaping::new(application, &event.event_type, (accepted_at, event.id), body.as_bytes());
        let deliveries = reach
            .direct()
            .iter()
            .map(|endpoint| {
                let shaped = shaping.shape_in_place(endpoint);
                self.delivery(endpoint, (accepted_at, event.id), shaped)
            })
            .collect();
        let new = NewEvent::of(application, event, accepted_at, body);
        Ok(NewEvent { matches: reach.count(), is_wide: reach.is_wide, deliveries, ..new })
    }

    fn delivery(
        &self,
        endpoint: &Endpoint,
        (accepted_at, event): (Timestamp, EventId),
        shaped: Option<Arc<Shaped>>,
    ) -> NewDelivery {
        let has_no_body = shaped.as_deref().is_some_and(|shaped| matches!(shaped, Shaped::Failed(_)));
        let start = if has_no_body {
            Start::NotRendered { notifies_owner: endpoint.notifies_owner }
        } else {
            first_state(endpoint)
        };
        NewDelivery {
            id: DeliveryId::derive(accepted_at, event, endpoint.id),
            endpoint: endpoint.id,
            start,
            expires_at: saturating_add(self.context.now(), endpoint.policy.lifetime(self.context.expiry)),
            in_feed: endpoint.feed != Feed::None && !has_no_body,
            shaped,
        }
    }
}
