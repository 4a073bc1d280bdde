//! Replays: a job sends past events again, in order.

use std::sync::Arc;

use crate::{
    application::Application,
    delivery::State,
    endpoint::{Endpoint, filter::FilteredEvent},
    event::{EventType, subscription::Subscription},
    expression::Outcome,
    ids::EndpointId,
};

/// Permitted rates of a replay, in deliveries per second.
pub const RATES: std::ops::RangeInclusive<u32> = 1..=1000;

/// State of a replay. The database and the API use the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// In progress.
    Running,
    /// Waits to be resumed.
    Paused,
    /// Ended before completion.
    Cancelled,
    /// Completed.
    Done,
}

impl ReplayState {
    const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Cancelled, Self::Done];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Selects the deliveries of an event for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Deliveries in this state.
    In(State),
    /// Deliveries that never existed: the endpoint is newer than the event, or wanted other types then.
    Unmatched,
}

impl Replayed {
    /// All selections. Open deliveries are left out, since they are in progress.
    pub const ALL: [Self; 4] =
        [Self::In(State::Failed), Self::In(State::Skipped), Self::In(State::Delivered), Self::Unmatched];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In(state) => state.as_str(),
            Self::Unmatched => "unmatched",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|replayed| replayed.as_str() == text)
    }
}

/// Selects events and endpoints of a replay.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Endpoint; `None` for all endpoints that subscribe to the event's type.
    pub endpoint: Option<EndpointId>,
    /// Event types; empty for all types.
    pub types: Vec<Subscription>,
}

impl Selection {
    /// Endpoints for an event: selected, subscribed to the type now, able to take deliveries, and with a filter that
    /// the event meets now.
    pub fn endpoints(&self, application: &Application, event: &mut FilteredEvent<'_>) -> Vec<Arc<Endpoint>> {
        if !self.covers(event.event_type()) {
            return Vec::new();
        }
        let mut endpoints = application.subscribers(event.event_type());
        endpoints.retain(|endpoint| self.selects(endpoint) && endpoint.wants(event).0 == Outcome::True);
        endpoints
    }

    /// True if the selection of an event may depend on the event's body.
    pub fn has_filters(&self, application: &Application) -> bool {
        application.endpoints().any(|endpoint| endpoint.filter.is_some() && self.selects(endpoint))
    }

    fn covers(&self, event_type: &EventType) -> bool {
        self.types.is_empty() || self.types.iter().any(|subscription| subscription.covers(event_type))
    }

    fn selects(&self, endpoint: &Endpoint) -> bool {
        self.endpoint.is_none_or(|wanted| wanted == endpoint.id) && endpoint.takes_deliveries()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in ReplayState::ALL {
            assert_eq!(ReplayState::parse(state.as_str()), Some(state));
        }
        for replayed in Replayed::ALL {
            assert_eq!(Replayed::parse(replayed.as_str()), Some(replayed));
        }
        assert_eq!((ReplayState::parse("over"), Replayed::parse("sending")), (None, None));
    }
}
