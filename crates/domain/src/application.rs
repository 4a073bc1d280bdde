//! Applications and their endpoints, as the services know them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use url::Url;

use crate::{
    event::EventType,
    ids::{ApplicationId, EndpointId},
    secret::SigningSecret,
    subscription::{Subscription, SubscriptionIndex},
};

/// Whether an endpoint gets its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStatus {
    /// It does.
    Enabled,
    /// Not now: its deliveries are held until it is resumed.
    Paused,
    /// No: its deliveries are recorded as skipped.
    Disabled,
}

impl EndpointStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Enabled, Self::Paused, Self::Disabled];

    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Where deliveries go, and what they need to get there.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The application that owns it.
    pub application: ApplicationId,
    /// The address of the POST.
    pub url: Url,
    /// Whether it gets deliveries.
    pub status: EndpointStatus,
    /// The event types that it wants.
    pub subscriptions: Vec<Subscription>,
    /// The secrets that sign its deliveries, newest first; more than one during a rotation.
    pub secrets: Vec<SigningSecret>,
    /// The deadline of one attempt, where it has one of its own.
    pub timeout: Option<Duration>,
}

/// An application with its endpoints, arranged for matching. Immutable: a change replaces it whole.
#[derive(Debug)]
pub struct Application {
    /// Its id, which is also the first word of its routing keys.
    pub id: ApplicationId,
    /// The version of its configuration; it grows with each change.
    pub version: i64,
    endpoints: Vec<Arc<Endpoint>>,
    positions: HashMap<EndpointId, usize>,
    subscriptions: SubscriptionIndex,
}

impl Application {
    /// Arranges an application's endpoints.
    pub fn new(id: ApplicationId, version: i64, endpoints: Vec<Endpoint>) -> Self {
        let subscriptions = SubscriptionIndex::new(endpoints.iter().map(|endpoint| endpoint.subscriptions.as_slice()));
        let positions = endpoints.iter().enumerate().map(|(position, endpoint)| (endpoint.id, position)).collect();
        Self { id, version, endpoints: endpoints.into_iter().map(Arc::new).collect(), positions, subscriptions }
    }

    /// The endpoints that want this type of event, whatever their status.
    pub fn matches(&self, event_type: &EventType) -> Vec<Arc<Endpoint>> {
        self.subscriptions
            .matches(event_type)
            .into_iter()
            .map(|position| Arc::clone(&self.endpoints[position]))
            .collect()
    }

    /// One of its endpoints.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.positions.get(&id).map(|&position| &self.endpoints[position])
    }
}
