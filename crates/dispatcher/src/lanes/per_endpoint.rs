//! What a process keeps for each endpoint that it has to do with, of which there may be very many.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::ids::EndpointId;

/// Parts that the endpoints are spread over. One is locked while it is gone through: of 100,000 endpoints some 1,500, for
/// a fraction of a millisecond.
const PARTS: usize = 64;

type Part<T> = HashMap<EndpointId, Arc<T>>;

/// Something for each endpoint, made when it is first asked for.
pub(crate) struct PerEndpoint<T> {
    parts: [Mutex<Part<T>>; PARTS],
}

impl<T> PerEndpoint<T> {
    /// Nothing for anybody yet.
    pub(crate) fn new() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()) }
    }

    /// That of an endpoint.
    pub(crate) fn get(&self, endpoint: EndpointId, new: impl FnOnce() -> T) -> Arc<T> {
        // The last byte of an id is random.
        let part = usize::from(endpoint.0.as_bytes()[15]) % PARTS;
        let mut part = lock(&self.parts[part]);
        Arc::clone(part.entry(endpoint).or_insert_with(|| Arc::new(new())))
    }

    /// Looks at all there are, and forgets those that nobody holds and that are not to be kept. Others have their turn
    /// between two parts.
    pub(crate) async fn retain(&self, mut is_kept: impl FnMut(&T) -> bool) {
        for part in &self.parts {
            // Nobody can get hold of one of them meanwhile.
            lock(part).retain(|_, one| is_kept(one) || Arc::strong_count(one) > 1);
            tokio::task::yield_now().await;
        }
    }
}

/// Nothing that holds these locks can panic halfway.
fn lock<T>(part: &Mutex<Part<T>>) -> MutexGuard<'_, Part<T>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn endpoint(number: u16) -> EndpointId {
        let mut random = [0; 10];
        random[8..].copy_from_slice(&number.to_be_bytes());
        EndpointId::new(Timestamp::UNIX_EPOCH, random)
    }

    #[tokio::test]
    async fn what_is_not_kept_is_forgotten_unless_somebody_holds_it() {
        let numbers = PerEndpoint::new();
        for number in 0..1000 {
            assert_eq!(*numbers.get(endpoint(number), || number), number);
        }
        let held = numbers.get(endpoint(7), || 0);
        numbers.retain(|number| number % 2 == 0).await;
        for number in 0..1000 {
            let is_there = number % 2 == 0 || number == *held;
            assert_eq!(*numbers.get(endpoint(number), || 1000), if is_there { number } else { 1000 });
        }
    }
}
