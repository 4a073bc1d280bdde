//! Duration of the phases of an exchange.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Duration of the phases of an exchange, in order and without gaps.
///
/// `None` is a phase that did not finish. The first such phase, except for `tls` with `http`, is the phase in which the
/// exchange failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the call until the host's addresses were known. Close to zero for an IP address.
    pub dns: Option<Duration>,
    /// From the end of `dns` until an address accepted, earlier tries of other addresses included.
    pub connect: Option<Duration>,
    /// From the end of `connect` until the TLS session was established and the certificate checked. Always `None` for
    /// `http`.
    pub tls: Option<Duration>,
    /// From the ready connection until the whole response head was read. Includes the endpoint's processing time.
    pub first_byte: Option<Duration>,
}

/// Measures the phases of an exchange, each from the end of the previous phase. A clone measures the same exchange.
///
/// The default measures nothing, for connections that may serve many exchanges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopwatch(Option<Arc<Mutex<Laps>>>);

#[derive(Debug, Default)]
struct Laps {
    /// Start of the current phase.
    since: Option<Instant>,
    timings: Timings,
}

impl Stopwatch {
    /// Creates a stopwatch that measures, from [`start`](Self::start) on.
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Begins the first phase.
    pub(crate) fn start(&self) {
        self.with(|laps| laps.since = Some(Instant::now()));
    }

    /// Ends this phase, and begins the next.
    pub(crate) fn lap(&self, phase: fn(&mut Timings) -> &mut Option<Duration>) {
        self.with(|laps| {
            let now = Instant::now();
            *phase(&mut laps.timings) = laps.since.replace(now).map(|since| now.duration_since(since));
        });
    }

    /// Durations measured so far.
    pub(crate) fn timings(&self) -> Timings {
        self.with(|laps| laps.timings).unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Laps) -> T) -> Option<T> {
        let laps = self.0.as_ref()?;
        Some(act(&mut laps.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
