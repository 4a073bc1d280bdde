//! Waiting for conditions, with one setting for how long.

use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take to come true before its test fails: `FANFARE_TEST_PATIENCE` seconds, 90
/// without it. It is no expectation: what is right comes much sooner.
pub fn patience() -> Duration {
    let seconds = std::env::var("FANFARE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90))
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it does not for as long as [`patience`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(patience(), what, look).await
}

/// Waits until `look` finds something, for a time that follows from what is waited for.
///
/// # Panics
/// When it does not.
pub async fn until_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {:?} in vain for {what}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
