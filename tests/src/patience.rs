//! Waiting for conditions, with a common time limit.

use std::time::Duration;

use tokio::time::Instant;

/// Time limit for a condition before the test fails: `FANFARE_TEST_PATIENCE` in seconds, 90 by default. Conditions
/// usually come true much sooner.
pub fn patience() -> Duration {
    let seconds = std::env::var("FANFARE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90))
}

/// Polls `look` every 20 ms until `look` returns a value.
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
pub async fn until_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < limit, "timed out after {:?} waiting for {what}", started.elapsed());
        // The pace of the looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
