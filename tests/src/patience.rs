//! Waiting for conditions, with a common time limit.

use std::time::Duration;

use tokio::time::Instant;

/// Time limit for a condition before the test fails: `FANFARE_TEST_PATIENCE` in seconds, 90 by default. Conditions
/// usually come true much sooner.
pub fn patience() -> Duration {
    let seconds = std::env::var("FANFARE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90))
}

/// Pauses between two polls. Polls every 20 ms kept both cores of a small machine busy, and made all tests slower.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Polls `look` until `look` returns a value. The pause between two polls is an eighth of the time since the first
/// poll, from 20 to 250 ms.
///
/// # Panics
/// If `look` returns no value within [`patience`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(patience(), what, look).await
}

/// Like [`until`], with another time limit.
///
/// # Panics
/// If `look` returns no value within `limit`.
pub async fn until_within<T>(limit: Duration, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    poll(limit, LONGEST_PAUSE, what, look).await
}

/// Like [`until_within`], with short pauses throughout: for a wait whose duration is measured.
///
/// # Panics
/// If `look` returns no value within `limit`.
pub async fn until_promptly<T>(limit: Duration, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    poll(limit, SHORTEST_PAUSE, what, look).await
}

async fn poll<T>(limit: Duration, longest: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < limit, "timed out after {:?} waiting for {what}", started.elapsed());
        // The pause grows with the wait, so that the end of a wait is noticed at most an eighth, or 20 ms, later.
        tokio::time::sleep((started.elapsed() / 8).clamp(SHORTEST_PAUSE, longest)).await;
    }
}
