//! Events and samples on which a webhook's filter or template is tried.

use std::sync::Arc;

use fanfare_domain::{
    application::Application,
    endpoint::filter::FilteredEvent,
    event::{
        EventType,
        catalogue::{Catalogue, EventTypeDescription},
        subscription::Subscription,
    },
    ids::EventId,
};
use fanfare_store::{EventFilter, EventRow};
use jiff::Timestamp;

use crate::{
    http::{authentication::AuthorizedApplication, error::ApiError, parameters::id},
    state::ApiState,
};

/// The newest events among which several subscriptions choose.
const MAX_WALKED: usize = 100;

/// An event to try.
pub(super) struct Tried {
    pub(super) event: Option<EventId>,
    pub(super) event_type: EventType,
    pub(super) accepted_at: Option<Timestamp>,
    /// Body that may be shown; of a sample the data.
    pub(super) body: String,
}

impl Tried {
    /// The event as filters see it, without hidden members.
    pub(super) fn filtered<'a>(&'a self, application: &'a Application) -> FilteredEvent<'a> {
        match self.event {
            Some(_) => FilteredEvent::shown(&application.dialect, &application.redaction, &self.event_type, &self.body),
            None => FilteredEvent::of_sample(&self.event_type, serde_json::from_str(&self.body).unwrap_or_default()),
        }
    }
}

impl ApiState {
    /// The events of a trial, at most `most`: those named, else the last of the types, else the samples of the types.
    /// Also tells whether these are `events` or `samples`.
    pub(super) async fn to_try(
        &self,
        authorized: &AuthorizedApplication,
        (types, named): (Option<&[String]>, Option<&[String]>),
        most: usize,
    ) -> Result<(&'static str, Vec<Tried>), ApiError> {
        let rules = self.rules_of(authorized).await?;
        if let Some(types) = types {
            rules.catalogue.check_subscriptions("events", types, false)?;
        }
        let subscriptions = subscriptions(types)?;
        if let Some(ids) = named {
            return Ok(("events", self.events_named(authorized, ids, most).await?));
        }
        let events = self.last_events(authorized, &subscriptions, most).await?;
        if events.is_empty() {
            return Ok(("samples", samples(&rules.catalogue, &subscriptions, most)));
        }
        Ok(("events", events))
    }

    /// The application with its loaded settings.
    pub(super) fn known_application(&self, authorized: &AuthorizedApplication) -> Result<Arc<Application>, ApiError> {
        let application = self.directory.application(authorized.application);
        application.ok_or_else(|| ApiError::not_found("application", "no application has this id"))
    }

    async fn events_named(
        &self,
        authorized: &AuthorizedApplication,
        ids: &[String],
        most: usize,
    ) -> Result<Vec<Tried>, ApiError> {
        if ids.len() > most {
            return Err(ApiError::invalid("event_ids", format!("must have at most {most} ids")));
        }
        let mut events = Vec::new();
        for text in ids {
            let event: EventId = id("event_ids", text)?;
            let row = self.store.event(authorized.application, event).await?;
            let missing = || ApiError::not_found("event_ids", format!("the application has no event {event}"));
            events.extend(tried(row.ok_or_else(missing)?));
        }
        Ok(events)
    }

    /// The newest events of the types, at most `most`, without tests and erased events.
    pub(super) async fn last_events(
        &self,
        authorized: &AuthorizedApplication,
        subscriptions: &[Subscription],
        most: usize,
    ) -> Result<Vec<Tried>, ApiError> {
        let (event_type, limit) = match subscriptions {
            [single] => (Some(single.clone()).filter(|single| *single != Subscription::All), most),
            _ => (None, MAX_WALKED),
        };
        let filter = EventFilter { event_type, limit, ..EventFilter::default() };
        let rows = self.store.events(authorized.application, &filter).await?.events;
        let mut events = Vec::new();
        for row in rows {
            let is_wanted = EventType::parse(&row.event_type)
                .is_ok_and(|event_type| subscriptions.iter().any(|subscription| subscription.covers(&event_type)));
            if events.len() >= most || !is_wanted || row.is_test || row.erased_at.is_some() {
                continue;
            }
            // A list leaves out long bodies.
            let row = match row.body {
                Some(_) => Some(row),
                None => self.store.event(authorized.application, row.id).await?,
            };
            events.extend(row.and_then(tried));
        }
        Ok(events)
    }
}

/// Subscriptions of a request; without any, all types.
pub(super) fn subscriptions(events: Option<&[String]>) -> Result<Vec<Subscription>, ApiError> {
    match events {
        Some(events) => Ok(events.iter().map(|text| Subscription::parse(text)).collect::<Result<_, _>>()?),
        None => Ok(vec![Subscription::All]),
    }
}

/// An event with a body.
fn tried(row: EventRow) -> Option<Tried> {
    let event_type = EventType::parse(&row.event_type).ok()?;
    Some(Tried { event: Some(row.id), event_type, accepted_at: Some(row.accepted_at), body: row.body? })
}

/// Samples of the described types, at most `most`.
pub(super) fn samples(catalogue: &Catalogue, subscriptions: &[Subscription], most: usize) -> Vec<Tried> {
    let described = catalogue.types().iter();
    let wanted = described.filter(|described| subscriptions.iter().any(|wanted| wanted.covers(&described.name)));
    let sample = |described: &EventTypeDescription| Tried {
        event: None,
        event_type: described.name.clone(),
        accepted_at: None,
        body: described.sample.clone(),
    };
    wanted.take(most).map(sample).collect()
}
