//! Replays: events of the past, sent again by a job that goes through them one after the other.

use std::sync::Arc;

use crate::{
    application::{Application, Endpoint, EndpointStatus},
    delivery::State,
    event::EventType,
    ids::EndpointId,
    subscription::Subscription,
};

/// Deliveries that a replay may send in a second.
pub const RATES: std::ops::RangeInclusive<u32> = 1..=1000;

/// Where a replay stands. The word is the same in the database and in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// It goes on.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was ended before its end.
    Cancelled,
    /// It has reached its end.
    Done,
}

impl ReplayState {
    const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Cancelled, Self::Done];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Which of an event's deliveries a replay sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Those in this state.
    In(State),
    /// Those that there never were: the endpoint is newer than the event, or wanted other types then.
    Unmatched,
}

impl Replayed {
    /// All of them. An open delivery is under way already.
    pub const ALL: [Self; 4] =
        [Self::In(State::Failed), Self::In(State::Skipped), Self::In(State::Delivered), Self::Unmatched];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In(state) => state.as_str(),
            Self::Unmatched => "unmatched",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// Which events go to which endpoints.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// This one; none for all that want the event's type.
    pub endpoint: Option<EndpointId>,
    /// Events of these types; none for all.
    pub types: Vec<Subscription>,
}

impl Selection {
    /// The endpoints that an event goes to: those that are selected, want its type by now, and are not disabled.
    pub fn endpoints(&self, application: &Application, event_type: &EventType) -> Vec<Arc<Endpoint>> {
        if !self.types.is_empty() && !self.types.iter().any(|one| one.covers(event_type)) {
            return Vec::new();
        }
        let mut endpoints = application.matches(event_type);
        endpoints.retain(|one| {
            self.endpoint.is_none_or(|wanted| wanted == one.id) && one.status != EndpointStatus::Disabled
        });
        endpoints
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
        for one in Replayed::ALL {
            assert_eq!(Replayed::parse(one.as_str()), Some(one));
        }
        assert_eq!((ReplayState::parse("over"), Replayed::parse("sending")), (None, None));
    }
}
