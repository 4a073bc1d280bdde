//! Applications and endpoints, as the services use them.

use std::{collections::HashSet, sync::Arc};

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp, civil::Date};
use rpds::RedBlackTreeMapSync;
use url::Url;

use crate::{
    delivery::{digest, policy::Policy},
    dialect::Dialect,
    endpoint::{
        authentication::{ClientCertificate, Credentials, OAuth2},
        fifo::Fifo,
        filter::{Filter, FilteredEvent},
        redaction::Redaction,
        secret::SigningSecret,
        template::Template,
    },
    event::{
        EventFault, EventType,
        catalogue::nearest,
        schema::Schemas,
        subscription::{Subscription, SubscriptionIndex},
    },
    expression::Outcome,
    ids::{ApplicationId, DeliveryId, EndpointId},
    operational,
    plan::Limits,
    signing_key::{SigningKey, SigningKeys},
};

/// Status of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStatus {
    /// Deliveries are sent.
    Enabled,
    /// Deliveries are held until the endpoint is resumed.
    Paused,
    /// Deliveries are recorded as skipped.
    Disabled,
}

impl EndpointStatus {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Enabled, Self::Paused, Self::Disabled];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Feed of an endpoint: the list of deliveries that the receiver reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Feed {
    /// No feed: deliveries are sent.
    #[default]
    None,
    /// Deliveries are sent, and listed in the feed.
    Copy,
    /// Deliveries are listed in the feed, and never sent.
    Only,
}

impl Feed {
    /// All values.
    pub const ALL: [Self; 3] = [Self::None, Self::Copy, Self::Only];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Copy => "copy",
            Self::Only => "only",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feed| feed.as_str() == text)
    }
}

/// Destination of deliveries, with all settings for sending.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Endpoint id.
    pub id: EndpointId,
    /// Application that owns the endpoint.
    pub application: ApplicationId,
    /// URL of the POST.
    pub url: Url,
    /// Enabled, paused or disabled.
    pub status: EndpointStatus,
    /// Whether the receiver reads its deliveries from a feed.
    pub feed: Feed,
    /// FIFO per ordering key; `None` for deliveries at the same time.
    pub fifo: Option<Fifo>,
    /// First day of the daily digests; `None` without digests.
    pub digest_from: Option<Date>,
    /// Subscribed event types.
    pub subscriptions: Vec<Subscription>,
    /// Condition on the events of these types; `None` for all events.
    pub filter: Option<Arc<Filter>>,
    /// Form of the bodies; `None` for the dialect's.
    pub template: Option<Arc<Template>>,
    /// Signing secrets, newest first; more than one only during a rotation.
    pub secrets: Vec<EndpointSecret>,
    /// Keys of the application, if they sign deliveries to the endpoint.
    pub signing_keys: Option<Arc<SigningKeys>>,
    /// Additional headers of the deliveries.
    pub headers: HeaderMap,
    /// Authentication at the receiver, in `authorization`.
    pub authentication: Option<Arc<Credentials>>,
    /// Client certificate of the connections.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Form of the deliveries: the application's dialect.
    pub dialect: Arc<Dialect>,
    /// Retry schedule and rules of failure: the dialect's, with the endpoint's own settings applied.
    pub policy: Arc<Policy>,
    /// Members removed from recorded responses: the application's.
    pub redaction: Arc<Redaction>,
    /// True if attempts carry the event's trace context, in `traceparent` and `tracestate`.
    pub sends_trace: bool,
    /// True if the owner gets a mail when a delivery is given up.
    pub notifies_owner: bool,
}

/// Signing secret of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointSecret {
    /// Secret that signs.
    pub secret: SigningSecret,
    /// Time of creation.
    pub created_at: Timestamp,
    /// End of the secret's use; `None` for the current secret.
    pub expires_at: Option<Timestamp>,
}

impl Endpoint {
    /// True if deliveries can be sent, now or after a pause.
    pub fn takes_deliveries(&self) -> bool {
        self.status != EndpointStatus::Disabled && self.feed != Feed::Only
    }

    /// The settings by which attempts get tokens of a token server, and the number of the settings.
    pub fn oauth2(&self) -> Option<(&OAuth2, i64)> {
        let credentials = self.authentication.as_ref()?;
        credentials.oauth2().map(|oauth2| (oauth2, credentials.version))
    }

    /// Result of the filter for an event of a subscribed type, and the steps of a new evaluation. Without a filter, the
    /// endpoint wants all events.
    pub fn wants(&self, event: &mut FilteredEvent<'_>) -> (Outcome, u64) {
        self.filter.as_ref().map_or((Outcome::True, 0), |filter| event.outcome(filter))
    }

    /// Day whose digest counts a delivery; `None` without digests or a feed, and for the digests
    /// themselves.
    pub fn digest_day(&self, delivery: DeliveryId, event_type: &EventType) -> Option<Date> {
        let from = self.digest_from.filter(|_| self.feed != Feed::None && !digest::is_digest(event_type))?;
        Some(digest::day_of(delivery)).filter(|day| *day >= from)
    }

    /// Secrets that sign an attempt at this moment, newest first.
    pub fn live_secrets(&self, at: Timestamp) -> Vec<&SigningSecret> {
        let live = self.secrets.iter().filter(|secret| secret.expires_at.is_none_or(|end| at < end));
        live.map(|secret| &secret.secret).collect()
    }

    /// Ed25519 keys that sign an attempt at this moment, newest first.
    pub fn live_keys(&self, at: Timestamp) -> impl Iterator<Item = &SigningKey> {
        self.signing_keys.iter().flat_map(move |keys| keys.live(at))
    }
}

/// Age of the services' copy of the configuration, at most: an attempt may lack a secret that is newer than this.
const LAG: SignedDuration = SignedDuration::from_secs(10);

impl Endpoint {
    /// True if an attempt at `at` was certainly signed by the secrets in [`Self::live_secrets`] of `at`. `created_at` is
    /// the creation of the endpoint. `previous_until` is the end of the last secret that is no longer in force.
    pub fn knows_signatures_of(&self, at: Timestamp, created_at: Timestamp, previous_until: Timestamp) -> bool {
        let Some(newest) = self.secrets.first() else { return false };
        // The first secret is created with the endpoint.
        if newest.created_at <= created_at {
            return true;
        }
        // During an overlap no other secret is in force: another rotation is refused.
        let since = if self.secrets.len() > 1 { newest.created_at } else { newest.created_at.max(previous_until) };
        at.duration_since(since) >= LAG
    }
}

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

    /// True if [`Self::check_event`] accepts the event. Does not search for the fault, which takes several times as long.
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
    use std::{collections::HashMap, sync::LazyLock};

    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;
    use crate::{dialect::Dialects, event::schema::Schema};

    fn dialect() -> Arc<Dialect> {
        static DIALECTS: LazyLock<Dialects> =
            LazyLock::new(|| Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}")));
        Arc::clone(DIALECTS.get("standard").expect("a dialect"))
    }

    fn endpoint(number: u8, subscriptions: Vec<Subscription>) -> Endpoint {
        let dialect = dialect();
        Endpoint {
            id: EndpointId(Uuid::from_u128(number.into())),
            application: ApplicationId(Uuid::nil()),
            url: "https://example.com/".parse().expect("URL"),
            status: EndpointStatus::Enabled,
            feed: Feed::None,
            fifo: None,
            digest_from: None,
            subscriptions,
            filter: None,
            template: None,
            authentication: None,
            certificate: None,
            secrets: Vec::new(),
            signing_keys: None,
            headers: HeaderMap::new(),
            policy: Arc::clone(&dialect.policy),
            redaction: Arc::default(),
            sends_trace: false,
            notifies_owner: false,
            dialect,
        }
    }

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
    fn a_digest_counts_deliveries_from_its_first_day_on_and_no_digests() {
        let day = |day| jiff::civil::date(2026, 11, day);
        let delivery = digest::bounds(day(27)).0;
        let event_type = |name| EventType::parse(name).expect("a type");
        let counted = |from, name| {
            let endpoint = Endpoint { feed: Feed::Copy, digest_from: from, ..endpoint(1, Vec::new()) };
            endpoint.digest_day(delivery, &event_type(name))
        };
        assert_eq!(counted(Some(day(27)), "a"), Some(day(27)));
        assert_eq!(counted(Some(day(1)), "a"), Some(day(27)));
        assert_eq!(counted(Some(day(28)), "a"), None);
        assert_eq!(counted(None, "a"), None);
        assert_eq!(counted(Some(day(27)), digest::EVENT_TYPE), None);
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

    #[test]
    fn signatures_are_known_unless_the_secrets_changed() {
        let at = |seconds| Timestamp::from_second(seconds).expect("timestamp");
        let secret = |(created, end): (i64, Option<i64>)| EndpointSecret {
            secret: SigningSecret::from_random([1; 32]),
            created_at: at(created),
            expires_at: end.map(at),
        };
        let knows = |secrets: &[(i64, Option<i64>)], moment, previous_until| {
            let secrets = secrets.iter().copied().map(secret).collect();
            let endpoint = Endpoint { secrets, ..endpoint(1, Vec::new()) };
            endpoint.knows_signatures_of(at(moment), at(100), at(previous_until))
        };
        assert!(!knows(&[], 200, 0));
        assert!(knows(&[(100, None)], 100, 0), "the first secret");
        let rotating = [(1000, None), (100, Some(2000))];
        assert!(!knows(&rotating, 999, 0) && !knows(&rotating, 1009, 0) && knows(&rotating, 1010, 0));
        let rotated = [(1000, None)];
        assert!(!knows(&rotated, 2009, 2000) && knows(&rotated, 2010, 2000), "the previous secret signed until 2000");
        assert!(knows(&rotated, 1010, 0), "rotated without an overlap");
    }
}
