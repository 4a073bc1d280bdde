//! Accounts of a proof: accepted and received events.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Accounts by the number of the event.
#[derive(Default)]
pub(crate) struct Books(Mutex<Accounts>);

#[derive(Default)]
struct Accounts {
    events: BTreeMap<u64, Account>,
    /// Publishes sent again after a refusal, or without an answer.
    refused: usize,
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
    pub(crate) refused: usize,
    pub(crate) delivered: usize,
    /// Accepted events without a request.
    pub(crate) lost: usize,
    /// Requests after the first request of an event.
    pub(crate) repeats: usize,
    pub(crate) lag_p50: Duration,
    pub(crate) lag_p99: Duration,
    pub(crate) longest_silence: Duration,
}

impl Books {
    /// Notes an event before its first publish.
    pub(crate) fn begin(&self, number: u64) {
        self.accounts().events.entry(number).or_default();
    }

    /// Notes the acceptance of an event.
    pub(crate) fn accepted(&self, number: u64) {
        self.accounts().events.entry(number).or_default().accepted = Some(Instant::now());
    }

    /// Notes a publish to be sent again.
    pub(crate) fn refused(&self) {
        self.accounts().refused += 1;
    }

    /// Notes a request answered with a 2xx.
    pub(crate) fn received(&self, number: u64) {
        let now = Instant::now();
        let mut accounts = self.accounts();
        let silence = accounts.last_received.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        accounts.longest_silence = accounts.longest_silence.max(silence);
        let account = accounts.events.entry(number).or_default();
        account.received += 1;
        if account.lag.is_none() {
            // An event may arrive before the publisher gets the answer.
            account.lag = Some(account.accepted.map_or(Duration::ZERO, |accepted| now.duration_since(accepted)));
        }
    }

    /// Number of accepted events without a request.
    pub(crate) fn waiting(&self) -> usize {
        self.accounts().events.values().filter(|account| account.is_waiting()).count()
    }

    /// Ids of up to `limit` accepted events without a request.
    pub(crate) fn lost(&self, limit: usize) -> Vec<String> {
        let accounts = self.accounts();
        let waiting = accounts.events.iter().filter(|(_, account)| account.is_waiting());
        waiting.take(limit).map(|(number, _)| format!("verify-{number}")).collect()
    }

    pub(crate) fn result(&self) -> Sums {
        let accounts = self.accounts();
        let events = || accounts.events.values();
        let mut lags: Vec<Duration> = events().filter_map(|account| account.lag).collect();
        lags.sort_unstable();
        let quantile = |share: usize| lags.get((lags.len() * share / 100).min(lags.len().saturating_sub(1)));
        Sums {
            published: events().count(),
            accepted: events().filter(|account| account.accepted.is_some()).count(),
            refused: accounts.refused,
            delivered: events().filter(|account| account.received > 0).count(),
            lost: events().filter(|account| account.is_waiting()).count(),
            repeats: events().map(|account| account.received.saturating_sub(1)).sum(),
            lag_p50: quantile(50).copied().unwrap_or_default(),
            lag_p99: quantile(99).copied().unwrap_or_default(),
            longest_silence: accounts.longest_silence,
        }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn is_waiting(&self) -> bool {
        self.accepted.is_some() && self.received == 0
    }
}

impl Sums {
    /// A line of progress.
    pub(crate) fn line(&self) -> String {
        format!(
            "published {}, accepted {}, sent again {}, delivered {}, waiting {}, lag {} / {} ms, repeats {}",
            self.published,
            self.accepted,
            self.refused,
            self.delivered,
            self.lost,
            self.lag_p50.as_millis(),
            self.lag_p99.as_millis(),
            self.repeats
        )
    }

    pub(crate) fn progress(&self) -> Value {
        json!({
            "published": self.published, "accepted": self.accepted, "sent_again": self.refused,
            "delivered": self.delivered, "waiting": self.lost, "repeats": self.repeats,
            "lag_p50_ms": self.lag_p50.as_millis() as u64, "lag_p99_ms": self.lag_p99.as_millis() as u64,
        })
    }

    /// The result; `unknown` attempts explain repeats.
    pub(crate) fn to_text(&self, unknown: usize) -> String {
        format!(
            "accepted {} · delivered {} · LOST {} · repeats {}, explained by the death of processes up to {unknown} · longest \
             silence {:.1} s · sent again {}",
            self.accepted,
            self.delivered,
            self.lost,
            self.repeats,
            self.longest_silence.as_secs_f64(),
            self.refused
        )
    }

    pub(crate) fn to_json(&self, unknown: usize) -> Value {
        json!({
            "accepted": self.accepted, "delivered": self.delivered, "lost": self.lost, "repeats": self.repeats,
            "explained_repeats": unknown, "longest_silence_ms": self.longest_silence.as_millis() as u64,
            "sent_again": self.refused,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_repeated_events_are_counted() {
        let books = Books::default();
        for number in 0..4 {
            books.begin(number);
        }
        books.refused();
        for number in 0..3 {
            books.accepted(number);
        }
        books.received(0);
        books.received(1);
        books.received(1);
        // The publisher has no answer yet.
        books.received(3);
        let sums = books.result();
        assert_eq!((sums.published, sums.accepted, sums.refused), (4, 3, 1));
        assert_eq!((sums.delivered, sums.lost, sums.repeats), (3, 1, 1));
        assert_eq!((books.waiting(), books.lost(5)), (1, vec!["verify-2".to_owned()]));
        assert!(sums.to_text(1).contains("LOST 1"));
        assert_eq!(sums.to_json(1)["lost"], 1);
    }
}
