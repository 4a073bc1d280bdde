//! Events, deliveries and records for tests.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fanfare_domain::{
    delivery::{FailureReason, QueueReason, outcome::Outcome},
    event::{Content, Event, EventType},
    ids::{DeliveryId, EndpointId, EventId, LeaseId},
};
use fanfare_store::{AttemptRecord, Demand, Floor, Lease, Leased, NewDelivery, NewEvent, NextState, Start};
use jiff::Timestamp;

use super::{APPLICATION, Database, ONE, endpoint, lease_id};

/// Duration of a lease in tests.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The moment `seconds_ago`, in whole milliseconds.
pub(crate) fn moment(seconds_ago: u64) -> Timestamp {
    let moment = Timestamp::now() - Duration::from_secs(seconds_ago);
    Timestamp::from_millisecond(moment.as_millisecond()).expect("a moment")
}

/// An event accepted now, without a key and without deliveries.
pub(crate) fn timed() -> NewEvent {
    accepted(moment(0))
}

/// An event accepted at `at`, without a key.
pub(crate) fn accepted(at: Timestamp) -> NewEvent {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    event(EventId::new(APPLICATION, at, random), None, at)
}

/// An event accepted now, with a key.
pub(crate) fn keyed(key: &str) -> NewEvent {
    let id = EventId::from_key(APPLICATION, key);
    event(id, Some(key.to_owned()), id.accepted_at().unwrap_or_else(|| moment(0)))
}

fn event(id: EventId, key: Option<String>, accepted_at: Timestamp) -> NewEvent {
    let event_type = EventType::parse("order.created").expect("a type");
    let data = "{\"a\":1}";
    NewEvent {
        accepted_at,
        body: data.to_owned(),
        redacted: None,
        content: Some(Content::of(&event_type, data)),
        matches: 0,
        due_at: None,
        is_wide: false,
        position: 0,
        deliveries: Vec::new(),
        event: Event {
            id,
            application: APPLICATION,
            event_type,
            key,
            data: data.to_owned(),
            occurred_at: None,
            deliver_at: None,
            version: None,
            ordering_key: None,
            trace: None,
            cloud_event: None,
        },
    }
}

/// The event with a delivery for each of `starts`.
pub(crate) fn to(mut new: NewEvent, starts: &[(EndpointId, Start)]) -> NewEvent {
    new.deliveries = starts.iter().map(|(endpoint, start)| delivery(&new, *endpoint, *start)).collect();
    new.matches = starts.len();
    new
}

fn delivery(new: &NewEvent, endpoint: EndpointId, start: Start) -> NewDelivery {
    let expires_at = Timestamp::now() + Duration::from_secs(3600);
    NewDelivery {
        id: DeliveryId::derive(new.accepted_at, new.event.id, endpoint),
        endpoint,
        start,
        expires_at,
        in_feed: false,
        shaped: None,
    }
}

/// A start under a lease.
pub(crate) fn starting(lease: u128) -> Start {
    Start::Sending(Lease { id: lease_id(lease), duration: LEASE })
}

/// The batch in the order required by the store.
pub(crate) fn sorted(events: &[NewEvent]) -> Vec<&NewEvent> {
    let mut batch: Vec<&NewEvent> = events.iter().collect();
    batch.sort_unstable_by_key(|new| new.event.id);
    batch
}

/// A persisted delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) delivery: DeliveryId,
    pub(crate) event: EventId,
    pub(crate) endpoint: EndpointId,
}

impl Database {
    /// Persists an event accepted now, with one delivery.
    pub(crate) async fn persist_one(&self, endpoint: EndpointId, start: Start) -> Sent {
        self.persist_at(moment(0), endpoint, start).await
    }

    /// Persists an event accepted at `at`, with one delivery.
    pub(crate) async fn persist_at(&self, at: Timestamp, endpoint: EndpointId, start: Start) -> Sent {
        let new = to(accepted(at), &[(endpoint, start)]);
        let persisted = self.store.persist(ONE, &[&new]).await.expect("a persisted event");
        assert!(persisted.new.contains(&new.event.id));
        Sent { delivery: new.deliveries[0].id, event: new.event.id, endpoint }
    }

    /// Persists events with one queued delivery each. `ONE` owns the backlog, unless the backlog exists.
    pub(crate) async fn queue(&self, endpoint: EndpointId, count: usize) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..count {
            sent.push(self.persist_one(endpoint, Start::Queued(QueueReason::LaneFull)).await);
        }
        sent.sort_unstable_by_key(|sent| sent.delivery);
        sent
    }

    /// Writes a delivery whose first attempt failed: the second attempt is due in 60 s.
    pub(crate) async fn schedule(&self, number: u128) -> Sent {
        let sent = self.persist_one(endpoint(number), starting(1)).await;
        self.store.record(&[&scheduled(&sent, 1, 1)]).await.expect("a commit");
        sent
    }

    /// Leases up to `count` deliveries of a backlog as its owner `ONE`.
    pub(crate) async fn drain(&self, lease: u128, endpoint: EndpointId, count: usize) -> Vec<Leased> {
        self.store.lease(ONE, lease_id(lease), &[lease_of(endpoint, count)]).await.expect("leases")
    }
}

/// A demand from the start of a backlog.
pub(crate) fn lease_of(endpoint: EndpointId, count: usize) -> Demand {
    Demand { endpoint, count, after: Floor::START, lease: LEASE, lifetime: Duration::from_secs(3600) }
}

/// A record of an attempt made at once.
fn record(sent: &Sent, attempt: u32, lease: LeaseId, status: u16, next: NextState) -> AttemptRecord {
    AttemptRecord {
        delivery: sent.delivery,
        event: sent.event,
        application: APPLICATION,
        endpoint: sent.endpoint,
        attempt,
        lease,
        url: "https://receiver.example/".to_owned(),
        started_at: sent.delivery.accepted_at() + Duration::from_millis(3),
        duration: Duration::from_millis(20),
        outcome: Outcome::answered(status),
        error: None,
        response_headers: "{}".to_owned(),
        response_body: b"ok".to_vec(),
        next,
        notifies_owner: true,
        is_test: false,
    }
}

/// A record of a success.
pub(crate) fn delivered(sent: &Sent, attempt: u32, lease: u128) -> AttemptRecord {
    record(sent, attempt, lease_id(lease), 204, NextState::Delivered)
}

/// A record of the last failure.
pub(crate) fn failed(sent: &Sent, attempt: u32, lease: u128) -> AttemptRecord {
    record(sent, attempt, lease_id(lease), 500, NextState::Failed(FailureReason::AttemptsExhausted))
}

/// A record of a failure, with a retry due in a minute.
pub(crate) fn scheduled(sent: &Sent, attempt: u32, lease: u128) -> AttemptRecord {
    let due = moment(0) + Duration::from_secs(60);
    record(sent, attempt, lease_id(lease), 500, NextState::Scheduled { due })
}
