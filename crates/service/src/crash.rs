//! Crash points: places at which tests kill the process, in a debug build only.

/// Kills this process like kill -9 if `FANFARE_CRASH_AT` names this place: `event.persisted`, or `event.persisted:3`
/// for the third pass. A release build does nothing.
///
/// The crash table of `crates/dispatcher/README.md` lists each place, with the test that kills there.
#[inline]
pub fn crash_point(place: &str) {
    #[cfg(debug_assertions)]
    debug::pass(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(debug_assertions)]
mod debug {
    use std::sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    };

    static CRASH_AT: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let asked = std::env::var("FANFARE_CRASH_AT").ok()?;
        let (place, time) = asked.split_once(':').unwrap_or((&asked, "1"));
        Some((place.to_owned(), time.parse().ok()?))
    });

    static PASSED: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn pass(place: &str) {
        let Some((wanted, time)) = &*CRASH_AT else { return };
        if place == wanted && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *time {
            // No destructor runs, no buffer is flushed, no connection is closed in order.
            std::process::abort();
        }
    }
}
