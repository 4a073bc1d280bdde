//! Operational events: changes of state of endpoints, replays and messages, told to an application of the operator.

pub mod catalogue;
pub mod state;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    event::EventType,
    ids::{ApplicationId, DeliveryId, EndpointId, ReplayId},
};

/// A condition that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The endpoint is disabled.
    Disabled,
    /// Each attempt to the endpoint has failed for an hour.
    Failing,
    /// The endpoint's breaker is open.
    BreakerOpen,
    /// The first delivery of the endpoint's backlog expires within an hour.
    BacklogNearLimit,
    /// The deliveries held for the paused endpoint are near a limit.
    HeldNearLimit,
    /// Deliveries to the endpoint are given up.
    GivingUp,
    /// Messages are parked.
    MessagesParked,
    /// A replay is done or cancelled.
    ReplayFinished,
}

/// Course of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Holds for a time. Beginning and end are told.
    Lasting,
    /// Occurs again and again. The first occurrence is told, and then the first after an hour without any.
    Recurring,
    /// Occurs once.
    Single,
}

impl Condition {
    /// All conditions.
    pub const ALL: [Self; 8] = [
        Self::Disabled,
        Self::Failing,
        Self::BreakerOpen,
        Self::BacklogNearLimit,
        Self::HeldNearLimit,
        Self::GivingUp,
        Self::MessagesParked,
        Self::ReplayFinished,
    ];

    /// Name in the database and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Failing => "failing",
            Self::BreakerOpen => "breaker_open",
            Self::BacklogNearLimit => "backlog_near_limit",
            Self::HeldNearLimit => "held_near_limit",
            Self::GivingUp => "giving_up",
            Self::MessagesParked => "messages_parked",
            Self::ReplayFinished => "replay_finished",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|condition| condition.as_str() == text)
    }

    /// Course of the condition.
    pub fn course(self) -> Course {
        match self {
            Self::GivingUp | Self::MessagesParked => Course::Recurring,
            Self::ReplayFinished => Course::Single,
            _ => Course::Lasting,
        }
    }

    /// Time for which the condition must hold before its beginning is told: a breaker opens and closes often.
    pub fn begins_after(self) -> Duration {
        match self {
            Self::BreakerOpen => Duration::from_secs(60),
            _ => Duration::ZERO,
        }
    }

    /// Time for which the condition must be gone before its end is told. A status is what a request has set.
    pub fn ends_after(self) -> Duration {
        match self {
            Self::Disabled => Duration::ZERO,
            _ => Duration::from_secs(600),
        }
    }

    /// Type of the event that tells the change; `None` for the silent end of occurrences.
    pub fn event_type(self, change: Change) -> Option<&'static str> {
        Some(match (self, change) {
            (Self::Disabled, Change::Begins) => "fanfare.endpoint.disabled",
            (Self::Disabled, Change::Ends) => "fanfare.endpoint.enabled",
            (Self::Failing, Change::Begins) => "fanfare.endpoint.failing",
            (Self::BreakerOpen, Change::Begins) => "fanfare.endpoint.breaker_opened",
            (Self::BacklogNearLimit, Change::Begins) => "fanfare.endpoint.backlog_near_limit",
            (Self::HeldNearLimit, Change::Begins) => "fanfare.endpoint.held_near_limit",
            (Self::GivingUp, Change::Begins) => "fanfare.endpoint.giving_up",
            (Self::MessagesParked, Change::Begins) => "fanfare.messages.parked",
            (Self::ReplayFinished, Change::Begins) => "fanfare.replay.finished",
            (Self::Failing | Self::BreakerOpen | Self::BacklogNearLimit | Self::HeldNearLimit, Change::Ends) => {
                "fanfare.endpoint.recovered"
            }
            (Self::GivingUp | Self::MessagesParked | Self::ReplayFinished, Change::Ends) => return None,
        })
    }
}

/// A change of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The condition holds now.
    Begins,
    /// The condition holds no more.
    Ends,
}

/// True for the type of an operational event. Only Fanfare publishes these types.
pub fn is_operational(event_type: &EventType) -> bool {
    let name = event_type.as_str();
    name.starts_with("fanfare.") && catalogue::TYPES.contains(&name)
}

/// Reason of a lasting condition's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The condition is gone, and the endpoint is enabled.
    Recovered,
    /// The endpoint is paused.
    Paused,
    /// The endpoint is disabled.
    Disabled,
    /// The endpoint is deleted.
    Deleted,
}

impl Because {
    /// Name in the database and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }
}

/// Figures of a condition: each condition has a few of the members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Reason of a status that Fanfare has set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Status or outcome of the last failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Failed attempts in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// Time at which the first delivery expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Held deliveries, counted up to the number that is near the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Maximum number of held deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held: Option<u64>,
    /// Time at which the first held delivery is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// Occurrences since the last event of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The same by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// The oldest delivery among the first that were given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_delivery: Option<DeliveryId>,
    /// Reason of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<Because>,
    /// The finished replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayFigures>,
}

/// Figures of a finished replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayFigures {
    /// Id of the replay.
    pub id: ReplayId,
    /// `done` or `cancelled`.
    pub state: String,
    /// Events read.
    pub events: u64,
    /// Deliveries sent again.
    pub deliveries: u64,
    /// Time of the request.
    pub created_at: Timestamp,
}

/// Data of an operational event, without payloads and secrets. The URL of an endpoint may hold a secret: only its host
/// is told.
#[derive(Debug, Clone, Serialize)]
pub struct EventData<'a> {
    /// Name of the condition.
    pub condition: &'static str,
    /// The application concerned; `None` for messages of no known application.
    pub application: Option<NamedApplication<'a>>,
    /// The endpoint concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<NamedWebhook<'a>>,
    /// Beginning of the condition, or of its absence.
    pub since: Timestamp,
    /// Changes since the last event about this condition, this change included.
    pub changes: u32,
    /// Figures of the condition.
    #[serde(flatten)]
    pub figures: &'a Figures,
    /// Page of the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl EventData<'_> {
    /// The data of the event.
    ///
    /// # Errors
    /// Never for these members, which are numbers, texts and times.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// An application in an event.
#[derive(Debug, Clone, Serialize)]
pub struct NamedApplication<'a> {
    /// Id of the application.
    pub id: ApplicationId,
    /// Display name.
    pub name: &'a str,
}

/// An endpoint in an event.
#[derive(Debug, Clone, Serialize)]
pub struct NamedWebhook<'a> {
    /// Id of the endpoint.
    pub id: EndpointId,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Host of the URL.
    pub host: &'a str,
}
