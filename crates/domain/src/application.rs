//! Applications and their endpoints, as the services know them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use http::HeaderMap;
use jiff::Timestamp;
use url::Url;

use crate::{
    catalogue::nearest,
    dialect::Dialect,
    event::{EventFault, EventType},
    ids::{ApplicationId, EndpointId},
    policy::Policy,
    redaction::Redaction,
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
    pub secrets: Vec<EndpointSecret>,
    /// Headers of its own that its deliveries carry.
    pub headers: HeaderMap,
    /// How its deliveries look: its application's dialect.
    pub dialect: Arc<Dialect>,
    /// When a delivery is tried again and what counts as failure: the dialect's, with what of it the
    /// endpoint has of its own.
    pub policy: Arc<Policy>,
    /// What of its answers is not kept: its application's.
    pub redaction: Arc<Redaction>,
    /// Whether somebody gets a mail when a delivery is given up.
    pub notifies_owner: bool,
}

/// A secret of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointSecret {
    /// The secret.
    pub secret: SigningSecret,
    /// It signs until then; none for the current one.
    pub expires_at: Option<Timestamp>,
}

impl Endpoint {
    /// The secrets that sign an attempt at this moment, newest first.
    pub fn live_secrets(&self, at: Timestamp) -> Vec<&SigningSecret> {
        let live = self.secrets.iter().filter(|one| one.expires_at.is_none_or(|end| at < end));
        live.map(|one| &one.secret).collect()
    }
}

/// What an application is but for its endpoints.
#[derive(Debug, Clone)]
pub struct ApplicationSettings {
    /// Its id.
    pub id: ApplicationId,
    /// The version of its configuration.
    pub version: i64,
    /// How its deliveries look.
    pub dialect: Arc<Dialect>,
    /// Whether events of types that are not described are refused.
    pub is_strict: bool,
    /// The event types that it describes beside those of its dialect.
    pub own_event_types: HashSet<EventType>,
    /// Events in a second that may be published over HTTP at each ingest, where it has a limit of its own.
    pub publish_rate: Option<u32>,
    /// What of bodies is not to be read.
    pub redaction: Arc<Redaction>,
}

/// An application with its endpoints, arranged for matching. Immutable: a change replaces it whole.
#[derive(Debug)]
pub struct Application {
    /// Its id, which is also the first word of its routing keys.
    pub id: ApplicationId,
    /// The version of its configuration; it grows with each change.
    pub version: i64,
    /// How its deliveries look.
    pub dialect: Arc<Dialect>,
    /// Whether events of types that are not described are refused.
    pub is_strict: bool,
    /// Events in a second that may be published over HTTP at each ingest, where it has a limit of its own.
    pub publish_rate: Option<u32>,
    /// What of bodies is not to be read.
    pub redaction: Arc<Redaction>,
    own_event_types: HashSet<EventType>,
    endpoints: Vec<Arc<Endpoint>>,
    positions: HashMap<EndpointId, usize>,
    subscriptions: SubscriptionIndex,
}

impl Application {
    /// Arranges an application's endpoints.
    pub fn new(settings: ApplicationSettings, endpoints: Vec<Endpoint>) -> Self {
        let ApplicationSettings { id, version, dialect, is_strict, own_event_types, publish_rate, redaction } =
            settings;
        let subscriptions = SubscriptionIndex::new(endpoints.iter().map(|endpoint| endpoint.subscriptions.as_slice()));
        let positions = endpoints.iter().enumerate().map(|(position, endpoint)| (endpoint.id, position)).collect();
        let endpoints = endpoints.into_iter().map(Arc::new).collect();
        Self {
            id,
            version,
            dialect,
            is_strict,
            publish_rate,
            redaction,
            own_event_types,
            endpoints,
            positions,
            subscriptions,
        }
    }

    /// Checks that events of this type may be published: a strict application takes only those that are
    /// described, by its dialect or by itself.
    ///
    /// # Errors
    /// When it is strict and the type unknown, with the nearest one that is known.
    pub fn check_type(&self, event_type: &EventType) -> Result<(), EventFault> {
        let is_known = || self.own_event_types.contains(event_type) || self.dialect.catalogue.get(event_type).is_some();
        if !self.is_strict || is_known() {
            return Ok(());
        }
        let known = self.dialect.catalogue.names().chain(&self.own_event_types).map(EventType::as_str);
        Err(EventFault::unknown_type(event_type, nearest(event_type.as_str(), known)))
    }

    /// The endpoints that want this type of event, whatever their status.
    pub fn matches(&self, event_type: &EventType) -> Vec<Arc<Endpoint>> {
        self.subscriptions
            .matches(event_type)
            .into_iter()
            .map(|position| Arc::clone(&self.endpoints[position]))
            .collect()
    }

    /// All of its endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// One of its endpoints.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.positions.get(&id).map(|&position| &self.endpoints[position])
    }
}
