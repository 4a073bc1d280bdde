//! Token fetches: a task for each endpoint with OAuth 2.0 that attempts look at. Runs in each process.
//!
//! The task looks at the row that all processes share. One process fetches under a lease, the others wait for the row. A
//! token in use is renewed ahead. The task ends when no attempt has looked at the token for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    application::Endpoint,
    endpoint::{access_token::TokenFault, authentication::OAuth2},
    ids::{ApplicationId, EndpointId, LeaseId},
};
use fanfare_outbound::Client;
use fanfare_store::{AccessToken, FETCH_LASTS, StoreError, TokenLook, TokenTurn};
use jiff::Timestamp;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    access_tokens::{Times, WantedToken},
    context::Context,
    metric,
};

/// Shortest and longest interval of looks while another process fetches.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Statements at once.
const STATEMENTS: usize = 2;

/// Fetches at once, of all applications and of a single one: token servers that hang hold up no other application.
const FETCHES: usize = 256;
const FETCHES_OF_APPLICATION: usize = 8;

/// Longest sleep between two looks: another process may have discarded the token.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Wait after an error of the database, and for the newest settings.
const REST: Duration = Duration::from_secs(1);

/// Deadline of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait before the result of a fetch is stored again.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Permits of a fetch. The semaphores are never closed.
type Permits<'a> = (Result<OwnedSemaphorePermit, AcquireError>, Result<SemaphorePermit<'a>, AcquireError>);

pub(crate) struct TokenFetches {
    context: Arc<Context>,
    client: Client,
    statements: Semaphore,
    fetches: Semaphore,
    /// Permits of applications with a fetch in flight or in the queue.
    of_application: Mutex<HashMap<ApplicationId, Arc<Semaphore>>>,
}

impl TokenFetches {
    pub(crate) fn new(context: Arc<Context>, client: Client) -> Self {
        let (statements, fetches) = (Semaphore::new(STATEMENTS), Semaphore::new(FETCHES));
        Self { context, client, statements, fetches, of_application: Mutex::default() }
    }

    /// Begins a task for each wanted token, until `stop`.
    pub(crate) async fn run(self, mut wanted: mpsc::UnboundedReceiver<WantedToken>, stop: CancellationToken) {
        let shared = Arc::new(self);
        while let Some(Some(wanted)) = stop.run_until_cancelled(wanted.recv()).await {
            let (keeping, stop) = (Arc::clone(&shared), stop.clone());
            shared.context.tasks.spawn(async move { keeping.keep(wanted, &stop).await });
        }
    }

    /// Keeps the token of an endpoint, as long as attempts look at it. A begun step ends after `stop`, too: otherwise no
    /// process could fetch until the end of the lease.
    async fn keep(&self, wanted: WantedToken, stop: &CancellationToken) {
        let tokens = &self.context.lanes.tokens;
        let WantedToken { application, endpoint, changed } = wanted;
        let mut looks = FIRST_LOOK;
        loop {
            let known = self.context.endpoint(application, endpoint);
            let Some(known) = known.filter(|known| known.oauth2().is_some()) else {
                tokens.forget(endpoint);
                return;
            };
            if tokens.forget_unused(endpoint) {
                return;
            }
            let is_available = *self.context.database.availability().borrow();
            let sleep = match self.step(&known, stop).await {
                Ok(Some(sleep)) => {
                    looks = FIRST_LOOK;
                    sleep
                }
                Ok(None) => {
                    let sleep = looks.mul_f64(rand::random_range(0.8..1.2));
                    looks = (looks * 2).min(LONGEST_LOOK);
                    sleep
                }
                // The outage is in the log.
                Err(_) if !is_available => REST,
                Err(error) => {
                    tracing::warn!(%error, %endpoint, "cannot look at the token of an endpoint; trying again");
                    REST
                }
            };
            if stop.run_until_cancelled(timeout(sleep, changed.notified())).await.is_none() {
                return;
            }
        }
    }

    /// Discards a refused token, looks at the row, and fetches a token if a fetch is due. Returns the time until the next
    /// step; `None` while another process fetches, or has other settings.
    async fn step(&self, endpoint: &Endpoint, stop: &CancellationToken) -> Result<Option<Duration>, StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let Some((oauth2, version)) = endpoint.oauth2() else { return Ok(None) };
        let id = endpoint.id;
        if let Some(generation) = context.lanes.tokens.take_refused(id, version) {
            let refusing = self.ask(store.refuse_token(id, version, generation));
            if let Err(error) = refusing.await {
                context.lanes.tokens.put_back_refused(id, version, generation);
                return Err(error);
            }
        }
        let TokenLook { token, turn } = self.ask(store.access_token(id, version)).await?;
        if let Some(token) = &token {
            self.put(id, version, token);
        }
        match turn {
            TokenTurn::Due => {
                // Before the fetch begins: no lease runs in a queue.
                let Some(_permits) = stop.run_until_cancelled(self.permits(endpoint.application)).await else {
                    return Ok(None);
                };
                let fetch = LeaseId::new(context.now(), rand::random());
                let Some(failures) = self.ask(store.begin_fetch(id, version, fetch)).await? else { return Ok(None) };
                self.fetch(id, oauth2, (version, fetch), failures).await?;
                Ok(Some(Duration::ZERO))
            }
            TokenTurn::Elsewhere => Ok(None),
            TokenTurn::Until(at) => {
                context.lanes.tokens.set_failing(id, token.is_none());
                Ok(Some(self.until(at).clamp(Duration::from_millis(50), LONGEST_SLEEP)))
            }
        }
    }

    /// Runs a statement, once few others run.
    async fn ask<T>(&self, statement: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        // The semaphores are never closed.
        let _permit = self.statements.acquire().await;
        self.context.database.store.with_deadline(STATEMENT_TIMEOUT, statement).await
    }

    /// Waits for the permits of a fetch: first the application's, so that its queue takes no other permit.
    async fn permits(&self, application: ApplicationId) -> Permits<'_> {
        let of_application = {
            // No holder of this lock can panic halfway.
            let mut all = self.of_application.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, permits| Arc::strong_count(permits) > 1);
            Arc::clone(all.entry(application).or_insert_with(|| Arc::new(Semaphore::new(FETCHES_OF_APPLICATION))))
        };
        (of_application.acquire_owned().await, self.fetches.acquire().await)
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
        let (began, lease_ends) = (self.context.now(), Instant::now() + FETCH_LASTS);
        let fetched = self.client.fetch_token(oauth2).await;
        let outcome = fetched.as_ref().map_or_else(TokenFault::code, |_| "fetched");
        metrics::counter!(metric::TOKEN_FETCHES, "outcome" => outcome).increment(1);
        match fetched {
            Ok(granted) => {
                let granting = || store.grant_token(endpoint, (version, fetch), &granted, began);
                let is_stored = self.stored(granting, lease_ends).await?;
                if is_stored && failures > 0 {
                    tracing::info!(%endpoint, host = oauth2.host(), "a token server gives tokens again");
                }
            }
            Err(fault) => {
                let failing = || store.fail_token(endpoint, (version, fetch), &fault, failures.saturating_add(1));
                let is_stored = self.stored(failing, lease_ends).await?;
                // The outage of our connections is in the log.
                if is_stored && failures == 0 && !matches!(fault, TokenFault::EgressUnavailable(_)) {
                    tracing::warn!(
                        %endpoint, host = oauth2.host(), error = %fault,
                        "a token server gives no token: deliveries of the endpoint wait, and use up no attempt"
                    );
                }
            }
        }
        Ok(())
    }

    /// Stores the result of a fetch, until the end of its lease: meanwhile no process fetches.
    async fn stored<F: Future<Output = Result<bool, StoreError>>>(
        &self,
        store: impl Fn() -> F,
        lease_ends: Instant,
    ) -> Result<bool, StoreError> {
        loop {
            match self.ask(store()).await {
                Err(_) if Instant::now() + STORE_AGAIN < lease_ends => sleep(STORE_AGAIN).await,
                ended => return ended,
            }
        }
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
