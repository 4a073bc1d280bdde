//! Map from endpoints to shared values, for very many endpoints.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::ids::EndpointId;

/// Number of parts of the map. A walk locks a single part at a time: some 1,500 of 100,000 endpoints, for a fraction of
/// a millisecond.
const PARTS: usize = 64;

type Part<T> = HashMap<EndpointId, Arc<T>>;

/// A value for each endpoint, created at the first access.
pub(crate) struct PerEndpoint<T> {
    parts: [Mutex<Part<T>>; PARTS],
}

impl<T> PerEndpoint<T> {
    pub(crate) fn new() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Returns the value of an endpoint. The first access creates the value with `new`.
    pub(crate) fn get(&self, endpoint: EndpointId, new: impl FnOnce() -> T) -> Arc<T> {
        // The last byte of an id is random.
        let part = usize::from(endpoint.0.as_bytes()[15]) % PARTS;
        let mut part = lock(&self.parts[part]);
        Arc::clone(part.entry(endpoint).or_insert_with(|| Arc::new(new())))
    }

    /// Walks over all values. Forgets a value if `is_kept` is false and no caller holds the value. Yields between two
    /// parts.
    pub(crate) async fn retain(&self, mut is_kept: impl FnMut(&T) -> bool) {
        for part in &self.parts {
            // The lock keeps `get` from handing out a value meanwhile.
            lock(part).retain(|_, value| is_kept(value) || Arc::strong_count(value) > 1);
            tokio::task::yield_now().await;
        }
    }
}

/// Locks a part. No holder of the lock can panic halfway.
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
    async fn an_entry_is_forgotten_unless_kept_or_held() {
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
