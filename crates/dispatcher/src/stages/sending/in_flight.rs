//! Deliveries in flight: from the lease to the record of the attempt.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_domain::{
    delivery::{BEGIN_WITHIN, QueueReason},
    endpoint::{Endpoint, template::Shaped},
    event::{
        EventType,
        ordering::{OrderingKey, Sequence},
        trace_context::TraceContext,
    },
    ids::{ApplicationId, DeliveryId, EventId, LeaseId, ReplayId},
};
use fanfare_store::{GiveBack, Lease, Leased, NewDelivery, Start};
use jiff::Timestamp;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::lanes::Permit;

/// A delivery leased by this process, ready for the attempt.
pub(crate) struct InFlight {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
    pub(crate) application: ApplicationId,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) body: Bytes,
    /// Acceptance of the event, or the time of delivery that the publisher set.
    pub(crate) ready_at: Timestamp,
    /// True for a test event, whose delivery was requested again.
    pub(crate) is_test: bool,
    /// Replay that requested the delivery.
    pub(crate) replay: Option<ReplayId>,
    /// Place in the order of the event's ordering key.
    pub(crate) sequence: Option<Sequence>,
    pub(crate) lease: LeaseId,
    /// Failed attempts caused by the endpoint.
    pub(crate) failures: u32,
    pub(crate) expires_at: Timestamp,
    /// Latest start of the attempt. After a later start, another process could take over before the end.
    pub(crate) begin_by: Instant,
    /// True if lists show the delivery already.
    pub(crate) is_listed: bool,
    /// `None` after the wait for a slot has begun.
    pub(crate) permit: Option<Permit>,
    /// Permit to begin, of a delivery passed on by [`crate::stages::sending::leased::Leases`]. `None` for first
    /// attempts and suspects, and once the attempt runs.
    pub(crate) starting: Option<OwnedSemaphorePermit>,
}

/// Common part of the first attempts of an event's deliveries.
pub(crate) struct FirstAttempts {
    pub(crate) application: ApplicationId,
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) body: Bytes,
    pub(crate) ordering_key: Option<OrderingKey>,
    /// Acceptance of the event, or the time of delivery that the publisher set.
    pub(crate) ready_at: Timestamp,
}

/// Endpoint and permit of a first attempt.
pub(crate) struct Direct {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) permit: Permit,
}

impl FirstAttempts {
    /// Creates the first attempt of a delivery; `None` for a queued or skipped delivery.
    pub(crate) fn of(
        &self,
        delivery: &NewDelivery,
        number: Option<u64>,
        direct: Direct,
        leased_at: Instant,
    ) -> Option<InFlight> {
        let Start::Sending(lease) = delivery.start else { return None };
        let body = match delivery.shaped.as_deref() {
            Some(Shaped::Body { body, .. }) => Bytes::copy_from_slice(body.as_bytes()),
            Some(Shaped::Failed(_)) => return None,
            None => self.body.clone(),
        };
        Some(InFlight {
            delivery: delivery.id,
            attempt: 1,
            application: self.application,
            endpoint: direct.endpoint,
            event: self.event,
            event_type: self.event_type.clone(),
            trace: self.trace.clone(),
            body,
            ready_at: self.ready_at,
            is_test: false,
            replay: None,
            sequence: self.ordering_key.clone().zip(number).map(|(key, number)| Sequence { key, number }),
            lease: lease.id,
            failures: 0,
            expires_at: delivery.expires_at,
            begin_by: leased_at + BEGIN_WITHIN,
            is_listed: false,
            permit: Some(direct.permit),
            starting: None,
        })
    }
}

impl InFlight {
    /// Creates the attempt of a delivery leased from a backlog; `None` if the payload is unreadable.
    pub(crate) fn drained(
        leased: Leased,
        endpoint: Arc<Endpoint>,
        lease: Lease,
        leased_at: Instant,
        permit: Permit,
    ) -> Option<Self> {
        let payload = leased.payload?;
        Some(Self {
            delivery: leased.delivery,
            attempt: leased.attempt,
            application: leased.application,
            endpoint,
            event: leased.event,
            event_type: payload.event_type?,
            trace: payload.trace,
            body: Bytes::from(payload.body?),
            ready_at: payload.deliver_at.unwrap_or_else(|| leased.delivery.accepted_at()),
            is_test: payload.is_test,
            replay: leased.replay,
            sequence: payload.sequence,
            lease: lease.id,
            failures: leased.failures,
            expires_at: leased.expires_at,
            begin_by: leased_at + BEGIN_WITHIN,
            is_listed: true,
            permit: Some(permit),
            starting: None,
        })
    }

    /// Creates the row that gives the delivery back.
    pub(crate) fn give_back(&self, reason: QueueReason) -> GiveBack {
        GiveBack { delivery: self.delivery, lease: self.lease, reason }
    }
}
