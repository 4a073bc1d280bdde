//! Places for requests of the portal: the visitors of an application cannot take all database connections of the
//! portal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::{
    access::session::{Face, Session},
    ids::{ApplicationId, SessionId},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Concurrent requests of a session.
const OF_SESSION: usize = 2;

/// Concurrent requests of all portal sessions of an application.
const OF_APPLICATION: usize = 4;

/// Longest wait for places.
const WAIT: Duration = Duration::from_secs(2);

#[derive(PartialEq, Eq, Hash)]
enum Owner {
    Session(SessionId),
    Application(ApplicationId),
}

/// The places that requests hold. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<Owner, Arc<Semaphore>>>>);

impl Places {
    /// Takes the places of a request, until the permits are dropped. A session of the console needs no place.
    ///
    /// # Errors
    /// 429 without free places for 2 s.
    pub(crate) async fn take(&self, session: &Session) -> Result<Vec<OwnedSemaphorePermit>, ApiError> {
        let (Face::Portal, Some(application)) = (session.face, session.application) else { return Ok(Vec::new()) };
        let wanted =
            [self.of(Owner::Session(session.id), OF_SESSION), self.of(Owner::Application(application), OF_APPLICATION)];
        let taking = async {
            let mut taken = Vec::new();
            for places in wanted {
                // The semaphore is never closed.
                taken.extend(places.acquire_owned().await);
            }
            taken
        };
        timeout(WAIT, taking).await.map_err(|_| {
            let message = "too many pages of the portal are opened at once: wait until the others are shown";
            ApiError::new(ErrorCode::TooManyRequests, message).retry_after(2)
        })
    }

    fn of(&self, owner: Owner, places: usize) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgets owners without a request.
        known.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        Arc::clone(known.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(places))))
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::access::session::{Rights, SignIn};
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn session(face: Face, id: u128, application: u128) -> Session {
        Session {
            id: SessionId(Uuid::from_u128(id)),
            face,
            application: Some(ApplicationId(Uuid::from_u128(application))),
            rights: Rights::all(),
            key: None,
            name: String::new(),
            sign_in: SignIn::Link,
            opens_until: None,
            created_at: Timestamp::UNIX_EPOCH,
            seen_at: Timestamp::UNIX_EPOCH,
            idle: Duration::ZERO,
            ends_at: Timestamp::UNIX_EPOCH,
            back: None,
            theme: None,
        }
    }

    #[tokio::test]
    async fn sessions_and_applications_have_bounded_places() {
        let places = Places::default();
        let take = async |id, application| {
            places.take(&session(Face::Portal, id, application)).await.map_err(|error| error.retry_after)
        };
        let mut held = Vec::new();
        for id in [1, 1, 2, 2] {
            held.push(take(id, 7).await.expect("a place"));
        }
        assert_eq!(take(3, 7).await.err(), Some(Some(2)), "of the application");
        held.push(take(4, 8).await.expect("a place of another application"));
        held.push(take(4, 8).await.expect("a place of another application"));
        assert_eq!(take(4, 8).await.err(), Some(Some(2)), "of the session");
        for _ in 0..9 {
            held.push(places.take(&session(Face::Console, 1, 7)).await.expect("no place is needed"));
        }
        drop(held);
        take(3, 7).await.expect("a place");
        assert_eq!(places.0.lock().expect("the lock").len(), 2, "owners without a request are kept");
    }
}
