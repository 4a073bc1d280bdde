//! Access tokens in memory, of endpoints with OAuth 2.0. An attempt takes a token at once, or the delivery is queued.
//!
//! The first look at an endpoint without a token asks for a task, [`crate::jobs::TokenFetches`], that keeps the token
//! as long as the token is in use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    endpoint::{Endpoint, authentication::bearer},
    ids::{ApplicationId, EndpointId},
};
use fanfare_store::AccessToken;
use http::HeaderValue;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// The tokens of a process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessTokens {
    kept: Arc<Mutex<HashMap<EndpointId, Kept>>>,
    wanted: mpsc::UnboundedSender<WantedToken>,
}

/// An endpoint whose token a task is to keep.
#[derive(Debug)]
pub(crate) struct WantedToken {
    pub(crate) application: ApplicationId,
    pub(crate) endpoint: EndpointId,
    /// Notified when the token was refused, or the settings have changed.
    pub(crate) changed: Arc<Notify>,
}

/// A token that may be sent.
#[derive(Debug, Clone)]
pub(crate) struct LiveToken {
    /// Value of `authorization`.
    pub(crate) header: HeaderValue,
    /// Version of the settings.
    pub(crate) version: i64,
    /// Number of the token.
    pub(crate) generation: i64,
    usable_until: Instant,
    /// Time without a look of an attempt after which the token is not renewed.
    unused_after: Duration,
    renew_at: Instant,
}

/// Times of a token, on the clock of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) renew_at: Instant,
    pub(crate) usable_until: Instant,
    /// Time from the fetch to the renewal.
    pub(crate) life: Duration,
}

/// Shortest time without a look of an attempt after which a token is not renewed.
const UNUSED: Duration = Duration::from_secs(30);

/// State of an endpoint whose token a task keeps.
struct Kept {
    token: Option<LiveToken>,
    /// Version of the settings that attempts have.
    version: i64,
    /// Last look of an attempt.
    used: Instant,
    /// Number of the last token that the receiver refused.
    refused: Option<i64>,
    /// True after a failed fetch.
    is_failing: bool,
    changed: Arc<Notify>,
}

impl AccessTokens {
    /// Creates an empty set, and the endpoints whose tokens are wanted from then on.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<WantedToken>) {
        let (wanted, wants) = mpsc::unbounded_channel();
        (Self { kept: Arc::default(), wanted }, wants)
    }

    /// The token of an endpoint with OAuth 2.0, by the settings `version`; `None` without a usable token.
    pub(crate) fn live(&self, endpoint: &Endpoint, version: i64) -> Option<LiveToken> {
        let mut kept = self.kept();
        let now = Instant::now();
        let entry = kept.entry(endpoint.id).or_insert_with(|| {
            let changed = Arc::new(Notify::new());
            let (application, endpoint) = (endpoint.application, endpoint.id);
            // The receiver ends only with the process.
            let _ = self.wanted.send(WantedToken { application, endpoint, changed: Arc::clone(&changed) });
            Kept { token: None, version, used: now, refused: None, is_failing: false, changed }
        });
        entry.live(version, now)
    }

    /// True if an endpoint can be sent to: it needs no token, or has one. An endpoint without OAuth 2.0 takes no lock.
    pub(crate) fn permit(&self, endpoint: &Endpoint) -> bool {
        endpoint.oauth2().is_none_or(|(_, version)| self.live(endpoint, version).is_some())
    }

    /// Discards a token that the receiver refused, unless a newer token is there.
    pub(crate) fn refused(&self, endpoint: EndpointId, sent: &LiveToken) {
        let mut kept = self.kept();
        let Some(entry) = kept.get_mut(&endpoint) else { return };
        let is_present = |token: &mut LiveToken| (token.version, token.generation) == (sent.version, sent.generation);
        if entry.token.take_if(is_present).is_some() && sent.version == entry.version {
            entry.refused = Some(sent.generation);
            entry.changed.notify_one();
        }
    }

    /// Takes the number of a refused token of the settings `version`, to discard the token in the database.
    pub(crate) fn take_refused(&self, endpoint: EndpointId, version: i64) -> Option<i64> {
        self.kept().get_mut(&endpoint).filter(|entry| entry.version == version)?.refused.take()
    }

    /// Puts the number of a refused token back, that could not be discarded.
    pub(crate) fn put_back_refused(&self, endpoint: EndpointId, version: i64, generation: i64) {
        if let Some(entry) = self.kept().get_mut(&endpoint).filter(|entry| entry.version == version) {
            entry.refused.get_or_insert(generation);
        }
    }

    /// Keeps a token, unless attempts have other settings. True if attempts had no token of these settings.
    pub(crate) fn put(&self, endpoint: EndpointId, version: i64, token: &AccessToken, times: Times) -> bool {
        let mut kept = self.kept();
        let (Some(entry), Some(header)) = (kept.get_mut(&endpoint), bearer(token.token.reveal())) else { return false };
        if version != entry.version || entry.refused.is_some_and(|refused| token.generation <= refused) {
            return false;
        }
        let had_none = entry.usable(Instant::now()).is_none();
        let Times { renew_at, usable_until, life } = times;
        let (generation, unused_after) = (token.generation, life.max(UNUSED));
        entry.token = Some(LiveToken { header, version, generation, usable_until, unused_after, renew_at });
        entry.is_failing = false;
        had_none
    }

    /// Notes whether fetches fail, for metrics.
    pub(crate) fn set_failing(&self, endpoint: EndpointId, is_failing: bool) {
        if let Some(entry) = self.kept().get_mut(&endpoint) {
            entry.is_failing = is_failing;
        }
    }

    /// Forgets an endpoint that no attempt looks at any more, once the token is to be renewed. A backlog that waits for
    /// a token looks every few seconds. False if the token is in use.
    pub(crate) fn forget_unused(&self, endpoint: EndpointId) -> bool {
        let mut kept = self.kept();
        let is_unused = kept.get(&endpoint).is_none_or(|entry| {
            let (renew_at, unused_after) =
                entry.token.as_ref().map_or((entry.used, UNUSED), |token| (token.renew_at, token.unused_after));
            renew_at <= Instant::now() && entry.used.elapsed() >= unused_after
        });
        if is_unused {
            kept.remove(&endpoint);
        }
        is_unused
    }

    /// Forgets an endpoint without OAuth 2.0, or a deleted endpoint.
    pub(crate) fn forget(&self, endpoint: EndpointId) {
        self.kept().remove(&endpoint);
    }

    /// Number of endpoints in use whose last fetch failed and that have no usable token.
    pub(crate) fn without_token(&self) -> usize {
        let now = Instant::now();
        self.kept().values().filter(|kept| kept.is_failing && kept.usable(now).is_none()).count()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<EndpointId, Kept>> {
        // No holder of this lock can panic halfway.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The token for an attempt with the settings `version`.
    fn live(&mut self, version: i64, now: Instant) -> Option<LiveToken> {
        self.used = now;
        // The version may be lower: a restored database counts anew.
        if self.version != version {
            (self.version, self.refused) = (version, None);
            self.changed.notify_one();
        }
        self.usable(now).cloned()
    }

    /// The token, if it is of the settings that attempts have, and has not ended.
    fn usable(&self, now: Instant) -> Option<&LiveToken> {
        self.token.as_ref().filter(|token| token.version == self.version && now < token.usable_until)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn times() -> Times {
        let now = Instant::now();
        Times { renew_at: now + LIFE / 2, usable_until: now + LIFE, life: LIFE / 2 }
    }

    fn token(generation: i64) -> AccessToken {
        let token = format!("token-{generation}").into();
        AccessToken {
            generation,
            token,
            fetched_at: Timestamp::MIN,
            renew_at: Timestamp::MAX,
            usable_until: Timestamp::MAX,
        }
    }

    fn id() -> EndpointId {
        EndpointId::new(Timestamp::UNIX_EPOCH, [7; 10])
    }

    /// The tokens of an endpoint that an attempt has looked at.
    fn looked_at() -> AccessTokens {
        let (tokens, _) = AccessTokens::new();
        let kept = Kept {
            token: None,
            version: 1,
            used: Instant::now(),
            refused: None,
            is_failing: false,
            changed: Arc::default(),
        };
        tokens.kept().insert(id(), kept);
        tokens
    }

    fn present(tokens: &AccessTokens) -> Option<LiveToken> {
        tokens.kept()[&id()].token.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_refusal_discards_no_newer_token() {
        let tokens = looked_at();
        assert!(tokens.put(id(), 1, &token(1), times()));
        let first = present(&tokens).expect("a token");
        assert!(!tokens.put(id(), 1, &token(2), times()), "a renewal wakes nothing");
        tokens.refused(id(), &first);
        assert_eq!(present(&tokens).map(|token| token.generation), Some(2));
        let second = present(&tokens).expect("a token");
        tokens.refused(id(), &second);
        tokens.refused(id(), &first);
        assert!(present(&tokens).is_none());
        assert!(!tokens.put(id(), 1, &token(2), times()), "the refused token does not come back");
        assert_eq!(tokens.take_refused(id(), 2), None, "of other settings");
        assert_eq!(tokens.take_refused(id(), 1), Some(2));
        assert!(tokens.put(id(), 1, &token(3), times()));
        assert!(!tokens.put(id(), 0, &token(4), times()), "attempts have other settings");
        assert_eq!(present(&tokens).map(|token| token.generation), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_get_only_a_token_of_their_settings() {
        let tokens = looked_at();
        let look = |version| tokens.kept().get_mut(&id()).and_then(|kept| kept.live(version, Instant::now())).is_some();
        assert!(tokens.put(id(), 1, &token(1), times()));
        assert!(look(1) && !look(3) && !look(2));
        assert!(!tokens.put(id(), 3, &token(1), times()), "the last attempt had the settings 2");
        // A restored database has older settings.
        assert!(!look(0) && tokens.put(id(), 0, &token(1), times()) && look(0));
        let sent = present(&tokens).expect("a token");
        assert!(!look(2));
        tokens.refused(id(), &sent);
        assert_eq!(tokens.take_refused(id(), 2), None, "a late refusal concerns no token of other settings");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_endpoint_is_forgotten() {
        let tokens = looked_at();
        tokens.set_failing(id(), true);
        assert_eq!(tokens.without_token(), 1);
        assert!(!tokens.forget_unused(id()), "an attempt has looked just now");
        assert!(tokens.put(id(), 1, &token(1), times()));
        tokio::time::advance(LIFE / 2 - Duration::from_secs(1)).await;
        assert!(!tokens.forget_unused(id()), "the token is not yet to be renewed");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(tokens.forget_unused(id()));
        assert_eq!(tokens.without_token(), 0);
    }
}
