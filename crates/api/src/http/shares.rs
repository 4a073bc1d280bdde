//! Shares of the management API: no caller takes all database connections, and none exceeds its rate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    access::api_key::{Caller, Role},
    ids::{ApplicationId, KeyId},
    rate_limit::LeakyBucket,
};
use fanfare_store::{Directory, Share, with_caller};

use crate::http::{
    authentication::authenticate,
    body::discard,
    error::{ApiError, ErrorCode},
};

/// The shares of all callers in this process. Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    directory: Directory,
    /// General database connections and writers of a caller.
    connections: [usize; 2],
    /// Requests of a caller per second; `None` for no limit.
    per_second: Option<u32>,
    since: Instant,
    /// The number of applications and admin keys bounds the map.
    callers: Arc<Mutex<HashMap<Owner, Known>>>,
}

/// Owner of a share: all keys of an application together, or an admin key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Application(ApplicationId),
    Key(KeyId),
}

impl Owner {
    pub(crate) fn of(caller: &Caller) -> Self {
        caller.application.map_or(Self::Key(caller.key), Self::Application)
    }
}

/// A caller of this process.
struct Known {
    share: Share,
    rate: LeakyBucket,
}

impl Shares {
    /// Creates shares of the API's database connections, general connections and writers, and of `per_second` requests,
    /// 0 for no limit. A caller gets two thirds of the connections at most.
    pub fn new(directory: Directory, connections: [usize; 2], per_second: u32) -> Self {
        Self {
            directory,
            connections: connections.map(|connections| (connections * 2 / 3).max(1)),
            per_second: (per_second > 0).then_some(per_second),
            since: Instant::now(),
            callers: Arc::default(),
        }
    }

    /// The connections of a caller. The error is the wait until the rate permits a request.
    fn of(&self, caller: &Caller) -> Result<Share, Duration> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Known { share: Share::new(self.connections), rate: LeakyBucket::default() };
        let known = callers.entry(Owner::of(caller)).or_insert_with(new);
        if let Some(per_second) = self.per_second {
            known.rate.take(self.since.elapsed(), per_second, per_second, 1)?;
        }
        Ok(known.share.clone())
    }
}

/// Cancels the statements of a request whose caller has hung up.
pub async fn end_with_caller(request: Request, next: Next) -> Response {
    with_caller(None, next.run(request)).await
}

/// Lets a request pass within the caller's rate, and its statements within the caller's connections. The routes refuse
/// callers without a valid key. Cancels the reading statements of a caller that has hung up.
pub async fn within_share(State(shares): State<Shares>, request: Request, next: Next) -> Response {
    let Ok(caller) = authenticate(request.headers(), &shares.directory, &Role::ALL) else {
        return end_with_caller(request, next).await;
    };
    match shares.of(&caller) {
        Ok(connections) => with_caller(Some(connections), next.run(request)).await,
        Err(wait) => {
            discard(request.into_body()).await;
            let message = "the application or admin key exceeds its rate of requests";
            ApiError::new(ErrorCode::TooManyRequests, message).retry_in(wait).into_response()
        }
    }
}
