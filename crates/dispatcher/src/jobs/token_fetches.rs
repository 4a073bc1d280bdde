//! Token fetches: a task for each endpoint with OAuth 2.0 that attempts look at. Runs in each process.
//!
//! The task looks at the row that all processes share. One process fetches under a lease, the others wait for the row.
//! A token in use is renewed ahead. The task ends when no attempt has looked at the token for a while.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    endpoint::{Endpoint, access_token::TokenFault, authentication::OAuth2},
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

/// Fetches at once, of all applications and of a single one: hanging token servers of an application hold up no other.
const FETCHES: usize = 256;
const FETCHES_OF_APPLICATION: usize = 8;

/// Interval of looks while a fetch waits for its permits: another process may have fetched.
const QUEUE_LOOKS: Duration = Duration::from_secs(5);

/// Longest sleep between two looks: another process may have discarded the token.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Wait after an error of the database, and for the newest settings.
const REST: Duration = Duration::from_secs(1);

/// Deadline of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait before the result of a fetch is stored again.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Permit of a statement. The semaphores of this job are never closed.
type StatementPermit<'a> = Result<SemaphorePermit<'a>, AcquireError>;

/// Permits of a fetch: the application's and the process's.
type FetchPermits<'a> = (Result<OwnedSemaphorePermit, AcquireError>, Result<SemaphorePermit<'a>, AcquireError>);

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

    /// Keeps the token of an endpoint, as long as attempts look at it. A begun step ends after `stop`, too: otherwise
    /// no process could fetch until the end of the lease.
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
            let Some(statement) = self.statement_permit(stop).await else { return };
            let is_available = *self.context.database.availability().borrow();
            let sleep = match self.step(&known, statement, stop).await {
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

    /// Discards a refused token, looks at the row, and fetches a token if a fetch is due. Returns the time until the
    /// next step; `None` while another process fetches, or has other settings. `statement` is held during the first
    /// statements.
    async fn step(
        &self,
        endpoint: &Endpoint,
        statement: StatementPermit<'_>,
        stop: &CancellationToken,
    ) -> Result<Option<Duration>, StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let Some((oauth2, version)) = endpoint.oauth2() else { return Ok(None) };
        let id = endpoint.id;
        if let Some(generation) = context.lanes.tokens.take_refused(id, version) {
            let refusing = store.refuse_token(id, version, generation);
            if let Err(error) = store.with_deadline(STATEMENT_TIMEOUT, refusing).await {
                context.lanes.tokens.put_back_refused(id, version, generation);
                return Err(error);
            }
        }
        let TokenLook { token, turn } = self.look(id, version).await?;
        drop(statement);
        match turn {
            TokenTurn::Due => {
                let Some(_permits) = self.queue(endpoint, version, stop).await? else { return Ok(None) };
                let Some(statement) = self.statement_permit(stop).await else { return Ok(None) };
                let fetch = LeaseId::new(context.now(), rand::random());
                let beginning = store.begin_fetch(id, version, fetch);
                let begun = store.with_deadline(STATEMENT_TIMEOUT, beginning).await?;
                drop(statement);
                let Some(failures) = begun else { return Ok(None) };
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

    /// Looks at the row, and gives its token to attempts.
    async fn look(&self, endpoint: EndpointId, version: i64) -> Result<TokenLook, StoreError> {
        let store = &self.context.database.store;
        let look = store.with_deadline(STATEMENT_TIMEOUT, store.access_token(endpoint, version)).await?;
        if let Some(token) = &look.token {
            self.put(endpoint, version, token);
        }
        Ok(look)
    }

    /// Waits for the permits of a fetch, before the fetch begins: no lease runs in a queue. `None` after `stop`, for
    /// other settings, or once another process has begun a fetch.
    async fn queue(
        &self,
        endpoint: &Endpoint,
        version: i64,
        stop: &CancellationToken,
    ) -> Result<Option<FetchPermits<'_>>, StoreError> {
        let mut permits = pin!(self.fetch_permits(endpoint.application));
        loop {
            match stop.run_until_cancelled(timeout(QUEUE_LOOKS, permits.as_mut())).await {
                None => return Ok(None),
                Some(Ok(permits)) => return Ok(Some(permits)),
                Some(Err(_)) => {
                    let present = self.context.endpoint(endpoint.application, endpoint.id);
                    let is_present = present.is_some_and(|it| it.oauth2().is_some_and(|(_, now)| now == version));
                    let statement = self.statement_permit(stop).await;
                    if !is_present || statement.is_none() {
                        return Ok(None);
                    }
                    // An error of the database costs no place in the queue.
                    if self.look(endpoint.id, version).await.is_ok_and(|look| look.turn != TokenTurn::Due) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Waits for the permit of a statement; `None` after `stop`.
    async fn statement_permit(&self, stop: &CancellationToken) -> Option<StatementPermit<'_>> {
        stop.run_until_cancelled(self.statements.acquire()).await
    }

    /// Waits for the permits of a fetch: first the application's, so that its queue takes no other permit.
    async fn fetch_permits(&self, application: ApplicationId) -> FetchPermits<'_> {
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
            let storing = self.context.database.store.with_deadline(STATEMENT_TIMEOUT, store());
            match storing.await {
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
