//! Endpoints, and their parts: URL and address policy, headers, secrets, authentication, redaction, filters, templates,
//! FIFO.

pub mod access_token;
pub mod address;
pub mod authentication;
pub mod email;
pub mod fifo;
pub mod filter;
pub mod header;
pub mod health;
pub mod redaction;
pub mod secret;
pub mod template;
pub mod url;

use std::sync::Arc;

use ::url::Url;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp, civil::Date};

use crate::{
    application::signing_key::{SigningKey, SigningKeys},
    delivery::{digest, policy::Policy},
    dialect::Dialect,
    event::{EventType, subscription::Subscription},
    expression::Outcome,
    ids::{ApplicationId, DeliveryId, EndpointId},
};
use authentication::{ClientCertificate, Credentials, OAuth2};
use fifo::Fifo;
use filter::{Filter, FilteredEvent};
use redaction::Redaction;
use secret::SigningSecret;
use template::Template;

/// Age of the services' copy of the configuration, at most: an attempt may lack a secret that is newer than this.
const LAG: SignedDuration = SignedDuration::from_secs(10);

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
        Some(digest::day_of_delivery(delivery)).filter(|day| *day >= from)
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

    /// True if an attempt at `at` was certainly signed by the secrets in [`Self::live_secrets`] of `at`. `created_at`
    /// is the creation of the endpoint. `previous_until` is the end of the last secret that is no longer in force.
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use uuid::Uuid;

    use super::*;
    use crate::dialect::Dialects;

    pub(crate) fn dialect() -> Arc<Dialect> {
        static DIALECTS: LazyLock<Dialects> =
            LazyLock::new(|| Dialects::read([]).unwrap_or_else(|faults| panic!("{faults:?}")));
        Arc::clone(DIALECTS.get("standard").expect("a dialect"))
    }

    pub(crate) fn endpoint(number: u8, subscriptions: Vec<Subscription>) -> Endpoint {
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
