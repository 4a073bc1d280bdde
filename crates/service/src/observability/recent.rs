//! Counts of the last seconds, for the state of a process in the database.

use std::{
    collections::VecDeque,
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time that a recent count covers.
const COVERED: Duration = Duration::from_secs(10);

/// A counter with the count of the last ten seconds.
#[derive(Debug, Default)]
pub struct RecentCount {
    total: AtomicU64,
    /// Totals at earlier reads, the oldest first.
    reads: Mutex<VecDeque<(Instant, u64)>>,
}

impl RecentCount {
    /// Adds to the count.
    pub fn add(&self, count: usize) {
        self.total.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Reads the count of the last ten seconds. Exact to the interval of the reads.
    pub fn read(&self) -> u64 {
        let (now, total) = (Instant::now(), self.total.load(Ordering::Relaxed));
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.push_back((now, total));
        while reads.front().is_some_and(|(at, _)| now.duration_since(*at) > COVERED) {
            reads.pop_front();
        }
        total - reads.front().map_or(0, |(_, before)| *before)
    }
}

/// Name of this machine or pod; `None` if unknown.
pub fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_count_ends_after_ten_seconds() {
        let count = RecentCount::default();
        count.add(3);
        assert_eq!(count.read(), 0, "counted before the first read");
        count.add(2);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(count.read(), 2);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(count.read(), 0);
    }
}
