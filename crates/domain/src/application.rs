//! Applications, as the services use them.

pub mod label;
pub mod plan;
pub mod quota;
pub mod signing_key;

use std::{collections::HashSet, sync::Arc};

use rpds::RedBlackTreeMapSync;

use crate::{
    delivery::digest,
    dialect::Dialect,
    endpoint::{Endpoint, filter::FilteredEvent, redaction::Redaction},
    event::{EventFault, EventType, catalogue::nearest, schema::Schemas, subscription::SubscriptionIndex},
    expression::Outcome,
    ids::{ApplicationId, EndpointId},
    operational,
};
use plan::Limits;
use signing_key::SigningKeys;

/// True for a type that only Fanfare publishes.
fn is_reserved(event_type: &EventType) -> bool {
    digest::is_digest(event_type) || operational::is_operational(event_type)
}

/// Settings of an application, without the endpoints.
#[derive(Debug, Clone)]
pub struct ApplicationSettings {
    /// Application id.
    pub id: ApplicationId,
    /// Version of the configuration.
    pub version: i64,
    /// Form of the deliveries.
    pub dialect: Arc<Dialect>,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Event types described in addition to the dialect's.
    pub own_event_types: HashSet<EventType>,
    /// Schemas of the own event types, of a strict application; `None` if unchanged since the known version.
    pub schemas: Option<Schemas>,
    /// Own limits, which replace those of the plan.
    pub limits: Limits,
    /// Name of the plan; `None` without a plan.
    pub plan: Option<Arc<str>>,
    /// Members hidden in displayed bodies.
    pub redaction: Arc<Redaction>,
    /// Ed25519 keys, if the application has any.
    pub signing_keys: Option<Arc<SigningKeys>>,
}

/// An application with endpoints, indexed for matching. Immutable: a change replaces the whole.
#[derive(Debug, Clone)]
pub struct Application {
    /// Application id, and the first word of the application's routing keys.
    pub id: ApplicationId,
    /// Version of the configuration. Grows with each change.
    pub version: i64,
    /// Form of the deliveries.
    pub dialect: Arc<Dialect>,
    /// True if events of undescribed types are refused, and subscriptions to undescribed types.
    pub is_strict: bool,
    /// Own limits, which replace those of the plan.
    pub limits: Limits,
    /// Name of the plan; `None` without a plan.
    pub plan: Option<Arc<str>>,
    /// Members hidden in displayed bodies.
    pub redaction: Arc<Redaction>,
    /// Ed25519 keys, if the application has any.
    pub signing_keys: Option<Arc<SigningKeys>>,
    own_event_types: HashSet<EventType>,
    schemas: Arc<Schemas>,
    endpoints: RedBlackTreeMapSync<EndpointId, Arc<Endpoint>>,
    subscriptions: SubscriptionIndex<EndpointId>,
    /// Number of endpoints with a filter.
    filters: usize,
    /// Number of endpoints with a template.
    templates: usize,
}

impl Application {
    /// Indexes an application's endpoints.
    pub fn new(settings: ApplicationSettings, endpoints: Vec<Endpoint>) -> Self {
        let mut application = Self {
            id: settings.id,
            version: settings.version,
            dialect: settings.dialect,
            is_strict: settings.is_strict,
            limits: settings.limits,
            plan: settings.plan,
            redaction: settings.redaction,
            signing_keys: settings.signing_keys,
            own_event_types: settings.own_event_types,
            schemas: Arc::new(settings.schemas.unwrap_or_default()),
            endpoints: RedBlackTreeMapSync::default(),
            subscriptions: SubscriptionIndex::default(),
            filters: 0,
            templates: 0,
        };
        endpoints.into_iter().for_each(|endpoint| application.put(endpoint));
        application
    }

    /// The application after changes of some endpoints. The other endpoints stay, so that the application's dialect,
    /// redaction, address and signing keys must be the same.
    pub fn with(&self, settings: ApplicationSettings, changed: Vec<Endpoint>, removed: &[EndpointId]) -> Self {
        let mut next = self.clone();
        next.version = settings.version;
        next.is_strict = settings.is_strict;
        next.limits = settings.limits;
        next.plan = settings.plan;
        next.own_event_types = settings.own_event_types;
        if let Some(schemas) = settings.schemas {
            next.schemas = Arc::new(schemas.sharing(&self.schemas));
        }
        removed.iter().for_each(|id| next.remove(*id));
        changed.into_iter().for_each(|endpoint| next.put(endpoint));
        next
    }

    /// Adds or replaces an endpoint. An unchanged filter, template or client certificate stays parsed.
    fn put(&mut self, mut endpoint: Endpoint) {
        if let Some(known) = self.endpoints.get(&endpoint.id) {
            if known.filter == endpoint.filter {
                endpoint.filter.clone_from(&known.filter);
            }
            if known.template == endpoint.template {
                endpoint.template.clone_from(&known.template);
            }
            if known.certificate == endpoint.certificate {
                endpoint.certificate.clone_from(&known.certificate);
            }
        }
        self.remove(endpoint.id);
        self.subscriptions.add(endpoint.id, &endpoint.subscriptions);
        self.filters += usize::from(endpoint.filter.is_some());
        self.templates += usize::from(endpoint.template.is_some());
        self.endpoints.insert_mut(endpoint.id, Arc::new(endpoint));
    }

    /// Removes an endpoint, if known.
    fn remove(&mut self, id: EndpointId) {
        if let Some(known) = self.endpoints.get(&id) {
            self.subscriptions.remove(id, &known.subscriptions);
            self.filters -= usize::from(known.filter.is_some());
            self.templates -= usize::from(known.template.is_some());
            self.endpoints.remove_mut(&id);
        }
    }

    /// Checks that events of this type may be published. A strict application accepts only types described by the
    /// dialect or by itself. No application accepts the types of digests and of operational events.
    ///
    /// # Errors
    /// If the type is reserved. If the application is strict and the type unknown, with the nearest known type.
    pub fn check_type(&self, event_type: &EventType) -> Result<(), EventFault> {
        if self.accepts_type(event_type) {
            return Ok(());
        }
        if is_reserved(event_type) {
            return Err(EventFault::reserved_type(event_type));
        }
        let known = self.dialect.catalogue.names().chain(&self.own_event_types).map(EventType::as_str);
        Err(EventFault::unknown_type(event_type, nearest(event_type.as_str(), known)))
    }

    fn accepts_type(&self, event_type: &EventType) -> bool {
        let is_known = || self.own_event_types.contains(event_type) || self.dialect.catalogue.get(event_type).is_some();
        !is_reserved(event_type) && (!self.is_strict || is_known())
    }

    /// True if [`Self::check_event`] accepts the event. Does not search for the fault, which takes several times as
    /// long.
    pub fn accepts(&self, event_type: &EventType, version: Option<u32>, data: &str) -> bool {
        self.accepts_type(event_type) && (!self.is_strict || self.schemas.accepts(event_type, version, data))
    }

    /// Checks that an event may be published. A strict application accepts only described types, and of a type with a
    /// schema only data that fits. The schema is the named version, or the newest.
    ///
    /// # Errors
    /// If the application is strict, and the type or the version unknown, or the data does not fit. The fault shows no
    /// value of the data if the application hides members.
    pub fn check_event(&self, event_type: &EventType, version: Option<u32>, data: &str) -> Result<(), EventFault> {
        self.check_type(event_type)?;
        if !self.is_strict {
            return Ok(());
        }
        self.schemas.check(event_type, version, data, self.redaction.is_empty())
    }

    /// Endpoints that subscribe to the event type, in any status. Their filters decide on each event. A digest concerns
    /// one endpoint, and matches no subscription.
    pub fn subscribers(&self, event_type: &EventType) -> Vec<Arc<Endpoint>> {
        if digest::is_digest(event_type) {
            return Vec::new();
        }
        self.subscriptions.matches(event_type).iter().filter_map(|id| self.endpoints.get(id)).cloned().collect()
    }

    /// Endpoints that get an event, in any status: the endpoint subscribes to the type, and the event meets the
    /// endpoint's filter.
    pub fn matches(&self, event: &mut FilteredEvent<'_>) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.subscribers(event.event_type());
        endpoints.retain(|endpoint| endpoint.wants(event).0 == Outcome::True);
        endpoints
    }

    /// Number of endpoints with a filter.
    pub fn filters(&self) -> usize {
        self.filters
    }

    /// Number of endpoints with a template.
    pub fn templates(&self) -> usize {
        self.templates
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// Finds an endpoint by id.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;
    use crate::{
        delivery::digest,
        endpoint::tests::{dialect, endpoint},
        event::{schema::Schema, subscription::Subscription},
    };

    fn settings(version: i64) -> ApplicationSettings {
        ApplicationSettings {
            id: ApplicationId(Uuid::nil()),
            version,
            dialect: dialect(),
            is_strict: false,
            own_event_types: HashSet::new(),
            schemas: None,
            limits: Limits::default(),
            plan: None,
            redaction: Arc::default(),
            signing_keys: None,
        }
    }

    /// Endpoints that get events of each type.
    fn matched(application: &Application) -> Vec<Vec<EndpointId>> {
        let of_type = |name: &&str| {
            let matches = application.subscribers(&EventType::parse(name).expect("a type"));
            let mut ids: Vec<_> = matches.iter().map(|endpoint| endpoint.id).collect();
            ids.sort_unstable();
            ids
        };
        ["a.x", "a.y", "b.x"].iter().map(of_type).collect()
    }

    #[test]
    fn nobody_publishes_or_subscribes_to_digests() {
        let all = Subscription::parse("*").expect("a pattern");
        let application = Application::new(settings(0), vec![endpoint(1, vec![all])]);
        let (digest, other) = (EventType::parse(digest::EVENT_TYPE), EventType::parse("fanfare.digests"));
        let (digest, other) = (digest.expect("a type"), other.expect("a type"));
        let fault = application.check_event(&digest, None, "{}").expect_err("a fault");
        assert_eq!(fault.message, "is fanfare.digest, which only Fanfare publishes: choose another type");
        assert!(!application.accepts(&digest, None, "{}") && application.accepts(&other, None, "{}"));
        assert_eq!((application.subscribers(&digest).len(), application.subscribers(&other).len()), (0, 1));
    }

    #[test]
    fn nobody_publishes_operational_events_but_webhooks_subscribe_to_them() {
        let all = Subscription::parse("*").expect("a pattern");
        let application = Application::new(settings(0), vec![endpoint(1, vec![all])]);
        let told = EventType::parse("fanfare.endpoint.disabled").expect("a type");
        let fault = application.check_type(&told).expect_err("a fault");
        assert!(fault.message.contains("which only Fanfare publishes"), "{fault}");
        assert_eq!(application.subscribers(&told).len(), 1);
    }

    proptest! {
        /// Changes of single endpoints lead to the application that is made of the remaining endpoints.
        #[test]
        fn changes_of_endpoints_are_the_same_as_a_new_application(
            steps in vec(vec((0_u8..6, prop::option::of(vec(0_usize..4, 0..3))), 1..4), 1..12),
        ) {
            let pattern = |index: &usize| Subscription::parse(["*", "a.*", "a.x", "b.x"][*index]).expect("a pattern");
            let mut wanted: HashMap<u8, Vec<Subscription>> = HashMap::new();
            let mut application = Application::new(settings(0), Vec::new());
            for (version, step) in (1..).zip(steps) {
                let (mut changed, mut removed) = (HashMap::new(), Vec::new());
                for (number, patterns) in step {
                    changed.remove(&number);
                    match patterns {
                        Some(patterns) => {
                            let subscriptions: Vec<_> = patterns.iter().map(pattern).collect();
                            wanted.insert(number, subscriptions.clone());
                            changed.insert(number, endpoint(number, subscriptions));
                        }
                        None => {
                            wanted.remove(&number);
                            removed.push(endpoint(number, Vec::new()).id);
                        }
                    }
                }
                application = application.with(settings(version), changed.into_values().collect(), &removed);
                let all = wanted.iter().map(|(number, subscriptions)| endpoint(*number, subscriptions.clone()));
                let new = Application::new(settings(version), all.collect());
                prop_assert_eq!((application.version, application.endpoints().len()), (version, wanted.len()));
                prop_assert_eq!(matched(&application), matched(&new));
                for number in 0..6 {
                    let id = endpoint(number, Vec::new()).id;
                    prop_assert_eq!(application.endpoint(id).map(|found| found.id), wanted.get(&number).map(|_| id));
                }
            }
        }
    }

    #[test]
    fn a_strict_application_checks_data_and_hides_values_beside_hidden_members() {
        let event_type = EventType::parse("order.created").expect("a type");
        let with = |is_strict, redacted: &[&str]| {
            let mut schemas = Schemas::default();
            schemas.add(event_type.clone(), 1, Arc::new(Schema::parse(r#"{"type":"number"}"#).expect("a schema")));
            let redaction = Arc::new(Redaction::parse(redacted).expect("names"));
            Application::new(
                ApplicationSettings { is_strict, schemas: Some(schemas), redaction, ..settings(0) },
                Vec::new(),
            )
        };
        let strict = with(true, &[]);
        assert_eq!(strict.check_event(&event_type, None, "1"), Ok(()));
        assert!(strict.accepts(&event_type, None, "1") && !strict.accepts(&event_type, None, "\"x\""));
        let refused = strict.check_event(&event_type, None, "\"x\"").expect_err("a text");
        assert!(refused.message.contains("\"x\""), "{refused}");
        let kept = strict.with(ApplicationSettings { is_strict: true, ..settings(1) }, Vec::new(), &[]);
        assert!(kept.check_event(&event_type, None, "\"x\"").is_err(), "the known schemas stay");
        let removed = ApplicationSettings { is_strict: true, schemas: Some(Schemas::default()), ..settings(2) };
        assert_eq!(kept.with(removed, Vec::new(), &[]).check_event(&event_type, None, "\"x\""), Ok(()));
        let refused = with(true, &["password"]).check_event(&event_type, None, "\"x\"").expect_err("a text");
        assert!(!refused.message.contains("\"x\""), "{refused}");
        assert_eq!(with(false, &[]).check_event(&event_type, Some(7), "\"x\""), Ok(()));
    }
}
