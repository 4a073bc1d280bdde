//! Accounts of a run: published, accepted and received events.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fanfare_store::ApplicationCounts;
use serde_json::{Value, json};

/// Accounts by the number of the event.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    events: BTreeMap<u64, Account>,
    /// Requests at the receiver.
    requests: usize,
    /// Publishes sent again after a refusal, or without an answer.
    refused: usize,
    last_error: Option<String>,
    last_received: Option<Instant>,
    longest_silence: Duration,
}

#[derive(Default)]
struct Account {
    accepted: Option<Instant>,
    /// Requests answered with a 2xx.
    received: usize,
    lag: Option<Duration>,
}

/// Sums of the accounts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sums {
    pub(crate) published: usize,
    pub(crate) accepted: usize,
    pub(crate) sent_again: usize,
    pub(crate) last_error: Option<String>,
    pub(crate) requests: usize,
    pub(crate) delivered: usize,
    /// Accepted events without a request answered by a 2xx.
    pub(crate) missing: usize,
    /// Requests answered with a 2xx after the first of an event.
    pub(crate) repeats: usize,
    pub(crate) lag_p50: Duration,
    pub(crate) lag_p99: Duration,
    pub(crate) longest_silence: Duration,
}

impl Accounts {
    /// Notes an event before its first publish.
    pub(crate) fn begin(&self, number: u64) {
        self.inner().events.entry(number).or_default();
    }

    /// Notes the acceptance of an event.
    pub(crate) fn accepted(&self, number: u64) {
        if let Some(account) = self.inner().events.get_mut(&number) {
            account.accepted = Some(Instant::now());
        }
    }

    /// Notes a publish to be sent again.
    pub(crate) fn refused(&self, error: String) {
        let mut inner = self.inner();
        inner.refused += 1;
        inner.last_error = Some(error);
    }

    /// Notes a request, and the receiver's answer.
    pub(crate) fn received(&self, number: u64, is_accepted: bool) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.requests += 1;
        if !is_accepted {
            return;
        }
        let silence = inner.last_received.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        inner.longest_silence = inner.longest_silence.max(silence);
        let Some(account) = inner.events.get_mut(&number) else { return };
        account.received += 1;
        if account.lag.is_none() {
            // An event may arrive before the publisher gets the answer.
            account.lag = Some(account.accepted.map_or(Duration::ZERO, |accepted| now.duration_since(accepted)));
        }
    }

    /// Number of accepted events without a 2xx.
    pub(crate) fn missing(&self) -> usize {
        self.inner().events.values().filter(|account| account.is_missing()).count()
    }

    /// Ids of up to `limit` accepted events without a 2xx.
    pub(crate) fn missing_ids(&self, limit: usize) -> Vec<String> {
        let inner = self.inner();
        let missing = inner.events.iter().filter(|(_, account)| account.is_missing());
        missing.take(limit).map(|(number, _)| format!("verify-{number}")).collect()
    }

    pub(crate) fn sums(&self) -> Sums {
        let inner = self.inner();
        let events = || inner.events.values();
        let mut lags: Vec<Duration> = events().filter_map(|account| account.lag).collect();
        lags.sort_unstable();
        let quantile = |share: usize| lags.get((lags.len() * share / 100).min(lags.len().saturating_sub(1)));
        Sums {
            published: events().count(),
            accepted: events().filter(|account| account.accepted.is_some()).count(),
            sent_again: inner.refused,
            last_error: inner.last_error.clone(),
            requests: inner.requests,
            delivered: events().filter(|account| account.received > 0).count(),
            missing: events().filter(|account| account.is_missing()).count(),
            repeats: events().map(|account| account.received.saturating_sub(1)).sum(),
            lag_p50: quantile(50).copied().unwrap_or_default(),
            lag_p99: quantile(99).copied().unwrap_or_default(),
            longest_silence: inner.longest_silence,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn is_missing(&self) -> bool {
        self.accepted.is_some() && self.received == 0
    }
}

impl Sums {
    /// A line of progress.
    pub(crate) fn line(&self) -> String {
        let error = self.last_error.as_ref().map(|error| format!("; last refusal: {error}")).unwrap_or_default();
        format!(
            "published {}, accepted {}, sent again {}, delivered {}, waiting {}, lag {} / {} ms, repeats {}{error}",
            self.published,
            self.accepted,
            self.sent_again,
            self.delivered,
            self.missing,
            self.lag_p50.as_millis(),
            self.lag_p99.as_millis(),
            self.repeats
        )
    }

    /// The sums as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        json!({
            "published": self.published, "accepted": self.accepted, "sent_again": self.sent_again,
            "last_refusal": self.last_error, "requests": self.requests, "delivered": self.delivered,
            "missing": self.missing, "repeats": self.repeats, "lag_p50_ms": milliseconds(self.lag_p50),
            "lag_p99_ms": milliseconds(self.lag_p99), "longest_silence_ms": milliseconds(self.longest_silence),
        })
    }

    /// Faults of the deployment by the accounts of the run and of the database; empty if the run proves its promises.
    /// `may_fail` permits failed deliveries: the receiver refuses requests on purpose.
    pub(crate) fn faults(&self, counts: ApplicationCounts, may_fail: bool) -> Vec<String> {
        let ApplicationCounts { open, failed, attempts } = counts;
        let mut faults = Vec::new();
        if self.accepted == 0 {
            faults.push("no event was accepted".to_owned());
        }
        if self.accepted < self.published {
            let count = self.published - self.accepted;
            let error = self.last_error.as_deref().unwrap_or("no answer");
            faults.push(format!("{count} events were not accepted within --settle; last refusal: {error}"));
        }
        let lost = self.missing.saturating_sub(open + failed);
        if lost > 0 {
            faults.push(format!(
                "{lost} accepted events did not arrive, and have no open or failed delivery: LOST, unless they wait in the \
                 queue of events"
            ));
        }
        if open > 0 {
            faults.push(format!("{open} deliveries are still open: raise --settle"));
        }
        if failed > 0 && !may_fail {
            faults.push(format!("{failed} deliveries failed, although the receiver refused nothing"));
        }
        if self.requests > attempts {
            let count = self.requests - attempts;
            faults.push(format!("{count} requests have no attempt on record"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(open: usize, failed: usize, attempts: usize) -> ApplicationCounts {
        ApplicationCounts { open, failed, attempts }
    }

    #[test]
    fn missing_and_repeated_events_are_counted() {
        let accounts = Accounts::default();
        for number in 0..4 {
            accounts.begin(number);
        }
        accounts.refused("busy".to_owned());
        for number in 0..3 {
            accounts.accepted(number);
        }
        accounts.received(0, false);
        accounts.received(0, true);
        accounts.received(1, true);
        accounts.received(1, true);
        // The publisher has no answer yet.
        accounts.received(3, true);
        // An event of another run.
        accounts.received(77, true);
        let sums = accounts.sums();
        assert_eq!((sums.published, sums.accepted, sums.sent_again), (4, 3, 1));
        assert_eq!((sums.delivered, sums.missing, sums.repeats, sums.requests), (3, 1, 1, 6));
        assert_eq!((accounts.missing(), accounts.missing_ids(5)), (1, vec!["verify-2".to_owned()]));
        assert!(sums.line().ends_with("last refusal: busy"));
        assert_eq!(sums.to_json()["missing"], 1);
    }

    #[test]
    fn each_fault_is_named() {
        let sound = Sums {
            published: 10,
            accepted: 10,
            sent_again: 0,
            last_error: None,
            requests: 12,
            delivered: 10,
            missing: 0,
            repeats: 2,
            lag_p50: Duration::ZERO,
            lag_p99: Duration::ZERO,
            longest_silence: Duration::ZERO,
        };
        assert_eq!(sound.faults(counts(0, 0, 12), false), Vec::<String>::new());
        let fault = |sums: Sums, counts, text: &str| {
            let faults = sums.faults(counts, false);
            assert!(faults.len() == 1 && faults[0].contains(text), "{text}: {faults:?}");
        };
        let nothing = Sums { published: 0, accepted: 0, delivered: 0, requests: 0, ..sound.clone() };
        fault(nothing, counts(0, 0, 0), "no event was accepted");
        fault(Sums { published: 11, ..sound.clone() }, counts(0, 0, 12), "1 events were not accepted");
        fault(Sums { missing: 1, ..sound.clone() }, counts(0, 0, 12), "LOST");
        fault(Sums { missing: 1, ..sound.clone() }, counts(1, 0, 12), "still open");
        fault(Sums { missing: 1, ..sound.clone() }, counts(0, 1, 12), "failed");
        fault(sound.clone(), counts(0, 0, 11), "1 requests have no attempt on record");
        assert_eq!(Sums { missing: 1, ..sound }.faults(counts(0, 1, 12), true), Vec::<String>::new());
    }
}
