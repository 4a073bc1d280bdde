//! Token fetches: a task for each endpoint with OAuth 2.0 that attempts look at. Runs in each process.
//!
//! The task looks at the row that all processes share. One process fetches under a lease, the others wait for the row. A
//! token in use is renewed ahead. The task ends when no attempt has looked at the token for a while.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    endpoint::{access_token::TokenFault, authentication::OAuth2},
    ids::{EndpointId, LeaseId},
};
use fanfare_outbound::Client;
use fanfare_store::{AccessToken, StoreError, TokenLook, TokenTurn};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    access_tokens::{Times, WantedToken},
    context::Context,
    metric,
};

/// Interval of looks while another process fetches.
const FETCHED_ELSEWHERE: Duration = Duration::from_millis(250);

/// Longest sleep between two looks: another process may have discarded the token.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Wait after an error of the database, and for the newest settings.
const REST: Duration = Duration::from_secs(1);

/// Deadline of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct TokenFetches {
    pub(crate) context: Arc<Context>,
    pub(crate) client: Client,
}

impl TokenFetches {
    /// Begins a task for each wanted token, until `stop`.
    pub(crate) async fn run(self, mut wanted: mpsc::UnboundedReceiver<WantedToken>, stop: CancellationToken) {
        let shared = Arc::new(self);
        while let Some(Some(wanted)) = stop.run_until_cancelled(wanted.recv()).await {
            let (keeping, stop) = (Arc::clone(&shared), stop.clone());
            shared.context.tasks.spawn(async move { stop.run_until_cancelled(keeping.keep(wanted)).await });
        }
    }

    /// Keeps the token of an endpoint, as long as attempts look at it.
    async fn keep(&self, wanted: WantedToken) {
        let tokens = &self.context.lanes.tokens;
        let WantedToken { application, endpoint, changed } = wanted;
        loop {
            let known = self.context.endpoint(application, endpoint);
            let Some((oauth2, version)) = known.as_ref().and_then(|known| known.oauth2()) else {
                tokens.forget(endpoint);
                return;
            };
            if tokens.forget_unused(endpoint) {
                return;
            }
            let is_available = *self.context.database.availability().borrow();
            let sleep = match self.step(endpoint, oauth2, version).await {
                Ok(sleep) => sleep,
                // The outage is in the log.
                Err(_) if !is_available => REST,
                Err(error) => {
                    tracing::warn!(%error, %endpoint, "cannot look at the token of an endpoint; trying again");
                    REST
                }
            };
            let _ = timeout(sleep, changed.notified()).await;
        }
    }

    /// Discards a refused token, looks at the row, and fetches a token if this is the turn of the process. Returns the
    /// time until the next step.
    async fn step(&self, endpoint: EndpointId, oauth2: &OAuth2, version: i64) -> Result<Duration, StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        if let Some(generation) = context.lanes.tokens.take_refused(endpoint) {
            let refusing = store.refuse_token(endpoint, version, generation);
            if let Err(error) = store.with_deadline(STATEMENT_TIMEOUT, refusing).await {
                context.lanes.tokens.put_back_refused(endpoint, generation);
                return Err(error);
            }
        }
        let fetch = LeaseId::new(context.now(), rand::random());
        let looking = store.access_token(endpoint, version, fetch);
        let TokenLook { token, turn } = store.with_deadline(STATEMENT_TIMEOUT, looking).await?;
        if let Some(token) = &token {
            self.put(endpoint, version, token);
        }
        match turn {
            TokenTurn::Fetch(failures) => {
                self.fetch(endpoint, oauth2, (version, fetch), failures).await?;
                Ok(Duration::ZERO)
            }
            TokenTurn::Elsewhere => Ok(FETCHED_ELSEWHERE),
            TokenTurn::Until(at) => {
                context.lanes.tokens.set_failing(endpoint, token.is_none());
                Ok(self.until(at).clamp(Duration::from_millis(50), LONGEST_SLEEP))
            }
            TokenTurn::Outdated => Ok(REST),
        }
    }

    /// Fetches a token, and stores the token or the failure.
    async fn fetch(
        &self,
        endpoint: EndpointId,
        oauth2: &OAuth2,
        (version, fetch): (i64, LeaseId),
        failures: u32,
    ) -> Result<(), StoreError> {
        let store = &self.context.database.store;
        let began = self.context.now();
        let fetched = self.client.fetch_token(oauth2).await;
        let outcome = fetched.as_ref().map_or_else(TokenFault::code, |_| "fetched");
        metrics::counter!(metric::TOKEN_FETCHES, "outcome" => outcome).increment(1);
        match fetched {
            Ok(granted) => {
                let granting = store.grant_token(endpoint, (version, fetch), &granted, began);
                let is_stored = store.with_deadline(STATEMENT_TIMEOUT, granting).await?;
                if is_stored && failures > 0 {
                    tracing::info!(%endpoint, host = oauth2.host(), "a token server gives tokens again");
                }
            }
            Err(fault) => {
                let failing = store.fail_token(endpoint, (version, fetch), &fault, failures.saturating_add(1));
                let is_stored = store.with_deadline(STATEMENT_TIMEOUT, failing).await?;
                if is_stored && failures == 0 {
                    tracing::warn!(
                        %endpoint, host = oauth2.host(), error = %fault,
                        "a token server gives no token: deliveries of the endpoint wait, and use up no attempt"
                    );
                }
            }
        }
        Ok(())
    }

    /// Gives the token to attempts, and wakes the backlog that waits for a token.
    fn put(&self, endpoint: EndpointId, version: i64, token: &AccessToken) {
        let now = Instant::now();
        let times = Times {
            renew_at: now + self.until(token.renew_at),
            usable_until: now + self.until(token.usable_until),
            life: Duration::try_from(token.renew_at.duration_since(token.fetched_at)).unwrap_or_default(),
        };
        let lanes = &self.context.lanes;
        if lanes.tokens.put(endpoint, version, token, times) {
            lanes.wake_drain(endpoint);
        }
    }

    fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.context.now())).unwrap_or_default()
    }
}
