//! Where the time of an exchange went.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long the phases of an exchange took, in the order in which they follow one another without a gap.
///
/// `None` is a phase that did not come to its end: the first of them, apart from `tls` for `http`, is the one
/// in which the exchange failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the call until the addresses of the host were known. Next to nothing for one that is an address.
    pub dns: Option<Duration>,
    /// From there until one of the addresses had accepted, those that were tried before it included.
    pub connect: Option<Duration>,
    /// From there until the TLS session stood, the certificate checked. Never there for `http`.
    pub tls: Option<Duration>,
    /// From the connection that is ready for the request until the whole response head was read, so that what
    /// the endpoint does before it answers is in here.
    pub first_byte: Option<Duration>,
}

/// Measures the phases of one exchange, each from the end of the one before. A clone measures the same one.
///
/// The default is a stopwatch that measures nothing, for connections that may serve many exchanges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopwatch(Option<Arc<Mutex<Laps>>>);

#[derive(Debug, Default)]
struct Laps {
    /// When the phase began that is going on.
    since: Option<Instant>,
    timings: Timings,
}

impl Stopwatch {
    /// One that does measure, from [`start`](Self::start) on.
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// The first phase begins.
    pub(crate) fn start(&self) {
        self.with(|laps| laps.since = Some(Instant::now()));
    }

    /// This phase is over, and the next one begins.
    pub(crate) fn lap(&self, phase: fn(&mut Timings) -> &mut Option<Duration>) {
        self.with(|laps| {
            let now = Instant::now();
            *phase(&mut laps.timings) = laps.since.replace(now).map(|since| now.duration_since(since));
        });
    }

    /// What was measured so far.
    pub(crate) fn timings(&self) -> Timings {
        self.with(|laps| laps.timings).unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Laps) -> T) -> Option<T> {
        let laps = self.0.as_ref()?;
        Some(act(&mut laps.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
